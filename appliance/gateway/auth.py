"""Who asks, and from where: keys, scopes, models, and the Host and Origin of callers on loopback."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from hmac import compare_digest
from typing import Literal
from urllib.parse import urlsplit

from appliance.config.models import Key
from appliance.errors import RequestError
from appliance.gateway.keys import digest

Scope = Literal["inference", "metrics", "admin"]
Headers = Mapping[bytes, bytes]

_OF_CONTAINERS = frozenset({"host.docker.internal", "host.containers.internal", "model-runner.docker.internal"})
"""What containers call the host that they run on. `.internal` is reserved, so no foreign page has such a name."""


def authorise(keys: tuple[Key, ...], headers: Headers, scope: Scope) -> Key | None:
    """The key behind this request, which has the scope. None where no keys are configured: everybody may ask."""
    if not keys:
        return None
    key = authenticate(keys, headers)
    if scope not in key.scopes:
        raise RequestError(
            f"API key `{key.name}` does not have the scope `{scope}`",
            status=403,
            type="permission_error",
            code="insufficient_scope",
        )
    return key


def authenticate(keys: tuple[Key, ...], headers: Headers) -> Key:
    presented = _presented(headers)
    if not presented and headers.get(b"authorization"):
        raise _unauthorised("`Authorization` does not read `Bearer KEY`", "wrong_scheme")
    if not presented:
        raise _unauthorised("no API key: send `Authorization: Bearer KEY` or `x-api-key: KEY`", "no_key")
    found = [key for key in (_match(keys, clear) for clear in presented) if key]
    if not found:
        raise _unauthorised("this API key is not known here", "unknown_key")
    today = datetime.now(UTC).date()
    valid = next((key for key in found if not expired(key, today)), None)
    if valid is None:
        raise _unauthorised(f"API key `{found[0].name}` expired on {found[0].expires}", f"expired_key {found[0].name}")
    return valid


def expired(key: Key, today: date) -> bool:
    return key.expires is not None and today > key.expires


def allows(key: Key | None, model: str) -> bool:
    """Whether the key may use this declared model. Aliases don't count: a glob alias could lead anywhere."""
    return key is None or any(fnmatchcase(model, glob) for glob in key.models)


def check_loopback(headers: Headers) -> None:
    """Refuse what a browser sends for a foreign page: its Host (DNS rebinding) or Origin is not a loopback name."""
    host = headers.get(b"host")
    if host is not None and not ((name := _hostname(b"//" + host)) in _OF_CONTAINERS or _loopback(name)):
        raise _forbidden("Host", host)
    origin = headers.get(b"origin")
    if origin is not None and not _loopback(_hostname(origin)):
        raise _forbidden("Origin", origin)


def _presented(headers: Headers) -> list[bytes]:
    """The keys sent; Claude Code and others send both headers, and a stale one must not hide a valid one."""
    keys = []
    kind, _, token = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"bearer" and (token := token.strip()):
        keys.append(token)
    if key := headers.get(b"x-api-key", b"").strip():
        keys.append(key)
    return keys


def _match(keys: tuple[Key, ...], clear: bytes) -> Key | None:
    """Every configured key is compared, so that the time taken says nothing about which one matched."""
    presented = digest(clear)
    found = None
    for key in keys:
        if compare_digest(key.sha256, presented):
            found = key
    return found


def _hostname(url: bytes) -> str:
    try:
        return urlsplit(url.decode("ascii")).hostname or ""
    except ValueError:
        return ""


def _loopback(hostname: str) -> bool:
    if hostname in {"localhost", "127.0.0.1", "::1"}:
        return True
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return False


def _unauthorised(message: str, reason: str) -> RequestError:
    return RequestError(message, status=401, code="invalid_api_key", reason=reason)


def no_keys(scope: Scope) -> RequestError:
    return RequestError(
        f"this needs an API key with the scope `{scope}`, and none is configured: `appliance key create NAME "
        f"--scope {scope}` makes one; on this machine the commands need none",
        status=403,
        type="permission_error",
        code="key_required",
    )


def _forbidden(name: str, value: bytes) -> RequestError:
    shown = value[:100].decode("ascii", "replace")
    return RequestError(
        f"{name} `{shown}` is not a loopback name; this port answers callers on the same machine only",
        status=403,
        type="permission_error",
        code="forbidden_origin",
    )
