"""Import once, then fork for everybody who connects.

Whoever connects gets a keeper of its own before a byte is read: what a launch document holds, the engine's key and
variables, is never in a memory that another engine is forked from.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from . import keeper, kernel, title
from .base import Base

WARMING = 300
"""Seconds that the imports may take before SIGALRM ends a zygote that hangs in them."""


def main(path: str, preparation: str = "") -> int:
    """Returns in the zygote when the control process has gone, and in every engine when that has run."""
    os.umask(0o077)
    control = socket.socket(fileno=os.dup(0))
    _point(0, os.devnull, os.O_RDWR)
    kernel.name("engine-zygote")
    title.show(f"engine-zygote {sys.prefix}")
    mine = Path(path).parent
    base = Base.now()
    try:
        prepared = _warm(base, preparation)
        listener = _listen(path)
        control.sendall(json.dumps({"event": "warm", "pid": os.getpid()}).encode() + b"\n")
        peer = _serve(control, listener)
    except OSError:
        peer = None  # the control process, or our directory, has gone meanwhile
    if peer is None:
        shutil.rmtree(mine, ignore_errors=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # an orderly end with torch loaded takes seconds
    listener.close()
    control.close()
    return keeper.attend(peer, base, prepared)


def _warm(base: Base, preparation: str) -> Any:
    """The preparation's module, with everything imported and no thread but this one."""
    signal.alarm(WARMING)
    gc.disable()
    # Its pool is made on import. A fork takes no threads along, and whatever lock they hold stays locked.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    prepared = importlib.import_module(f"{__package__}.{preparation}") if preparation else None
    if prepared:
        prepared.warm()
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        raise SystemExit(f"the imports started {threads - 1} threads: a fork is not safe")
    base.learn()
    gc.freeze()
    signal.alarm(0)
    return prepared


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen()
    Path(f"{path}.new").rename(path)  # there is a socket when, and only when, it answers
    return listener


def _serve(control: socket.socket, listener: socket.socket) -> socket.socket | None:
    """None when the control process has gone; in a fork, the connection that it is for."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel takes the keepers' exits
    while True:
        ready, _, _ = select.select([control, listener], [], [])
        if control in ready:
            return None  # nothing is ever said there
        peer, _ = listener.accept()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            if os.fork() == 0:
                return peer
        except OSError as error:
            print(f"cannot fork: {error}", file=sys.stderr)
        peer.close()


def _point(descriptor: int, path: str, flags: int) -> None:
    opened = os.open(path, flags)
    os.dup2(opened, descriptor)
    os.close(opened)
