"""An engine without a model: a real server process that speaks vLLM's protocol and can be told to fail.

    python tests/fake_engine.py --uds PATH --name NAME [flags]

Standard library alone, so that it starts at once. The answer to a prompt is the same every time and names the served
model. A request may carry `"fake": {...}` with `events`, `interval`, `first`, `crash_after`, `error_after`,
`stall_after`, `status`, `context`, `text`, `message`, `deltas`, `finish`, `stop_reason`, `reasoning` or `call` (a name
of a tool) to override the flags for itself; so may a prompt that is `fake:` and such an object, for requests that
somebody has translated on the way. Demanded tools are called, and formats obeyed. `GET /fake/stats` tells what it has
seen.
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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import fake_output  # type: ignore[import-not-found]  # beside this script, which is where a script looks first

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
    parser.add_argument("--gate", type=Path, help="loads until this file exists")
    parser.add_argument("--never-ready", action="store_true", help="never listens")
    parser.add_argument("--hang-health", action="store_true", help="accepts /health and never answers")
    parser.add_argument("--fail-health", action="store_true", help="/health is 503")
    parser.add_argument("--bad-metrics", choices=("hang", "error", "garbage", "endless"), help="what /metrics does")
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
    message: Json | None = None
    """What is said in a chat, where it is not the words alone."""
    scripted: bool = False
    """The words are a stream's deltas, each as JSON."""
    stop_reason: str | None = None
    reasoning: str = ""
    calls: list[Json] = field(default_factory=list)

    def delta(self, word: str) -> Json:
        found: Json = json.loads(word) if self.scripted else {"content": word}
        return found

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def usage(self) -> Json:
        return self.usage_after(len(self.words))

    def usage_after(self, count: int) -> Json:
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
            ("GET", "/metrics"): self.metrics,
            ("POST", "/v1/chat/completions"): self.chat,
            ("POST", "/v1/completions"): self.completions,
            ("POST", "/v1/responses"): self.responses,
            ("POST", "/v1/embeddings"): self.embeddings,
            ("POST", "/v1/rerank"): self.rerank,
            ("POST", "/rerank"): self.rerank,
            ("POST", "/v1/score"): self.score,
            ("POST", "/score"): self.score,
            ("POST", "/v1/audio/transcriptions"): self.transcribe,
            ("POST", "/tokenize"): self.tokenize,
            ("POST", "/detokenize"): self.detokenize,
        }
        self.kept: dict[str, Json] = {}

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
            handler = self.routes.get((request.method, request.path)) or self.about_response(request)
            if handler is None:
                known = any(path == request.path for _, path in self.routes)
                raise Refused(405 if known else 404, {"detail": "Method Not Allowed" if known else "Not Found"})
            try:
                await handler(request)
            except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
                # vLLM validates everything; here what is not understood is found out on the way.
                raise refusal(400, f"{type(error).__name__}: {error}", "Bad Request") from None
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

    async def metrics(self, request: Request) -> None:
        """Some of vLLM's page: its own families, and those of its process and its web server."""
        if self.options.bad_metrics == "hang":
            await asyncio.sleep(3600)
        if self.options.bad_metrics == "error":
            raise Refused(500, {"detail": "Internal Server Error"})
        labels = f'{{engine="0",model_name="{self.options.name}"}}'
        lines = [
            "# HELP python_info Python platform information",
            "# TYPE python_info gauge",
            'python_info{version="3"} 1.0',
            "# HELP vllm:num_requests_running Number of requests in model execution batches.",
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{labels} {self.stats.running}.0",
            "# HELP vllm:request_success_total Count of successfully processed requests.",
            "# TYPE vllm:request_success_total counter",
            f"vllm:request_success_total{labels} {self.stats.finished}.0",
            "# HELP vllm:request_success_created Count of successfully processed requests.",
            "# TYPE vllm:request_success_created gauge",
            f"vllm:request_success_created{labels} 1.7e+09",
            "# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.",
            "# TYPE vllm:time_to_first_token_seconds histogram",
            f'vllm:time_to_first_token_seconds_bucket{labels[:-1]},le="+Inf"}} {self.stats.finished}.0',
            f"vllm:time_to_first_token_seconds_count{labels} {self.stats.finished}.0",
            f"vllm:time_to_first_token_seconds_sum{labels} 0.5",
        ]
        if self.options.bad_metrics == "garbage":
            lines.append("vllm:garbage{ 1 }} nonsense")
        page = ("\n".join(lines) + "\n").encode()
        if self.options.bad_metrics == "endless":
            page *= 1 + (8 << 20) // len(page)
        request.writer.write(response_head(200, "text/plain; version=0.0.4", f"content-length: {len(page)}") + page)
        await request.writer.drain()

    async def show(self, request: Request) -> None:
        await send_json(request, {"pid": os.getpid(), "name": self.options.name, **vars(self.stats)})

    async def tokenize(self, request: Request) -> None:
        body = self.body(request)
        tokens = list(range(len(prompt_of(body).split())))
        await send_json(request, {"count": len(tokens), "max_model_len": 4096, "tokens": tokens})

    async def detokenize(self, request: Request) -> None:
        tokens = self.body(request).get("tokens") or []
        await send_json(request, {"prompt": " ".join(f"token{token}" for token in tokens)})

    async def chat(self, request: Request) -> None:
        body, answer = self.generation(request)
        if not isinstance(body.get("messages"), list):
            raise refusal(400, "[{'type': 'missing', 'loc': ('body', 'messages')}]", "Bad Request")
        head = self.head(request, "chatcmpl", "chat.completion.chunk" if body.get("stream") else "chat.completion")
        top = body.get("top_logprobs") or 0
        if not 1 <= (body.get("n") or 1) <= 64 or not 0 <= top <= 20:
            raise refusal(400, "n must be 1 to 64, top_logprobs 0 to 20", "BadRequestError", "n")
        numbers = range(body.get("n") or 1)

        def logprobs(words: list[str]) -> Any:
            return fake_output.logprobs(words, top) if body.get("logprobs") else None

        if not body.get("stream"):
            await self.wait_out(request, answer)
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
        first += [delta(reasoning=word) for word in fake_output.pieces(answer.reasoning)]
        if answer.calls:
            first += [delta(tool_calls=[part]) for part in call_deltas(answer.calls)]
            first.append({"index": 0, "delta": {}, "logprobs": None, "finish_reason": answer.finish})
        await self.stream(request, body, answer, head, event, first=first)

    async def completions(self, request: Request) -> None:
        body, answer = self.generation(request)
        head = self.head(request, "cmpl", "text_completion")
        if not body.get("stream"):
            await self.wait_out(request, answer)
            choice = {
                "index": 0, "text": answer.text, "logprobs": None,
                "finish_reason": answer.finish, "stop_reason": answer.stop_reason,
            }  # fmt: skip
            await send_json(request, {**head, "choices": [choice], "usage": answer.usage})
            return

        def event(content: str, finish: str | None) -> list[Json]:
            ending = {"finish_reason": finish, "stop_reason": answer.stop_reason} if finish else {"finish_reason": None}
            return [{"index": 0, "text": content, "logprobs": None, **ending}]

        await self.stream(request, body, answer, head, event, first=[])

    async def responses(self, request: Request) -> None:
        body, answer = self.generation(request)
        if (previous := body.get("previous_response_id")) and previous not in self.kept:
            raise refusal(404, f"Response with id '{previous}' not found.", "NotFoundError", "response_id")
        identity = body.get("request_id") or f"resp_{self.identity(request)}"
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
            "model": self.options.name, "output": output, "parallel_tool_calls": True, "tool_choice": "auto",
            "tools": [], "usage": usage,
        }  # fmt: skip
        if body.get("background"):
            self.kept[identity] = {**whole, "status": "in_progress", "output": []}
            await send_json(request, self.kept[identity])
            asyncio.get_running_loop().call_later(answer.first, self.finish_response, identity, whole)
            return
        if body.get("store", True):
            self.kept[identity] = whole
        if not body.get("stream"):
            await self.wait_out(request, answer)
            await send_json(request, whole)
            return
        opening = {**whole, "status": "in_progress", "output": [], "usage": None}
        if calls:
            await self.send_events(request, called(opening, whole, output))
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
            async for word, _ in self.tokens(request, answer):
                yield render({"type": "response.output_text.delta", **where, "delta": word, "logprobs": []})
            for event in after:
                yield render(event)

        await self.send_events(request, events())

    def finish_response(self, identity: str, whole: Json) -> None:
        if self.kept[identity]["status"] == "in_progress":
            self.kept[identity] = whole

    def about_response(self, request: Request) -> Callable[[Request], Awaitable[None]] | None:
        """The handler of a path with a response's id in it."""
        identity, _, action = request.path.removeprefix("/v1/responses/").partition("/")
        if request.path == identity:
            return None

        async def answer(request: Request) -> None:
            kept = self.kept.get(identity)
            if kept is None:
                raise refusal(404, f"Response with id '{identity}' not found.", "NotFoundError", "response_id")
            if action == "cancel":
                if kept["status"] != "in_progress":
                    raise refusal(400, "Cannot cancel a synchronous response.", "BadRequestError", "response_id")
                kept["status"] = "cancelled"
            await send_json(request, kept)

        return answer if (request.method, action) in {("GET", ""), ("POST", "cancel")} else None

    async def rerank(self, request: Request) -> None:
        body = self.body(request)
        documents = [each if isinstance(each, str) else str(each.get("text")) for each in body.get("documents") or []]
        scores = sorted(((likeness(body.get("query"), text), -at) for at, text in enumerate(documents)), reverse=True)
        results = [
            {"index": -at, "document": {"text": documents[-at]}, "relevance_score": score}
            for score, at in scores[: body.get("top_n") or None]
        ]
        usage = {"prompt_tokens": len(documents), "total_tokens": len(documents)}
        await send_json(request, {"id": "rerank-1", "model": self.options.name, "usage": usage, "results": results})
        self.count()

    async def score(self, request: Request) -> None:
        body = self.body(request)
        right = body.get("text_2") or body.get("documents") or []
        right = right if isinstance(right, list) else [right]
        left = body.get("text_1") or body.get("queries") or ""
        data = [
            {"index": at, "object": "score", "score": likeness(left, text)} for at, text in enumerate(map(str, right))
        ]
        usage = {"prompt_tokens": len(data), "total_tokens": len(data), "completion_tokens": 0}
        await send_json(
            request, {"id": "score-1", "object": "list", "model": self.options.name, "data": data, "usage": usage}
        )
        self.count()

    async def transcribe(self, request: Request) -> None:
        fields = fake_output.form_fields(request.headers.get("content-type", ""), request.body)
        self.stats.last_body = {
            name: len(value) if name == "file" else value.decode() for name, value in fields.items()
        }
        if fields.get("model", b"").decode() != self.options.name:
            raise refusal(404, f"The model `{fields.get('model')!r}` does not exist.", "NotFoundError", "model")
        text = f"{self.options.name} heard {hashlib.sha256(fields.get('file', b'')).hexdigest()[:8]}"
        if fields.get("response_format") == b"text":
            await send(request, text.encode(), "text/plain; charset=utf-8")
        elif fields.get("stream") == b"true":
            await self.send_events(request, transcript(text))
            return
        else:
            await send_json(request, {"text": text, "usage": {"type": "duration", "seconds": 1}})
        self.count()

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
        self.count()

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
        prompt = prompt_of(body)
        fake = body.get("fake") or directive(prompt)
        self.refuse_faults(fake)
        refuse_length(body, fake)
        digest = hashlib.sha256(prompt.encode()).hexdigest()[:8]
        script = script_of(body, fake)
        words = script or [f"{word} " for word in f"{self.options.name} answers {digest}: {prompt}".split()]
        calls = [] if script is not None else fake_output.demanded_calls(body)
        if script is None and ((said := fake_output.formatted(body)) or body.get("stop")):
            words = fake_output.pieces(fake_output.until_stop(said or "".join(words), body.get("stop")))
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


def refuse_length(body: Json, fake: Json) -> None:
    if fake.get("no_template_arguments") and "chat_template_kwargs" in body:
        raise refusal(400, "chat_template is not supported for Mistral tokenizers.", "BadRequestError")
    limit, context = body.get("max_tokens"), fake.get("context")
    if context is not None and limit and limit > context:
        message = (
            f"max_tokens={limit} cannot be greater than max_model_len={context}. Please request fewer output tokens."
        )
        raise refusal(400, message, "BadRequestError", "max_tokens")
    if context == 0:
        message = "This model's maximum context length is 10 tokens. However, your prompt contains 12 input tokens."
        raise refusal(400, message, "BadRequestError", "input_tokens")


def directive(prompt: str) -> Json:
    """The object after a `fake:` that begins a line: agents put other things around what they are asked."""
    _, _, rest = f"\n{prompt}".partition("\nfake:")
    found: Json = json.JSONDecoder().raw_decode(rest)[0] if rest else {}
    return found


def script_of(body: Json, fake: Json) -> list[str] | None:
    """The deltas of a streamed chat, each as JSON, or the pieces of a text; None where the prompt is repeated."""
    form = (body.get("response_format") or {}).get("json_schema")
    text = json.dumps(fake_output.instance(form["schema"])) if form and "text" not in fake else fake.get("text")
    if body.get("stream") and "messages" in body:
        deltas = fake.get("deltas") or [*deltas_of(fake.get("message") or {"content": text})]
        return [json.dumps(delta) for delta in deltas] if "deltas" in fake or "message" in fake or text else None
    if "message" in fake:
        return [fake["message"].get("content") or ""]
    return None if text is None else [text[i : i + 5] for i in range(0, len(text), 5)]


def deltas_of(message: Json) -> Iterator[Json]:
    """A message as vLLM streams one: pieces of reasoning, of the text, then each call's name and its arguments."""
    for name in ("reasoning", "content"):
        text = message.get(name) or ""
        yield from ({name: text[i : i + 5]} for i in range(0, len(text), 5))
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        yield {"tool_calls": [{**call, "index": index, "function": {"name": function["name"], "arguments": ""}}]}
        for i in range(0, len(function["arguments"]), 5):
            yield {"tool_calls": [{"index": index, "function": {"arguments": function["arguments"][i : i + 5]}}]}


def call_deltas(calls: list[Json]) -> list[Json]:
    """Each call in pieces: its name first, then its arguments in halves."""
    found = []
    for index, call in enumerate(calls):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        found.append({"index": index, **call, "function": {"name": name, "arguments": ""}})
        half = len(arguments) // 2
        found += [{"index": index, "function": {"arguments": part}} for part in (arguments[:half], arguments[half:])]
    return found


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


async def transcript(text: str) -> AsyncIterator[bytes]:
    for word in fake_output.pieces(text):
        yield f"data: {json.dumps({'type': 'transcript.text.delta', 'delta': word})}\n\n".encode()
    yield f"data: {json.dumps({'type': 'transcript.text.done', 'text': text})}\n\n".encode()
    yield b"data: [DONE]\n\n"


def likeness(query: Any, text: str) -> float:
    """Of two texts: the share of the one's words that the other has."""
    words = set(str(query).lower().split())
    return round(len(words & set(text.lower().split())) / max(1, len(words)), 3)


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
    await send(request, json.dumps(value, separators=(",", ":")).encode(), "application/json", status=status)


async def send(request: Request, body: bytes, content_type: str, *, status: int = 200) -> None:
    request.writer.write(response_head(status, content_type, f"content-length: {len(body)}") + body)
    await request.writer.drain()


def main() -> int:
    options = parse(sys.argv[1:])
    for number in range(options.chatter):
        print(f"INFO 01-01 00:00:00 [fake_engine.py:1] line {number}", flush=number == options.chatter - 1)
    for line in options.say:
        print(line, file=sys.stderr, flush=True)
    if options.exit_at_start:
        return int(options.exit_code)
    while options.gate is not None and not options.gate.exists():
        time.sleep(0.01)
    return asyncio.run(FakeEngine(options).run())


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # like an engine: nothing waits for connections or children
