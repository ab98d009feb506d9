"""An engine that its environment's zygote forks, instead of one that we execute. See zygote/keeper.py."""

from __future__ import annotations

import json
import signal
import socket
from typing import Any

ANSWER = 5.0
"""Seconds until a zygote that says nothing is taken to hang."""


class Refused(Exception):
    """The engine has to be executed; the text says why."""


class Keeper:
    """The engine's parent: it ends, with everything below it, when this connection does."""

    def __init__(self, peer: socket.socket, pid: int, engine: int) -> None:
        self.peer = peer
        self.pid = pid
        self.engine = engine

    @classmethod
    def ask(cls, path: str, document: dict[str, Any], output: int) -> Keeper:
        content = json.dumps({name: document[name] for name in ("argv", "env", "cwd")}).encode()
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.settimeout(ANSWER)
            peer.connect(path)
            socket.send_fds(peer, [len(content).to_bytes(8, "big")], [output])
            peer.sendall(content)
            answer = json.loads(_line(peer))
        except (OSError, ValueError) as error:
            peer.close()
            raise Refused(f"no answer from the zygote: {error}") from None
        if "refused" in answer:
            peer.close()
            raise Refused(answer["refused"])
        return cls(peer, answer["keeper"], answer["pid"])

    def status(self) -> int:
        """The engine's wait status, once the connection is readable. A keeper that dies takes its engine along."""
        try:
            status: int = json.loads(_line(self.peer))["status"]
        except (OSError, ValueError):
            return int(signal.SIGKILL)
        return status


def _line(peer: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        data = peer.recv(1)  # never a byte of what follows
        if not data:
            raise ConnectionResetError("it has gone")
        line += data
    return line
