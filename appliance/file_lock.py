"""Locks on files, kept by the kernel: they end with the last process that has the descriptor, however it ends.

A child process that inherits the descriptor keeps the lock until it has ended too, so that a download orphaned by
kill -9 and its successor never write the same file. Lock files are never deleted: whoever waits on a deleted one would
hold nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

_AGAIN = 0.1
"""Seconds between two tries: flock has no wait that asyncio could call off."""


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The lock file's descriptor; nothing is locked yet, and what is will not be after the block."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def take(descriptor: int) -> bool:
    """Lock the file for this process alone, unless somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@asynccontextmanager
async def held(path: Path, *, waiting: Callable[[], None] = lambda: None) -> AsyncIterator[int]:
    """Hold the lock file, calling `waiting` once if somebody else does. Yields its descriptor."""
    with opened(path) as descriptor:
        if not take(descriptor):
            waiting()
            while not take(descriptor):  # noqa: ASYNC110 - the holder is another process
                await asyncio.sleep(_AGAIN)
        yield descriptor


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file, as `held` does, where there is no event loop: waiting holds up the thread."""
    with opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def shared(path: Path) -> Iterator[int]:
    """Hold the lock file together with others who only use what it guards; waits for one who has it alone."""
    with opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield descriptor


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether nobody holds the lock; if so, nobody does until the end of the block."""
    with opened(path) as descriptor:
        yield take(descriptor)
