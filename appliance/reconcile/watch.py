"""Tell when the file may have changed. What it says now is for the caller to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import watchfiles

DEBOUNCE = 50
"""Milliseconds: an editor's write, rename and chmod come within a few, and a save must be in force within 100."""
POLL = 200
"""Milliseconds between looks where the kernel's notifications cannot be relied on."""


async def saves(path: Path, stop: asyncio.Event) -> AsyncIterator[None]:
    """Yields once per burst of changes to `path` until `stop` is set.

    The directory is watched, not the file, since editors replace the file by renaming another over it. A file that is a
    link, as Kubernetes mounts its ConfigMaps, or a mount of its own, as containers do, is polled instead: their changes
    happen elsewhere.
    """
    target, polled = _target(path)
    watching = watchfiles.awatch(
        target,
        watch_filter=None if polled else lambda _, changed: Path(changed).name == path.name,
        debounce=DEBOUNCE,
        step=10,
        stop_event=stop,
        force_polling=polled,
        poll_delay_ms=POLL,
        recursive=False,
    )
    async for _ in watching:
        yield


def _target(path: Path) -> tuple[Path, bool]:
    """What to watch, and whether by polling."""
    if path.is_symlink() or path.is_mount():
        return path, True
    return path.parent, False
