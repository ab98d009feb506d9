"""The appliance's own log, kept small by the process that writes it: in the background, and under launchd."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

from appliance.process.shim.log import shift

SIZE = 10 * 1024 * 1024
COUNT = 4
"""Files at most: the log itself and three older ones, `appliance.log.1` the newest of them."""

_STREAMS = (1, 2)


def keep_small(path: Path, *, size: int = SIZE, count: int = COUNT) -> None:
    """Rotate the log at `path` from now on, if that is where standard error goes.

    A terminal, the journal, or a file of the caller's own is left to them. The descriptors stay the same ones, so that
    tracebacks, libraries and the next process of a restart write to the new file, too.
    """
    streams = [stream for stream in _STREAMS if _leads_to(stream, path)]
    if 2 not in streams:
        return
    raw = _Rotating(path, streams, size=size, count=count)
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)


def _leads_to(stream: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream), path.stat())
    except OSError:
        return False


class _Rotating(io.RawIOBase):
    """Standard error. One thread at a time writes to it: the buffer before it has a lock."""

    def __init__(self, path: Path, streams: list[int], *, size: int, count: int) -> None:
        self._path = path
        self._streams = streams
        self._size = size
        self._count = count

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, data: Any, /) -> int:
        written = os.write(2, data)
        if os.fstat(2).st_size >= self._size:
            self._rotate()
        return written

    def _rotate(self) -> None:
        """Nobody writes to the old file once a reader can see that there is a new one."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            file = os.open(fresh, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError:
            return  # a full disk: the old file goes on, and the next line tries again
        for stream in self._streams:
            os.dup2(file, stream)
        os.close(file)
        shift(str(self._path), self._count)
        fresh.replace(self._path)
