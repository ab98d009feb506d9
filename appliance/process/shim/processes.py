"""Processes by identity: a process id alone may name somebody else by the time a signal is sent."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NamedTuple

# macOS has neither /proc nor subreapers nor pidfd: there the table comes from `ps`, orphans are found by their session
# and group, and a signal goes to a process id that was compared a moment before.
_PROC = os.path.isdir("/proc/self")


class Process(NamedTuple):
    """`started` is the kernel's start time: together with the pid it is unique until the next boot."""

    pid: int
    parent: int
    group: int
    session: int
    started: str

    def same(self, other: Process | None) -> bool:
        return other is not None and (other.pid, other.started) == (self.pid, self.started)


def table() -> dict[int, Process]:
    """Every process that is not yet a zombie."""
    if not _PROC:
        return {process.pid: process for process in _ps("-ax")}
    found = (identify(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def identify(pid: int) -> Process | None:
    """The process that has this id now, or None; a zombie counts as gone."""
    if not _PROC:
        return next(iter(_ps("-p", str(pid))), None)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command in parentheses may hold spaces and parentheses itself.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), fields[19].decode())


def boot() -> str:
    """Changes with every boot: start times compare within one only."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def descendants(processes: dict[int, Process], ancestor: int) -> set[Process]:
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    found: set[Process] = set()
    queue = [ancestor]
    while queue:
        for child in children.get(queue.pop(), ()):
            found.add(child)
            queue.append(child.pid)
    return found


def carries(pid: int, variable: bytes) -> bool:
    """Whether the process was started with this `NAME=value` in its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return variable in file.read().split(b"\0")
    except OSError:
        return False


def kill(process: Process, number: int = signal.SIGKILL) -> None:
    """Signal this very process, never its successor under the same id."""
    if not _PROC:
        if process.same(identify(process.pid)):
            _signal(process.pid, number)
        return
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        # The handle pins the process; if it was the right one at the time of this look, it is the right one for good.
        if process.same(identify(process.pid)):
            signal.pidfd_send_signal(handle, number)
    except OSError:
        pass
    finally:
        os.close(handle)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _ps(*selection: str) -> list[Process]:
    found = []
    with os.popen(" ".join(("ps", *selection, "-o", "pid=,ppid=,pgid=,stat=,lstart="))) as output:  # noqa: S605 - all words are ours
        for line in output:
            pid, parent, group, state, started = line.split(None, 4)
            if not state.startswith("Z"):
                # Session ids are not shown by macOS; an engine's session begins as its group.
                found.append(Process(int(pid), int(parent), int(group), int(group), started.strip()))
    return found
