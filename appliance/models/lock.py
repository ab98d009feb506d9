"""One process at a time at one piece of the store."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

_AGAIN = 0.1


@asynccontextmanager
async def held(path: Path, *, waiting: Callable[[], None] = lambda: None) -> AsyncIterator[int]:
    """Hold the lock file, calling `waiting` once if somebody else does.

    Yields its descriptor: a child process that inherits it keeps the lock until it has ended too, so that a download
    orphaned by kill -9 and its successor never write the same file. Lock files are never deleted: whoever waits on a
    deleted one would hold nothing.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _take(descriptor):
            waiting()
            while not _take(descriptor):  # noqa: ASYNC110 - the holder is another process
                await asyncio.sleep(_AGAIN)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock file together with others who only use what it guards."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether nobody holds the lock; if so, nobody does until the end of the block."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _take(descriptor)
    finally:
        os.close(descriptor)
