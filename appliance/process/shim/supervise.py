"""The shim's loop: the engine's output into the log, its exit noticed, its control obeyed, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from appliance.process.shim import kernel, processes, segments
from appliance.process.shim.connection import Connection
from appliance.process.shim.guard import Guard
from appliance.process.shim.log import Log
from appliance.process.shim.spawn import spawn
from appliance.process.shim.trace import Trace
from appliance.process.shim.warm import Keeper, Refused

SOCKET = "shim.sock"
IDENTITY = "engine.json"
STOP_TIMEOUT = 10.0

# Reading three processes' maps takes some milliseconds. Engines make their shared memory while they start.
_LOOK_WHILE_NEW = 1.0
_LOOK = 10.0
_NEW = 120.0
_LATER = float("inf")


class Shim:
    def __init__(self, document: dict[str, Any], control: Connection) -> None:
        self._document = document
        self._control: Connection | None = control
        self._log = Log(document["log"], size=document["log_size"], count=document["log_count"])
        self._trace = Trace(document["directory"], foreign=segments.present())
        self._status: int | None = None
        self._keeper: Keeper | None = None
        self._since = time.monotonic()
        self._kill_at = self._grace_at = self._guard_at = _LATER
        self._look_at = 0.0
        self._selector = selectors.DefaultSelector()
        self._output, self._engine_output = os.pipe()

    def run(self) -> None:
        os.dup2(self._log.descriptor, 2)  # our own last words belong beside the engine's
        kernel.name("engine-shim")
        kernel.become_subreaper()
        self._listen()
        self._guard = self._new_guard()
        try:
            pid = self._fork() or spawn(self._document, self._engine_output)
        except OSError as error:
            self._say("failed", message=f"cannot run `{error.filename}`: {error.strerror}")
            self._clean()
            return
        os.close(self._engine_output)
        self._trace.leader = processes.identify(pid)
        self._pid = pid
        self._look()
        self._say("started", **self._identity())
        for message in self._control.early if self._control else ():
            self._do(message)
        while self._status is None and time.monotonic() < self._kill_at:
            self._wait()
        self._finish()

    def _fork(self) -> int | None:
        """The pid of an engine forked by the zygote; None where there is none, or it would not be the same engine."""
        path = self._document.get("zygote")
        if not path:
            return None
        try:
            keeper = Keeper.ask(path, self._document, self._engine_output)
        except Refused as why:
            self._log.write(f"[appliance] started cold: {why}\n".encode())
            return None
        self._keeper = keeper
        self._trace.keeper = processes.identify(keeper.pid)
        self._selector.register(keeper.peer, selectors.EVENT_READ, lambda: self._hear(keeper))
        return keeper.engine

    # Loop

    def _listen(self) -> None:
        waker, wakeup = socket.socketpair()
        for end in (waker, wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        self._wakeup = wakeup
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop(STOP_TIMEOUT))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.path.join(self._document["directory"], SOCKET))
        listener.listen()
        listener.setblocking(False)
        os.set_blocking(self._output, False)
        self._selector.register(waker, selectors.EVENT_READ, lambda: self._wake(waker))
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
        self._selector.register(self._output, selectors.EVENT_READ, self._read_output)
        self._watch_control()

    def _wait(self) -> None:
        soonest = min(self._kill_at, self._grace_at, self._guard_at, self._look_at)
        for key, _ in self._selector.select(max(0.0, soonest - time.monotonic())):
            act: Callable[[], None] = key.data
            act()
        now = time.monotonic()
        if now >= self._grace_at:
            self._grace_at = _LATER
            self._stop(STOP_TIMEOUT)
        if now >= self._guard_at:
            self._guard_at = _LATER
            self._guard = self._new_guard()
        if now >= self._look_at:
            self._look()

    def _wake(self, waker: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            waker.recv(4096)
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._status = status
            elif pid == self._guard.pid:
                self._guard.close()
                # At once, unless something keeps killing it.
                lived = time.monotonic() - self._guard.since
                self._guard_at = time.monotonic() + (0.0 if lived > 1 else 1.0)

    def _hear(self, keeper: Keeper) -> None:
        self._status = keeper.status()
        self._selector.unregister(keeper.peer)  # left open: its end would be the end of the keeper

    def _read_output(self) -> None:
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return
        if data:
            self._log.write(data)
        else:
            self._selector.unregister(self._output)

    def _look(self) -> None:
        before = self._trace.data()
        self._trace.look(shim=os.getpid(), marked=False)
        new = time.monotonic() - self._since < _NEW
        self._look_at = time.monotonic() + (_LOOK_WHILE_NEW if new else _LOOK)
        if self._trace.data() != before:
            self._guard.tell()
            self._write_identity()

    def _new_guard(self) -> Guard:
        guard = Guard(self._trace)
        self._trace.spare = {os.getpid(), guard.pid}
        guard.tell()
        return guard

    # Control

    def _watch_control(self) -> None:
        if self._control is not None:
            self._selector.register(self._control.peer, selectors.EVENT_READ, self._obey)

    def _accept(self, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        connection = Connection(peer)
        if self._control is not None:
            connection.send("refused", message="another control process holds this engine")
            connection.close()
            return
        self._grace_at = _LATER
        self._control = connection
        self._watch_control()

    def _obey(self) -> None:
        if self._control is None:
            return
        messages = self._control.receive()
        if messages is None:
            self._selector.unregister(self._control.peer)
            self._control.close()
            self._control = None
            self._grace_at = time.monotonic() + self._document["grace"]
            return
        for message in messages:
            self._do(message)

    def _do(self, message: dict[str, Any]) -> None:
        match message["do"]:
            case "hello":
                self._say("hello", **self._identity())
            case "tail":
                self._say("tail", lines=self._log.tail())
            case "look":
                self._look()
                self._say("looked")
            case "grace":
                self._document["grace"] = message["seconds"]
                self._say("granted")
            case "stop":
                self._stop(message["timeout"])
            case unknown:
                self._say("unknown", do=unknown)  # a newer control process is not left waiting

    def _say(self, event: str, **fields: Any) -> None:
        if self._control is not None:
            self._control.send(event, **fields)

    def _identity(self) -> dict[str, Any]:
        """Enough to tell that this is the engine of the file, where the key and all else is."""
        identity = self._document["identity"]
        return {
            "model": identity["model"],
            "revision": identity["revision"],
            "pid": self._pid,
            "shim": os.getpid(),
            "stopping": self._kill_at < _LATER,
        }

    def _write_identity(self) -> None:
        """For adoption and for `sweep`: this engine, its key, and its traces."""
        path = os.path.join(self._document["directory"], IDENTITY)
        content = {
            **self._document["identity"],
            "pid": self._pid,
            "shim": processes.identify(os.getpid()),
            "guard": processes.identify(self._guard.pid),
            "boot": processes.boot(),
            "trace": self._trace.data(),
        }
        try:
            with open(f"{path}.new", "w") as file:
                json.dump(content, file)
            os.replace(f"{path}.new", path)
        except OSError:
            pass  # a full disk: the guard has been told the same

    # End

    def _stop(self, timeout: float) -> None:
        # Asked twice, the shorter deadline holds.
        self._kill_at = min(self._kill_at, time.monotonic() + timeout)
        if self._trace.leader is not None:
            processes.kill(self._trace.leader, signal.SIGTERM)

    def _finish(self) -> None:
        """The leader has exited, or its time is over: end the rest, then clean, then say so."""
        left = self._trace.kill(shim=os.getpid(), reap=self._reap)
        self._reap()
        if self._keeper is not None and self._status is None:
            self._hear(self._keeper)
        self._drain_output()
        if not left:
            self._clean()
        code, number = _meaning(self._status)
        lines = self._log.tail()
        pids = [process.pid for process in left]
        self._say("exited", code=code, signal=number, lines=lines, left=pids)

    def _drain_output(self) -> None:
        try:
            while data := os.read(self._output, 65536):
                self._log.write(data)
        except BlockingIOError:
            pass

    def _clean(self) -> None:
        self._trace.clean()
        self._guard.dismiss()


def _meaning(status: int | None) -> tuple[int | None, int | None]:
    if status is None:
        return None, None
    code = os.waitstatus_to_exitcode(status)
    return (None, -code) if code < 0 else (code, None)
