"""An engine without a model: a real server process that speaks vLLM's protocol and can be told to fail.

    python tests/fake_engine.py --uds PATH --name NAME [flags]

Standard library alone, so that it starts at once. The answer to a prompt is the same every time and names the served
model. A request may carry `"fake": {...}` with `events`, `interval`, `first`, `crash_after`, `error_after`,
`stall_after` or `status` to override the flags for itself. `GET /fake/stats` tells what it has seen.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

Json = dict[str, Any]
GUARDED = ("/v1", "/v2", "/inference", "/cohere")  # what vLLM's --api-key covers; /tokenize and the rest are open
ENGINE_DEAD = "EngineCore encountered an issue. See stack trace for the root cause."
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed"}


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fake_engine.py", allow_abbrev=False)
    listen = parser.add_mutually_exclusive_group(required=True)
    listen.add_argument("--uds")
    listen.add_argument("--port", type=int)
    parser.add_argument("--name", required=True, help="the served model name")
    parser.add_argument("--task", choices=("any", "generate", "embed"), default="any")
    parser.add_argument("--load-seconds", type=float, default=0.0, help="time before it listens")
    parser.add_argument("--never-ready", action="store_true", help="never listens")
    parser.add_argument("--hang-health", action="store_true", help="accepts /health and never answers")
    parser.add_argument("--fail-health", action="store_true", help="/health is 503")
    parser.add_argument("--fail-probe", action="store_true", help="every generation is a 500")
    parser.add_argument("--events", type=int, help="tokens per answer; default: the words of the answer")
    parser.add_argument("--event-interval", type=float, default=0.0, help="seconds between tokens")
    parser.add_argument("--first-event", type=float, default=0.0, help="seconds before the first token: a long prefill")
    parser.add_argument("--crash-after-events", type=int, help="SIGKILL itself after this many tokens of one stream")
    parser.add_argument("--exit-code", type=int, default=0)
    parser.add_argument(
        "--exit-after", type=float, help="exit this long after listening, or loading with --never-ready"
    )
    parser.add_argument("--exit-at-start", action="store_true", help="exit with --exit-code instead of loading")
    parser.add_argument("--say", action="append", default=[], help="a line for stderr, before loading; repeatable")
    parser.add_argument("--chatter", type=int, default=0, help="this many log lines on stdout, before loading")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--spawn-child", action="store_true", help="a child in the same group that outlives it")
    parser.add_argument("--detach-child", action="store_true", help="a child in its own session that outlives it")
    parser.add_argument("--leak-shm", action="store_true", help="maps a /dev/shm segment that it never unlinks")
    parser.add_argument("--leak-tmp", action="store_true", help="leaves a file in the temporary directory")
    return parser.parse_args(argv)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def gone(self) -> bool:
        return self.reader.at_eof() or self.writer.transport.is_closing()


class Refused(Exception):
    def __init__(self, status: int, body: Json) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def refusal(status: int, message: str, type_: str, param: str | None = None) -> Refused:
    return Refused(status, {"error": {"message": message, "type": type_, "param": param, "code": status}})


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


@dataclass
class Answer:
    """One generation: its tokens, and how it goes wrong on the way."""

    words: list[str]
    finish: str
    prompt_tokens: int
    interval: float
    first: float
    crash_after: int | None
    error_after: int | None
    stall_after: int | None

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def usage(self) -> Json:
        count = len(self.words)
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + count,
            "completion_tokens": count,
        }


class FakeEngine:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.key = os.environ.get("VLLM_API_KEY")
        self.stats = Stats()
        self.maps: list[mmap.mmap] = []
        self.routes: dict[tuple[str, str], Callable[[Request], Awaitable[None]]] = {
            ("GET", "/health"): self.health,
            ("GET", "/v1/models"): self.models,
            ("GET", "/fake/stats"): self.show,
            ("POST", "/v1/chat/completions"): self.chat,
            ("POST", "/v1/completions"): self.completions,
            ("POST", "/v1/responses"): self.responses,
            ("POST", "/v1/embeddings"): self.embeddings,
            ("POST", "/tokenize"): self.tokenize,
        }

    # -- connection

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.stats.connections += 1
        try:
            while (request := await read_request(reader, writer)) is not None:
                await self.answer(request)
                if request.headers.get("connection", "").lower() == "close":
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, request: Request) -> None:
        if not request.path.startswith("/fake"):
            self.stats.last_path = request.path
            self.stats.last_headers = request.headers
        try:
            if (
                self.key
                and request.path.startswith(GUARDED)
                and request.headers.get("authorization") != f"Bearer {self.key}"
            ):
                raise Refused(401, {"error": "Unauthorized"})
            handler = self.routes.get((request.method, request.path))
            if handler is None:
                known = any(path == request.path for _, path in self.routes)
                raise Refused(405 if known else 404, {"detail": "Method Not Allowed" if known else "Not Found"})
            await handler(request)
        except Refused as refused:
            await send_json(request, refused.body, status=refused.status)

    # -- routes

    async def health(self, request: Request) -> None:
        if self.options.hang_health:
            await asyncio.sleep(3600)
        await send_json(request, {}, status=503 if self.options.fail_health else 200)

    async def models(self, request: Request) -> None:
        card = {"id": self.options.name, "object": "model", "created": 0, "owned_by": "vllm", "max_model_len": 4096}
        await send_json(request, {"object": "list", "data": [card]})

    async def show(self, request: Request) -> None:
        await send_json(request, {"pid": os.getpid(), "name": self.options.name, **vars(self.stats)})

    async def tokenize(self, request: Request) -> None:
        body = self.body(request)
        tokens = list(range(len(prompt_of(body).split())))
        await send_json(request, {"count": len(tokens), "max_model_len": 4096, "tokens": tokens})

    async def chat(self, request: Request) -> None:
        body, answer = self.generation(request)
        if not isinstance(body.get("messages"), list):
            raise refusal(400, "[{'type': 'missing', 'loc': ('body', 'messages')}]", "Bad Request")
        head = self.head(request, "chatcmpl", "chat.completion.chunk" if body.get("stream") else "chat.completion")
        if not body.get("stream"):
            await self.wait_out(request, answer)
            message = {"role": "assistant", "content": answer.text}
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
            await send_json(request, {**head, "choices": [choice], "usage": answer.usage})
            return

        def event(content: str, finish: str | None) -> Json:
            return {"index": 0, "delta": {"content": content}, "logprobs": None, "finish_reason": finish}

        role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        await self.stream(request, body, answer, head, event, first=role)

    async def completions(self, request: Request) -> None:
        body, answer = self.generation(request)
        head = self.head(request, "cmpl", "text_completion")
        if not body.get("stream"):
            await self.wait_out(request, answer)
            choice = {"index": 0, "text": answer.text, "logprobs": None, "finish_reason": answer.finish}
            await send_json(request, {**head, "choices": [choice], "usage": answer.usage})
            return

        def event(content: str, finish: str | None) -> Json:
            return {"index": 0, "text": content, "logprobs": None, "finish_reason": finish}

        await self.stream(request, body, answer, head, event)

    async def responses(self, request: Request) -> None:
        body, answer = self.generation(request)
        identity = f"resp_{self.identity(request)}"
        part: Json = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": None}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        usage = {
            "input_tokens": answer.prompt_tokens,
            "output_tokens": len(answer.words),
            "total_tokens": answer.usage["total_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        whole = {
            "id": identity, "object": "response", "created_at": int(time.time()), "status": "completed",
            "model": self.options.name, "output": [item], "parallel_tool_calls": True, "tool_choice": "auto",
            "tools": [], "usage": usage,
        }  # fmt: skip
        if not body.get("stream"):
            await self.wait_out(request, answer)
            await send_json(request, whole)
            return
        opening = {**whole, "status": "in_progress", "output": [], "usage": None}
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
            async for word, _ in self.tokens(request, answer):
                yield render({"type": "response.output_text.delta", **where, "delta": word, "logprobs": []})
            for event in after:
                yield render(event)

        await self.send_events(request, events())

    async def embeddings(self, request: Request) -> None:
        if self.options.task == "generate":
            raise Refused(404, {"detail": "Not Found"})
        body = self.body(request)
        self.refuse_faults({})
        given = body.get("input", "")
        inputs = given if isinstance(given, list) else [given]
        data = []
        for index, text in enumerate(inputs):
            digest = hashlib.sha256(f"{self.options.name} {text}".encode()).digest()
            vector: Any = [byte / 255 for byte in digest[:8]]
            if body.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack("<8f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector})
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs), "completion_tokens": 0}
        await send_json(
            request, {"id": "embd-1", "object": "list", "data": data, "model": self.options.name, "usage": usage}
        )
        self.stats.requests += 1
        self.stats.finished += 1

    # -- generation

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
        fake = body.get("fake") or {}
        self.refuse_faults(fake)
        prompt = prompt_of(body)
        digest = hashlib.sha256(prompt.encode()).hexdigest()[:8]
        words = [f"{word} " for word in f"{self.options.name} answers {digest}: {prompt}".split()]
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens")
        total = fake.get("events", self.options.events) or len(words)
        count = min(total, limit or total)
        return body, Answer(
            words=list(islice(cycle(words), count)),
            finish="length" if count < total else "stop",
            prompt_tokens=len(prompt.split()),
            interval=fake.get("interval", self.options.event_interval),
            first=fake.get("first", self.options.first_event),
            crash_after=fake.get("crash_after", self.options.crash_after_events),
            error_after=fake.get("error_after"),
            stall_after=fake.get("stall_after"),
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
        choice: Callable[[str, str | None], Json],
        first: Json | None = None,
    ) -> None:
        usage = (body.get("stream_options") or {}).get("include_usage")
        # The envelope is rendered once: per token only the choice is, which is what a benchmark pays for.
        opening = f"data: {json.dumps(head, separators=(',', ':'))[:-1]},".encode()
        trailer = b',"usage":null}\n\n' if usage else b"}\n\n"

        def render(value: Json) -> bytes:
            return opening + b'"choices":[' + json.dumps(value, separators=(",", ":")).encode() + b"]" + trailer

        async def events() -> AsyncIterator[bytes]:
            if first is not None:
                yield render(first)
            async for word, finish in self.tokens(request, answer):
                yield render(choice(word, finish))
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

    def begin(self) -> None:
        self.stats.requests += 1
        self.stats.running += 1

    def end(self, *, aborted: bool) -> None:
        self.stats.running -= 1
        if aborted:
            self.stats.aborted += 1
        else:
            self.stats.finished += 1

    # -- life

    async def run(self) -> int:
        stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.obey_signals(stop)
        self.leak()
        await asyncio.wait([stop], timeout=self.options.load_seconds)
        if stop.done():
            return stop.result()
        server = None if self.options.never_ready else await self.listen()
        print("INFO 01-01 00:00:00 [fake_engine.py:1] Application startup complete.", flush=True)
        if self.options.exit_after is not None:
            asyncio.get_running_loop().call_later(self.options.exit_after, finish, stop, self.options.exit_code)
        code = await stop
        if server is not None:
            server.close()
        return code

    def obey_signals(self, stop: asyncio.Future[int]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            if self.options.ignore_sigterm:
                signal.signal(number, signal.SIG_IGN)
            else:
                loop.add_signal_handler(number, finish, stop, 0)

    async def listen(self) -> asyncio.Server:
        if self.options.uds:
            return await asyncio.start_unix_server(self.serve, self.options.uds, limit=1 << 20, backlog=1024)
        return await asyncio.start_server(self.serve, "127.0.0.1", self.options.port, limit=1 << 20, backlog=1024)

    def leak(self) -> None:
        if self.options.spawn_child:
            self.stats.children.append(spawn(detached=False))
        if self.options.detach_child:
            self.stats.children.append(spawn(detached=True))
        if self.options.leak_shm:
            path = f"/dev/shm/psm_fake_{os.urandom(4).hex()}"
            with Path(path).open("w+b") as file:
                file.truncate(4096)
                self.maps.append(mmap.mmap(file.fileno(), 4096))
            self.stats.shm.append(path)
        if self.options.leak_tmp:
            leak = Path(tempfile.gettempdir()) / f"leak-{os.urandom(4).hex()}"
            leak.touch()
            self.stats.tmp.append(str(leak))


class EngineDead(Exception):
    """The generation part died under the server."""


def finish(stop: asyncio.Future[int], code: int) -> None:
    if not stop.done():
        stop.set_result(code)


def spawn(*, detached: bool) -> int:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
    return subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=detached).pid


def prompt_of(body: Json) -> str:
    messages = body.get("messages") or body.get("input") or body.get("prompt") or ""
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        content = messages[-1].get("content") or ""
        return content if isinstance(content, str) else " ".join(str(part.get("text", "")) for part in content)
    return " ".join(map(str, messages)) if isinstance(messages, list) else str(messages)


async def pause(request: Request, seconds: float) -> None:
    """Sleep, but notice within 20 ms that the client has gone, as vLLM does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if request.gone:
            raise ConnectionResetError
        await asyncio.sleep(min(left, 0.02))


async def flush(request: Request) -> None:
    while request.writer.transport.get_write_buffer_size():  # noqa: ASYNC110 - a transport has no event for it
        await asyncio.sleep(0.001)


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name
    }
    body = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    elif length := int(headers.get("content-length", 0)):
        body = await reader.readexactly(length)
    return Request(method, target.partition("?")[0], headers, body, reader, writer)


def response_head(status: int, content_type: str, *more: str) -> bytes:
    reason = REASONS.get(status, "Status")
    lines = (f"HTTP/1.1 {status} {reason}", "server: uvicorn", f"content-type: {content_type}", *more)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def send_json(request: Request, value: Json, *, status: int = 200) -> None:
    body = json.dumps(value, separators=(",", ":")).encode()
    request.writer.write(response_head(status, "application/json", f"content-length: {len(body)}") + body)
    await request.writer.drain()


def main() -> int:
    options = parse(sys.argv[1:])
    for number in range(options.chatter):
        print(f"INFO 01-01 00:00:00 [fake_engine.py:1] line {number}", flush=number == options.chatter - 1)
    for line in options.say:
        print(line, file=sys.stderr, flush=True)
    if options.exit_at_start:
        return int(options.exit_code)
    return asyncio.run(FakeEngine(options).run())


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # like an engine: nothing waits for connections or children
