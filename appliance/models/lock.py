"""One process at a time at one piece of the store."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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
