"""What a process and all its children take."""

from __future__ import annotations

import psutil


def resident(pid: int) -> int | None:
    """Bytes of a process tree in physical memory, or None where it is gone.

    Proportional where the system tells it (Linux), so that what forked processes share counts once.
    """
    try:
        root = psutil.Process(pid)
        return sum(map(_of_one, (root, *root.children(recursive=True))))
    except psutil.Error:
        return None


def _of_one(process: psutil.Process) -> int:
    try:
        if psutil.LINUX:
            return int(process.memory_full_info().pss)
        return int(process.memory_info().rss)
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return 0
