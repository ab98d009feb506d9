"""What survives the shim: waits for its end, then ends and cleans what it left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

from appliance.process.shim import kernel
from appliance.process.shim.trace import Trace


class Guard:
    """The shim's side of its guard: a fork that holds the read end of a pipe whose only writer is the shim."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.pid, self._pipe = _fork(trace)
        self.since = time.monotonic()

    def tell(self) -> None:
        """Let it know what there is to kill and to delete now."""
        self._write(json.dumps(self._trace.data()).encode() + b"\n")

    def dismiss(self) -> None:
        """Everything is clean: let it go, and take its exit, since PID 1 of a container may not."""
        self._write(b"null\n")
        self.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def close(self) -> None:
        """It was killed, or is dismissed."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _write(self, data: bytes) -> None:
        try:
            while data and self._pipe >= 0:
                data = data[os.write(self._pipe, data) :]
        except OSError:
            pass  # it was killed; SIGCHLD brings a new one


def _fork(trace: Trace) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reader)
        return pid, writer
    try:
        _watch(reader, trace)
    finally:
        os._exit(0)


def _watch(reader: int, trace: Trace) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kernel.name("engine-guard")
    # The listener, the log, the engine's output and above all the pipe's write end stay the shim's own.
    os.dup2(reader, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    last = _last_line(3)
    if last == b"null":
        return
    left = Trace.parse(json.loads(last)) if last else trace
    left.spare = {os.getpid()}
    left.kill()
    left.clean()


def _last_line(pipe: int) -> bytes:
    """The last whole line before the writer went away."""
    last, rest = b"", b""
    while data := os.read(pipe, 65536):
        *lines, rest = (rest + data).split(b"\n")
        last = lines[-1] if lines else last
    return last
