"""Whatever is killed with SIGKILL, nothing of an engine is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from appliance.process import probe
from appliance.process.shim.trace import MARKER
from appliance.process.sweep import sweep
from tests.process.rig import MESSY, Belongings, alive, ready, until
from tests.support import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc and /dev/shm")

CONTROL = """
import asyncio, json, sys
from pathlib import Path
from appliance.process import probe
from tests.process.rig import MESSY, spec, start

async def main():
    process = await start(Path(sys.argv[1]), spec(*MESSY), grace=float(sys.argv[2]))
    await process.wait_ready(timeout=20, probe=True)
    stats = json.loads((await probe.request(process.address, "GET", "/fake/stats", timeout=5)).body)
    print(json.dumps({"directory": str(process.launch.directory), "stats": stats}), flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@contextmanager
def control_process(home: Path, *, grace: float) -> Iterator[tuple[subprocess.Popen[str], Belongings]]:
    """A control process of its own with one ready engine."""
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", CONTROL, str(home), str(grace)]
    with subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE, text=True) as control:
        assert control.stdout is not None
        told: dict[str, Any] = json.loads(control.stdout.readline())
        belongings = Belongings.told(Path(told["directory"]), told["stats"])
        try:
            yield control, belongings
        finally:
            control.kill()
            wait_until(lambda: not belongings.left(), what="nothing is left")


@pytest.mark.parametrize("victims", [("engine",), ("shim",), ("shim", "engine"), ("engine", "children")])
def test_nothing_is_left_and_the_exit_is_noticed(home: Path, victims: tuple[str, ...]) -> None:
    async def main() -> None:
        async with ready(home, *MESSY) as process:
            belongings = await Belongings.of(process)
            kill(belongings, *victims)
            exit_ = await asyncio.wait_for(process.exited, 20)
            assert not exit_.asked
            assert belongings.left() == []
            await until(lambda: not alive(belongings.guard))

    asyncio.run(main())


@pytest.mark.parametrize("victim", ["children", "guard"])
def test_engine_lives_on_and_is_stopped_without_a_trace(home: Path, victim: str) -> None:
    async def main() -> None:
        async with ready(home, *MESSY) as process:
            belongings = await Belongings.of(process)
            kill(belongings, victim)
            assert await probe.healthy(process.address, "/health", timeout=5)
            await process.stop(timeout=5)
            assert belongings.left() == []

    asyncio.run(main())


def test_killed_guard_is_replaced_and_the_new_one_does_its_work(home: Path) -> None:
    async def main() -> None:
        async with ready(home, *MESSY) as process:
            belongings = await Belongings.of(process)
            belongings.guard.kill()
            await until(lambda: guards(belongings.shim) - {belongings.guard.pid})
            belongings.shim.kill()
            await asyncio.wait_for(process.exited, 20)
            assert belongings.left() == []

    asyncio.run(main())


def test_killed_control_process_takes_its_engines_with_it_after_the_grace_period(home: Path) -> None:
    with control_process(home, grace=0.5) as (control, belongings):
        control.kill()
        wait_until(lambda: not belongings.left(), what="nothing is left")


def test_engine_outlives_its_control_process_for_the_grace_period(home: Path) -> None:
    with control_process(home, grace=3600) as (control, belongings):
        control.kill()
        control.wait()
        with connected(belongings) as adopter:  # accepted only once the shim has noticed
            adopter.sendall(b'{"do": "hello"}\n')
            hello = json.loads(adopter.makefile().readline())
            assert (hello["event"], hello["pid"]) == ("hello", belongings.engine.pid)
            assert "key" not in hello
            assert alive(belongings.engine)
            adopter.sendall(b'{"do": "stop", "timeout": 5}\n')
            wait_until(lambda: not belongings.left(), what="nothing is left")


def test_second_control_process_is_refused(home: Path) -> None:
    async def main() -> None:
        async with ready(home, *MESSY) as process:
            reader, writer = await asyncio.open_unix_connection(str(process.launch.directory / "shim.sock"))
            assert json.loads(await reader.readline())["event"] == "refused"
            writer.close()

    asyncio.run(main())


def test_kill_of_control_process_and_shim_leaves_nothing(home: Path) -> None:
    with control_process(home, grace=3600) as (control, belongings):
        control.kill()
        belongings.shim.kill()
        wait_until(lambda: not belongings.left(), what="nothing is left")


def test_sweep_ends_what_the_kill_of_shim_and_guard_together_left(home: Path) -> None:
    with control_process(home, grace=3600) as (control, belongings):
        for process in (control, belongings.guard, belongings.shim):
            process.kill()
        control.wait()
        wait_until(lambda: not alive(belongings.shim), what="the shim is dead")
        assert belongings.directory.exists()
        assert sweep(home / "run") == (f"deleted `{belongings.directory}`",)
        assert belongings.left() == []


def test_sweep_stops_an_engine_whose_control_process_is_dead(home: Path) -> None:
    with control_process(home, grace=3600) as (control, belongings):
        control.kill()
        control.wait()
        wait_until(lambda: accepts(belongings), what="the shim has noticed")
        assert sweep(home / "run") == (f"stopped the engine in `{belongings.directory}`",)
        assert belongings.left() == []


def test_sweep_deletes_a_directory_that_no_shim_ever_used_and_touches_nothing_else(home: Path) -> None:
    (home / "run" / "e-00000000").mkdir(parents=True)
    (home / "run" / "appliance.sock").touch()
    sweep(home / "run")
    assert [path.name for path in (home / "run").iterdir()] == ["appliance.sock"]


def test_sweep_kills_nobody_by_an_identity_from_before_the_last_boot(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]) as stranger:
        directory = home / "run" / "e-00000000"
        directory.mkdir(parents=True)
        started = Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[19]
        process = [stranger.pid, os.getpid(), stranger.pid, stranger.pid, started]
        trace = {"directory": str(directory), "leader": process, "known": [process], "segments": {}, "foreign": {}}
        identity = {"boot": "another", "shim": process, "guard": process, "trace": trace}
        (directory / "engine.json").write_text(json.dumps(identity))
        sweep(home / "run")
        assert stranger.poll() is None
        assert not directory.exists()
        stranger.kill()


def test_shared_memory_of_others_stays_even_where_the_engine_maps_it(home: Path) -> None:
    older = Path(f"/dev/shm/older-{os.getpid()}")
    older.write_bytes(bytes(4096))
    mapper = (
        f"import mmap, time; f = open('{older}', 'r+b'); m = mmap.mmap(f.fileno(), 4096); print(); time.sleep(3600)"
    )
    try:

        async def main() -> None:
            async with ready(home, *MESSY) as process:
                belongings = await Belongings.of(process)
                worker = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-uc",
                    mapper,
                    env={MARKER: str(belongings.directory)},
                    stdout=asyncio.subprocess.PIPE,
                )
                assert worker.stdout is not None
                await worker.stdout.readline()
                await process.stop(timeout=5)
                assert await worker.wait() == -signal.SIGKILL
                assert belongings.left() == []

        asyncio.run(main())
        assert older.exists()
    finally:
        older.unlink(missing_ok=True)


def kill(belongings: Belongings, *victims: str) -> None:
    for victim in victims:
        target = getattr(belongings, victim)
        for process in target if isinstance(target, tuple) else (target,):
            process.kill()


def guards(shim: psutil.Process) -> set[int]:
    return {child.pid for child in shim.children() if child.name() == "engine-guard"}


def connected(belongings: Belongings) -> socket.socket:
    """A connection that the shim has not refused."""
    return wait_until(lambda: accepts(belongings, keep=True), what="the shim accepts") or socket.socket()


def accepts(belongings: Belongings, *, keep: bool = False) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(belongings.directory / "shim.sock"))
    connection.settimeout(0.2)
    try:
        connection.recv(4096)  # `refused`, or the end
    except TimeoutError:
        connection.settimeout(20)
        if not keep:
            connection.close()
        return connection
    connection.close()
    return None
