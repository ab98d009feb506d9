"""What of a chat completion request has to be said otherwise for the engine to understand it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.gateway.tools import enforced
from appliance.routing import Route


def adapt(request: Mapping[str, Any], route: Route) -> dict[str, Any]:
    """The fields that change; none in the common case, and then the client's own bytes pass."""
    changes: dict[str, Any] = {}
    messages = request.get("messages")
    if not route.developer and isinstance(messages, list) and any(map(_is_developers, messages)):
        changes["messages"] = as_system(messages)
    if (tools := enforced(request)) is not None:
        changes["tools"] = tools
    return changes


def as_system(messages: list[Any]) -> list[Any]:
    """OpenAI's newer name for the role, which most chat templates refuse or write out as it is."""
    return [{**message, "role": "system"} if _is_developers(message) else message for message in messages]


def _is_developers(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "developer"
