"""One streamed answer, timed as `vllm bench serve` times it, so that the figures of both can be put side by side.

A *chunk* is an event with choices in it. Times are taken when it has been read; the trailing usage is no chunk.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PATIENCE = 600.0
"""Seconds of silence after which an answer is given up."""


@dataclass(slots=True)
class Answer:
    """All times in seconds."""

    start: float = 0.0
    """On the monotonic clock, like `end`."""
    end: float = 0.0
    ttft: float = 0.0
    """Time to first token: from the request to the first chunk."""
    itl: list[float] = field(default_factory=list)
    """Inter-token latencies: from each chunk to the next."""
    e2el: float = 0.0
    """End-to-end latency: from the request to the last chunk."""
    input_tokens: int = 0
    output_tokens: int = 0
    """By the server's own usage; where it gives none, chunks with text in them."""
    error: str = ""
    complete: bool = False

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first; None where there was no second."""
        return (self.e2el - self.ttft) / (self.output_tokens - 1) if self.output_tokens > 1 else None


async def ask(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> Answer:
    """Never raises for what the other side does: that is the answer's `error`."""
    answer = Answer(start=time.perf_counter())
    answer.end = answer.start
    try:
        async with session.post(url, json=body, allow_redirects=False) as response:
            if response.status == 200:
                await _read(answer, response)
            else:
                answer.error = f"{response.status}: {_message(await response.read())}"
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        answer.error = str(error) or type(error).__name__
    return answer


async def _read(answer: Answer, response: aiohttp.ClientResponse) -> None:
    first, counted, told = True, 0, 0
    async for data in _events(response):
        event = json.loads(data)
        if "error" in event:
            answer.error = _message(data)
            return
        if choices := event.get("choices"):
            now = time.perf_counter()
            if first:
                answer.ttft = now - answer.start
                first = False
            else:
                answer.itl.append(now - answer.end)
            answer.end = now
            counted += bool(_text(choices[0]))
        if usage := event.get("usage"):
            answer.input_tokens = usage.get("prompt_tokens") or 0
            told = usage.get("completion_tokens") or 0
    answer.e2el = answer.end - answer.start
    answer.output_tokens = told or counted
    answer.complete = not first
    if first:
        answer.error = "the stream had no chunk in it"


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    rest = b""
    async for data in response.content.iter_any():
        *whole, rest = (rest + data).split(b"\n\n")
        for event in whole:
            if event.startswith(b"data:") and (found := event[5:].strip()) != b"[DONE]":
                yield found


def _text(choice: Mapping[str, Any]) -> str:
    found = choice.get("text") or (choice.get("delta") or {}).get("content")
    return str(found or "")


def _message(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
