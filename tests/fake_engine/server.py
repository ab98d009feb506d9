"""The server process: who is let in, which route it is, and when it ends."""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import chat, health, responses, tasks
from .engine import FakeEngine, Handler
from .options import parse
from .wire import Refused, Request, read_request, refusal, send_json

GUARDED = ("/v1", "/v2", "/inference", "/cohere")  # what vLLM's --api-key covers; /tokenize and the rest are open
ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/health"): health.health,
    ("GET", "/v1/models"): health.models,
    ("GET", "/fake/stats"): health.show,
    ("GET", "/metrics"): health.metrics,
    ("POST", "/v1/chat/completions"): chat.chat,
    ("POST", "/v1/completions"): chat.completions,
    ("POST", "/v1/responses"): responses.responses,
    ("POST", "/v1/embeddings"): tasks.embeddings,
    ("POST", "/v1/rerank"): tasks.rerank,
    ("POST", "/rerank"): tasks.rerank,
    ("POST", "/v1/score"): tasks.score,
    ("POST", "/score"): tasks.score,
    ("POST", "/v1/audio/transcriptions"): tasks.transcribe,
    ("POST", "/tokenize"): tasks.tokenize,
    ("POST", "/detokenize"): tasks.detokenize,
}


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.key = os.environ.get("VLLM_API_KEY")
        self.engine = FakeEngine(options)
        self.maps: list[mmap.mmap] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.engine.stats.connections += 1
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
            self.engine.stats.last_path = request.path
            self.engine.stats.last_headers = request.headers
        try:
            given = request.headers.get("authorization")
            if self.key and request.path.startswith(GUARDED) and given != f"Bearer {self.key}":
                raise Refused(401, {"error": "Unauthorized"})
            handler = ROUTES.get((request.method, request.path)) or responses.about_one(request)
            lacking = (
                self.engine.options.task == "listen" and request.method == "POST" and "/audio/" not in request.path
            )
            if handler is None or lacking:
                known = not lacking and any(path == request.path for _, path in ROUTES)
                raise Refused(405 if known else 404, {"detail": "Method Not Allowed" if known else "Not Found"})
            try:
                await handler(self.engine, request)
            except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
                # vLLM validates everything; here what is not understood is found out on the way.
                raise refusal(400, f"{type(error).__name__}: {error}", "Bad Request") from None
        except Refused as refused:
            await send_json(request, refused.body, status=refused.status)

    async def run(self) -> int:
        stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.obey_signals(stop)
        self.leak()
        await asyncio.wait([stop], timeout=self.options.load_seconds)
        if stop.done():
            return stop.result()
        server = None if self.options.never_ready else await self.listen()
        print("INFO 01-01 00:00:00 [fake_engine:1] Application startup complete.", flush=True)
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
            self.engine.stats.children.append(spawn(detached=False))
        if self.options.detach_child:
            self.engine.stats.children.append(spawn(detached=True))
        if self.options.leak_shm:
            path = f"/dev/shm/psm_fake_{os.urandom(4).hex()}"
            with Path(path).open("w+b") as file:
                file.truncate(4096)
                self.maps.append(mmap.mmap(file.fileno(), 4096))
            self.engine.stats.shm.append(path)
        if self.options.leak_tmp:
            leak = Path(tempfile.gettempdir()) / f"leak-{os.urandom(4).hex()}"
            leak.touch()
            self.engine.stats.tmp.append(str(leak))


def finish(stop: asyncio.Future[int], code: int) -> None:
    if not stop.done():
        stop.set_result(code)


def spawn(*, detached: bool) -> int:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
    return subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=detached).pid


def main(argv: list[str]) -> int:
    options = parse(argv)
    for number in range(options.chatter):
        print(f"INFO 01-01 00:00:00 [fake_engine:1] line {number}", flush=number == options.chatter - 1)
    for line in options.say:
        print(line, file=sys.stderr, flush=True)
    if options.exit_at_start:
        return int(options.exit_code)
    while options.gate is not None and not options.gate.exists():
        time.sleep(0.01)
    return asyncio.run(Server(options).run())
