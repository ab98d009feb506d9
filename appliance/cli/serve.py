"""Where everything is wired: one process, one loop, two listeners."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import structlog

from appliance.config import models
from appliance.environments.provision import Environments, EnvironmentSpec
from appliance.errors import ConfigError
from appliance.gateway.admin import create_admin_app
from appliance.gateway.app import create_app
from appliance.gateway.server import bind, serving
from appliance.plan.changes import Change
from appliance.plan.desired import Desired
from appliance.process.sweep import sweep
from appliance.progress import Report
from appliance.reconcile.bring_up import BringUp
from appliance.reconcile.configuration import Configuration, Outcome
from appliance.reconcile.history import History
from appliance.reconcile.loop import Reconciler
from appliance.reconcile.port import Port
from appliance.reconcile.preview import preview
from appliance.reconcile.resolve import backend_of, resolve
from appliance.reconcile.status import status
from appliance.reconcile.watch import saves
from appliance.state import StateDirectory

CLOSE_TIMEOUT = 5.0
"""Seconds that connections get to close once every engine has drained."""


class Appliance:
    """The running control process."""

    def __init__(self, configuration: Configuration, state: StateDirectory, *, report: Report) -> None:
        self._configuration = configuration
        self._state = state
        self._report = report
        self._stop = asyncio.Event()
        self._address = ""
        self._log = structlog.get_logger("appliance")
        environments = choose_environments(configuration.appliance, state)
        self._bring_up = BringUp(configuration.appliance, state, environments, report=report, environ=os.environ)
        self._port = Port(configuration.appliance, self.status)
        self._history = History(state.history)
        desired = self._desired(environments)
        self._reconciler = Reconciler(
            desired, self._bring_up, generation=self._begin(desired, ()), published=self._port.publish
        )
        self._port.attach(self._reconciler)
        self._reconciler.budget = budget(configuration.appliance.memory)

    def _desired(self, environments: Mapping[str, EnvironmentSpec]) -> Desired:
        identities = {backend: spec.identity for backend, spec in environments.items()}
        return resolve(self._configuration.appliance, environments=identities, base=self._configuration.base)

    def _begin(self, desired: Desired, changes: Sequence[Change]) -> int:
        """Record what is being put in force; its generation."""
        return self._history.begin(
            self._configuration.text,
            self._configuration.path or Path(),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            changes={change.path: change.cost.value for change in changes},
            revisions={name: want.spec.revision for name, want in desired.items()},
        ).generation

    def status(self) -> Mapping[str, Any]:
        now = asyncio.get_running_loop().time()
        return status(self._reconciler, self._configuration, address=self._address, now=now)

    def stop(self) -> None:
        self._stop.set()

    async def reload(self) -> Outcome:
        """Put the file in force as it is now; one that is not valid changes nothing but the status."""
        outcome = await asyncio.to_thread(self._configuration.reload)
        if outcome.problem:
            self._log.warning("the file cannot be used; what runs stays as it is", problem=outcome.problem)
        elif outcome.changes:
            environments = choose_environments(self._configuration.appliance, self._state)
            self._bring_up.configure(self._configuration.appliance, environments)
            self._port.configure(self._configuration.appliance)
            self._reconciler.budget = budget(self._configuration.appliance.memory)
            desired = self._desired(environments)
            self._reconciler.desire(desired, generation=self._begin(desired, outcome.changes))
            self._log.info("reloaded", changes={change.path: change.cost.value for change in outcome.changes})
        return outcome

    async def preview(self) -> Mapping[str, Any]:
        """What `reload` would do."""
        try:
            after = await asyncio.to_thread(self._configuration.peek)
        except ConfigError as error:
            return {"problem": error.message, "changes": [], "actions": [], "memory": {}}
        identities = {backend: spec.identity for backend, spec in choose_environments(after, self._state).items()}
        desired = resolve(after, environments=identities, base=self._configuration.base)
        estimates = {
            want.spec: await asyncio.to_thread(self._bring_up.estimate, want.spec) for want in desired.values()
        }
        now = asyncio.get_running_loop().time()
        observed = replace(self._reconciler.snapshot(), budget=budget(after.memory))
        return {"problem": None} | preview(self._configuration.appliance, after, desired, observed, estimates, now=now)

    async def run(self, *, watch: bool, on_settled: Callable[[Mapping[str, Any]], None]) -> None:
        """Serve until `stop` is called or a signal asks for it; `on_settled` hears once how the start went."""
        server = self._configuration.appliance.server
        listener = bind(server.host, server.port)
        self._address = "{}:{}".format(*listener.getsockname()[:2])
        self._listen_to_signals()
        app = create_app(self._port, max_body=server.max_body, loopback=server.loopback)
        admin = create_admin_app(self.status, self.stop, self.reload, self.preview)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(serving(admin, [self._control_listener()], close_timeout=CLOSE_TIMEOUT))
            await stack.enter_async_context(serving(app, [listener], close_timeout=CLOSE_TIMEOUT))
            tasks = [asyncio.create_task(self._reconciler.run()), asyncio.create_task(self._record(on_settled))]
            if watch and self._configuration.path:
                tasks.append(asyncio.create_task(self._watch(self._configuration.path)))
            await self._stop.wait()
            self._log.info("stopping")
            await self._reconciler.shut_down()
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, path: Path) -> None:
        async for _ in saves(path, self._stop):
            await self.reload()

    async def _record(self, on_settled: Callable[[Mapping[str, Any]], None]) -> None:
        """Write into the history what came of each generation, and tell the first time."""
        told = False
        while True:
            generation = await self._reconciler.settled()
            failures = self._reconciler.failures
            self._history.finish(generation, "degraded" if failures else "ready", "; ".join(failures))
            if not told:
                on_settled(self.status())
            told = True
            await self._reconciler.moved(generation)

    def _control_listener(self) -> socket.socket:
        path = self._state.control_socket
        path.unlink(missing_ok=True)  # we hold the lock, so whoever bound it is gone
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(16)
        return listener

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self.reload()))

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            # Asked twice: the person wants out now. The shims stop the engines when this process is gone.
            os._exit(128 + number)
        self._stop.set()


def budget(memory: models.Memory) -> int:
    """Bytes that all engines together may take."""
    if isinstance(memory.budget, float):
        return int(memory.budget * psutil.virtual_memory().total)
    return int(memory.budget)


def choose_environments(appliance: models.Appliance, state: StateDirectory) -> dict[str, EnvironmentSpec]:
    """The engine environment of every backend that the file uses and that needs one."""
    used = {backend_of(model, appliance) for model in appliance.models.values()} - appliance.backends.keys()
    environments = Environments(state.environments)
    return {backend: environments.choose(backend, appliance.environment) for backend in sorted(used)}


async def serve(
    configuration: Configuration,
    state: StateDirectory,
    *,
    watch: bool,
    report: Report,
    on_settled: Callable[[Mapping[str, Any]], None],
) -> None:
    """Hold the state directory, clear what an earlier crash left, and serve."""
    with state.hold():
        for leftover in sweep(state.run):
            structlog.get_logger("appliance").warning("cleared what an earlier run left", leftover=leftover)
        await Appliance(configuration, state, report=report).run(watch=watch, on_settled=on_settled)
        state.control_socket.unlink(missing_ok=True)
