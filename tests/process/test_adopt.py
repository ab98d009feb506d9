"""An engine outlives its control process, and the next one takes it over; or it is ended."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from appliance.errors import EngineError
from appliance.plan.desired import EngineSpec
from appliance.plan.observed import EngineState
from appliance.process.adopt import adopt
from appliance.process.engine_process import EngineProcess
from appliance.process.probe import request
from appliance.process.sweep import end, sweep
from tests.process.rig import MESSY, TCP, UNIX, Belongings, alive, spec, until
from tests.process.test_left_behind import kill

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc and /dev/shm")

ROOT = Path(__file__).parents[2]

# What a control process does: start an engine, then either hang on to it or leave it.
CONTROL = """
import asyncio, json, sys
from pathlib import Path
from appliance.process import probe
from tests.process.rig import spec, start

async def main():
    home, grace, then, options = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    options["listen"] = tuple(options["listen"])
    options["env"] = tuple(map(tuple, options["env"]))
    process = await start(home, spec(*options.pop("flags"), **options), grace=grace)
    await process.wait_ready(timeout=20, probe=True)
    stats = json.loads((await probe.request(process.address, "GET", "/fake/stats", timeout=5)).body)
    if then == "leave":
        await process.leave(grace=3600)
    print(json.dumps({"directory": str(process.launch.directory), "stats": stats}), flush=True)
    if then == "stay":
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@asynccontextmanager
async def orphan(
    home: Path,
    *,
    grace: float = 3600,
    leave: bool = False,
    flags: tuple[str, ...] = MESSY,
    listen: tuple[str, ...] = UNIX,
    env: tuple[tuple[str, str], ...] = (),
) -> AsyncIterator[tuple[Belongings, EngineSpec]]:
    """A ready engine whose control process is dead: killed, or gone after it has let go of it."""
    options = json.dumps({"flags": flags, "listen": listen, "env": env})
    argv = (sys.executable, "-c", CONTROL, str(home), str(grace), "leave" if leave else "stay", options)
    control = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert control.stdout is not None
    told: dict[str, Any] = json.loads(await control.stdout.readline())
    belongings = Belongings.told(Path(told["directory"]), told["stats"])
    if not leave:
        control.kill()
    await control.wait()
    try:
        yield belongings, spec(*flags, listen=listen, env=env)
    finally:
        await asyncio.to_thread(sweep, home / "run")
        await until(lambda: not belongings.left())  # a shim has still to exit when it has cleaned up


@pytest.mark.parametrize("listen", [UNIX, TCP])
@pytest.mark.parametrize("leave", [False, True])
def test_adopted_engine_is_the_same_process_and_works(home: Path, leave: bool, listen: tuple[str, ...]) -> None:
    async def main() -> None:
        async with orphan(home, leave=leave, listen=listen) as (belongings, wanted):
            process = await adopt(belongings.directory, [wanted])
            assert process.spec is wanted
            assert process.pid == belongings.engine.pid
            assert process.state is EngineState.READY
            assert (await request(process.address, "GET", "/v1/models", timeout=5)).status == 200
            await process.stop(timeout=5)
            assert process.exited.result().asked
            assert belongings.left() == []

    asyncio.run(main())


@pytest.mark.parametrize("victims", [("engine",), ("shim",), ("shim", "engine")])
def test_crash_of_an_adopted_engine_is_noticed_and_leaves_nothing(home: Path, victims: tuple[str, ...]) -> None:
    async def main() -> None:
        async with orphan(home, leave=True) as (belongings, wanted):
            process = await adopt(belongings.directory, [wanted])
            kill(belongings, *victims)
            exit_ = await asyncio.wait_for(process.exited, 20)
            assert not exit_.asked
            assert belongings.left() == []

    asyncio.run(main())


def test_adopted_engine_is_orphaned_and_adopted_again(home: Path) -> None:
    async def main() -> None:
        async with orphan(home) as (belongings, wanted):
            for _ in range(3):
                process = await adopt(belongings.directory, [wanted])
                await process.leave(grace=3600)
            assert alive(belongings.engine)

    asyncio.run(main())


def test_adopted_engine_gets_the_usual_grace_period_again(home: Path) -> None:
    async def main() -> None:
        async with orphan(home, leave=True) as (belongings, wanted):
            process = await adopt(belongings.directory, [wanted], grace=0.2)
            process._reading.cancel()
            process._writer.close()  # as a crash does
            await until(lambda: not belongings.left())

    asyncio.run(main())


def test_engine_of_another_revision_is_adopted_with_what_is_known_of_it(home: Path) -> None:
    async def main() -> None:
        async with orphan(home, leave=True, env=(("SECRET_WORD", "swordfish"),)) as (belongings, original):
            assert "swordfish" not in (belongings.directory / "engine.json").read_text()
            others = [spec("--events", "9"), spec(*MESSY)]
            process = await adopt(belongings.directory, others)
            assert process.spec.revision == original.revision
            assert process.spec not in others
            assert (process.spec.model, process.spec.command) == (original.model, original.command)
            assert process.state is EngineState.READY
            await process.stop(timeout=5)

    asyncio.run(main())


def test_second_control_process_is_refused_and_says_so(home: Path) -> None:
    async def main() -> None:
        async with orphan(home, leave=True) as (belongings, wanted):
            first = await adopt(belongings.directory, [wanted])
            with pytest.raises(EngineError, match="another control process has it"):
                await adopt(belongings.directory, [wanted])
            assert await first.healthy(timeout=5)
            await first.stop(timeout=5)

    asyncio.run(main())


def test_two_control_processes_that_race_for_an_engine_do_not_both_get_it(home: Path) -> None:
    async def main() -> None:
        async with orphan(home, leave=True) as (belongings, wanted):
            racers = (adopt(belongings.directory, [wanted]) for _ in range(2))
            results = await asyncio.gather(*racers, return_exceptions=True)
            assert {type(result) for result in results} == {EngineProcess, EngineError}
            for result in results:
                if isinstance(result, EngineProcess):
                    await result.stop(timeout=5)

    asyncio.run(main())


@pytest.mark.parametrize("victims", [("engine",), ("shim",), ("shim", "guard"), ("shim", "guard", "engine")])
def test_engine_that_died_while_nobody_was_connected_is_ended_without_a_trace(
    home: Path, victims: tuple[str, ...]
) -> None:
    async def main() -> None:
        async with orphan(home, leave=True) as (belongings, wanted):
            kill(belongings, *victims)
            with pytest.raises(EngineError):
                await adopt(belongings.directory, [wanted])
            await asyncio.to_thread(end, belongings.directory)

    asyncio.run(main())


def test_engine_is_gone_once_the_grace_period_is_over(home: Path) -> None:
    async def main() -> None:
        async with orphan(home, grace=0.1) as (belongings, wanted):
            await until(lambda: not belongings.left())
            with pytest.raises(EngineError, match="missing"):
                await adopt(belongings.directory, [wanted])

    asyncio.run(main())


def test_engine_that_is_being_stopped_is_not_adopted(home: Path) -> None:
    async def main() -> None:
        async with orphan(home, leave=True, flags=("--ignore-sigterm",)) as (belongings, wanted):
            belongings.shim.terminate()  # its own deadline for the engine is ten seconds
            await until(lambda: stopping(belongings))
            with pytest.raises(EngineError, match="is stopping"):
                await adopt(belongings.directory, [wanted])

    asyncio.run(main())


def stopping(belongings: Belongings) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(belongings.directory / "shim.sock"))
        connection.sendall(b'{"do": "hello"}\n')
        return b'"stopping": true' in connection.recv(65536)


def test_engine_that_does_not_answer_is_stopped(home: Path) -> None:
    async def main() -> None:
        async with orphan(home, leave=True) as (belongings, wanted):
            belongings.engine.suspend()
            with pytest.raises(EngineError, match=r"not ready within 0\.5 s"):
                await adopt(belongings.directory, [wanted], proof=0.5)
            assert belongings.left() == []

    asyncio.run(main())


def test_shim_that_hangs_is_given_up_and_its_engine_ended(home: Path) -> None:
    async def main() -> None:
        async with orphan(home, leave=True) as (belongings, wanted):
            belongings.shim.suspend()
            with pytest.raises(EngineError, match="does not take us"):
                await adopt(belongings.directory, [wanted])
            await asyncio.to_thread(end, belongings.directory)

    asyncio.run(main())


# What the file may be


def edited(**fields: Any) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, **fields}))

    return edit


def linked(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere.json"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "readable by others": lambda path: path.chmod(0o644),
    "in a directory that others may enter": lambda path: path.parent.chmod(0o755),
    "a link": linked,
    "a pipe": a_pipe,
    "missing": Path.unlink,
    "cut short": lambda path: path.write_text(path.read_text()[:100]),
    "another shape": lambda path: path.write_text('["boot"]'),
    "nested without end": lambda path: path.write_text("[" * 100_000),
    "of another boot": edited(boot="another"),
    "with fields missing": edited(launch={}),
    "with fields of another kind": edited(shim="1"),
    "of another engine": edited(pid=1),
    "of another revision than its shim says": edited(revision="0" * 12),
    "of a shim that is somebody else": edited(shim=[1, 0, 1, 1, "0"]),
}


@pytest.mark.parametrize("harm", HOSTILE)
def test_engine_whose_document_is_not_to_be_trusted_is_ended_not_adopted(home: Path, harm: str) -> None:
    async def main() -> None:
        async with orphan(home, leave=True, flags=()) as (belongings, wanted):
            HOSTILE[harm](belongings.directory / "engine.json")
            with pytest.raises(EngineError):
                await adopt(belongings.directory, [wanted])
            await asyncio.to_thread(end, belongings.directory)

    asyncio.run(main())


def test_document_of_another_user_is_not_believed(home: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")

    async def main() -> None:
        async with orphan(home, leave=True, flags=()) as (belongings, wanted):
            os.chown(belongings.directory / "engine.json", 65534, 65534)
            with pytest.raises(EngineError, match="not ours alone"):
                await adopt(belongings.directory, [wanted])

    asyncio.run(main())


def test_untrusted_document_makes_sweep_neither_kill_nor_delete_what_it_names(home: Path) -> None:
    precious = home / "precious"
    precious.mkdir()
    directory = home / "run" / "e-00000000"
    directory.mkdir(parents=True, mode=0o700)
    me = psutil.Process().pid
    started = Path(f"/proc/{me}/stat").read_text().rpartition(")")[2].split()[19]
    process = [me, os.getppid(), me, me, started]
    trace = {"directory": str(precious), "leader": process, "known": [process], "segments": {}, "foreign": {}}
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    document = directory / "engine.json"
    document.write_text(json.dumps({"boot": boot, "shim": [1, 0, 1, 1, "0"], "guard": process, "trace": trace}))
    document.chmod(0o666)
    sweep(home / "run")
    assert precious.is_dir()
    assert not directory.exists()
