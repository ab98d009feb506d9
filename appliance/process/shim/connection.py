"""JSON lines over a unix socket, to whoever controls this engine."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

SEND_TIMEOUT = 1.0


class Connection:
    def __init__(self, peer: socket.socket) -> None:
        peer.settimeout(SEND_TIMEOUT)
        self.peer = peer
        self._rest = b""
        self.early: list[dict[str, Any]] = []
        """What came together with the first message."""

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that have arrived whole; None when the other side has gone."""
        try:
            data = self.peer.recv(65536)
        except TimeoutError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def first(self) -> dict[str, Any] | None:
        """Wait for one message."""
        self.peer.settimeout(None)
        messages: list[dict[str, Any]] | None = []
        while messages == []:
            messages = self.receive()
        self.peer.settimeout(SEND_TIMEOUT)
        if messages is None:
            return None
        first, *self.early = messages
        return first

    def send(self, event: str, **fields: Any) -> None:
        """A reader that has gone, or does not read, is not waited for."""
        with contextlib.suppress(OSError):
            self.peer.sendall(json.dumps({"event": event, **fields}).encode() + b"\n")

    def close(self) -> None:
        self.peer.close()
