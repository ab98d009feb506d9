"""The slow part of a start: environment, weights, process, proof. Each step is safe to be called off."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from appliance.config.models import Appliance
from appliance.engines import driver_for
from appliance.engines.driver import Choice, Driver, Launch, Shape
from appliance.environments.provision import Environments, EnvironmentSpec, InstalledEnvironment
from appliance.errors import EngineCrashed, FilesChanged, InsufficientMemory, StartupFailed
from appliance.models.local import state_of
from appliance.models.lockfile import Lock
from appliance.models.shape import shape
from appliance.models.sources import LocalSource, parse_source
from appliance.models.store import Store
from appliance.models.task import choices, length
from appliance.models.template import template
from appliance.plan.desired import DesiredModel, EngineSpec
from appliance.process.engine_process import EngineProcess
from appliance.process.zygotes import Zygotes
from appliance.progress import Progress, Report
from appliance.reconcile.adapters import Adapters
from appliance.reconcile.engine import Engine
from appliance.reconcile.estimate import what_fits
from appliance.reconcile.pulls import Pulls
from appliance.state import StateDirectory

STOP_TIMEOUT = 10.0


class BringUp:
    """Takes a starting engine from its spec to a process that has proved itself."""

    def __init__(
        self,
        appliance: Appliance,
        state: StateDirectory,
        environments: Mapping[str, EnvironmentSpec],
        *,
        report: Report,
        environ: Mapping[str, str],
        base: Path,
        lock: Lock | None = None,
    ) -> None:
        """`base` is the directory that relative paths in the file start from. With `lock` no engine starts on other
        bytes than those that it has."""
        self._state = state
        self._environments = Environments(state.environments)
        self._report = report
        self._environ = environ
        self._lock = lock
        self._base = base
        self._zygotes = Zygotes(state.run, state.logs, environ=environ)
        self._log = structlog.get_logger("reconcile")
        self.configure(appliance, environments)

    def configure(self, appliance: Appliance, environments: Mapping[str, EnvironmentSpec]) -> None:
        """What the starts from now on go by."""
        self._appliance = appliance
        self._specs = environments
        token = appliance.huggingface.token
        self._store = Store(self._state.models, token=token.get_secret_value() if token else None)
        self._pull = Pulls(self._store, self._lock)
        self.adapters = self.adapters_of(appliance)

    def adapters_of(self, appliance: Appliance) -> Adapters:
        """Those of any configuration."""
        return Adapters(self._store, self._pull, appliance, self._base, self._report)

    @property
    def overhead(self) -> int:
        """Bytes that keep starts warm and belong to no engine."""
        return self._zygotes.memory

    async def measure(self) -> None:
        """Bring `overhead` up to date."""
        await self._zygotes.measure()

    async def __call__(self, engine: Engine, want: DesiredModel) -> EngineProcess:
        """A ready engine process. Raises an ApplianceError that says which step failed and why."""
        driver = driver_for(engine.spec.backend, self._appliance)
        with ExitStack() as held:
            environment = await self._environment(engine, held)
            model, packed = await self._checkpoint(engine, driver, environment)
            held.enter_context(self._store.use(model))
            launch = self._launch(driver, environment, model)
            chat = await asyncio.to_thread(template, model, engine.spec.arguments.get("chat_template"))
            chosen = (*driver.choose(engine.spec, chat), *_task(engine.spec, model), *await self._lora(engine.spec))
            launch = replace(launch, chosen=chosen, developer=chat.developer)
            found = await asyncio.to_thread(shape, model)
            launch = replace(launch, chosen=(*chosen, *_length(engine.spec, packed, found)))
            warm = await self._admission(engine, driver, launch, found)
            self._say(engine, Progress(f"model {engine.spec.model}", "starting engine"))
            zygote = await self._zygote(engine.spec, driver, launch, environment) if warm else None
            engine.memory = driver.memory(engine.spec, launch, found) or 0  # a new zygote's bytes are its own now
            process = await self._start(engine.spec, want, driver, launch, zygote)
            await self.adapters.settle(engine, process)
            until_exit = held.pop_all()
        process.exited.add_done_callback(lambda _: until_exit.close())
        self._say(engine, Progress(f"model {engine.spec.model}", "ready"))
        return process

    async def _lora(self, spec: EngineSpec) -> tuple[Choice, ...]:
        return await self.adapters.choices(spec.model) if spec.arguments.get("enable_lora") else ()

    def _say(self, engine: Engine, progress: Progress) -> None:
        engine.step = progress.step
        self._report(progress)

    async def _environment(self, engine: Engine, held: ExitStack) -> InstalledEnvironment | None:
        """The environment that the engine runs in, kept from being removed for as long as `held` is open."""
        spec = self._specs.get(engine.spec.backend)
        if spec is None:
            return None
        installed = await self._environments.ensure(spec, lambda progress: self._say(engine, progress))
        held.enter_context(self._environments.use(installed))
        return installed

    async def _checkpoint(
        self, engine: Engine, driver: Driver, environment: InstalledEnvironment | None
    ) -> tuple[Path, int | None]:
        """What the engine is to load, and the length of text that it was packed for."""

        def report(progress: Progress) -> None:
            self._say(engine, progress)

        subject = f"model {engine.spec.model}"
        source = parse_source(engine.spec.source, base=Path("/"))
        declared = self._appliance.models[engine.spec.model].source
        checkpoint = await self._pull(engine.spec.model, declared, source, report, subject=subject)
        if self._lock is None and isinstance(source, LocalSource):
            _require(engine.spec.content, source)
        python = environment.python if environment else None
        path = await self._store.prepare(
            checkpoint, driver.format, python, report, subject=subject, bits=engine.spec.quantize
        )
        return path, checkpoint.context

    def _launch(self, driver: Driver, environment: InstalledEnvironment | None, model: Path) -> Launch:
        return Launch(
            python=environment.python if environment else None,
            platform=environment.platform if environment else "",
            model=model,
            directory=_directory(self._state.run),
            key=secrets.token_urlsafe(32),
            port=_free_port() if driver.transport == "tcp" else None,
            versions=environment.libraries if environment else (),
            kernels=self._state.kernels,
        )

    async def _admission(self, engine: Engine, driver: Driver, launch: Launch, shape: Shape) -> bool:
        """Wait for the engine's memory. True where there is enough for a warm start, too, which is spared first.

        Raises InsufficientMemory, saying what would fit.
        """
        need = driver.memory(engine.spec, launch, shape)
        warm = self._zygotes.cost(engine.spec, driver, launch) if self._appliance.environment.warm else 0
        if need is not None and warm:
            try:
                await engine.ask_for_memory(need + warm)
            except InsufficientMemory:
                self._log.info("starting cold: no memory for a warm start", model=engine.spec.model)
            else:
                return True
        try:
            await engine.ask_for_memory(need)
        except InsufficientMemory as error:
            error.hint = what_fits(driver, engine.spec, launch, shape, error.available)
            raise
        return self._appliance.environment.warm and not warm

    async def _zygote(
        self, spec: EngineSpec, driver: Driver, launch: Launch, environment: InstalledEnvironment | None
    ) -> Path | None:
        """Where this engine can be forked instead of executed; waits until that is warm."""
        if environment is None:
            return None
        return await self._zygotes.socket(spec, driver, launch, keep=partial(self._environments.use, environment))

    async def _start(
        self, spec: EngineSpec, want: DesiredModel, driver: Driver, launch: Launch, zygote: Path | None
    ) -> EngineProcess:
        log, run = self._state.logs / f"{spec.model}.log", self._state.run
        process = await EngineProcess.start(
            spec, driver, launch, run=run, log=log, environ=self._environ, zygote=zygote
        )
        try:
            await process.wait_ready(timeout=want.ready_timeout, probe=want.probe)
        except (StartupFailed, EngineCrashed) as failure:
            # With an exit code of its own the engine has said why. One that hung or crashed may do so for being forked.
            if zygote is None or process.exited.result().code:
                raise
            self._log.warning("starting cold", model=spec.model, message=failure.message)
            return await self._start(spec, want, driver, replace(launch, directory=_directory(run)), None)
        except BaseException:
            await asyncio.shield(process.stop(timeout=STOP_TIMEOUT))
            raise
        return process

    async def close(self) -> None:
        """Engines that were forked live on."""
        await self._zygotes.close()


def _require(content: str, source: LocalSource) -> None:
    """Raises FilesChanged unless the files are as they were when they were asked for."""
    if content not in ("", state_of(source.path)):
        raise FilesChanged(
            f"the files of `{source.path}` have changed since they were asked for",
            hint="they are loaded as they are now once nobody writes to them any more",
        )


def _task(spec: EngineSpec, model: Path) -> tuple[Choice, ...]:
    """What the checkpoint says that it is for, where the file does not."""
    given = spec.arguments
    if spec.command or "runner" in given or "convert" in given:
        return ()
    return choices(model)


def _length(spec: EngineSpec, packed: int | None, shape: Shape) -> tuple[Choice, ...]:
    """What the artifact says of the length of texts, where the file does not."""
    return () if spec.command or "max_model_len" in spec.arguments else length(packed, shape)


def _directory(run: Path) -> Path:
    return run / f"e-{secrets.token_hex(4)}"


def _free_port() -> int:
    """A port nobody listens on now; an engine that loses the race for it fails to start and says so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
