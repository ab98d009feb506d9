"""Gives an answer the model name that the client asked for, without parsing it.

Engines write `"model":"<served name>"` with no space or one. Inside a JSON string its quotes would be escaped, so the
bytes found are a key and its value.
"""

from __future__ import annotations

import json
from collections.abc import Callable


def rename(served: str, asked: str) -> Callable[[bytes], bytes]:
    """A change of whole lines."""
    old, new = json.dumps(served).encode(), json.dumps(asked).encode()
    pairs = [(b'"model":' + space + old, b'"model":' + space + new) for space in (b"", b" ")]

    def change(lines: bytes) -> bytes:
        for before, after in pairs:
            lines = lines.replace(before, after)
        return lines

    return change
