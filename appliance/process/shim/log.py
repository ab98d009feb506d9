"""The engine's log: appended to, rotated by size, its last lines kept for the exit reason."""

from __future__ import annotations

import fcntl
import os
from collections import deque

LINES = 200
LONGEST_LINE = 4096


class Log:
    """`path`, then `path.1` (the newest old one) to `path.<count - 1>`.

    Two engines of one model may write to the same path while one replaces the other.
    """

    def __init__(self, path: str, *, size: int, count: int) -> None:
        self._path = path
        self._size = size
        self._count = count
        self._tail: deque[bytes] = deque(maxlen=LINES)
        self._rest = b""
        self._file = self._open()

    @property
    def descriptor(self) -> int:
        return self._file

    def write(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._tail.extend(line[:LONGEST_LINE] for line in lines)
        self._rest = rest[-LONGEST_LINE:]
        try:
            while data:
                data = data[os.write(self._file, data) :]
            if os.fstat(self._file).st_size >= self._size:
                self._rotate()
        except OSError:
            pass  # a full disk loses log lines, not the engine; the tail is in memory

    def tail(self) -> list[str]:
        lines = [*self._tail, self._rest] if self._rest else self._tail
        return [line.decode(errors="replace").rstrip("\r") for line in lines][-LINES:]

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _rotate(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        if self._is_current():
            shift(self._path, self._count)
        file = self._open()
        os.close(self._file)  # releases the lock, too
        self._file = file

    def _is_current(self) -> bool:
        """False where the other writer has rotated already."""
        try:
            return os.stat(self._path).st_ino == os.fstat(self._file).st_ino
        except FileNotFoundError:
            return False


def shift(path: str, count: int) -> None:
    """Make `path` the newest of its old files, of which there are `count - 1` at most."""
    for number in range(count - 1, 0, -1):
        newer = f"{path}.{number - 1}" if number > 1 else path
        if os.path.exists(newer):
            os.replace(newer, f"{path}.{number}")
