"""A safetensors file written front to back, tensor by tensor, its header first: nothing is held in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy.typing as npt

_WIDTH = {"BF16": 2, "F16": 2, "F32": 4, "U32": 4}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor to come."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape) * _WIDTH[self.dtype]


class SafetensorsFile:
    """Takes the tensors in the order of `entries`; leaving the `with` block makes the file durable."""

    def __init__(self, path: Path, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._file: BinaryIO = path.open("xb")
        self._file.write(_header(entries))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())

    def write(self, entry: Entry, chunks: Iterable[npt.NDArray[Any]]) -> None:
        """All of one tensor's bytes, in rows."""
        written = sum(self._file.write(chunk.tobytes()) for chunk in chunks)
        if written != entry.size:
            raise AssertionError(f"{entry.name}: {written} bytes written, {entry.size} announced")


def _header(entries: Sequence[Entry]) -> bytes:
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in entries:
        table[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": (at, at + entry.size)}
        at += entry.size
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # keeps the data aligned for readers that map it
    return len(text).to_bytes(8, "little") + text
