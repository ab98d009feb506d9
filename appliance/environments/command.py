"""One command of an installation: in its own process group, read line by line, gone when we are cancelled."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from appliance.environments.install_lock import InstallLock

_LONGEST_LINE = 1 << 20
_CREDENTIALS = re.compile(r"://[^/\s@]+@")

# These would move the interpreter's view of its packages, or pip's target, out of the environment.
_MISLEADING = ("PYTHONHOME", "PYTHONPATH", "PYTHONPYCACHEPREFIX", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER")


def mask(text: str) -> str:
    """Index addresses may carry `user:password@`; nothing of it is shown or kept."""
    return _CREDENTIALS.sub("://***@", text)


def install_environ(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in _MISLEADING}


async def run(
    argv: Sequence[str | Path],
    *,
    environ: Mapping[str, str],
    log: TextIO,
    line: Callable[[str], None],
    lock: InstallLock | None = None,
) -> int:
    """The exit status. Standard output and error come to `line`, masked, and go to `log`."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(environ),
        limit=_LONGEST_LINE,
        start_new_session=True,
        pass_fds=(lock.descriptor,) if lock else (),
    )
    assert process.stdout is not None  # noqa: S101 - PIPE
    try:
        if lock:
            lock.record(command=process.pid)
        log.write(mask("$ " + " ".join(map(str, argv))) + "\n")
        while data := await process.stdout.readline():
            text = mask(data.decode(errors="replace").rstrip())
            log.write(text + "\n")
            log.flush()
            line(text)
        return await process.wait()
    finally:
        # Also after a normal end: a build backend may have left something running.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if lock:
            lock.record()
