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
from enum import Enum, auto
from pathlib import Path
from typing import Any

import psutil
import structlog

from appliance.config import models
from appliance.environments.provision import Environments, EnvironmentSpec
from appliance.errors import ConfigError
from appliance.gateway.activation import inherited, is_loopback, require_agreement
from appliance.gateway.admin import create_admin_app
from appliance.gateway.app import create_app
from appliance.gateway.server import Server, bind, serving
from appliance.plan.changes import Change
from appliance.plan.desired import Desired
from appliance.progress import Report
from appliance.reconcile.adoption import take_over
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
HANDOVER_GRACE = 60.0
"""Seconds that engines wait for the next control process. It needs one; a person who starts it by hand needs longer."""


class Ending(Enum):
    """What becomes of the engines when this control process ends."""

    STOP = auto()
    LEAVE = auto()
    """They wait for whoever starts the next one."""
    REPLACE = auto()
    """The same, and this process itself is the next one; it keeps its listeners, too."""


class Appliance:
    """The running control process."""

    def __init__(self, configuration: Configuration, state: StateDirectory, *, report: Report) -> None:
        self._configuration = configuration
        self._state = state
        self._report = report
        self._stop = asyncio.Event()
        self._ending = Ending.STOP
        self._server = configuration.appliance.server
        self._started = datetime.now(UTC).isoformat(timespec="milliseconds")
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
        state = status(self._reconciler, self._configuration, address=self._address, now=now)
        return {"started": self._started, **state}

    def stop(self, ending: Ending = Ending.STOP) -> None:
        self._ending = ending
        self._stop.set()

    async def restart(self) -> str | None:
        """End so that the next control process can begin where this one left; why not, where the file forbids it."""
        try:
            await asyncio.to_thread(self._configuration.peek)
        except ConfigError as error:
            return error.message
        self.stop(Ending.REPLACE)
        return None

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

    async def run(
        self, *, watch: bool, on_settled: Callable[[Mapping[str, Any]], None]
    ) -> Sequence[socket.socket] | None:
        """Serve until `stop` is called or a signal asks for it; `on_settled` hears once how the start went.

        The listeners to begin the next control process with; None where this was the last.
        """
        listeners = self._listeners()
        self._address = "{}:{}".format(*listeners[0].getsockname()[:2])
        self._listen_to_signals()
        app = create_app(self._port, max_body=self._server.max_body, loopback=all(map(is_loopback, listeners)))
        admin = create_admin_app(self.status, self._asked_to_stop, self.restart, self.reload, self.preview)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(serving(admin, [self._control_listener()], close_timeout=CLOSE_TIMEOUT))
            gateway = await stack.enter_async_context(serving(app, listeners, close_timeout=CLOSE_TIMEOUT))
            await take_over(self._state, self._reconciler)
            tasks = [asyncio.create_task(self._reconciler.run()), asyncio.create_task(self._record(on_settled))]
            if watch and self._configuration.path:
                tasks.append(asyncio.create_task(self._watch(self._configuration.path)))
            await self._stop.wait()
            passed_on = await self._end(gateway, listeners)
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._bring_up.close()
        return passed_on

    async def _end(self, gateway: Server, listeners: Sequence[socket.socket]) -> Sequence[socket.socket] | None:
        self._log.info("stopping", engines=self._ending.name.lower())
        if self._ending is Ending.STOP:
            await self._reconciler.shut_down()
            return None
        kept = [each.dup() for each in listeners] if self._ending is Ending.REPLACE and self._keeps_address() else []
        await gateway.leave(within=max((want.drain_timeout for want in self._reconciler.desired.values()), default=0))
        await self._reconciler.hand_over(grace=HANDOVER_GRACE)
        return kept if self._ending is Ending.REPLACE else None

    def _listeners(self) -> list[socket.socket]:
        activated = inherited(os.environ)
        require_agreement(activated, self._server.host, loopback=self._server.loopback)
        return activated or [bind(self._server.host, self._server.port)]

    def _keeps_address(self) -> bool:
        """Whether the file says the same address as when this process began, wherever its listener came from."""
        now = self._configuration.appliance.server
        return (now.host, now.port) == (self._server.host, self._server.port)

    def _asked_to_stop(self, *, keep_engines: bool) -> None:
        self.stop(Ending.LEAVE if keep_engines else Ending.STOP)

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
) -> Sequence[socket.socket] | None:
    """Hold the state directory and serve. The listeners for the next control process; None where there is none."""
    with state.hold():
        passed_on = await Appliance(configuration, state, report=report).run(watch=watch, on_settled=on_settled)
        state.control_socket.unlink(missing_ok=True)
        return passed_on
