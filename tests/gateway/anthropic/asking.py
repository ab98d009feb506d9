"""What the tests of this dialect ask."""

from __future__ import annotations

import json
from typing import Any

import anthropic
from anthropic.types import Message, MessageParam, ToolParam

QUESTION: list[MessageParam] = [{"role": "user", "content": "what is the capital of France?"}]

WEATHER: ToolParam = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
TIME: ToolParam = {"name": "time", "input_schema": {"type": "object", "properties": {"zone": {"enum": ["UTC"]}}}}


def ask(sdk: anthropic.Anthropic, *, stream: bool = False, **more: Any) -> Message:
    """The message, whole or as a stream adds up to it."""
    asked: dict[str, Any] = {"model": "tiny", "max_tokens": 99, "messages": QUESTION, **more}
    if not stream:
        message: Message = sdk.messages.create(**asked)
        return message
    with sdk.messages.stream(**asked) as events:
        return events.get_final_message()


def fake(**behaviour: Any) -> list[MessageParam]:
    """A question that tells the fake engine what to do."""
    return [{"role": "user", "content": f"fake:{json.dumps(behaviour)}"}]


def call(name: str, arguments: Any, identity: str = "call_1") -> dict[str, Any]:
    """A tool call as an engine answers it."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": text}}
