"""What the gateway asks of whoever runs the engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from appliance.routing import Route, Routing


class Port(Protocol):
    def routing(self) -> Routing:
        """The snapshot in force now; costs nothing."""
        ...

    async def changed(self, seen: Routing) -> Routing:
        """Wait until another snapshot than `seen` is in force; that one."""
        ...

    async def ready(self, model: str, *, within: float) -> Route:
        """Wait up to this many seconds until this declared model takes requests. Raises an ApplianceError."""
        ...

    def status(self) -> Mapping[str, Any]:
        """The state as `appliance status --json` prints it; `models` has `name`, `load` and `ready` of each."""
        ...
