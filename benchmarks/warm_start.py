"""How long a start takes: stock `vllm serve`, an executed engine, and one that a zygote forks, alternating in one run.

    python -m benchmarks.warm_start [--backend vllm-metal] [--rounds 3] [--json FILE]

Each start counts until the first generated token. All run the same weights with the same engine arguments in the same
environment, which must be there already (`appliance env install`, `appliance pull`). The first start from a zygote is
timed on its own: it includes the imports. `decode` is the time for 64 tokens of one request, best of three, once the
engine is ready: what is forked has to be as fast as what is executed. Figures are medians; ratios are within one run,
to `vllm serve`, or for vllm-metal, of which there is no stock server, to what is executed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from appliance.engines import DRIVERS
from appliance.engines.driver import Launch
from appliance.plan.desired import EngineSpec
from appliance.process import probe
from appliance.process.engine_process import EngineProcess
from appliance.process.zygotes import Zygotes
from appliance.state import StateDirectory
from benchmarks.machine import describe
from benchmarks.start import SIZES, prepared, time_stock

TOKENS = 64
ARGUMENTS = {"max_model_len": 2048, "max_num_seqs": 16}  # with what the driver adds, the same as `SIZES`


PLATFORMS = {"vllm": "CpuPlatform", "vllm-metal": "MetalPlatform"}
"""The vLLM platform class that each backend's environment has on a CPU."""


@dataclass(frozen=True)
class Engine:
    backend: str
    python: Path
    model: Path


@dataclass
class Runs:
    start: dict[str, list[float]] = field(default_factory=dict)
    decode: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, kind: str, seconds: float, decode: float | None = None) -> None:
        self.start.setdefault(kind, []).append(seconds)
        if decode is not None:
            self.decode.setdefault(kind, []).append(decode)
        print(f"{kind}: {seconds:.1f} s, decode {decode or 0:.2f} s", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--backend", choices=sorted(PLATFORMS), default="vllm")
    options = parser.parse_args()
    engine = Engine(options.backend, *prepared(StateDirectory.locate(os.environ), options.backend))
    with tempfile.TemporaryDirectory(prefix="ap-") as home:
        runs = asyncio.run(measure(Path(home), engine, options.rounds))
    result = {"machine": describe(), "rounds": options.rounds, **summary(runs)}
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def summary(runs: Runs) -> dict[str, Any]:
    against = statistics.median(runs.start.get("vllm serve") or runs.start["executed"])
    return {
        "start": {
            kind: {
                "median_s": round(statistics.median(seconds), 2),
                "runs_s": [round(each, 2) for each in seconds],
                "ratio": round(statistics.median(seconds) / against, 3),
            }
            for kind, seconds in runs.start.items()
        },
        "decode_s": {kind: round(statistics.median(seconds), 2) for kind, seconds in runs.decode.items()},
        "memory_mib": runs.memory,
    }


async def measure(home: Path, engine: Engine, rounds: int) -> Runs:
    runs = Runs()
    for _ in range(rounds):
        if engine.backend == "vllm":
            stock = await asyncio.to_thread(time_stock, engine.python, engine.model, (*SIZES, "--enforce-eager"))
            runs.add("vllm serve", stock)
        await once(runs, "executed", home, engine, None)
        zygotes = Zygotes(home / "run", home / "logs", environ=os.environ)
        try:
            for kind in ("first from a zygote", "zygote", "zygote"):
                await once(runs, kind, home, engine, zygotes)
            runs.memory["the zygote itself"] = memory(zygotes.pids)
        finally:
            await zygotes.close()
    return runs


async def once(runs: Runs, kind: str, home: Path, engine: Engine, zygotes: Zygotes | None) -> None:
    arguments = tuple((name, json.dumps(value)) for name, value in ARGUMENTS.items())
    spec = EngineSpec(model="smollm2", backend=engine.backend, source=str(engine.model), engine=arguments)
    directory = home / "run" / f"e-{secrets.token_hex(4)}"
    platform = PLATFORMS[engine.backend]
    launch = Launch(engine.python, engine.model, directory, secrets.token_urlsafe(32), platform=platform)
    started = time.monotonic()
    driver = DRIVERS[engine.backend]
    path = await zygotes.socket(spec, driver, launch) if zygotes else None
    process = await EngineProcess.start(
        spec,
        driver,
        launch,
        run=home / "run",
        log=home / "logs" / "engine.log",
        environ=os.environ,
        zygote=path,
    )
    await process.wait_ready(timeout=300, probe=True)
    seconds = time.monotonic() - started
    try:
        runs.add(kind, seconds, await decode(process.address))
        leader = psutil.Process(process.pid)
        runs.memory[kind] = memory([leader.pid, *(child.pid for child in leader.children(recursive=True))])
    finally:
        await process.stop(timeout=10)


async def decode(address: probe.Address) -> float:
    body: Mapping[str, Any] = {
        "model": "smollm2",
        "prompt": "The capital of France is",
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }
    best = float("inf")
    for _ in range(3):
        began = time.monotonic()
        await probe.request(address, "POST", "/v1/completions", dict(body), timeout=300)
        best = min(best, time.monotonic() - began)
    return best


def memory(pids: list[int] | tuple[int, ...]) -> dict[str, int]:
    """MiB: what `ps` shows, and what is these processes' own share of it."""
    found = [psutil.Process(pid).memory_full_info() for pid in pids]
    return {"rss": sum(each.rss for each in found) >> 20, "pss": sum(each.pss for each in found) >> 20}


if __name__ == "__main__":
    main()
