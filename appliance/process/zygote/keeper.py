"""One engine's parent: a fork of the zygote that takes the place of the shim as reaper of the engine's orphans.

The shim cannot be the parent of a process that another one forks, and only an ancestor can be a subreaper. So the
keeper is both, and does what the shim's death would do to an executed engine: when the shim's connection ends it ends
everything below it.

    shim → keeper: eight bytes of length with the engine's output pipe, then {"argv", "env", "cwd"}
    keeper → shim: {"keeper": pid, "pid": pid} or {"refused": why}; later {"status": wait status}
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from pathlib import Path
from typing import Any, NoReturn

from . import engine, kernel, title
from .base import Base


def attend(peer: socket.socket, base: Base, prepared: Any) -> int:
    """Returns in the engine alone, when that has run."""
    os.setsid()
    kernel.name("engine-keeper")
    try:
        document, output = _receive(peer)
    except (OSError, ValueError):
        os._exit(1)  # the shim has gone, or is none
    if why := base.refusal(document["argv"], document["env"]):
        _say(peer, refused=why)
        os._exit(0)
    kernel.become_subreaper()
    title.show(f"engine-keeper {document['env'].get('TMPDIR', '')}")
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        os.close(output)
        _say(peer, keeper=keeper, pid=pid)
        _watch(peer, pid)
    peer.close()
    try:
        engine.become(document, output, keeper, base, prepared)
    except OSError as error:
        os.write(output, f"cannot become an engine: {error}\n".encode())
        os._exit(127)
    return engine.run(document["argv"])


def _receive(peer: socket.socket) -> tuple[dict[str, Any], int]:
    head, descriptors, _, _ = socket.recv_fds(peer, 8, 1)
    if len(head) != 8 or len(descriptors) != 1:
        raise ValueError
    with peer.makefile("rb") as stream:
        content = stream.read(int.from_bytes(head, "big"))
    return json.loads(content), descriptors[0]


def _say(peer: socket.socket, **message: Any) -> None:
    with contextlib.suppress(OSError):  # the shim has gone: its end is read next
        peer.sendall(json.dumps(message).encode() + b"\n")


def _watch(peer: socket.socket, pid: int) -> NoReturn:
    waker, wakeup = socket.socketpair()
    waker.setblocking(False)
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _reap(peer, pid)
    while True:
        ready, _, _ = select.select([peer, waker], [], [])
        if peer in ready:
            break  # nothing more is ever said there: it is the end
        waker.recv(4096)
        _reap(peer, pid)
    _end_all()
    os._exit(0)


def _reap(peer: socket.socket, pid: int) -> None:
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        if child == pid:
            _say(peer, status=status)


def _end_all() -> None:
    """Kill our children; theirs become ours. A child that is not yet waited for cannot be somebody else's by now."""
    while True:
        for child in _children():
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    me = str(os.getpid()).encode()
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parent = (path / "stat").read_bytes().rpartition(b")")[2].split()[1]
            except OSError:
                continue
            if parent == me:
                found.append(int(path.name))
    return found
