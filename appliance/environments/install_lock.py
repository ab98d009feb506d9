"""The lock of whoever installs an environment. It says who that is, and which of its commands runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from appliance.file_lock import opened, take

_POLL = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class InstallLock:
    descriptor: int

    def record(self, *, command: int | None = None) -> None:
        """Say who installs, and the process group of the command that runs now."""
        text = json.dumps({"pid": os.getpid(), "command": command})
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode(), 0)


@asynccontextmanager
async def install_lock(
    path: Path, environment: Path, waiting: Callable[[int | None], None]
) -> AsyncIterator[InstallLock]:
    """Be the only installer of `environment`; meanwhile `waiting` is told, once for each, which pid is."""
    with opened(path) as descriptor:
        told: set[int | None] = set()
        while not take(descriptor):
            holder = _read(descriptor)
            pid = holder.get("pid")
            if pid is not None and not psutil.pid_exists(pid):
                _end_orphan(holder.get("command"), environment)
            elif pid not in told:
                told.add(pid)
                waiting(pid)
            await asyncio.sleep(_POLL)
        lock = InstallLock(descriptor)
        lock.record()
        yield lock


def _end_orphan(command: int | None, environment: Path) -> None:
    """An installer killed with -9 leaves its pip behind, which inherited the lock."""
    if command is None:
        return
    with suppress(psutil.Error, ProcessLookupError):
        if any(argument.startswith(str(environment)) for argument in psutil.Process(command).cmdline()):
            os.killpg(command, signal.SIGKILL)


def _read(descriptor: int) -> dict[str, int | None]:
    try:
        holder = json.loads(os.pread(descriptor, 256, 0))
    except ValueError:  # between its lock and its record
        return {}
    return holder if isinstance(holder, dict) else {}
