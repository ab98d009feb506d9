"""The control process's handle on one engine, through its shim."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import appliance
from appliance.engines.driver import Driver, Launch
from appliance.errors import EngineCrashed, StartupFailed
from appliance.plan.desired import EngineSpec
from appliance.plan.observed import EngineState
from appliance.process import identity, probe, sweep
from appliance.process.environ import inherited
from appliance.process.exit import Exit
from appliance.process.probe import Address
from appliance.process.shim.trace import MARKER

T = TypeVar("T")

GRACE = 10.0
"""Seconds that a shim waits for a new control process when its own has gone."""
LOG_SIZE = 10 * 1024 * 1024
LOG_COUNT = 3
CLEANING = 15.0
"""Seconds that a shim may take to kill and clean before it is taken to hang itself."""
EXCERPT = 10
"""Log lines in the message of an engine that never became ready."""

_HEALTH_INTERVAL = 0.1
_HEALTH_TIMEOUT = 5.0
LINE_LIMIT = 4 * 1024 * 1024
# Isolated and without site-packages: a fifth of the memory, and nothing of the user's Python settings in it.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from appliance.process.shim.__main__ import main; sys.exit(main())"
)


class Shim(Protocol):
    """The shim as a process: a child of ours, or of a control process before us."""

    def kill(self) -> None: ...

    def wait(self) -> object: ...


class EngineProcess:
    """`exited` is resolved when the engine is gone, asked or not, and nothing of it is left."""

    def __init__(
        self, spec: EngineSpec, driver: Driver, launch: Launch, log: Path, shim: Shim, *, pid: int = 0
    ) -> None:
        self.spec = spec
        self.launch = launch
        self.log = log
        self.pid = pid
        self.context: int | None = None
        """Tokens of a prompt and its answer together, once it is ready and where it tells."""
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._driver = driver
        self._shim = shim
        self._state = EngineState.STARTING
        self._asked = False
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[dict[str, Any]] | None = None

    @classmethod
    async def start(
        cls,
        spec: EngineSpec,
        driver: Driver,
        launch: Launch,
        *,
        run: Path,
        log: Path,
        environ: Mapping[str, str],
        grace: float = GRACE,
        log_size: int = LOG_SIZE,
        zygote: Path | None = None,
    ) -> EngineProcess:
        """A running engine that is not ready yet. StartupFailed where its model or its command is not there.

        Forked by the `zygote` that listens there; executed where there is none, or where it declines.
        """
        _require(spec, launch.model)
        document = {
            **_document(spec, driver, launch, environ),
            "identity": identity.describe(spec, launch, log),
            "log": str(log),
            "log_size": log_size,
            "log_count": LOG_COUNT,
            "grace": grace,
            "zygote": str(zygote) if zygote else None,
        }
        _make_directories(run, log.parent, launch.directory)
        ours, theirs = socket.socketpair()
        with theirs:
            process = cls(spec, driver, launch, log, _spawn_shim(launch.directory, log, theirs))
        await process._control(ours, document)
        return process

    @classmethod
    async def adopt(
        cls,
        found: identity.Identity,
        driver: Driver,
        shim: Shim,
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        *,
        grace: float = GRACE,
    ) -> EngineProcess:
        """The handle on an engine that runs already, whose shim has accepted this connection."""
        process = cls(found.spec, driver, found.launch, found.log, shim, pid=found.pid)
        process._started.set_result(None)
        process._listen(*connection)
        await process._ask("grace", seconds=grace)
        return process

    @property
    def state(self) -> EngineState:
        if self.exited.done():
            return EngineState.STOPPED if self._asked else EngineState.FAILED
        return EngineState.STOPPING if self._asked else self._state

    @property
    def address(self) -> Address:
        port = self.launch.port
        return Address(socket=None if port else self.launch.socket, port=port, key=self.launch.key)

    @property
    def key(self) -> str:
        return self.launch.key

    async def wait_ready(self, *, timeout: float, probe: bool) -> None:
        """Until the engine takes requests and, with `probe`, has generated a token; stopped where it does not.

        Raises StartupFailed, or EngineCrashed where somebody killed it on its way.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._or_exit(self._healthy())
                refusal = await self._or_exit(self._generate(timeout)) if probe else None
        except TimeoutError:
            await self._give_up(f"was not ready within {timeout:g} s")
        else:
            if refusal is not None:
                await self._give_up(f"answers its health check but not the first request ({refusal})")
        self.context = await self._or_exit(self._context())
        await self._ask("look")  # what it has mapped to get ready is all there now
        self._state = EngineState.READY

    async def stop(self, *, timeout: float, cleaning: float = CLEANING) -> None:
        """SIGTERM, after `timeout` SIGKILL. On return every process of it is dead and every trace deleted."""
        if self.exited.done():
            return
        self._asked = True
        self._send({"do": "stop", "timeout": timeout})
        try:
            async with asyncio.timeout(timeout + cleaning):
                await asyncio.shield(self.exited)
        except TimeoutError:
            self._shim.kill()  # it hangs; its guard does the rest
            await asyncio.shield(self.exited)

    async def leave(self, *, grace: float) -> None:
        """Let go of it: it runs on, and its shim waits this many seconds for another control process."""
        await self._ask("grace", seconds=grace)
        self._reading.cancel()
        self._writer.close()

    async def healthy(self, *, timeout: float) -> bool:
        """Whether it answers its health check within this many seconds."""
        return await probe.healthy(self.address, self._driver.health(self.spec), timeout=timeout)

    # Readiness

    async def _healthy(self) -> None:
        while not await self.healthy(timeout=_HEALTH_TIMEOUT):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(_HEALTH_INTERVAL)

    async def _generate(self, timeout: float) -> str | None:
        return await probe.generate(self.address, self.spec.model, timeout=timeout)

    async def _context(self) -> int | None:
        return await probe.context(self.address, self.spec.model, timeout=_HEALTH_TIMEOUT)

    async def _or_exit(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result, unless the engine is gone before."""
        task = asyncio.create_task(work)
        try:
            either: set[asyncio.Future[Any]] = {task, self.exited}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self.exited.done():
                raise self._ended()
            return task.result()
        finally:
            task.cancel()

    async def _give_up(self, what: str) -> None:
        lines: list[str] = (await self._ask("tail")).get("lines", [])
        await self.stop(timeout=1.0)
        excerpt = "".join(f"\n    {line}" for line in lines[-EXCERPT:])
        raise self._failure(f"{what}; its last lines:{excerpt}" if excerpt else f"{what}; it printed nothing")

    def _ended(self) -> StartupFailed | EngineCrashed:
        exit_ = self.exited.result()
        if exit_.from_outside:
            return EngineCrashed(f"the engine of `{self.spec.model}` was ended while starting ({exit_})")
        return self._failure(f"exited while starting ({exit_})")

    def _failure(self, what: str) -> StartupFailed:
        return StartupFailed(f"the engine of `{self.spec.model}` {what}", hint=f"its whole log is `{self.log}`")

    # The shim

    async def _control(self, ours: socket.socket, document: dict[str, Any]) -> None:
        self._listen(*await asyncio.open_unix_connection(sock=ours, limit=LINE_LIMIT))
        self._send(document)
        try:
            await asyncio.shield(self._started)
        except StartupFailed:
            await asyncio.shield(self.exited)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self.stop(timeout=1.0))
            raise

    def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._reading = asyncio.create_task(self._read(reader), name=f"shim of {self.spec.model}")

    def _send(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        exit_ = None
        try:
            while line := await reader.readline():
                exit_ = self._hear(json.loads(line)) or exit_
        except ConnectionError:
            pass  # the shim was killed with something of ours unread
        self._writer.close()
        await asyncio.to_thread(self._shim.wait)
        if self.launch.directory.exists():
            await asyncio.to_thread(sweep.end, self.launch.directory)
        self._resolve(exit_ or Exit(code=None, signal=None, line=None, asked=self._asked))

    def _hear(self, message: dict[str, Any]) -> Exit | None:
        match message["event"]:
            case "started":
                self.pid = message["pid"]
                self._started.set_result(None)
            case "failed":
                self._started.set_exception(self._failure(f"did not start: {message['message']}"))
            case "tail" | "looked" | "granted" | "unknown" if self._answer is not None and not self._answer.done():
                self._answer.set_result(message)
            case "exited":
                line = None if self._asked else self._diagnose(message["lines"])
                return Exit(code=message["code"], signal=message["signal"], line=line, asked=self._asked)
        return None

    def _diagnose(self, lines: list[str]) -> str | None:
        return self._driver.diagnose(lines) or next((line.strip() for line in reversed(lines) if line.strip()), None)

    def _resolve(self, exit_: Exit) -> None:
        if not self._started.done():
            self._started.set_exception(self._failure("did not start: its shim ended"))
        if self._answer is not None and not self._answer.done():
            self._answer.set_result({})
        self.exited.set_result(exit_)

    async def _ask(self, what: str, **fields: Any) -> dict[str, Any]:
        """The shim's answer; empty when it has gone."""
        if self.exited.done():
            return {}
        self._answer = asyncio.get_running_loop().create_future()
        self._send({"do": what, **fields})
        return await self._answer


def _require(spec: EngineSpec, model: Path) -> None:
    # vLLM takes a path that is not there for a name on the hub, and complains about its form.
    if not model.exists():
        raise StartupFailed(f"the engine of `{spec.model}` has nothing to load: there is no `{model}`")


def _make_directories(run: Path, logs: Path, own: Path) -> None:
    for shared in (run, logs):
        shared.mkdir(mode=0o700, parents=True, exist_ok=True)
    own.mkdir(mode=0o700)


def _document(spec: EngineSpec, driver: Driver, launch: Launch, environ: Mapping[str, str]) -> dict[str, Any]:
    own = {"TMPDIR": str(launch.directory), MARKER: str(launch.directory)}
    return {
        "directory": str(launch.directory),
        "argv": driver.argv(spec, launch),
        "env": {**inherited(environ), **driver.env(spec, launch), **dict(spec.env), **own},
        "cwd": str(Path.cwd()),
    }


def _spawn_shim(directory: Path, log: Path, control: socket.socket) -> subprocess.Popen[bytes]:
    source = Path(appliance.__file__).parent.parent
    libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    errors = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT, str(source), str(directory)],  # the last is for `ps` to show
            stdin=control.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd="/",
            env=libraries,
            start_new_session=True,
        )
    finally:
        os.close(errors)
