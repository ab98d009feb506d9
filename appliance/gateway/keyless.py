"""The admin API without a key: for the page, in a browser on this machine, of the user whose appliance this is.

Where no keys are configured there is nothing to present. Then a request has to prove what it can, and each proof shuts
out somebody else (docs/decisions has the reasoning).
"""

from __future__ import annotations

import os

from starlette.types import Scope

from appliance.errors import RequestError
from appliance.gateway.auth import Headers
from appliance.gateway.peer import owner

PAGE = b"x-appliance-page"
"""Only script of the page's own origin can add a header: another origin's would have to be allowed by us first."""
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via")


def from_own_page(headers: Headers) -> bool:
    """Whether this claims to be the page's script. Nothing else can reach the admin API without a key."""
    return PAGE in headers


def check(scope: Scope, headers: Headers) -> None:
    """Refuse what is not the page of this very address, opened on this machine by the appliance's own user.

    To be asked on loopback listeners alone. (1) Another origin's script, whatever its browser lets it send. (2) A proxy
    on this machine, which lends loopback to whoever reaches it. (3) Another user of this machine.
    """
    host, origin = headers.get(b"host", b""), headers.get(b"origin")
    foreign = origin is not None and origin != b"http://" + host
    if foreign or headers.get(b"sec-fetch-site", b"same-origin") != b"same-origin":  # (1)
        raise _refused("the request comes from another page")
    if any(name in headers for name in FORWARDED):  # (2)
        raise _refused("the request came through a proxy")
    if not _mine(scope):  # (3)
        raise _refused("the connection belongs to another user of this machine")


def _mine(scope: Scope) -> bool:
    client, server = scope.get("client"), scope.get("server")
    found = owner(tuple(client), tuple(server)) if client and server else None
    # Root is no exception: it has the unix socket, and what runs as root and connects here is a proxy.
    return found is None or found == os.geteuid()


def _refused(why: str) -> RequestError:
    return RequestError(
        f"{why}, and without keys the admin API answers its own page on this machine only: "
        "`appliance key create NAME --scope admin` makes a key",
        status=403,
        type="permission_error",
        code="key_required",
    )
