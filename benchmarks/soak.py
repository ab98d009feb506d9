"""Clients of every kind on the gateway for a long time: no error, and no memory that is not given back.

    python -m benchmarks.soak [--duration SECONDS] [--clients N] [--seed N] [--json FILE]

The gateway runs as in the appliance, with keys, limits, metrics and its log, before a stand-in engine. Most clients
stream to the end; others ask for a whole answer, use an alias, leave in the middle, or send what has to be refused.
Each answer is checked. A line is fitted to the resident memory over the second half: its slope should be about zero.
Exits 1 where an answer was wrong, or memory grows by more than `--growth` MB an hour over at least ten minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Any

import aiohttp

from benchmarks.gateway import CLIENT_KEY, Engine, appliance, engine, memory_of, running
from benchmarks.gateway_process import ALIAS
from benchmarks.machine import describe
from benchmarks.streams import MODEL
from tests.support import free_port, listening, wait_until

TOKENS = 20
INTERVAL = 0.005
SAMPLE = 1.0
FIT = 600.0
"""Seconds below which a slope says nothing: the allocator is still settling."""
KINDS = {"stream": 60, "whole": 15, "alias": 10, "leave": 5, "garbage": 5, "unknown": 5}
"""What clients do, by its weight."""


@dataclass
class Result:
    seed: int
    clients: int
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start, and bytes."""

    @property
    def slope(self) -> float:
        """MB an hour, by least squares over the second half."""
        half = [(at, size) for at, size in self.resident if at >= self.seconds / 2]
        return linear_regression([at for at, _ in half], [size for _, size in half]).slope * 3600 / 1e6

    @property
    def in_words(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.answers.items()))
        first, last = self.resident[0][1] / 1e6, self.resident[-1][1] / 1e6
        most = max(size for _, size in self.resident) / 1e6
        return (
            f"{self.seconds:.0f} s, {self.clients} clients, seed {self.seed}: {self.answers.total()} answers, "
            f"{len(self.errors)} errors ({kinds})\nresident {first:.1f} MB after the start, {last:.1f} MB at the end, "
            f"{most:.1f} MB at most; fitted over the second half: {self.slope:+.2f} MB an hour"
        )


async def soak(duration: float, clients: int, seed: int) -> Result:
    result = Result(seed, clients)
    with tempfile.TemporaryDirectory(prefix="soak-") as directory, engine(Path(directory), "soak", INTERVAL) as found:
        port = free_port()
        with running(appliance(found, port, Path(directory))) as process:
            await asyncio.to_thread(wait_until, lambda: listening(port), what="the gateway listens")
            await _load(f"http://127.0.0.1:{port}", process.pid, duration, result)
            await _settled(found, result)
    return result


async def _load(base: str, pid: int, duration: float, result: Result) -> None:
    began = time.monotonic()
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"authorization": f"Bearer {CLIENT_KEY}"}
    async with aiohttp.ClientSession(base, connector=connector, headers=headers) as session:
        crowd = [
            asyncio.create_task(_client(session, random.Random(f"{result.seed}-{n}"), began + duration, result))  # noqa: S311
            for n in range(result.clients)
        ]
        while not all(task.done() for task in crowd):
            await asyncio.wait(crowd, timeout=SAMPLE, return_when=asyncio.FIRST_EXCEPTION)
            result.resident.append((time.monotonic() - began, memory_of(pid, "VmRSS")))
        await asyncio.gather(*crowd)
    result.seconds = time.monotonic() - began


async def _client(session: aiohttp.ClientSession, chance: random.Random, until: float, result: Result) -> None:
    number = 0
    while time.monotonic() < until:
        number += 1
        (kind,) = chance.choices(tuple(KINDS), tuple(KINDS.values()))
        word = f"w{chance.getrandbits(32):08x}"
        try:
            wrong = await _ask(session, kind, word)
        except (aiohttp.ClientError, TimeoutError) as error:
            wrong = repr(error)
        result.answers[kind] += 1
        if wrong:
            result.errors.append(f"{kind} {number}: {wrong}")


async def _ask(session: aiohttp.ClientSession, kind: str, word: str) -> str:
    """What was wrong with the answer."""
    model = {"alias": ALIAS, "unknown": "nonsense"}.get(kind, MODEL)
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": word}], "max_tokens": TOKENS}
    body |= {"stream": kind != "whole", "fake": {"events": TOKENS}}
    data = b'{"model": ' if kind == "garbage" else json.dumps(body).encode()
    async with session.post("/v1/chat/completions", data=data) as answer:
        expected = {"garbage": 400, "unknown": 404}.get(kind, 200)
        if answer.status != expected:
            return f"status {answer.status}: {(await answer.text())[:200]}"
        if expected != 200:
            return ""
        if kind == "leave":
            await answer.content.readuntil(b"\n\n")
            answer.close()
            return ""
        text = await answer.read()
    if kind == "whole":
        found = json.loads(text)
        return "" if found["model"] == model and found["usage"]["completion_tokens"] == TOKENS else f"{found}"
    events = text.split(b"\n\n")
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:-2]]
    whole = events[-2:] == [b"data: [DONE]", b""] and len(chunks) == TOKENS + 1
    mine = {chunk["model"] for chunk in chunks} == {model} and not any("usage" in chunk for chunk in chunks)
    said = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    return "" if whole and mine and word in said else f"{len(chunks)} chunks, ending in {text[-200:]!r}"


async def _settled(found: Engine, result: Result) -> None:
    """No generation may go on for a client that has left."""
    connector = aiohttp.UnixConnector(str(found.socket))
    async with aiohttp.ClientSession("http://engine", connector=connector) as session:
        for _ in range(500):
            async with session.get("/fake/stats") as answer:
                running_now = (await answer.json())["running"]
            if not running_now:
                return
            await asyncio.sleep(0.01)
    result.errors.append(f"{running_now} generations were left running")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=1800)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--growth", type=float, default=10.0, help="MB an hour that memory may grow by")
    parser.add_argument("--json", type=Path, help="write every figure and the machine here")
    given = parser.parse_args()
    result = asyncio.run(soak(given.duration, given.clients, given.seed))
    print(result.in_words)
    for error in result.errors[:20]:
        print(error, file=sys.stderr)
    if given.json:
        found = {"machine": describe(), "slope_mb_per_hour": result.slope, **vars(result)}
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    grows = result.seconds >= FIT and result.slope > given.growth
    return 1 if result.errors or grows else 0


if __name__ == "__main__":
    sys.exit(main())
