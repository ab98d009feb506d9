"""What whole messages and streamed ones have in common: ids, usage, and why a generation ended."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from typing import Any

from appliance.errors import RequestError

Json = dict[str, Any]


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def message(identity: str, model: str, usage: Json | None) -> Json:
    """A message as it begins: without content, and nobody knows yet why it will end."""
    return {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_of(usage),
    }


def usage_of(usage: Json | None) -> Json:
    """An engine's usage in Anthropic's terms, where what came from the prefix cache is not counted twice."""
    given = usage or {}
    cached = (given.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": (given.get("prompt_tokens") or 0) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": given.get("completion_tokens") or 0,
        "service_tier": "standard",
    }


def ending(
    finish: str | None, stop: object, stops: Iterable[str], *, called: bool, unlimited: bool
) -> tuple[str, str | None]:
    """`stop_reason` and `stop_sequence` for an engine's `finish_reason` and vLLM's `stop_reason`.

    `called` says that a tool was, `unlimited` that only the model's context limited the answer. Raises RequestError
    where the engine gave up.
    """
    if finish in {"abort", "error"}:
        raise failed("the engine gave up this generation")
    if finish == "length":
        return ("model_context_window_exceeded" if unlimited else "max_tokens"), None
    if finish == "content_filter":
        return "refusal", None
    if called:
        return "tool_use", None
    if isinstance(stop, str) and stop in stops:
        return "stop_sequence", stop
    return "end_turn", None


def signature(thinking: str) -> str:
    """Clients send a thinking block back with its signature. Ours is a checksum: nothing here depends on it."""
    return hashlib.sha256(thinking.encode(errors="replace")).hexdigest()


def arguments(text: str, name: str) -> Json:
    """The input of a call. Raises RequestError where it is not an object: a model's fault, not a client's."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise failed(f"the model called the tool `{name}` with arguments that are not a JSON object")
    return found


def failed(message: str) -> RequestError:
    return RequestError(message, status=500, type="server_error", code="engine_failed")
