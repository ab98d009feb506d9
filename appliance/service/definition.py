"""What a service is to be, whoever supervises it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.config.models import Appliance
from appliance.errors import ConfigError

SOCKET = "gateway"
"""What the gateway asks for its listener by."""
SPARE = 60
"""Seconds beyond the longest `drain_timeout`: for engines to stop and connections to close."""


@dataclass(frozen=True, slots=True)
class Definition:
    """`user` is None for a service of whoever installs it, which runs in that person's own session."""

    command: tuple[str, ...]
    directory: Path
    """The working directory: where the file is, and what relative paths in it start from."""
    home: Path
    """The state directory."""
    log: Path
    """Where launchd, which has no journal, lets it write."""
    host: str
    """The IP address that the supervisor listens on."""
    port: int
    stop_timeout: int
    """Seconds before a stop becomes a kill."""
    environ: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None

    @property
    def variables(self) -> Mapping[str, str]:
        return {"APPLIANCE_HOME": str(self.home), **self.environ}


def define(
    appliance: Appliance,
    file: Path,
    *,
    program: Sequence[str],
    home: Path,
    environ: Mapping[str, str],
    user: str | None,
) -> Definition:
    """`file` is absolute. ConfigError where it says something that a service cannot do."""
    if appliance.server.port == 0:
        raise ConfigError(
            "`server.port` is 0, and a service listens where clients know to find it", hint="choose a port"
        )
    # One line each is what a unit file can hold.
    for value in (*program, str(file), str(home), *environ.values()):
        if any(ord(character) < 32 for character in value):
            raise ConfigError(f"{value!r} has a control character, which no service definition can hold")
    drains = [model.rollout.drain_timeout.total_seconds() for model in appliance.models.values()]
    return Definition(
        command=(*program, "up", "--file", str(file)),
        directory=file.parent,
        home=home,
        log=home / "logs" / "appliance.log",
        host=address_of(appliance.server.host),
        port=appliance.server.port,
        stop_timeout=int(max(drains, default=0)) + SPARE,
        environ=environ,
        user=user,
    )


def address_of(host: str) -> str:
    """The address that a supervisor, which resolves no names, is to listen on."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigError(f"`server.host`: `{host}` is no address of this machine: {error.strerror}") from error
    return str(found[0][4][0])
