"""Take over the engine of a control process that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance.engines import DRIVERS
from appliance.engines.command import Command
from appliance.engines.driver import Driver
from appliance.errors import EngineError
from appliance.plan.desired import EngineSpec
from appliance.process import identity
from appliance.process.engine_process import GRACE, LINE_LIMIT, EngineProcess
from appliance.process.identity import Identity
from appliance.process.shim import processes
from appliance.process.shim.processes import Process
from appliance.process.shim.supervise import SOCKET

PROOF = 10.0
"""Seconds for an engine to show that it answers and generates. It has nothing to load."""
ACCEPTANCE = 2.0
"""Seconds for a shim to notice that its control process has gone, before it is believed to have another."""

_RETRY = 0.05


async def adopt(
    directory: Path,
    wanted: Collection[EngineSpec],
    *,
    unprobed: Collection[str] = (),
    proof: float = PROOF,
    grace: float = GRACE,
) -> EngineProcess:
    """The ready engine of this directory. EngineError says why there is none, and then the directory can be ended.

    Its spec is the wanted one of the same revision; where there is none, what is known of the one it was started with.
    Engines of the `unprobed` models need not generate anything.
    """
    found = identity.load(directory)
    spec = next((spec for spec in wanted if spec.revision == found.revision), found.spec)
    driver = _driver(spec)
    connection = await _greeted(found)
    shim = _OthersShim(found.shim)
    process = await EngineProcess.adopt(replace(found, spec=spec), driver, shim, connection, grace=grace)
    await process.wait_ready(timeout=proof, probe=spec.model not in unprobed)
    return process


def _driver(spec: EngineSpec) -> Driver:
    """The file may no longer declare this backend; a command is all that its driver is made of."""
    if spec.command:
        return Command(name=spec.backend, command=spec.command)
    if spec.backend not in DRIVERS:
        raise EngineError(f"there is no backend `{spec.backend}` any more")
    return DRIVERS[spec.backend]


async def _greeted(found: Identity) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the shim as its new control process."""
    try:
        async with asyncio.timeout(ACCEPTANCE):
            while True:
                reader, writer = await asyncio.open_unix_connection(found.launch.directory / SOCKET, limit=LINE_LIMIT)
                if (reply := await _greet(reader, writer))["event"] != "refused":
                    break
                await asyncio.sleep(_RETRY)
    except (TimeoutError, OSError, ValueError) as error:
        raise EngineError(f"the shim of `{found.launch.directory}` does not take us: {_said(error)}") from error
    claim = (found.spec.model, found.revision, found.pid, found.shim.pid, False)
    if tuple(reply.get(name) for name in ("model", "revision", "pid", "shim", "stopping")) != claim:
        writer.close()
        raise EngineError(f"the shim of `{found.launch.directory}` is stopping, or of another engine")
    return reader, writer


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, Any]:
    reply: dict[str, Any] = {"event": "refused"}
    try:
        writer.write(b'{"do": "hello"}\n')
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before it was written
            reply = json.loads(await reader.readline())
    except BaseException:
        writer.close()
        raise
    if reply["event"] == "refused":
        writer.close()
    return reply


def _said(error: Exception) -> str:
    return "another control process has it, or it hangs" if isinstance(error, TimeoutError) else str(error)


class _OthersShim:
    def __init__(self, process: Process) -> None:
        self._process = process

    def kill(self) -> None:
        processes.kill(self._process)

    def wait(self) -> None:
        while self._process.same(processes.identify(self._process.pid)):
            time.sleep(0.02)
        # A control process that has replaced itself has its old children still.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._process.pid, os.WNOHANG)
