"""A safetensors file's header, read as hostile input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from appliance.errors import SourceError

LARGEST = 100_000_000
"""The format's own bound on its header, in bytes."""

_WIDTHS: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
"""Bytes of one number. Types of less than a byte, and those to come, are not checked by it."""


def read_table(file: Path) -> dict[str, Any]:
    """The header as {tensor: {dtype, shape, data_offsets}}. Raises a SourceError for anything else."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or not 2 <= length <= min(size - 8, LARGEST):
            raise SourceError(f"`{file}` is no safetensors file, or its beginning is damaged", hint="fetch it again")
        table = parse_table(stream.read(length), str(file))
    end = max((entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"), default=0)
    if 8 + length + end != size:
        raise SourceError(f"`{file}` is {size} bytes long, its header says {8 + length + end}", hint="fetch it again")
    return table


def parse_table(text: bytes, name: str) -> dict[str, Any]:
    """The header's JSON, checked as far as anybody here relies on it."""
    try:
        table = json.loads(text)
        for key, entry in table.items():
            if key == "__metadata__":
                continue
            start, end = entry["data_offsets"]
            sound = all(type(each) is int and each >= 0 for each in (start, end, *entry["shape"]))
            width = _WIDTHS.get(entry["dtype"])
            if not sound or start > end or not isinstance(entry["dtype"], str):
                raise ValueError(key)
            if width and prod(entry["shape"]) * width != end - start:
                raise ValueError(key)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SourceError(f"`{name}` has a damaged header", hint="fetch it again") from error
    checked: dict[str, Any] = table
    return checked
