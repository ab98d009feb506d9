"""Fake engines under real shims, and what may be left of them."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from appliance.engines.command import Command
from appliance.engines.driver import Launch
from appliance.plan.desired import EngineSpec
from appliance.process.engine_process import GRACE, LOG_SIZE, EngineProcess
from appliance.process.probe import request
from appliance.process.shim.trace import MARKER
from tests.support import FAKE_ENGINE, free_port

UNIX = ("--uds", "{socket}")
TCP = ("--port", "{port}")
MESSY = ("--spawn-child", "--detach-child", "--leak-shm", "--leak-tmp")


def spec(*flags: str, model: str = "smol", listen: tuple[str, ...] = UNIX, **fields: Any) -> EngineSpec:
    command = (sys.executable, str(FAKE_ENGINE), *listen, "--name", "{name}", *flags)
    return EngineSpec(model=model, backend="fake", source="nowhere", **{"command": command, **fields})


async def start(
    home: Path,
    engine: EngineSpec,
    *,
    grace: float = GRACE,
    log_size: int = LOG_SIZE,
    model: Path | None = None,
    zygote: Path | None = None,
) -> EngineProcess:
    driver = Command(name="fake", command=engine.command)
    launch = Launch(
        python=None,
        model=model or home,
        directory=home / "run" / f"e-{secrets.token_hex(4)}",
        key=secrets.token_urlsafe(32),
        port=free_port() if driver.transport == "tcp" else None,
    )
    log = home / "logs" / f"{engine.model}.log"
    return await EngineProcess.start(
        engine,
        driver,
        launch,
        run=home / "run",
        log=log,
        environ=os.environ,
        grace=grace,
        log_size=log_size,
        zygote=zygote,
    )


@asynccontextmanager
async def ready(home: Path, *flags: str, **fields: Any) -> AsyncIterator[EngineProcess]:
    process = await start(home, spec(*flags, **fields))
    try:
        await process.wait_ready(timeout=20, probe=True)
        yield process
    finally:
        await process.stop(timeout=2)


@dataclass(frozen=True)
class Belongings:
    """Everything one engine consists of while it lives."""

    directory: Path
    shim: psutil.Process
    guard: psutil.Process
    engine: psutil.Process
    children: tuple[psutil.Process, ...]
    segments: tuple[Path, ...]

    @classmethod
    async def of(cls, process: EngineProcess) -> Belongings:
        stats = json.loads((await request(process.address, "GET", "/fake/stats", timeout=5)).body)
        return cls.told(process.launch.directory, stats)

    @classmethod
    def told(cls, directory: Path, stats: dict[str, Any]) -> Belongings:
        identity = json.loads((directory / "engine.json").read_text())
        return cls(
            directory=directory,
            shim=psutil.Process(identity["shim"][0]),
            guard=psutil.Process(identity["guard"][0]),
            engine=psutil.Process(identity["pid"]),
            children=tuple(psutil.Process(pid) for pid in stats["children"]),
            segments=tuple(map(Path, stats["shm"])),
        )

    def left(self) -> list[str]:
        """What is still there of it; empty when everything is gone.

        The guard is not counted: the last to go, it may still be on its way out when all it had to do is done.
        """
        known = (self.shim, self.engine, *self.children)
        processes = [f"process {process}" for process in known if alive(process)]
        paths = [str(path) for path in (self.directory, *self.segments) if path.exists()]
        return processes + paths + [f"marked process {pid}" for pid in marked(self.directory)]


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked(directory: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == str(directory):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


async def until(condition: Any, *, within: float = 20.0) -> None:
    """`wait_until` that lets the loop go on."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.01)
