"""At start-up: end and delete what dead control processes and shims have left."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any, TypeGuard

from appliance.process.shim import processes
from appliance.process.shim.processes import Process
from appliance.process.shim.supervise import IDENTITY, SOCKET
from appliance.process.shim.trace import Trace

_STOP_DEADLINE = 15.0


def sweep(run: Path) -> tuple[str, ...]:
    """One line for each engine directory that was dealt with. Call it while holding the state directory."""
    return tuple(end(directory) for directory in sorted(run.glob("e-*")) if directory.is_dir())


def end(directory: Path) -> str:
    """End whatever still runs for this engine directory and delete it; blocks until that is done."""
    identity = _identity(directory)
    if _stop_shim(directory, identity):
        return f"stopped the engine in `{directory}`"
    trace = _trace(directory, identity)
    # Weeks may have passed: a session's number proves nothing any more.
    left = trace.kill(session=False)
    if left:
        return f"processes {sorted(process.pid for process in left)} of `{directory}` resist SIGKILL"
    trace.clean()
    return f"deleted `{directory}`"


def _identity(directory: Path) -> dict[str, Any]:
    try:
        identity: dict[str, Any] = json.loads((directory / IDENTITY).read_text())
    except (OSError, ValueError):
        return {}
    return identity if identity.get("boot") == processes.boot() else {}


def _stop_shim(directory: Path, identity: dict[str, Any]) -> bool:
    """Ask a living shim to stop its engine; one that doesn't is killed, and its guard awaited."""
    deadline = time.monotonic() + _STOP_DEADLINE
    shim, guard = (Process(*identity[role]) if identity.get(role) else None for role in ("shim", "guard"))
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


def _trace(directory: Path, identity: dict[str, Any]) -> Trace:
    return Trace.parse(identity["trace"]) if identity else Trace(str(directory))
