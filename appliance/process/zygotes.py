"""Warm starts: one zygote per engine environment, and the socket where a shim asks it for an engine."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import structlog

from appliance.engines.driver import Driver, Launch
from appliance.engines.vllm_metal import VLLMMetal
from appliance.plan.desired import EngineSpec
from appliance.process.environ import inherited
from appliance.process.memory import resident
from appliance.process.zygote.base import PER_ENGINE

WARM = 600 * 1024**2
"""Bytes that a zygote is expected to take until it has been measured: vLLM's imports, about 550 MB with 0.32."""

Keep = Callable[[], AbstractContextManager[object]]

SCRIPT = Path(__file__).with_name("zygote") / "__main__.py"

_PREPARATIONS = {("vllm", "CpuPlatform"): "vllm_cpu", ("vllm-metal", "MetalPlatform"): "vllm_metal"}
"""Where forking has been proved, by driver and vLLM platform: never with a GPU, never on macOS."""


@dataclass
class Zygote:
    process: Process
    directory: Path
    control: asyncio.StreamWriter
    held: ExitStack
    memory: int = WARM
    """Bytes, as last measured: it shares more of them with every engine that it has forked."""

    @property
    def socket(self) -> Path:
        return self.directory / "zygote.sock"

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def measure(self) -> None:
        if (found := await asyncio.to_thread(resident, self.process.pid)) is not None:
            self.memory = found

    async def end(self) -> None:
        """Its engines live on: each has a keeper of its own."""
        if self.alive:
            self.process.kill()
        await self.process.wait()
        self.control.close()
        self.held.close()
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)


class Zygotes:
    """Every zygote of one control process; they end with it. Make it while holding the state directory."""

    def __init__(self, run: Path, logs: Path, *, environ: Mapping[str, str]) -> None:
        self._run = run
        self._logs = logs
        self._environ = environ
        self._starts: dict[tuple[Path, str], asyncio.Task[Zygote | None]] = {}
        self._log = structlog.get_logger("zygote")
        for stale in run.glob("z-*"):
            shutil.rmtree(stale, ignore_errors=True)  # killed together with its control process

    async def socket(
        self, spec: EngineSpec, driver: Driver, launch: Launch, *, keep: Keep = nullcontext
    ) -> Path | None:
        """Where to ask for this engine, once the zygote is warm; None where it has to be executed.

        What `keep` gives is held for as long as the zygote lives: it still imports from its environment.
        """
        environ = self._shared(spec, driver, launch)
        preparation = _preparation(spec, driver, launch, environ)
        if preparation is None or launch.python is None:
            return None
        if own := _own(spec):
            self._log.info("starting cold: vLLM may read these at import", model=spec.model, variables=own)
            return None
        return await self.ask(launch.python, preparation, environ, keep=keep)

    def cost(self, spec: EngineSpec, driver: Driver, launch: Launch) -> int:
        """Bytes that a warm start of this engine takes beside the engine: a zygote's, where there is none yet."""
        preparation = _preparation(spec, driver, launch, self._shared(spec, driver, launch))
        if preparation is None or launch.python is None or _own(spec):
            return 0
        start = self._starts.get((launch.python, preparation))
        return 0 if start is not None and not start.cancelled() else WARM

    def _shared(self, spec: EngineSpec, driver: Driver, launch: Launch) -> dict[str, str]:
        return {**inherited(self._environ), **driver.env(spec, launch)}

    async def ask(
        self, python: Path, preparation: str, environ: Mapping[str, str], *, keep: Keep = nullcontext
    ) -> Path | None:
        """Starts the zygote where there is none, or where the one there was has been killed."""
        key = (python, preparation)
        start = self._starts.get(key)
        before = start.result() if start is not None and start.done() else None
        if start is None or (before is not None and not before.alive):
            held = ExitStack()
            held.enter_context(keep())
            work = self._start(python, preparation, environ, held, before)
            start = self._starts[key] = asyncio.create_task(work, name=f"zygote of {python}")
        zygote = await asyncio.shield(start)  # one start that is called off leaves it to the others
        return zygote.socket if zygote is not None and zygote.alive else None

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(zygote.process.pid for zygote in self._alive())

    @property
    def memory(self) -> int:
        """Bytes that all of them take, as last measured."""
        return sum(zygote.memory for zygote in self._alive())

    async def measure(self) -> None:
        for zygote in self._alive():
            await zygote.measure()

    def _alive(self) -> list[Zygote]:
        done = (start.result() for start in self._starts.values() if start.done() and not start.cancelled())
        return [zygote for zygote in done if zygote is not None and zygote.alive]

    async def close(self) -> None:
        for start in self._starts.values():
            start.cancel()
        for result in await asyncio.gather(*self._starts.values(), return_exceptions=True):
            if isinstance(result, Zygote):
                await result.end()
        self._starts.clear()

    async def _start(
        self, python: Path, preparation: str, environ: Mapping[str, str], held: ExitStack, before: Zygote | None
    ) -> Zygote | None:
        """None where it cannot be had; it would be no different the next time, so nobody tries again."""
        if before is not None:
            self._log.warning("zygote gone", pid=before.process.pid, code=before.process.returncode)
            await before.end()
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            zygote, warm = await self._spawn(python, preparation, environ, held)
        except OSError as error:
            held.close()
            self._log.warning("no warm starts", python=str(python), error=str(error))
            return None
        try:
            line = await warm.readline()
        except BaseException:
            await zygote.end()
            raise
        if not line:
            await zygote.end()
            self._log.warning("no warm starts: the zygote ended", python=str(python), log=str(self._path(python)))
            return None
        await zygote.measure()
        self._log.info("zygote warm", pid=json.loads(line)["pid"], seconds=round(clock() - began, 1))
        return zygote

    async def _spawn(
        self, python: Path, preparation: str, environ: Mapping[str, str], held: ExitStack
    ) -> tuple[Zygote, asyncio.StreamReader]:
        directory = self._run / f"z-{secrets.token_hex(4)}"
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, parents=True)
        ours, theirs = socket.socketpair()
        log = os.open(self._path(python), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        shared = {name: value for name, value in environ.items() if name not in PER_ENGINE}
        try:
            process = await asyncio.create_subprocess_exec(
                *(str(python), str(SCRIPT), str(directory / "zygote.sock"), preparation),
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                cwd="/",
                env={**shared, "TMPDIR": str(directory)},
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(log)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return Zygote(process, directory, writer, held), reader

    def _path(self, python: Path) -> Path:
        return self._logs / f"zygote-{python.parent.parent.name}.log"


def _own(spec: EngineSpec) -> list[str]:
    """Variables of this engine alone that a zygote would not have imported with."""
    return sorted(dict(spec.env).keys() - PER_ENGINE)


def _preparation(spec: EngineSpec, driver: Driver, launch: Launch, environ: Mapping[str, str]) -> str | None:
    preparation = _PREPARATIONS.get((driver.name, launch.platform))
    if isinstance(driver, VLLMMetal) and not driver.on_cpu(spec, launch):
        return None
    # With several ranks vLLM hands each worker its cores through variables that only a new process reads.
    one_rank = environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"
    return preparation if sys.platform == "linux" and one_rank else None
