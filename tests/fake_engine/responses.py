"""OpenAI's responses, which are kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from .engine import FakeEngine, Handler
from .wire import Json, Request, refusal, send_json


async def responses(engine: FakeEngine, request: Request) -> None:
    body, answer = engine.generation(request)
    if (previous := body.get("previous_response_id")) and previous not in engine.kept:
        raise refusal(404, f"Response with id '{previous}' not found.", "NotFoundError", "response_id")
    identity = body.get("request_id") or f"resp_{engine.identity(request)}"
    part: Json = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": None}
    item: Json = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    calls = answer.calls or (answer.message or {}).get("tool_calls")
    output = [function_call(call) for call in calls] if calls else [item]
    usage = {
        "input_tokens": answer.prompt_tokens,
        "output_tokens": len(answer.words),
        "total_tokens": answer.usage["total_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    whole = {
        "id": identity, "object": "response", "created_at": int(time.time()), "status": "completed",
        "model": engine.options.name, "output": output, "parallel_tool_calls": True, "tool_choice": "auto",
        "tools": [], "usage": usage,
    }  # fmt: skip
    if body.get("background"):
        engine.kept[identity] = {**whole, "status": "in_progress", "output": []}
        await send_json(request, engine.kept[identity])
        asyncio.get_running_loop().call_later(answer.first, finish, engine, identity, whole)
        return
    if body.get("store", True):
        engine.kept[identity] = whole
    if not body.get("stream"):
        await engine.wait_out(request, answer)
        await send_json(request, whole)
        return
    opening = {**whole, "status": "in_progress", "output": [], "usage": None}
    if calls:
        await engine.send_events(request, called(opening, whole, output))
        return
    blank = {**part, "text": ""}
    empty = {**item, "status": "in_progress", "content": []}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    before: list[Json] = [
        {"type": "response.created", "response": opening},
        {"type": "response.in_progress", "response": opening},
        {"type": "response.output_item.added", "output_index": 0, "item": empty},
        {"type": "response.content_part.added", **where, "part": blank},
    ]  # fmt: skip
    after: list[Json] = [
        {"type": "response.output_text.done", **where, "text": answer.text, "logprobs": []},
        {"type": "response.content_part.done", **where, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    sequence = 0

    def render(event: Json) -> bytes:
        nonlocal sequence
        sequence += 1
        text = json.dumps({**event, "sequence_number": sequence - 1}, separators=(",", ":"))
        return f"event: {event['type']}\ndata: {text}\n\n".encode()

    async def events() -> AsyncIterator[bytes]:
        for event in before:
            yield render(event)
        async for word, _ in engine.tokens(request, answer):
            yield render({"type": "response.output_text.delta", **where, "delta": word, "logprobs": []})
        for event in after:
            yield render(event)

    await engine.send_events(request, events())


def finish(engine: FakeEngine, identity: str, whole: Json) -> None:
    if engine.kept[identity]["status"] == "in_progress":
        engine.kept[identity] = whole


def about_one(request: Request) -> Handler | None:
    """The handler of a path with a response's id in it."""
    identity, _, action = request.path.removeprefix("/v1/responses/").partition("/")
    if request.path == identity:
        return None

    async def answer(engine: FakeEngine, request: Request) -> None:
        kept = engine.kept.get(identity)
        if kept is None:
            raise refusal(404, f"Response with id '{identity}' not found.", "NotFoundError", "response_id")
        if action == "cancel":
            if kept["status"] != "in_progress":
                raise refusal(400, "Cannot cancel a synchronous response.", "BadRequestError", "response_id")
            kept["status"] = "cancelled"
        await send_json(request, kept)

    return answer if (request.method, action) in {("GET", ""), ("POST", "cancel")} else None


def function_call(call: Json) -> Json:
    """The same call as an item of a response."""
    return {
        "type": "function_call",
        "id": f"fc_{call['id']}",
        "call_id": call["id"],
        "status": "completed",
        **call["function"],
    }


async def called(opening: Json, whole: Json, output: list[Json]) -> AsyncIterator[bytes]:
    """The events of a response that is nothing but calls."""
    events: list[Json] = [{"type": "response.created", "response": opening}]
    for index, item in enumerate(output):
        where = {"item_id": item["id"], "output_index": index}
        events += [
            {"type": "response.output_item.added", "output_index": index, "item": {**item, "arguments": ""}},
            {"type": "response.function_call_arguments.delta", **where, "delta": item["arguments"]},
            {"type": "response.function_call_arguments.done", **where, "arguments": item["arguments"]},
            {"type": "response.output_item.done", "output_index": index, "item": item},
        ]  # fmt: skip
    events.append({"type": "response.completed", "response": whole})
    for number, event in enumerate(events):
        text = json.dumps({**event, "sequence_number": number}, separators=(",", ":"))
        yield f"event: {event['type']}\ndata: {text}\n\n".encode()
