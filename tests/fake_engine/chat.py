"""Chats and texts."""

from __future__ import annotations

from typing import Any

from . import output
from .engine import FakeEngine
from .wire import Json, Request, refusal, send_json


async def chat(engine: FakeEngine, request: Request) -> None:
    body, answer = engine.generation(request)
    if not isinstance(body.get("messages"), list):
        raise refusal(400, "[{'type': 'missing', 'loc': ('body', 'messages')}]", "Bad Request")
    head = engine.head(request, "chatcmpl", "chat.completion.chunk" if body.get("stream") else "chat.completion")
    top = body.get("top_logprobs") or 0
    if not 1 <= (body.get("n") or 1) <= 64 or not 0 <= top <= 20:
        raise refusal(400, "n must be 1 to 64, top_logprobs 0 to 20", "BadRequestError", "n")
    numbers = range(body.get("n") or 1)

    def logprobs(words: list[str]) -> Any:
        return output.logprobs(words, top) if body.get("logprobs") else None

    if not body.get("stream"):
        await engine.wait_out(request, answer)
        message: Json = {"role": "assistant", "content": None if answer.calls else answer.text}
        message |= {"reasoning": answer.reasoning or None, "tool_calls": answer.calls, **(answer.message or {})}
        choice = {
            "message": message, "logprobs": logprobs(answer.words), "finish_reason": answer.finish,
            "stop_reason": answer.stop_reason,
        }  # fmt: skip
        choices = [{"index": number, **choice} for number in numbers]
        await send_json(request, {**head, "choices": choices, "usage": answer.usage})
        return

    def event(content: str, finish: str | None) -> list[Json]:
        ending = {"finish_reason": finish, "stop_reason": answer.stop_reason} if finish else {"finish_reason": None}
        rest = {"delta": answer.delta(content), "logprobs": logprobs([content]), **ending}
        return [{"index": number, **rest} for number in numbers]

    def delta(**said: Any) -> Json:
        return {"index": 0, "delta": said, "logprobs": None, "finish_reason": None}

    first = [{**delta(role="assistant", content=""), "index": number} for number in numbers]
    first += [delta(reasoning=word) for word in output.pieces(answer.reasoning)]
    if answer.calls:
        first += [delta(tool_calls=[part]) for part in call_deltas(answer.calls)]
        first.append({"index": 0, "delta": {}, "logprobs": None, "finish_reason": answer.finish})
    await engine.stream(request, body, answer, head, event, first=first)


async def completions(engine: FakeEngine, request: Request) -> None:
    body, answer = engine.generation(request)
    head = engine.head(request, "cmpl", "text_completion")
    if not body.get("stream"):
        await engine.wait_out(request, answer)
        choice = {
            "index": 0, "text": answer.text, "logprobs": None,
            "finish_reason": answer.finish, "stop_reason": answer.stop_reason,
        }  # fmt: skip
        await send_json(request, {**head, "choices": [choice], "usage": answer.usage})
        return

    def event(content: str, finish: str | None) -> list[Json]:
        ending = {"finish_reason": finish, "stop_reason": answer.stop_reason} if finish else {"finish_reason": None}
        return [{"index": 0, "text": content, "logprobs": None, **ending}]

    await engine.stream(request, body, answer, head, event, first=[])


def call_deltas(calls: list[Json]) -> list[Json]:
    """Each call in pieces: its name first, then its arguments in halves."""
    found = []
    for index, call in enumerate(calls):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        found.append({"index": index, **call, "function": {"name": name, "arguments": ""}})
        half = len(arguments) // 2
        found += [{"index": index, "function": {"arguments": part}} for part in (arguments[:half], arguments[half:])]
    return found
