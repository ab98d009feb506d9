"""Read an engine's log, also while it grows and is rotated."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_POLL = 0.2
_BLOCK = 64 * 1024


def tail(path: Path, lines: int) -> list[str]:
    """The last lines, from `path` alone. Reads from the end."""
    with path.open("rb") as file:
        return [line.decode(errors="replace") for line in _last(file, lines)]


def follow(path: Path, *, lines: int = 0, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """The last lines, then each new one as it is written; goes on in the new file after a rotation."""
    file = path.open("rb")
    try:
        yield from (line.decode(errors="replace") for line in _last(file, lines))
        rest = b""
        while True:
            if data := file.read(_BLOCK):
                *whole, rest = (rest + data).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
            elif _replaced(path, file):
                # The old one is complete now, but may have grown since the last read.
                rest += file.read()
                file.close()
                file = path.open("rb")
            else:
                pause(_POLL)
    finally:
        file.close()


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


def _replaced(path: Path, file: BinaryIO) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False  # between two renames
