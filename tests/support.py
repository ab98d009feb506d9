"""What tests of several parts share. Additive: add, don't change."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

FAKE_ENGINE = Path(__file__).with_name("fake_engine")


def wait_until(condition: Callable[[], T], *, within: float = 20.0, what: str = "") -> T:
    """Poll until `condition()` is true and return its value; fail the test when `within` seconds have passed."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what or condition}")
        time.sleep(0.01)
    return value


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def fake_engine_argv(*flags: str, name: str = "fake", uds: Path | None = None, port: int | None = None) -> list[str]:
    where = ["--uds", str(uds)] if uds else ["--port", str(port)]
    return [sys.executable, str(FAKE_ENGINE), *where, "--name", name, *flags]


@contextmanager
def fake_engine(
    *flags: str, name: str = "fake", key: str = "", uds: Path | None = None, port: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A fake engine without a shim, listening when the block is entered and gone when it is left."""
    environ = {**os.environ, "VLLM_API_KEY": key}
    with subprocess.Popen(fake_engine_argv(*flags, name=name, uds=uds, port=port), env=environ) as process:
        try:
            wait_until(lambda: process.poll() is not None or listening(uds or port), what="the fake engine listens")
            yield process
        finally:
            process.kill()
            process.wait()


def listening(where: Path | int | None) -> bool:
    family, address = (
        (socket.AF_UNIX, str(where)) if isinstance(where, Path) else (socket.AF_INET, ("127.0.0.1", where))
    )
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address)
        except OSError:
            return False
    return True
