"""End and delete what dead control processes and shims have left."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TypeGuard

from appliance.process import identity
from appliance.process.shim import processes
from appliance.process.shim.processes import Process
from appliance.process.shim.supervise import SOCKET
from appliance.process.shim.trace import Trace

_STOP_DEADLINE = 15.0


def sweep(run: Path) -> tuple[str, ...]:
    """One line for each engine directory that was dealt with. Call it while holding the state directory."""
    return tuple(map(end, remains(run)))


def remains(run: Path) -> list[Path]:
    """The engine directories there are, whoever they belong to."""
    return [path for path in sorted(run.glob("e-*")) if path.is_dir() and not path.is_symlink()]


def end(directory: Path) -> str:
    """End whatever still runs for this engine directory and delete it; blocks until that is done."""
    shim, guard, trace = _known(directory)
    if _stop_shim(directory, shim, guard):
        return f"stopped the engine in `{directory}`"
    # Weeks may have passed: a session's number proves nothing any more.
    left = trace.kill(session=False)
    if left:
        return f"processes {sorted(process.pid for process in left)} of `{directory}` resist SIGKILL"
    trace.clean()
    return f"cannot delete `{directory}`" if directory.exists() else f"deleted `{directory}`"


def _known(directory: Path) -> tuple[Process | None, Process | None, Trace]:
    """Its shim, its guard and what it may have left, as far as a credible document says."""
    document = identity.read(directory)
    try:
        return Process(*document["shim"]), Process(*document["guard"]), Trace.parse(document["trace"])
    except (KeyError, TypeError, AttributeError):
        return None, None, Trace(str(directory))


def _stop_shim(directory: Path, shim: Process | None, guard: Process | None) -> bool:
    """Ask a living shim to stop its engine; one that doesn't is killed, and its guard awaited."""
    deadline = time.monotonic() + _STOP_DEADLINE
    if _ask(directory / SOCKET) and _gone(directory, shim, deadline):
        return True
    if _lives(shim):
        processes.kill(shim)
    return _lives(guard) and _gone(directory, guard, deadline)


def _ask(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
            connection.sendall(b'{"do": "stop", "timeout": 1}\n')
        except OSError:
            return False
        connection.settimeout(_STOP_DEADLINE / 2)
        try:
            while data := connection.recv(65536):
                if b'"refused"' in data:
                    return False
        except OSError:
            return False
    return True


def _lives(process: Process | None) -> TypeGuard[Process]:
    return process is not None and process.same(processes.identify(process.pid))


def _gone(directory: Path, cleaner: Process | None, deadline: float) -> bool:
    while directory.exists() or _lives(cleaner):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
