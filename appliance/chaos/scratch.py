"""An appliance of the self-test's own: its file, its state directory, its process. It knows nothing of the user's."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from appliance.errors import ApplianceError
from appliance.state import StateDirectory, write_atomic

SETTLE = 180.0
"""Seconds that anything the self-test waits for may take."""
STOP = 60.0


class Scratch:
    """`document` is the file as a mapping; `save` puts it in force."""

    def __init__(self, directory: Path, document: dict[str, Any]) -> None:
        self.document = document
        self.file = directory / "model-runner.yaml"
        self.state = StateDirectory(directory / "home")
        self.log = directory / "appliance.log"
        self.base = ""
        self._process: asyncio.subprocess.Process

    @asynccontextmanager
    async def running(self, environ: Mapping[str, str], *, within: float) -> AsyncIterator[None]:
        """Serve within the block; every model is ready when it begins."""
        self.save()
        command = (sys.executable, "-m", "appliance", "up", "-f", str(self.file))
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, cwd=self.file.parent, env=self._environ(environ), stdin=-3, stdout=log, stderr=log
            )
        connector = aiohttp.UnixConnector(str(self.state.control_socket))
        try:
            async with aiohttp.ClientSession("http://localhost", connector=connector) as self._session:
                status = await self.until(lambda status: status["ready"], "the appliance is up", within=within)
                self.base = f"http://{status['address']}"
                yield
        finally:
            await self._stop()

    def save(self) -> None:
        self.save_text(yaml.safe_dump(self.document, sort_keys=False))

    def save_text(self, text: str) -> None:
        write_atomic(self.file, text.encode())

    async def status(self) -> dict[str, Any]:
        async with self._session.get("/admin/v1/status") as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def until(
        self, condition: Callable[[dict[str, Any]], Any], what: str, *, within: float = SETTLE
    ) -> dict[str, Any]:
        """The first status that fulfils the condition."""
        deadline = time.monotonic() + within
        while True:
            with suppress(aiohttp.ClientConnectionError):
                status = await self.status()
                if condition(status):
                    return status
            if self._process.returncode is not None:
                raise ApplianceError(f"the appliance exited with {self._process.returncode}:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise ApplianceError(f"not within {within:g} s: {what}\n{self.last_words()}")
            await asyncio.sleep(0.05)

    async def settled(self) -> dict[str, Any]:
        return await self.until(at_rest, "every engine is at rest")

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    async def _stop(self) -> None:
        if self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP)
        except TimeoutError:
            self._process.kill()  # its shims stop the engines
            await self._process.wait()

    def _environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What the user has set for their own appliance must not reach this one."""
        taken = ("API_KEY", "PORT", "MODEL_PATH")
        clean = {k: v for k, v in environ.items() if not k.startswith("APPLIANCE_") and k not in taken}
        return clean | {"APPLIANCE_HOME": str(self.state.root), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def engines(status: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every engine with its model's name."""
    for model in status["models"]:
        for engine in model["engines"]:
            yield model["name"], engine


def at_rest(status: Mapping[str, Any]) -> bool:
    states = {engine["state"] for _, engine in engines(status)}
    return status["observed_generation"] == status["generation"] and states <= {"ready", "failed"}
