"""Read an engine's log, also while it grows and is rotated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Self

_BLOCK = 64 * 1024


class Tail:
    """The last `lines` of a log, then what comes; goes on in the new file after a rotation."""

    def __init__(self, path: Path, *, lines: int) -> None:
        self._path = path
        self._file = path.open("rb")
        self._found = _last(self._file, lines)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self) -> list[str]:
        """The whole lines since the last call; none where there is nothing new. Never waits."""
        lines = [*self._found, *self._new()]
        self._found = []
        return [line.decode(errors="replace") for line in lines]

    def _new(self) -> list[bytes]:
        lines: list[bytes] = []
        while True:
            if data := self._file.read(_BLOCK):
                *whole, self._rest = (self._rest + data).split(b"\n")
                lines += whole
            elif self._replaced():
                # The old one is complete now, but may have grown since the last read.
                self._rest += self._file.read()
                self._file.close()
                self._file = self._path.open("rb")
            else:
                return lines

    def _replaced(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False  # between two renames


def tail(path: Path, lines: int) -> list[str]:
    """The last lines, from `path` alone."""
    with Tail(path, lines=lines) as log:
        return log.read()


def _last(file: BinaryIO, lines: int) -> list[bytes]:
    """Leaves the file at the start of the first line that is not yet whole."""
    position = file.seek(0, 2)
    data = b""
    while position > 0 and data.count(b"\n") <= lines:
        step = min(_BLOCK, position)
        position = file.seek(position - step)
        data = file.read(step) + data
    whole, _, rest = data.rpartition(b"\n")
    file.seek(-len(rest), 2)
    return whole.split(b"\n")[-lines:] if whole and lines else []
