"""What the self-test does to a running appliance: edits of every class, broken saves, and dead engines.

Each move is a coroutine function that returns when it is safe to go on; its name is what the result counts.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any

from appliance.chaos.crowd import Crowd
from appliance.chaos.scratch import Scratch, at_rest, engines
from appliance.chaos.verdict import Death
from appliance.gateway.keys import new_key

Move = Callable[[], Awaitable[None]]

HANG = 60.0
"""Seconds within which a hung engine must be found and killed."""


class Moves:
    def __init__(self, scratch: Scratch, crowd: Crowd, seed: int, *, standin: bool) -> None:
        self.deaths: list[Death] = []
        self._scratch = scratch
        self._crowd = crowd
        self._random = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._standin = standin
        self._models = tuple(scratch.document["models"])
        self._count = 0
        self._hanging: list[asyncio.Task[None]] = []

    def deck(self, *, hang: bool) -> list[Move]:
        """One of each, in random order."""
        moves: list[Move] = [
            self.alias,
            self.key,
            self.sampling,
            self.timeouts,
            self.engine_environment,
            self.engine_environment_twice,
            self.recreate,
            self.surge,
            self.add_and_remove_a_model,
            self.garbage,
            self.half_a_file,
            self.fail_at_start,
            self.kill,
            self.kill_while_draining,
        ]
        if self._standin:
            moves += [self.engine_arguments, self.source, self.fail_the_probe, self.fail_at_start_in_recreate]
        if hang:
            moves.append(self.hang)
        self._random.shuffle(moves)
        return moves

    # Live

    async def alias(self) -> None:
        name, alias = self._pick(), f"alias-{self._next()}"
        await self._put(lambda model: model.setdefault("aliases", []).append(alias), name)
        self._crowd.menu[alias] = name
        await asyncio.sleep(self._random.uniform(0.2, 0.6))
        await self._crowd.withdraw(alias)
        await self._put(lambda model: model["aliases"].remove(alias), name)

    async def key(self) -> None:
        keys = self._scratch.document["auth"]["keys"]
        keys[1:] = [{"name": f"guest-{self._next()}", "sha256": new_key()[1], "scopes": ["inference"]}]
        await self._save()

    async def sampling(self) -> None:
        top_p = round(self._random.uniform(0.5, 1), 6)
        await self._put(lambda model: model.update(sampling={"top_p": top_p}))

    async def timeouts(self) -> None:
        seconds = 100 + self._next()
        await self._put(lambda model: model.setdefault("rollout", {}).update(drain_timeout=f"{seconds}s"))

    # Rollouts

    async def engine_environment(self) -> None:
        await self._put(self._another_revision)
        await self._perhaps_settle()

    async def engine_environment_twice(self) -> None:
        """A change that arrives during a rollout takes its place."""
        name = self._pick()
        await self._put(self._another_revision, name)
        await asyncio.sleep(self._random.uniform(0, 0.3))
        await self._put(self._another_revision, name)
        await self._perhaps_settle()

    async def engine_arguments(self) -> None:
        """The command of every model's backend."""
        interval = f"{self._random.uniform(0.03, 0.05):.6f}"
        self._scratch.document["backends"]["standin"]["env"] = {"STANDIN_INTERVAL": interval}
        await self._save()
        await self._perhaps_settle()

    async def source(self) -> None:
        def other(model: dict[str, Any]) -> None:
            model["source"] = "./weights-b" if model["source"] == "./weights-a" else "./weights-a"

        await self._put(other)
        await self._perhaps_settle()

    async def recreate(self) -> None:
        await self._roll("recreate")

    async def surge(self) -> None:
        await self._roll("surge")

    async def _roll(self, strategy: str) -> None:
        def edit(model: dict[str, Any]) -> None:
            model.setdefault("rollout", {})["strategy"] = strategy
            self._another_revision(model)

        await self._put(edit)
        await self._perhaps_settle()

    async def add_and_remove_a_model(self) -> None:
        """It is asked for while it loads, and removed while it answers."""
        models, name = self._scratch.document["models"], f"extra-{self._next()}"
        models[name] = deepcopy(models[self._pick()])
        models[name].pop("aliases", None)
        await self._save()
        self._crowd.menu[name] = name
        await self._scratch.until(lambda status: _ready(status, name), f"`{name}` is ready")
        await asyncio.sleep(self._random.uniform(0.2, 0.6))
        await self._crowd.withdraw(name)
        del models[name]
        await self._save()

    # What must change nothing

    async def garbage(self) -> None:
        await self._broken("models: [unclosed\n")

    async def half_a_file(self) -> None:
        text = self._scratch.file.read_text()
        await self._broken(text[: self._random.randint(1, len(text) // 2)] + "\nmodles: {}\n")

    async def _broken(self, text: str) -> None:
        self._scratch.save_text(text)
        await self._scratch.until(lambda status: status["problem"], "the broken file is told")
        self._scratch.save()
        await self._scratch.until(lambda status: not status["problem"], "the mended file is told")

    async def fail_at_start(self) -> None:
        def edit(model: dict[str, Any]) -> None:
            if self._standin:
                model["env"] = {"STANDIN_FAULT": "start", "CHAOS_REVISION": str(self._next())}
            else:
                model["source"] = f"/nonexistent/{self._next()}"

        await self._failing(edit)

    async def fail_at_start_in_recreate(self) -> None:
        def edit(model: dict[str, Any]) -> None:
            model["rollout"]["strategy"] = "recreate"
            model["env"] = {"STANDIN_FAULT": "start", "CHAOS_REVISION": str(self._next())}

        await self._failing(edit)

    async def fail_the_probe(self) -> None:
        def edit(model: dict[str, Any]) -> None:
            model["env"] = {"STANDIN_FAULT": "probe", "CHAOS_REVISION": str(self._next())}

        await self._failing(edit)

    async def _failing(self, edit: Callable[[dict[str, Any]], None]) -> None:
        name = self._pick()
        before = deepcopy(self._scratch.document["models"][name])
        await self._put(edit, name)
        await self._scratch.until(lambda status: _degraded(status, name), f"`{name}` is told to be degraded")
        self._scratch.document["models"][name] = before
        await self._save()
        await self._perhaps_settle()

    # Dead engines

    async def kill(self) -> None:
        name = self._pick()
        status = await self._scratch.until(lambda status: _ready(status, name), f"`{name}` is ready")
        await self._kill(name, _pids(status, name, "ready")[0])

    async def kill_while_draining(self) -> None:
        name = self._pick()
        await self._scratch.settled()
        await self._roll_quietly(name)
        status = await self._scratch.until(
            lambda status: _pids(status, name, "draining") or at_rest(status), f"an engine of `{name}` drains"
        )
        for pid in _pids(status, name, "draining"):
            await self._kill(name, pid)

    async def _roll_quietly(self, name: str) -> None:
        self._another_revision(self._scratch.document["models"][name])
        await self._save()

    async def _kill(self, name: str, pid: int) -> None:
        """SIGKILL, and wait until it is known."""
        death = Death(name, pid, time.monotonic(), float("inf"))
        self.deaths.append(death)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            self.deaths.remove(death)  # it was just being stopped
            return
        await self._gone(death, within=HANG)

    async def hang(self) -> None:
        """SIGSTOP. Nobody waits for it here: the health checks take half a minute to be sure, and life goes on."""
        self._hanging.append(asyncio.create_task(self._hang()))

    async def finished(self) -> None:
        """Until every engine that hangs has been dealt with, and the rest has settled."""
        await asyncio.gather(*self._hanging)
        await self._scratch.until(lambda status: status["ready"] and at_rest(status), "every model is ready again")

    async def _hang(self) -> None:
        name = self._pick()
        status = await self._scratch.until(lambda status: _ready(status, name), f"`{name}` is ready")
        death = Death(name, _pids(status, name, "ready")[0], time.monotonic(), float("inf"))
        os.kill(death.pid, signal.SIGSTOP)
        self.deaths.append(death)
        await self._gone(death, within=HANG)

    async def _gone(self, death: Death, *, within: float) -> None:
        def gone(status: dict[str, Any]) -> bool:
            here = [engine for _, engine in engines(status) if engine["pid"] == death.pid]
            return all(engine["state"] in {"failed", "stopped"} for engine in here)

        await self._scratch.until(gone, f"the death of engine {death.pid} is noticed", within=within)
        death.until = time.monotonic()

    # Saving

    def _pick(self) -> str:
        name: str = self._random.choice(self._models)
        return name

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _another_revision(self, model: dict[str, Any]) -> None:
        model.setdefault("env", {})["CHAOS_REVISION"] = str(self._next())

    async def _put(self, edit: Callable[[dict[str, Any]], None], name: str | None = None) -> None:
        edit(self._scratch.document["models"][name or self._pick()])
        await self._save()

    async def _save(self) -> None:
        """Save, and wait until the file is in force, which says nothing about its engines."""
        before = (await self._scratch.status())["generation"]
        self._scratch.save()
        await self._scratch.until(lambda status: status["generation"] > before, "the save is in force", within=10)

    async def _perhaps_settle(self) -> None:
        if self._random.random() < 0.5:
            await self._scratch.settled()


def _model(status: dict[str, Any], name: str) -> dict[str, Any]:
    return next((model for model in status["models"] if model["name"] == name), {"ready": False, "engines": []})


def _ready(status: dict[str, Any], name: str) -> bool:
    return bool(_pids(status, name, "ready"))


def _degraded(status: dict[str, Any], name: str) -> bool:
    return any(condition["type"] == "Degraded" for condition in _model(status, name).get("conditions", ()))


def _pids(status: dict[str, Any], name: str, state: str) -> list[int]:
    return [engine["pid"] for engine in _model(status, name)["engines"] if engine["state"] == state and engine["pid"]]
