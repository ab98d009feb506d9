"""Who watches requests come and go: metrics and traces, each imported only where it is on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from appliance import __version__
from appliance.errors import Conflict
from appliance.gateway.call import Call

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Observer(Protocol):
    def begun(self, call: Call) -> None:
        """Its route is known, its key is not."""
        ...

    def ended(self, call: Call) -> None:
        """It has been answered, or never will be. One whose route was not found had no beginning."""
        ...

    async def close(self) -> None: ...


def traced(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables ask for traces."""
    return any(environ.get(name) for name in ENDPOINTS) and environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def tracing(environ: Mapping[str, str]) -> Observer:
    try:
        from appliance.gateway.tracing import Tracing
    except ModuleNotFoundError as error:
        name = next(name for name in ENDPOINTS if environ.get(name))
        raise Conflict(
            f"`{name}` asks for traces, and `{error.name}` is not installed",
            hint="pip install 'appliance[otel]', or unset the variable",
        ) from error
    return Tracing(__version__, environ)
