"""An engine without a model, for the self-test: `python -m appliance.chaos.engine --uds PATH --name NAME`.

What it says to a prompt is known beforehand and names the served model, so that a client can tell a right answer from
another model's. STANDIN_INTERVAL is the time between two words, STANDIN_FAULT is `start` (exit at once) or `probe`
(refuse every generation).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from itertools import cycle, islice
from typing import Any

WORDS = 24
"""Words of an answer."""


def answer(model: str, prompt: str) -> list[str]:
    """The words that the engine of this model says to this prompt."""
    return [f"{word} " for word in islice(cycle(f"{model} was asked {prompt}".split()), WORDS)]


class Engine:
    def __init__(self, name: str, key: str, interval: float, fault: str) -> None:
        self._name = name
        self._key = key
        self._interval = interval
        self._fault = fault

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await _head(reader):
                request, headers = head
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._answer(request, headers, body, writer)
                if headers.get("connection") == "close":
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left; nothing is owed to it
        finally:
            writer.close()

    async def _answer(self, request: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> None:
        if request == "GET /health":
            await _send(writer, 200, {})
        elif headers.get("authorization") != f"Bearer {self._key}":
            await _send(writer, 401, {"error": "Unauthorized"})
        elif request != "POST /v1/chat/completions":
            await _send(writer, 404, {"detail": "Not Found"})
        elif self._fault == "probe":
            await _send(writer, 500, {"error": {"message": "told to fail", "type": "server_error", "code": 500}})
        else:
            await self._chat(json.loads(body), writer)

    async def _chat(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        words = answer(self._name, body["messages"][-1]["content"])
        # The pid tells the self-test which engine answered, and so whose death may have cut the answer.
        head = {"id": "chatcmpl-1", "created": 0, "model": self._name, "system_fingerprint": f"pid {os.getpid()}"}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(words)}
            choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
            await _send(writer, 200, {**head, "object": "chat.completion", "choices": [choice]})
            return
        writer.write(_headers(200, "text/event-stream", "transfer-encoding: chunked"))
        for number, word in enumerate(words, 1):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": "stop" if number == WORDS else None}
            _chunk(writer, json.dumps({**head, "object": "chat.completion.chunk", "choices": [choice]}))
            await writer.drain()
            await asyncio.sleep(self._interval)
        _chunk(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    fields = (line.partition(":") for line in lines[1:])
    return lines[0].rpartition(" ")[0], {name.lower(): value.strip() for name, _, value in fields}


def _headers(status: int, kind: str, framing: str) -> bytes:
    return f"HTTP/1.1 {status} Status\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n".encode()


def _chunk(writer: asyncio.StreamWriter, data: str) -> None:
    event = f"data: {data}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(event), event))


async def _send(writer: asyncio.StreamWriter, status: int, value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    writer.write(_headers(status, "application/json", f"content-length: {len(body)}") + body)
    await writer.drain()


async def run(path: str, engine: Engine) -> None:
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    await asyncio.start_unix_server(engine.serve, path, backlog=1024)
    await asked_to_stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds", required=True)
    parser.add_argument("--name", required=True)
    options = parser.parse_args()
    fault = os.environ.get("STANDIN_FAULT", "")
    if fault == "start":
        sys.exit("the stand-in engine was told to fail at its start")
    interval = float(os.environ.get("STANDIN_INTERVAL", "0.05"))
    asyncio.run(run(options.uds, Engine(options.name, os.environ["VLLM_API_KEY"], interval, fault)))


if __name__ == "__main__":
    main()
