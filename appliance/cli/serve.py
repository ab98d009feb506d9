"""Where everything is wired: one process, one loop, two listeners."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from enum import Enum, auto
from functools import partial
from typing import Any

import structlog

from appliance.errors import ConfigError
from appliance.gateway import open_files
from appliance.gateway.activation import inherited, is_loopback, require_agreement
from appliance.gateway.activity import Activity
from appliance.gateway.admin import create_admin_app
from appliance.gateway.app import create_app
from appliance.gateway.docker.store import Disk
from appliance.gateway.server import Server, bind, serving
from appliance.models.disk import size_of
from appliance.models.lockfile import Lock
from appliance.progress import Report
from appliance.reconcile.configuration import Configuration
from appliance.reconcile.control import Control
from appliance.state import StateDirectory

CLOSE_TIMEOUT = 5.0
"""Seconds that connections get to close once every engine has drained."""
HANDOVER_GRACE = 60.0
"""Seconds that engines wait for the next control process. It needs one; a person who starts it by hand needs longer."""


Work = Callable[[], Coroutine[Any, Any, None]]
PAUSE = 1.0
"""Seconds before a task that a bug has ended begins again."""


class Ending(Enum):
    """What becomes of the engines when this control process ends."""

    STOP = auto()
    LEAVE = auto()
    """They wait for whoever starts the next one."""
    REPLACE = auto()
    """The same, and this process itself is the next one; it keeps its listeners, too."""


class Appliance:
    """The running control process: its listeners, its signals, its end."""

    def __init__(self, control: Control, state: StateDirectory) -> None:
        self._control = control
        self._state = state
        self._stop = asyncio.Event()
        self._ending = Ending.STOP
        self._activity = Activity()
        self._server = control.configuration.appliance.server
        self._log = structlog.get_logger("appliance")

    async def run(
        self, *, watch: bool, on_settled: Callable[[Mapping[str, Any]], None]
    ) -> Sequence[socket.socket] | None:
        """Serve until `stop` is called or a signal asks for it; `on_settled` hears once how the start went.

        The listeners to begin the next control process with; None where this was the last.
        """
        control = self._control
        listeners = self._listeners()
        control.address = "{}:{}".format(*listeners[0].getsockname()[:2])
        self._listen_to_signals()
        remote, local = create_admin_app(control, self._activity), create_admin_app(control, self._activity, self)
        app = create_app(
            control.port,
            max_body=self._server.max_body,
            loopback=all(map(is_loopback, listeners)),
            admin=remote,
            metrics=self._server.metrics,
            activity=self._activity,
            environ=os.environ,
            disk=self._disk,
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(serving(local, [self._control_listener()], close_timeout=CLOSE_TIMEOUT))
            gateway = await stack.enter_async_context(serving(app, listeners, close_timeout=CLOSE_TIMEOUT))
            await control.adopt()
            works: list[Work] = [
                control.reconciler.run,
                partial(control.record, on_settled),
                control.watch_drift,
                control.watch_revisions,
                self._activity.run,
            ]
            if watch and control.configuration.path:
                works.append(partial(control.watch, control.configuration.path, self._stop))
            tasks = [asyncio.create_task(kept_going(work)) for work in works]
            await self._stop.wait()
            passed_on = await self._end(gateway, listeners)
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await control.close()
        return passed_on

    def _disk(self) -> Disk:
        return Disk(models=size_of(self._state.models), environments=size_of(self._state.environments))

    def stop(self, *, keep_engines: bool) -> None:
        self._ask(Ending.LEAVE if keep_engines else Ending.STOP)

    async def restart(self) -> str | None:
        """End so that the next control process can begin where this one left; why not, where the file forbids it."""
        try:
            await asyncio.to_thread(self._control.configuration.read)
        except ConfigError as error:
            return error.message
        self._ask(Ending.REPLACE)
        return None

    def _ask(self, ending: Ending) -> None:
        self._ending = ending
        self._stop.set()

    async def _end(self, gateway: Server, listeners: Sequence[socket.socket]) -> Sequence[socket.socket] | None:
        self._log.info("stopping", engines=self._ending.name.lower())
        # Whoever follows them would keep its connection, and so this process, for good.
        self._control.events.close()
        self._activity.end()
        reconciler = self._control.reconciler
        if self._ending is Ending.STOP:
            await reconciler.shut_down()
            return None
        kept = [each.dup() for each in listeners] if self._ending is Ending.REPLACE and self._keeps_address() else []
        await gateway.leave(within=max((want.drain_timeout for want in reconciler.desired.values()), default=0))
        await reconciler.hand_over(grace=HANDOVER_GRACE)
        return kept if self._ending is Ending.REPLACE else None

    def _listeners(self) -> list[socket.socket]:
        activated = inherited(os.environ)
        require_agreement(activated, self._server.host, loopback=self._server.loopback)
        return activated or [bind(self._server.host, self._server.port)]

    def _keeps_address(self) -> bool:
        """Whether the file says the same address as when this process began, wherever its listener came from."""
        now = self._control.configuration.appliance.server
        return (now.host, now.port) == (self._server.host, self._server.port)

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
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self._control.reload()))

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            # Asked twice: the person wants out now. The shims stop the engines when this process is gone.
            os._exit(128 + number)
        self._stop.set()


async def kept_going(work: Work, *, pause: float = PAUSE) -> None:
    """A bug in one task of this process is told, and the task begun again: nobody would follow the file otherwise, and
    nobody would notice."""
    while True:
        try:
            return await work()
        except Exception:  # noqa: BLE001 - the guard of a supervised task
            structlog.get_logger("appliance").exception("bug in a task of the appliance")
            await asyncio.sleep(pause)


async def serve(
    configuration: Configuration,
    state: StateDirectory,
    *,
    watch: bool,
    report: Report,
    on_settled: Callable[[Mapping[str, Any]], None],
    lock: Lock | None = None,
) -> Sequence[socket.socket] | None:
    """Hold the state directory and serve. The listeners for the next control process; None where there is none."""
    open_files.allow()
    with state.hold():
        control = Control(configuration, state, report=report, environ=os.environ, lock=lock)
        passed_on = await Appliance(control, state).run(watch=watch, on_settled=on_settled)
        state.control_socket.unlink(missing_ok=True)
        return passed_on
