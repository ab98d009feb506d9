"""The chunks of a streamed chat completion as Anthropic's events.

A message is a sequence of blocks, one open at a time. An engine may go back and forth between text and several calls:
what belongs to a later block waits until the open one is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from appliance.errors import RequestError
from appliance.gateway.anthropic import reply
from appliance.gateway.anthropic.request import Asked
from appliance.gateway.body import encode

Json = dict[str, Any]

PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def event(type: str, **fields: Any) -> bytes:  # noqa: A002 - Anthropic's field name
    return b"event: %b\ndata: %b\n\n" % (type.encode(), encode({"type": type, **fields}))


class Block:
    """One content block: what has come of it, and how much of that is written."""

    def __init__(self, kind: Literal["text", "thinking", "tool_use"], name: str = "") -> None:
        self.kind = kind
        self.name = name
        self.open = False
        self._whole: list[str] = []
        self._waiting: list[str] = []
        self._first = ""
        """The first character that is no space."""

    def add(self, piece: str) -> None:
        self._whole.append(piece)
        self._waiting.append(piece)
        self._first = self._first or piece.lstrip()[:1]

    def become(self, name: str, whole: str) -> None:
        """What it turns out to be, before anything of it is written."""
        self.name, self._whole, self._waiting, self._first = name, [whole], [whole], whole[:1]

    @property
    def whole(self) -> str:
        return "".join(self._whole)

    @property
    def begun(self) -> bool:
        """Whether there is anything to show. Space between two calls is no text of its own."""
        return self.open or bool(self.name and self._sound if self.kind == "tool_use" else self._first)

    @property
    def _sound(self) -> bool:
        """Whether it may yet be an object: clients parse arguments as they come, and fall over others."""
        return self.kind != "tool_use" or self._first in {"", "{"}

    @property
    def complete(self) -> bool:
        """Whether nothing can follow once another block has begun."""
        if self.kind != "tool_use":
            return True
        try:
            return isinstance(json.loads(self.whole or "{}"), dict)
        except ValueError:
            return False

    def write(self, index: int) -> Iterator[bytes]:
        if not self.begun:
            return
        if not self.open:
            self.open = True
            yield event("content_block_start", index=index, content_block=self._empty())
        if self._waiting and self._sound:
            piece = "".join(self._waiting)
            self._waiting.clear()
            yield event("content_block_delta", index=index, delta=self._delta(piece))

    def stop(self, index: int) -> Iterator[bytes]:
        if self.kind == "thinking":
            delta = {"type": "signature_delta", "signature": reply.signature(self.whole)}
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)

    def _empty(self) -> Json:
        match self.kind:
            case "text":
                return {"type": "text", "text": ""}
            case "thinking":
                return {"type": "thinking", "thinking": "", "signature": ""}
            case "tool_use":
                return {"type": "tool_use", "id": reply.new_id("toolu"), "name": self.name, "input": {}}

    def _delta(self, piece: str) -> Json:
        match self.kind:
            case "text":
                return {"type": "text_delta", "text": piece}
            case "thinking":
                return {"type": "thinking_delta", "thinking": piece}
            case "tool_use":
                return {"type": "input_json_delta", "partial_json": piece}


class MessageStream:
    """Feed it chunks, then `end` it. Both raise RequestError where the answer is none of what was asked for."""

    def __init__(self, asked: Asked, *, unlimited: bool = False) -> None:
        self._asked = asked
        self._unlimited = unlimited
        self._blocks: list[Block] = []
        self._written = 0
        """How many blocks are stopped."""
        self._index = 0
        """The open block's, or the next one's: blocks that nothing came of have none."""
        self._calls: dict[int, Block] = {}
        self._begun = False
        self._usage: Json | None = None
        self._finish: str | None = None
        self._stop: object = None

    def feed(self, chunk: Json) -> bytes:
        self._usage = chunk.get("usage") or self._usage
        events = [] if self._begun else [*self._start()]
        for choice in chunk.get("choices") or ():
            self._take(choice.get("delta") or {})
            if choice.get("finish_reason"):
                self._finish, self._stop = choice["finish_reason"], choice.get("stop_reason")
        events += self._write()
        return b"".join(events)

    def end(self) -> bytes:
        events = [] if self._begun else [*self._start()]
        cut = self._finish == "length"
        called = self._check(cut=cut)
        events += self._write(last=True)
        reason, sequence = reply.ending(
            self._finish, self._stop, self._asked.stops, called=called, unlimited=self._unlimited
        )
        usage = reply.usage_of(self._usage)
        del usage["service_tier"]
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        events += [event("message_delta", delta=delta, usage=usage), event("message_stop")]
        return b"".join(events)

    def _start(self) -> Iterator[bytes]:
        self._begun = True
        yield event("message_start", message=reply.message(reply.new_id("msg"), self._asked.model, self._usage))
        yield PING

    def _take(self, delta: Json) -> None:
        if (reasoning := delta.get("reasoning") or delta.get("reasoning_content")) and self._asked.thinking:
            self._last("thinking").add(reasoning)
        if text := delta.get("content"):
            self._forced(text) if self._asked.forced is not None else self._last("text").add(text)
        for call in delta.get("tool_calls") or ():
            self._call(call)

    def _last(self, kind: Literal["text", "thinking"]) -> Block:
        if not self._blocks or self._blocks[-1].kind != kind:
            self._blocks.append(Block(kind))
        return self._blocks[-1]

    def _forced(self, text: str) -> None:
        """The answer's text is the call. Which of several tools it calls is known when all of it is there."""
        forced = self._asked.forced
        if 0 not in self._calls:
            self._calls[0] = Block("tool_use", (forced and forced.only) or "")
            self._blocks.append(self._calls[0])
        self._calls[0].add(text)

    def _call(self, call: Json) -> None:
        function = call.get("function") or {}
        index = call.get("index") or 0
        block = self._calls.get(index)
        if block is None:
            block = self._calls[index] = Block("tool_use")
            self._blocks.append(block)
        if not block.open and (name := function.get("name")):
            block.name = name
        if piece := function.get("arguments"):
            block.add(piece)

    def _write(self, *, last: bool = False) -> Iterator[bytes]:
        """What can be written now. The last block stays open until the end; before it, each until it is complete."""
        while self._written < len(self._blocks):
            block = self._blocks[self._written]
            yield from block.write(self._index)
            if not last and (self._written == len(self._blocks) - 1 or not block.complete):
                return
            if block.open:
                yield from block.stop(self._index)
                self._index += 1
            self._written += 1

    def _check(self, *, cut: bool) -> bool:
        """Every call has arguments to act on, but for one that the limit has cut; says whether there is one."""
        called = False
        for block in self._calls.values():
            try:
                self._settle(block)
            except RequestError:
                if not cut:
                    raise
                continue
            called = True
        return called

    def _settle(self, block: Block) -> None:
        if self._asked.forced is None:
            reply.arguments(block.whole, block.name)
            return
        name, given = self._asked.forced.call(block.whole)
        if not block.open:
            block.become(name, json.dumps(given, ensure_ascii=False))
