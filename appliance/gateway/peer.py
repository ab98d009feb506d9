"""Which user of this machine is at the other end of a loopback connection, where the system tells."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
NOBODY = 65534
"""Linux's user id for whom it does not know; here also for a connection that it does not list."""

Address = tuple[str, int]


def owner(client: Address, server: Address) -> int | None:
    """The user id that owns the client's end. None where the system has no such table: macOS."""
    if not TABLES[0].exists():
        return None
    wanted = (_plain(client), _plain(server))
    return next((uid for ends, uid in _connections() if ends == wanted), NOBODY)


def _connections() -> Iterator[tuple[tuple[Address, Address], int]]:
    for table in TABLES:
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            yield (_parse(fields[1]), _parse(fields[2])), int(fields[7])


def _parse(end: str) -> Address:
    """`0100007F:1F90`: the address as 32-bit words in the machine's byte order, the port as it is said."""
    address, _, port = end.partition(":")
    words = bytes.fromhex(address)
    raw = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))  # both platforms are little-endian
    return _plain((str(ipaddress.ip_address(raw)), int(port, 16)))


def _plain(end: Address) -> Address:
    """An IPv4 address in IPv6's clothes is that IPv4 address."""
    address = ipaddress.ip_address(end[0].partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), end[1]
