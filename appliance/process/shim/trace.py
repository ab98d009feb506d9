"""Everything one engine may leave behind, and how to end it. Shared by the shim, its guard and `sweep`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from appliance.process.shim import processes, segments
from appliance.process.shim.processes import Process

MARKER = "APPLIANCE_ENGINE"
"""In every engine's environment, its own directory as the value."""
KILL_DEADLINE = 10.0


class Trace:
    """What is known of one engine's processes and shared memory, refreshed by `look`.

    A process belongs to the engine when it (1) descends from the shim, which is subreaper, (2) is in the session that
    the engine's leader began, (3) carries the marker, or (4) was seen to belong before. vLLM retitles its processes,
    which overwrites the environment that (3) reads; a daemon leaves (2); and (1) ends with the shim: hence four. Of an
    engine that a zygote has forked, (1) is said of its keeper as well, and the keeper is one of its processes.
    """

    def __init__(self, directory: str, *, foreign: dict[str, int] | None = None) -> None:
        self.directory = directory
        self.leader: Process | None = None
        self.keeper: Process | None = None
        self.known: set[Process] = set()
        self.segments: dict[str, int] = {}
        self.foreign = foreign or {}
        """Segments older than the engine: never its own, even where it maps them."""
        self.spare: set[int] = {os.getpid()}

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Trace:
        trace = cls(data["directory"], foreign=data["foreign"])
        trace.leader = Process(*data["leader"]) if data["leader"] else None
        trace.keeper = Process(*data["keeper"]) if data.get("keeper") else None
        trace.known = {Process(*values) for values in data["known"]}
        trace.segments = data["segments"]
        return trace

    def data(self) -> dict[str, Any]:
        return {
            "directory": self.directory,
            "leader": self.leader,
            "keeper": self.keeper,
            "known": sorted(self.known),
            "segments": dict(self.segments),  # a copy: data is compared with later data
            "foreign": self.foreign,
        }

    def look(self, *, shim: int | None = None, session: bool = True, marked: bool = True) -> set[Process]:
        """The engine's living processes; remembers them and their shared memory.

        `shim` is the ancestor's pid where it lives. `session` is whether the session's number can still be trusted:
        it is reserved while a member lives, and free to be somebody else's long after. `marked` reads the environment
        of every process of this machine, which a look in passing can do without.
        """
        table = processes.table()
        alive = {process for process in self.known if process.same(table.get(process.pid))}
        if shim is not None:
            alive |= processes.descendants(table, shim)
        keeper = self.keeper
        if keeper is not None and keeper.same(table.get(keeper.pid)):
            alive |= {keeper, *processes.descendants(table, keeper.pid)}
        leader = self.leader
        if leader is not None and (session or leader.same(table.get(leader.pid))):
            alive |= {process for process in table.values() if leader.pid in (process.session, process.group)}
        if marked:
            marker = os.fsencode(f"{MARKER}={self.directory}")
            alive |= {process for process in table.values() if processes.carries(process.pid, marker)}
        alive = {process for process in alive if process.pid not in self.spare}
        # Parents change when a process is orphaned; identity is the pid and the start time.
        self.known = alive
        inodes = set().union(*(segments.used(process.pid) for process in alive))
        there = segments.present() if inodes else {}
        self.segments |= {
            path: inode for path, inode in there.items() if inode in inodes and self.foreign.get(path) != inode
        }
        return alive

    def kill(
        self, *, shim: int | None = None, session: bool = True, reap: Callable[[], None] = lambda: None
    ) -> set[Process]:
        """SIGKILL all of it, again and again until nothing is left that could fork; what resists is returned."""
        deadline = time.monotonic() + KILL_DEADLINE
        while (alive := self.look(shim=shim, session=session)) and time.monotonic() < deadline:
            for process in alive:
                # The keeper last: orphans come to it as long as it lives.
                if len(alive) == 1 or not process.same(self.keeper):
                    processes.kill(process)
            reap()
            time.sleep(0.01)
        return alive

    def clean(self) -> None:
        """Delete its shared memory, then its directory: last, since that is what `sweep` finds it by."""
        for path in segments.unused(self.segments):
            _unlink(path)
        remove_tree(self.directory)


def remove_tree(root: str) -> None:
    """shutil.rmtree without the megabytes that importing shutil takes."""
    for path, directories, files in os.walk(root, topdown=False):
        for name in files:
            _unlink(os.path.join(path, name))
        for name in directories:
            _remove_directory(os.path.join(path, name))
    _remove_directory(root)


def _remove_directory(path: str) -> None:
    try:
        if os.path.islink(path):
            os.unlink(path)
        else:
            os.rmdir(path)
    except OSError:
        pass


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
