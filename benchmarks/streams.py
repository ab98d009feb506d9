"""Asks one port for streams and says in JSON how they came: lean, so that the load costs less than what it measures.

    python -m benchmarks.streams --port N --clients N --requests N [--key KEY] [--spread SECONDS] [--dialect NAME]

`--spread` lets the clients begin one after the other over this time, so that their requests don't come in volleys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import httptools
import uvloop

MODEL = "bench"
SYSTEM = "You answer in one paragraph. " * 20
QUESTION = {"role": "user", "content": "Why is the sky blue? " * 20}
CHAT = {"model": MODEL, "stream": True, "messages": [{"role": "system", "content": SYSTEM}, QUESTION]}


@dataclass(frozen=True)
class Dialect:
    path: str
    body: Mapping[str, Any]
    mark: bytes
    """What every event of a stream has once."""


DIALECTS = {
    "openai": Dialect("/v1/chat/completions", CHAT, b"data: "),
    "anthropic": Dialect(
        "/v1/messages",
        {"model": MODEL, "stream": True, "max_tokens": 1000, "system": SYSTEM, "messages": [QUESTION]},
        b"data: ",
    ),
    "ollama": Dialect("/api/chat", CHAT, b"\n"),
}


class Client(asyncio.Protocol):
    """One connection, one stream at a time."""

    def __init__(self, request: bytes, mark: bytes) -> None:
        self._request = request
        self._mark = mark
        self._transport: asyncio.Transport
        self.events = 0
        self.first: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    async def ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting = True
        self._start = time.perf_counter()
        self._transport.write(self._request)
        await self._done

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if self._waiting:
            self._waiting = False
            self.first.append(time.perf_counter() - self._start)
        self.events += body.count(self._mark)

    def on_message_complete(self) -> None:
        self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError(f"the connection was lost: {exc}"))


async def load(
    port: int, clients: int, requests: int, key: str | None, spread: float, dialect: Dialect
) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    body = json.dumps(dialect.body).encode()
    authorization = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {dialect.path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    request = f"{head}{authorization}content-length: {len(body)}\r\n\r\n".encode() + body
    crowd = [
        (await loop.create_connection(lambda: Client(request, dialect.mark), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]

    async def work(client: Client, number: int) -> None:
        await asyncio.sleep(spread * number / clients)
        for _ in range(requests // clients):
            await client.ask()

    start = time.perf_counter()
    await asyncio.gather(*map(work, crowd, range(clients)))
    seconds = time.perf_counter() - start
    first = sorted(wait for client in crowd for wait in client.first)
    for client in crowd:
        client.close()
    return {
        "requests": len(first),
        "events": sum(client.events for client in crowd),
        "seconds": seconds,
        "first_p50_ms": first[len(first) // 2] * 1000,
        "first_p99_ms": first[min(len(first) - 1, len(first) * 99 // 100)] * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--key")
    parser.add_argument("--spread", type=float, default=0.0)
    parser.add_argument("--dialect", choices=DIALECTS, default="openai")
    given = parser.parse_args()
    dialect = DIALECTS[given.dialect]
    print(json.dumps(uvloop.run(load(given.port, given.clients, given.requests, given.key, given.spread, dialect))))


if __name__ == "__main__":
    main()
