"""Clients that stream one answer after another, each read to its end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiohttp

from appliance.chaos.stream import PATIENCE, Stream

PAUSE = 0.2
"""Longest pause of a client between two answers, in seconds."""


class Crowd:
    """`menu` has the names that may be asked for, each with the model that it means."""

    def __init__(
        self,
        base: str,
        key: str,
        menu: Mapping[str, str],
        prompts: tuple[str, ...],
        *,
        clients: int,
        max_tokens: int,
        seed: int,
    ) -> None:
        self.menu = dict(menu)
        self.streams: list[Stream] = []
        self._url = f"{base}/v1/chat/completions"
        self._key = key
        self._prompts = prompts
        self._clients = clients
        self._max_tokens = max_tokens
        self._random = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._waiting: Counter[str] = Counter()
        self._over = False

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=PATIENCE),
            headers={"authorization": f"Bearer {self._key}"},
        )
        models = tuple(self.menu)
        own = (models[number % len(models)] for number in range(self._clients))
        self._tasks = [asyncio.create_task(self._client(model, models)) for model in own]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every client finishes the answer that it is reading."""
        self._over = True
        for task in self._tasks if kind else ():
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=kind is not None)
        await self._session.close()

    async def withdraw(self, name: str) -> None:
        """Take a name off the menu, and wait until whoever asked for it last is being answered."""
        del self.menu[name]
        while self._waiting[name]:  # noqa: ASYNC110 - a rare wait, and not worth an event per name
            await asyncio.sleep(0.01)

    async def ask(self, name: str, model: str, prompt: str) -> Stream:
        stream = Stream(name, model, prompt)
        self.streams.append(stream)
        self._waiting[name] += 1
        try:
            await stream.ask(
                self._session, self._url, max_tokens=self._max_tokens, on_answer=lambda: self._served(name)
            )
        finally:
            if not stream.status:
                self._served(name)
        return stream

    def _served(self, name: str) -> None:
        self._waiting[name] -= 1

    async def _client(self, own: str, others: tuple[str, ...]) -> None:
        """Asks for its own model by all its names, and for models that come and go: one that hangs stops no other's."""
        while not self._over:
            names = [name for name, model in self.menu.items() if model == own or model not in others]
            name = self._random.choice(names)
            await self.ask(name, self.menu[name], self._random.choice(self._prompts))
            await asyncio.sleep(self._random.random() * PAUSE)
