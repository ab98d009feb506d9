"""The part that generates, counts what it does, and may die under its server."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, TypeAlias

from . import output
from .answer import Answer, directive, prompt_of, refuse_length, script_of
from .wire import Json, Refused, Request, flush, pause, refusal, response_head

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace for the root cause."


@dataclass
class Stats:
    requests: int = 0
    finished: int = 0
    aborted: int = 0
    running: int = 0
    connections: int = 0
    children: list[int] = field(default_factory=list)
    shm: list[str] = field(default_factory=list)
    tmp: list[str] = field(default_factory=list)
    last_path: str = ""
    last_headers: dict[str, str] = field(default_factory=dict)
    last_body: Any = None


class EngineDead(Exception):
    """The generation part died under the server."""


class FakeEngine:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.stats = Stats()
        self.kept: dict[str, Json] = {}
        """Stored responses, by id."""

    def body(self, request: Request) -> Json:
        try:
            body = json.loads(request.body)
        except ValueError:
            raise refusal(400, "[{'type': 'json_invalid', 'loc': ('body', 0)}]", "Bad Request") from None
        if not isinstance(body, dict):
            raise refusal(400, "[{'type': 'model_attributes_type', 'loc': ('body',)}]", "Bad Request")
        self.stats.last_body = body
        if body.get("model") not in (None, self.options.name):
            raise refusal(404, f"The model `{body['model']}` does not exist.", "NotFoundError", "model")
        return body

    def refuse_faults(self, fake: Json) -> None:
        if self.options.fail_probe:
            raise refusal(500, "the fake engine was told to fail", "InternalServerError")
        if status := fake.get("status"):
            raise refusal(status, "the fake engine was asked to fail", "FakeError")

    def generation(self, request: Request) -> tuple[Json, Answer]:
        if self.options.task == "embed":
            raise Refused(404, {"detail": "Not Found"})
        body = self.body(request)
        prompt = prompt_of(body)
        fake = body.get("fake") or directive(prompt)
        self.refuse_faults(fake)
        refuse_length(body, fake)
        digest = hashlib.sha256(prompt.encode()).hexdigest()[:8]
        script = script_of(body, fake)
        words = script or [f"{word} " for word in f"{self.options.name} answers {digest}: {prompt}".split()]
        calls = [] if script is not None else output.demanded_calls(body)
        if script is None and ((said := output.formatted(body)) or body.get("stop")):
            words = output.pieces(output.until_stop(said or "".join(words), body.get("stop")))
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens")
        total = fake.get("events", self.options.events) or len(words)
        count = 0 if calls else min(total, limit or total)
        return body, Answer(
            words=list(islice(cycle(words), count)),
            finish=fake.get("finish") or ("tool_calls" if calls else "length" if count < total else "stop"),
            prompt_tokens=len(prompt.split()),
            interval=fake.get("interval", self.options.event_interval),
            first=fake.get("first", self.options.first_event),
            crash_after=fake.get("crash_after", self.options.crash_after_events),
            error_after=fake.get("error_after"),
            stall_after=fake.get("stall_after"),
            message=fake.get("message"),
            scripted=script is not None and "messages" in body and bool(body.get("stream")),
            stop_reason=fake.get("stop_reason"),
            reasoning=fake.get("reasoning", ""),
            calls=calls,
        )

    def identity(self, request: Request) -> str:
        return request.headers.get("x-request-id") or os.urandom(8).hex()

    def head(self, request: Request, prefix: str, kind: str) -> Json:
        return {
            "id": f"{prefix}-{self.identity(request)}",
            "object": kind,
            "created": int(time.time()),
            "model": self.options.name,
        }

    async def tokens(self, request: Request, answer: Answer) -> AsyncIterator[tuple[str, str | None]]:
        """The words as they are "generated", each with its finish_reason; ends early when the client has gone."""
        await pause(request, answer.first)
        last = len(answer.words) - 1
        for index, word in enumerate(answer.words):
            if index == answer.crash_after:
                await flush(request)
                os.kill(os.getpid(), signal.SIGKILL)
            if index == answer.error_after:
                raise EngineDead
            if index == answer.stall_after:
                await pause(request, 3600)
            await pause(request, answer.interval)
            if request.gone:
                raise ConnectionResetError
            yield word, answer.finish if index == last else None

    async def wait_out(self, request: Request, answer: Answer) -> None:
        self.begin()
        try:
            async for _ in self.tokens(request, answer):
                pass
        except EngineDead:
            self.end(aborted=True)
            raise refusal(500, ENGINE_DEAD, "InternalServerError") from None
        except ConnectionError:
            self.end(aborted=True)
            raise
        self.end(aborted=False)

    async def stream(
        self,
        request: Request,
        body: Json,
        answer: Answer,
        head: Json,
        choices: Callable[[str, str | None], list[Json]],
        first: list[Json],
    ) -> None:
        options = body.get("stream_options") or {}
        usage, continuous = options.get("include_usage"), options.get("continuous_usage_stats")
        count = 0
        # The envelope is rendered once: per token only the choice is, which is what a benchmark pays for.
        opening = f"data: {json.dumps(head, separators=(',', ':'))[:-1]},".encode()

        def render(value: Json) -> bytes:
            usage_so_far = b',"usage":%b' % json.dumps(answer.usage_after(count)).encode() if continuous else b""
            return b'%b"choices":[%b]%b}\n\n' % (
                opening,
                json.dumps(value, separators=(",", ":")).encode(),
                usage_so_far,
            )

        async def events() -> AsyncIterator[bytes]:
            nonlocal count
            for opening_choice in first:
                yield render(opening_choice)
            async for word, finish in self.tokens(request, answer):
                count += 1
                for choice in choices(word, finish):
                    yield render(choice)
            if usage:
                yield opening + b'"choices":[],"usage":' + json.dumps(answer.usage).encode() + b"}\n\n"
            yield b"data: [DONE]\n\n"

        await self.send_events(request, events())

    async def send_events(self, request: Request, events: AsyncIterator[bytes]) -> None:
        self.begin()
        aborted = True
        writer = request.writer
        try:
            writer.write(response_head(200, "text/event-stream; charset=utf-8", "transfer-encoding: chunked"))
            async for event in events:
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.sleep(0)
            aborted = False
        except EngineDead:
            error = refusal(500, ENGINE_DEAD, "InternalServerError").body
            for event in (f"data: {json.dumps(error)}\n\n".encode(), b"data: [DONE]\n\n"):
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        finally:
            self.end(aborted=aborted)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def count(self) -> None:
        """A request that took no time."""
        self.begin()
        self.end(aborted=False)

    def begin(self) -> None:
        self.stats.requests += 1
        self.stats.running += 1

    def end(self, *, aborted: bool) -> None:
        self.stats.running -= 1
        if aborted:
            self.stats.aborted += 1
        else:
            self.stats.finished += 1


Handler: TypeAlias = Callable[[FakeEngine, Request], Awaitable[None]]
