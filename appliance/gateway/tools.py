"""The tools of a request, in OpenAI's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def enforced(request: Mapping[str, Any]) -> list[Any] | None:
    """The tools with `strict` set, where the request demands a call and one of them lacks it; None where all is well.

    vLLM holds arguments against their schema for strict tools only. Otherwise a call that was demanded may have
    `"Paris"` for arguments, which no client can use.
    """
    tools, choice = request.get("tools"), request.get("tool_choice")
    if not isinstance(tools, list) or choice in (None, "auto", "none"):
        return None
    strict = [_strict(tool) for tool in tools]
    return strict if strict != tools else None


def _strict(tool: Any) -> Any:
    """Chat completions have the function in a member of its own, responses have it flat."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool
    function = tool.get("function")
    return (
        {**tool, "function": {**function, "strict": True}} if isinstance(function, dict) else {**tool, "strict": True}
    )
