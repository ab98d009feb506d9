"""A chat completion as Anthropic's message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from appliance.errors import RequestError
from appliance.gateway.anthropic import reply
from appliance.gateway.anthropic.request import Asked

Json = dict[str, Any]


def message_of(completion: Json, asked: Asked, *, unlimited: bool = False) -> Json:
    """Raises RequestError where the engine's answer is none of what was asked for."""
    choice = (completion.get("choices") or [{}])[0]
    said, finish = choice.get("message") or {}, choice.get("finish_reason")
    content = [*_spoken(said, asked), *_calls(said, asked, cut=finish == "length")]
    called = any(block["type"] == "tool_use" for block in content)
    reason, sequence = reply.ending(finish, choice.get("stop_reason"), asked.stops, called=called, unlimited=unlimited)
    message = reply.message(reply.new_id("msg"), asked.model, completion.get("usage"))
    return {**message, "content": content, "stop_reason": reason, "stop_sequence": sequence}


def _spoken(said: Json, asked: Asked) -> Iterator[Json]:
    reasoning = said.get("reasoning") or said.get("reasoning_content")
    if reasoning and asked.thinking:
        yield {"type": "thinking", "thinking": reasoning, "signature": reply.signature(reasoning)}
    text = said.get("content") or ""
    if text.strip() and asked.forced is None:
        yield {"type": "text", "text": text}


def _calls(said: Json, asked: Asked, *, cut: bool) -> Iterator[Json]:
    """A call that was cut in its arguments is none: its client must not act on half of them."""
    functions = [call.get("function") or {} for call in said.get("tool_calls") or []]
    for function in functions if asked.forced is None else [{"arguments": said.get("content")}]:
        try:
            name, given = _call(function, asked)
        except RequestError:
            if not cut:
                raise
            continue
        yield {"type": "tool_use", "id": reply.new_id("toolu"), "name": name, "input": given}


def _call(function: Json, asked: Asked) -> tuple[str, Json]:
    text = function.get("arguments") or ""
    if asked.forced is not None:
        return asked.forced.call(text)
    name = function.get("name") or ""
    return name, reply.arguments(text, name)
