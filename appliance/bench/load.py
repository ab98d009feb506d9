"""A load on one model: so many clients at once, each asking again as soon as it is answered, level by level."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from appliance.bench.answer import PATIENCE, Answer, ask
from appliance.bench.figures import figures
from appliance.bench.prompts import Prompts, Scale
from appliance.errors import ApplianceError

PER_CLIENT = 8
"""Requests of each client where neither a number nor a duration is asked for."""
SEEDS = 1_000_003
"""Between two seeds lie more numbers than levels, so that each level of each seed has prompts of its own."""
FEW, MANY = 32, 160
"""Words of the two prompts that show how the model counts. They warm it up, too."""

PATHS: Mapping[str, str] = {"openai-chat": "/v1/chat/completions", "openai": "/v1/completions"}
"""By vLLM's names for its own clients of them."""


@dataclass(frozen=True)
class Load:
    model: str
    concurrency: tuple[int, ...]
    input_tokens: int
    output_tokens: int
    prefix_tokens: int
    requests: int | None
    """Requests of each level. None: by the clock, or so many for each client."""
    duration: float | None
    """Seconds in which requests of a level begin; those begun are read to their end."""
    seed: int
    endpoint: str = "openai-chat"
    """One of `PATHS`."""
    ignore_eos: bool = True
    """Have every answer be as long as asked: how long it is then does not depend on the weights."""


Told = Callable[[int, int, int | None], None]
"""Hears of the level, how many of its requests have ended, and of how many; None where the clock decides."""


class Bench:
    """`stop` ends it early: what was begun is called off and not counted, what was complete is."""

    def __init__(self, base: str, key: str | None, load: Load, told: Told) -> None:
        self.stopped = False
        self.runs: list[dict[str, Any]] = []
        self._base = base
        self._key = key
        self._load = load
        self._told = told
        self._scale = Scale()
        self._work: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Raises ApplianceError where not even the first request is answered."""
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self._base, headers=headers, timeout=timeout, connector=connector) as session:
            await self._until_done([self._calibrate(session)])
            for level in self._load.concurrency:
                if not self.stopped:
                    await self._level(session, level)

    def stop(self) -> None:
        self.stopped = True
        for task in self._work:
            task.cancel()

    async def _until_done(self, work: list[Coroutine[Any, Any, None]]) -> None:
        self._work = [asyncio.create_task(each) for each in work]
        await asyncio.wait(self._work)
        for task in self._work:
            if not task.cancelled():
                task.result()

    async def _calibrate(self, session: aiohttp.ClientSession) -> None:
        words = Prompts(Scale(), input_tokens=1, prefix_tokens=0, seed=self._load.seed)
        counted = []
        for length in (FEW, MANY):
            answer = await ask(session, PATHS[self._load.endpoint], self._body(words.some(length), 2))
            if answer.error:
                raise ApplianceError(f"model `{self._load.model}` does not answer: {answer.error}", hint=_hint(answer))
            counted.append((length, answer.input_tokens))
        self._scale = Scale.through(*counted)

    async def _level(self, session: aiohttp.ClientSession, level: int) -> None:
        load = self._load
        # Each level has prompts of its own: what an earlier one left in a prefix cache would flatter it.
        prompts = Prompts(
            self._scale,
            input_tokens=load.input_tokens,
            prefix_tokens=load.prefix_tokens,
            seed=SEEDS * load.seed + level,
        )
        total = None if load.duration else load.requests or PER_CLIENT * level
        until = time.monotonic() + load.duration if load.duration else None
        answers: list[Answer] = []
        begun = 0

        async def client() -> None:
            nonlocal begun
            while begun < total if total is not None else time.monotonic() < (until or 0):
                begun += 1
                answers.append(await ask(session, PATHS[load.endpoint], self._body(prompts.next(), load.output_tokens)))
                self._told(level, len(answers), total)

        self._told(level, 0, total)
        await self._until_done([client() for _ in range(level)])
        if answers:
            self.runs.append(figures(answers, model=load.model, concurrency=level, endpoint=load.endpoint))

    def _body(self, prompt: str, tokens: int) -> dict[str, Any]:
        load = self._load
        body: dict[str, Any] = {
            "model": load.model,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if load.ignore_eos:
            body["ignore_eos"] = True
        if load.endpoint == "openai":
            return {**body, "prompt": prompt}
        return {**body, "messages": [{"role": "user", "content": prompt}]}


def complaints(runs: list[dict[str, Any]]) -> list[str]:
    """What failed requests were told, each once, with how often."""
    found = Counter(error for run in runs for error in run["errors"] if error)
    return [f"{count} failed: {error}" for error, count in found.most_common()]


def _hint(answer: Answer) -> str | None:
    if answer.error.startswith(("401", "403")):
        return "put a key with the scope `inference` into OPENAI_API_KEY, or name its file with --key-file"
    if answer.error.startswith("400"):
        return "an engine that does not know `ignore_eos` needs --no-ignore-eos"
    return None
