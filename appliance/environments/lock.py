"""Locks on one environment, kept by the kernel: they end with the last process that holds the descriptor."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_POLL = 0.2  # seconds; flock has no wait that asyncio could cancel


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
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        told: set[int | None] = set()
        while not _try(descriptor, fcntl.LOCK_EX):
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
    finally:
        os.close(descriptor)


def _end_orphan(command: int | None, environment: Path) -> None:
    """An installer killed with -9 leaves its pip behind, which inherited the lock."""
    if command is None:
        return
    with suppress(psutil.Error, ProcessLookupError):
        if any(argument.startswith(str(environment)) for argument in psutil.Process(command).cmdline()):
            os.killpg(command, signal.SIGKILL)


@contextmanager
def use_lock(path: Path) -> Iterator[int]:
    """Keep an environment from being removed. A child that inherits the descriptor keeps it for its own lifetime."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def removal_lock(path: Path) -> Iterator[bool]:
    """Whether nobody else holds a lock on `path`; if so, nobody does until the end of the block."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _try(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> dict[str, int | None]:
    try:
        holder = json.loads(os.pread(descriptor, 256, 0))
    except ValueError:  # between its lock and its record
        return {}
    return holder if isinstance(holder, dict) else {}
