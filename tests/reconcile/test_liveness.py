"""An engine that hangs is told from one that is slow, and from one that is gone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import Any

from appliance.process import probe
from appliance.process.probe import Address
from appliance.reconcile.liveness import hangs
from tests.process.rig import until
from tests.support import fake_engine


class Engine:
    """A fake engine as the liveness check sees it."""

    def __init__(self, process: subprocess.Popen[bytes], socket: Path) -> None:
        self.process = process
        self.checks = 0
        self._address = Address(socket, None)
        self.exited: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def healthy(self, *, timeout: float) -> bool:
        self.checks += 1
        return await probe.healthy(self._address, "/health", timeout=timeout)

    async def more_checks(self, count: int) -> None:
        enough = self.checks + count
        await until(lambda: self.checks >= enough)

    async def hangs(self) -> bool:
        return await hangs(self, interval=0.05, retry=0.05, timeout=0.2, failures=3)


def test_an_engine_that_has_stopped_answering_hangs(tmp_path: Path) -> None:
    async def main(engine: subprocess.Popen[bytes]) -> None:
        watched = Engine(engine, tmp_path / "e.sock")
        watching = asyncio.create_task(watched.hangs())
        await until(lambda: watched.checks == 2)
        assert not watching.done()
        engine.send_signal(signal.SIGSTOP)
        assert await asyncio.wait_for(watching, 20) is True

    with fake_engine(uds=tmp_path / "e.sock") as engine:
        asyncio.run(main(engine))


def test_one_check_that_goes_well_starts_the_count_anew(tmp_path: Path) -> None:
    async def main(engine: subprocess.Popen[bytes]) -> None:
        watched = Engine(engine, tmp_path / "e.sock")
        watching = asyncio.create_task(watched.hangs())
        for _ in range(3):
            engine.send_signal(signal.SIGSTOP)
            await watched.more_checks(1)
            engine.send_signal(signal.SIGCONT)
            await watched.more_checks(3)
        assert not watching.done()
        watched.exited.set_result(None)
        assert await asyncio.wait_for(watching, 20) is False

    with fake_engine(uds=tmp_path / "e.sock") as engine:
        asyncio.run(main(engine))


def test_an_engine_that_is_gone_does_not_hang(tmp_path: Path) -> None:
    async def main(engine: subprocess.Popen[bytes]) -> None:
        watched = Engine(engine, tmp_path / "e.sock")
        asyncio.get_running_loop().call_later(0.1, watched.exited.set_result, None)
        assert await asyncio.wait_for(watched.hangs(), 20) is False

    with fake_engine(uds=tmp_path / "e.sock") as engine:
        asyncio.run(main(engine))
