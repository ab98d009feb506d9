"""Every check, in the order in which one would look."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from appliance.doctor import access, configuration, engines, machine, memory, network, place
from appliance.doctor.finding import Finding
from appliance.doctor.scene import Scene

CHECKS: dict[str, Callable[[Scene], Iterator[Finding]]] = {
    "machine": machine.check,
    "file": configuration.check,
    "state": place.check_state,
    "sockets": place.check_sockets,
    "disk": place.check_disk,
    "port": place.check_port,
    "proxy": network.check_proxies,
    "certificates": network.check_certificates,
    "clock": network.check_clock,
    "memory": memory.check,
    "environment": engines.check_environments,
    "engine": engines.check_engines,
    "access": access.check,
}


def examine(scene: Scene, *, began: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """`began` hears of each check before it is made: some take seconds."""
    for name, check in CHECKS.items():
        began(name)
        yield from check(scene)
