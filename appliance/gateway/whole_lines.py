"""Changes an answer line by line on its way, without parsing it."""

from __future__ import annotations

from collections.abc import Callable


class WholeLines:
    """A filter over an answer's bytes. It holds back an unfinished line, since JSON has no raw line break in it."""

    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        """`change` is given one or more whole lines, or at the answer's end what it has of one."""
        self._change = change
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._rest += data
            return b""
        whole, self._rest = self._rest + data[:cut], data[cut:]
        return self._change(whole)

    def flush(self) -> bytes:
        rest, self._rest = self._rest, b""
        return self._change(rest)
