"""Gives an answer the model name that the client asked for, without parsing it.

Engines write `"model":"<served name>"` with no space or one. Inside a JSON string its quotes would be escaped, so the
bytes found are a key and its value.
"""

from __future__ import annotations

import json


class Rename:
    """A filter over an answer's bytes. It holds back an unfinished line, since JSON has no raw line break in it."""

    def __init__(self, served: str, asked: str) -> None:
        old, new = json.dumps(served).encode(), json.dumps(asked).encode()
        self._pairs = [(b'"model":' + space + old, b'"model":' + space + new) for space in (b"", b" ")]
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._rest += data
            return b""
        whole, self._rest = self._rest + data[:cut], data[cut:]
        return self._replace(whole)

    def flush(self) -> bytes:
        rest, self._rest = self._rest, b""
        return self._replace(rest)

    def _replace(self, data: bytes) -> bytes:
        for old, new in self._pairs:
            data = data.replace(old, new)
        return data
