"""One line per request, written when it has ended."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from appliance.gateway.call import Call
from appliance.gateway.health import PATHS

CLIENT_GONE = 499
"""nginx's word for a request whose client left before it was answered."""


def write(log: Any, call: Call) -> None:
    """`log` is a structlog logger. Nothing here may hold a key or a word of a prompt."""
    say = log.debug if call.path in PATHS else log.warning if call.status >= 500 or call.error == "bug" else log.info
    fields = {
        "method": call.method,
        "path": call.path,
        "status": call.status or CLIENT_GONE,
        "model": call.model,
        "revision": call.revision,
        "key": call.key.name if call.key else None,
        "error": call.error,
        "reason": call.reason,
        "aborted": call.aborted or None,
        "prompt_tokens": call.usage.prompt if call.usage else None,
        "completion_tokens": call.usage.completion if call.usage else None,
        "held_ms": round(call.held * 1000) or None,
        "waited_ms": round(call.waited * 1000) or None,
    }
    say(
        "request",
        **{name: value for name, value in fields.items() if value is not None},
        bytes=call.sent,
        first_byte_ms=_ms(call.started, call.first_byte),
        duration_ms=_ms(call.started, perf_counter()),
        request_id=call.id.decode(),
    )


def _ms(start: float, end: float | None) -> float | None:
    return None if end is None else round((end - start) * 1000, 2)
