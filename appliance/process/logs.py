"""Read an engine's log, also while it grows and is rotated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Self

_BLOCK = 64 * 1024
_MOST = 16
"""Old files that are looked through; fewer are kept of any log."""


class Tail:
    """The last `lines` of a log and of the one before it, then what comes; goes on in the new file after a rotation."""

    def __init__(self, path: Path, *, lines: int) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._found = _last(self._file, lines)
        if len(self._found) < lines:
            self._found = _before(path, lines - len(self._found)) + self._found
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
                if (following := self._following()) is None:
                    return lines
                self._file.close()
                self._file = following
            else:
                return lines

    def _replaced(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False  # between two renames

    def _following(self) -> BinaryIO | None:
        """The file that was begun after this one: not the newest where two rotations came between two reads."""
        number = self._number()
        try:
            file = (self._path if number <= 1 else _older(self._path, number - 1)).open("rb")
        except FileNotFoundError:
            return None  # between two renames
        if self._number() == number:
            return file
        file.close()  # it was rotated meanwhile, and this may be one too far
        return None

    def _number(self) -> int:
        """Of this file among the old ones; 0 where it is not kept any more."""
        mine = os.fstat(self._file.fileno())
        for number in range(1, _MOST + 1):
            try:
                if os.path.samestat(_older(self._path, number).stat(), mine):
                    return number
            except FileNotFoundError:
                continue
        return 0


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def tail(path: Path, lines: int) -> list[str]:
    """The last lines, from `path` alone."""
    with Tail(path, lines=lines) as log:
        return log.read()


def _before(path: Path, lines: int) -> list[bytes]:
    """Of the file that the last rotation put aside."""
    try:
        with _older(path, 1).open("rb") as file:
            return _last(file, lines)
    except FileNotFoundError:
        return []


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
