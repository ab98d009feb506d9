"""Work beside the event loop, in a child process or a thread; called off, it is over before the caller goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from appliance.progress import Progress, Report

T = TypeVar("T")

_LONGEST_LINE = 1024 * 1024
_KEPT_LINES = 200


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child process ended, and the last lines it wrote to stderr."""

    code: int
    errors: tuple[str, ...]


async def run_child(
    argv: Sequence[str], *, environ: Mapping[str, str], keep: int, line: Callable[[str], None]
) -> Ended:
    """Run `argv` in a process group of its own, handing on each line of its stdout; `keep` is the lock it inherits."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=dict(environ),
        stdin=asyncio.subprocess.PIPE,  # never written to: its end tells the child that this process is gone
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
        pass_fds=(keep,),
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - both are pipes; narrows the type
    assert process.stderr is not None  # noqa: S101
    errors: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        await asyncio.gather(_lines(process.stdout, line), _lines(process.stderr, errors.append))
        return Ended(await process.wait(), tuple(errors))
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())


async def _lines(stream: asyncio.StreamReader, line: Callable[[str], None]) -> None:
    async for raw in stream:
        line(raw.decode(errors="replace").rstrip())


class CalledOff(Exception):
    """Raised inside a thread whose result nobody waits for any more."""


Tick = Callable[[Progress], None]


async def run_thread(function: Callable[[Tick], T], report: Report) -> T:
    """`function(tick)` in a thread; `tick`, called often, reports, and raises CalledOff once this is cancelled."""
    called_off = threading.Event()
    loop = asyncio.get_running_loop()

    def tick(progress: Progress) -> None:
        if called_off.is_set():
            raise CalledOff
        loop.call_soon_threadsafe(report, progress)

    task = asyncio.ensure_future(asyncio.to_thread(function, tick))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        called_off.set()
        with suppress(CalledOff):
            await task
        raise
