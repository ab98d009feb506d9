"""Shared memory that an engine leaves in /dev/shm. Names cannot be predicted, so the maps of its processes tell.

macOS keeps POSIX shared memory in no file system: nothing can be listed there, and nothing is.
"""

from __future__ import annotations

import os

_ROOT = "/dev/shm/"  # noqa: S108 - where POSIX shared memory is on Linux


def present() -> dict[str, int]:
    """Every segment there is, by path, with its inode number."""
    found = {}
    try:
        with os.scandir(_ROOT) as entries:
            for entry in entries:
                found[entry.path] = entry.inode()
    except OSError:
        pass
    return found


def used(pid: int) -> set[int]:
    """The inode numbers of the segments that this process has mapped or open.

    Numbers, since the C library makes a semaphore under another name and renames it: the map tells the first.
    """
    return _mapped(pid) | _open(pid)


def unused(segments: dict[str, int]) -> list[str]:
    """Those still there under the same inode that no living process maps or holds open."""
    there = present()
    left = {inode: path for path, inode in segments.items() if there.get(path) == inode}
    for name in os.listdir("/proc") if left else ():
        if name.isdigit():
            for inode in used(int(name)):
                left.pop(inode, None)
    return list(left.values())


def _mapped(pid: int) -> set[int]:
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            return {int(line.split(None, 5)[4]) for line in file if b" /dev/shm/" in line}
    except OSError:
        return set()


def _open(pid: int) -> set[int]:
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{name}"
            if os.readlink(path).startswith(_ROOT):
                found.add(os.stat(path).st_ino)
    except OSError:
        pass
    return found
