"""What a save costs: how soon a live field is in force, and what a hundred reloads under load drop.

    python -m benchmarks.reload [--saves 50] [--reloads 100] [--clients 16] [--json FILE]

The appliance is a scratch one with stand-in engines, as in `appliance chaos`, and its clients judge every answer. The
clock runs from the rename that ends a save to the gateway's first answer by the new file; live saves are aliases and
keys in turn. The reloads are live and restart edits in turn; each waits until it is in force, every fifth for the
rollouts before it too, and the others take their predecessors' place.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from appliance.chaos import document
from appliance.chaos.crowd import Crowd
from appliance.chaos.engine import WORDS, answer
from appliance.chaos.scratch import Scratch, at_rest, engines
from appliance.chaos.trial import PROMPTS
from appliance.chaos.verdict import describe, judge
from appliance.gateway.keys import new_key
from benchmarks.machine import describe as machine

GIVE_UP = 10.0


class Bench:
    def __init__(self, scratch: Scratch, key: str, session: aiohttp.ClientSession) -> None:
        self._scratch = scratch
        self._key = key
        self._session = session

    async def live(self, saves: int) -> dict[str, Any]:
        """Milliseconds from each save to the first answer by it; the engines must be the same ones afterwards."""
        before = await self._pids()
        seconds = [await self._time(edit) for edit in itertools.islice(self._live_edits(), saves)]
        ordered = sorted(second * 1000 for second in seconds)
        return {
            "saves": saves,
            "p50_ms": round(statistics.median(ordered), 1),
            "p90_ms": round(ordered[int(saves * 0.9)], 1),
            "max_ms": round(ordered[-1], 1),
            "within_100_ms": sum(value < 100 for value in ordered),
            "same_engines": before == await self._pids(),
        }

    async def reloads(self, count: int) -> int:
        """Save this many times, live and restart in turn; the generations that it made."""
        first = (await self._scratch.status())["generation"]
        model = self._scratch.document["models"]["alpha"]
        for number in range(count):
            if number % 2:
                model["env"] = {"REVISION": str(number)}
            else:
                model["aliases"] = [f"alias-{number}"]
            self._scratch.save()
            expected = first + number + 1
            await self._scratch.until(lambda status: status["generation"] >= expected, "the save is in force")  # noqa: B023
            if number % 5 == 0:
                await self._scratch.settled()
        last = await self._scratch.until(
            lambda status: status["ready"] and at_rest(status), "the last rollout has ended"
        )
        return int(last["generation"] - first)

    def _live_edits(self) -> Any:
        for number in itertools.count():
            if number % 2:
                clear, digest = new_key()
                self._scratch.document["auth"]["keys"][1:] = [{"name": "guest", "sha256": digest}]
                yield lambda clear=clear: self._accepted(clear)
            else:
                alias = f"alias-{number}"
                self._scratch.document["models"]["alpha"]["aliases"] = [alias]
                yield lambda alias=alias: self._listed(alias)

    async def _time(self, in_force: Callable[[], Awaitable[bool]]) -> float:
        beside = self._scratch.file.with_suffix(".new")
        beside.write_text(yaml.safe_dump(self._scratch.document))
        saved = time.perf_counter()
        beside.replace(self._scratch.file)
        while not await in_force():
            if time.perf_counter() - saved > GIVE_UP:
                raise SystemExit(f"a save was not in force within {GIVE_UP:g} s")
        seconds = time.perf_counter() - saved
        await asyncio.sleep(0.2)  # one save at a time: a second one would share the debounce of the first
        return seconds

    async def _listed(self, alias: str) -> bool:
        async with self._models(self._key) as response:
            listed = {model["id"] for model in (await response.json())["data"]}
            return alias in listed

    async def _accepted(self, key: str) -> bool:
        async with self._models(key) as response:
            await response.read()
            return bool(response.status == 200)

    def _models(self, key: str) -> Any:
        return self._session.get(f"{self._scratch.base}/v1/models", headers={"authorization": f"Bearer {key}"})

    async def _pids(self) -> list[int]:
        return sorted(engine["pid"] for _, engine in engines(await self._scratch.status()))


async def run(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        key, digest = new_key()
        scratch = Scratch(Path(directory), document.standin(Path(directory), digest))
        async with scratch.running(os.environ, within=60), aiohttp.ClientSession() as session:
            bench = Bench(scratch, key, session)
            idle = await bench.live(options.saves)
            menu = {"alpha": "alpha", "beta": "beta"}
            crowd = Crowd(scratch.base, key, menu, PROMPTS, clients=options.clients, max_tokens=WORDS, seed=1)
            async with crowd:
                busy = await bench.live(options.saves)
                began = time.perf_counter()
                generations = await bench.reloads(options.reloads)
                seconds = time.perf_counter() - began
    verdicts = [(s, judge(s, "".join(answer(s.model, s.prompt)), ())) for s in crowd.streams]
    for stream, verdict in verdicts:
        if verdict != "whole":
            print(describe(stream, verdict))
    return {
        "machine": machine(),
        "clients": options.clients,
        "live_save_idle": idle,
        "live_save_under_load": busy,
        "reloads_under_load": {
            "reloads": generations,
            "seconds": round(seconds, 1),
            "engines": len({stream.engine for stream, _ in verdicts}),
            "requests": len(verdicts),
            "answers": dict(Counter(str(verdict) for _, verdict in verdicts)),
            "dropped": sum(verdict != "whole" for _, verdict in verdicts),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--saves", type=int, default=50)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = asyncio.run(run(options))
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
