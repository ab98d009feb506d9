"""An engine that a zygote forks is the same engine, under the same promises."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from appliance.engines.command import Command
from appliance.engines.driver import Launch
from appliance.engines.vllm import VLLM
from appliance.engines.vllm_metal import VLLMMetal
from appliance.plan.desired import EngineSpec
from appliance.process import probe
from appliance.process.engine_process import EngineProcess
from appliance.process.environ import inherited
from appliance.process.sweep import sweep
from appliance.process.zygotes import Zygotes
from tests.process.rig import MESSY, Belongings, alive, spec, start, until
from tests.support import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks engines on Linux alone")

PYTHON = Path(sys.executable)

CONTROL = """
import asyncio, json, os, sys
from pathlib import Path
from appliance.process import probe
from tests.process.rig import MESSY, spec, start
from tests.process.test_zygote import ask
from appliance.process.zygotes import Zygotes

async def main():
    home = Path(sys.argv[1])
    zygotes = Zygotes(home / "run", home / "logs", environ=os.environ)
    process = await start(home, spec(*MESSY), grace=float(sys.argv[2]), zygote=await ask(zygotes))
    await process.wait_ready(timeout=20, probe=True)
    stats = json.loads((await probe.request(process.address, "GET", "/fake/stats", timeout=5)).body)
    told = {"directory": str(process.launch.directory), "stats": stats, "zygotes": zygotes.pids}
    print(json.dumps(told), flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""

# An engine that tells what kind of process it finds itself in.
WITNESS = """
import asyncio, json, os, random, signal, stat, sys, tempfile
umask = os.umask(0o077)
signals = {number: str(signal.getsignal(number)) for number in range(1, 32)}
numbers = [number for number in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{number}")]
files = sorted(os.readlink(f"/proc/self/fd/{number}").partition(":")[0] for number in numbers)
print("seen", json.dumps({
    "environ": dict(os.environ), "umask": umask, "signals": signals, "argv": sys.argv, "path": sys.path,
    "cwd": os.getcwd(), "files": files, "leader": os.getpid() == os.getsid(0), "group": os.getpid() == os.getpgrp(),
    "temporary": tempfile.gettempdir(), "affinity": sorted(os.sched_getaffinity(0)),
    "name": __name__, "file": __file__, "main": sys.modules["__main__"].__dict__ is globals(),
}), flush=True)
print("drawn", random.random(), flush=True)
"""


async def ask(zygotes: Zygotes) -> Path:
    environ = inherited(os.environ)
    found = await zygotes.ask(PYTHON, "", environ)
    assert found is not None
    return found


@asynccontextmanager
async def warm(home: Path) -> AsyncIterator[Zygotes]:
    zygotes = Zygotes(home / "run", home / "logs", environ=os.environ)
    try:
        yield zygotes
    finally:
        pids = zygotes.pids
        await zygotes.close()
        assert [pid for pid in pids if psutil.pid_exists(pid)] == []
        assert list((home / "run").glob("z-*")) == []


@asynccontextmanager
async def forked(home: Path, zygotes: Zygotes, *flags: str, **fields: Any) -> AsyncIterator[EngineProcess]:
    process = await start(home, spec(*flags, **fields), zygote=await ask(zygotes))
    try:
        await process.wait_ready(timeout=20, probe=True)
        assert "started cold" not in process.log.read_text()
        yield process
    finally:
        await process.stop(timeout=2)


def keeper_of(process: EngineProcess) -> psutil.Process:
    identity = json.loads((process.launch.directory / "engine.json").read_text())
    return psutil.Process(identity["trace"]["keeper"][0])


def test_engine_is_forked_and_serves(home: Path) -> None:
    async def main() -> None:
        async with warm(home) as zygotes, forked(home, zygotes) as process:
            engine, keeper = psutil.Process(process.pid), keeper_of(process)
            assert engine.ppid() == keeper.pid
            assert keeper.ppid() == zygotes.pids[0]
            await process.stop(timeout=5)
            assert str(process.exited.result()) == "exit code 0"
            assert not alive(keeper)

    asyncio.run(main())


def test_second_engine_comes_from_the_same_zygote(home: Path) -> None:
    async def main() -> None:
        async with warm(home) as zygotes:
            first, second = await asyncio.gather(ask(zygotes), ask(zygotes))
            assert first == second
            async with forked(home, zygotes) as one, forked(home, zygotes, model="other") as two:
                assert one.pid != two.pid
                assert len(zygotes.pids) == 1

    asyncio.run(main())


def test_forked_engine_finds_itself_in_the_same_kind_of_process_as_an_executed_one(home: Path) -> None:
    script = home / "witness.py"
    script.write_text(WITNESS)

    async def seen(zygote: Path | None, model: str) -> tuple[dict[str, Any], str]:
        engine = spec(model=model, command=(sys.executable, str(script), "{socket}", "x"))
        process = await start(home, engine, zygote=zygote)
        assert str(await asyncio.wait_for(process.exited, 20)).startswith("exit code 0")
        told = dict(line.split(" ", 1) for line in process.log.read_text().splitlines())
        names = {str(process.launch.directory): "DIRECTORY", process.launch.key: "KEY"}
        text = told["seen"]
        for name, place in names.items():
            text = text.replace(name, place)
        return json.loads(text), told["drawn"]

    async def main() -> None:
        async with warm(home) as zygotes:
            executed, _ = await seen(None, "executed")
            told, drawn = await seen(await ask(zygotes), "forked")
            _, again = await seen(await ask(zygotes), "again")
            assert told == executed
            assert drawn != again

    asyncio.run(main())


@pytest.mark.parametrize("code", [0, 7])
def test_exit_is_reported_with_its_code(home: Path, code: int) -> None:
    async def main() -> None:
        async with warm(home) as zygotes, forked(home, zygotes, "--exit-after", "0.3", "--exit-code", str(code)) as one:
            exit_ = await asyncio.wait_for(one.exited, 20)
            assert (exit_.code, exit_.asked) == (code, False)

    asyncio.run(main())


def test_engine_that_fails_with_an_exception_says_so_in_its_log(home: Path) -> None:
    script = home / "broken.py"
    script.write_text("raise ValueError('no such quantization')\n")

    async def main() -> None:
        async with warm(home) as zygotes:
            engine = spec(command=(sys.executable, str(script), "{socket}"))
            process = await start(home, engine, zygote=await ask(zygotes))
            exit_ = await asyncio.wait_for(process.exited, 20)
            assert str(exit_) == "exit code 1: ValueError: no such quantization"

    asyncio.run(main())


@pytest.mark.parametrize(
    "victims", [("engine",), ("shim",), ("keeper",), ("keeper", "shim"), ("shim", "engine"), ("engine", "children")]
)
def test_nothing_is_left_and_the_exit_is_noticed(home: Path, victims: tuple[str, ...]) -> None:
    async def main() -> None:
        async with warm(home) as zygotes, forked(home, zygotes, *MESSY) as process:
            belongings, keeper = await Belongings.of(process), keeper_of(process)
            kill(belongings, keeper, *victims)
            exit_ = await asyncio.wait_for(process.exited, 20)
            assert not exit_.asked
            assert belongings.left() == []
            await until(lambda: not alive(belongings.guard) and not alive(keeper))
            assert len(zygotes.pids) == 1

    asyncio.run(main())


def test_stop_leaves_nothing(home: Path) -> None:
    async def main() -> None:
        async with warm(home) as zygotes, forked(home, zygotes, *MESSY, "--ignore-sigterm") as process:
            belongings, keeper = await Belongings.of(process), keeper_of(process)
            await process.stop(timeout=0.3)
            assert belongings.left() == []
            assert process.exited.result().signal == signal.SIGKILL
            assert not alive(keeper)

    asyncio.run(main())


def test_killed_zygote_harms_no_engine_and_is_replaced(home: Path) -> None:
    async def main() -> None:
        async with warm(home) as zygotes, forked(home, zygotes, *MESSY) as process:
            belongings, keeper = await Belongings.of(process), keeper_of(process)
            (zygote,) = zygotes.pids
            os.kill(zygote, signal.SIGKILL)
            await until(lambda: zygotes.pids == ())
            assert await probe.healthy(process.address, "/health", timeout=5)
            async with forked(home, zygotes, model="next") as successor:
                assert keeper_of(successor).ppid() in zygotes.pids
            await process.stop(timeout=5)
            assert belongings.left() == []
            assert not alive(keeper)

    asyncio.run(main())


def test_killed_control_process_takes_its_zygote_and_its_engines_with_it(home: Path) -> None:
    with control_process(home, grace=0.5) as (control, belongings, zygote):
        control.kill()
        control.wait()
        wait_until(lambda: not alive(zygote) and not list((home / "run").glob("z-*")), what="the zygote has gone")
        wait_until(lambda: not belongings.left(), what="nothing is left")


def test_engine_outlives_its_zygote_and_its_control_process_for_the_grace_period(home: Path) -> None:
    with control_process(home, grace=3600) as (control, belongings, zygote):
        control.kill()
        control.wait()
        wait_until(lambda: not alive(zygote), what="the zygote has gone")
        assert alive(belongings.engine)
        belongings.shim.kill()
        wait_until(lambda: not belongings.left(), what="nothing is left")


def test_kill_of_everybody_who_cleans_leaves_nothing_that_sweep_does_not_find(home: Path) -> None:
    with control_process(home, grace=3600) as (control, belongings, zygote):
        keeper = belongings.engine.parent()
        assert keeper is not None
        for process in (control, zygote, belongings.guard, belongings.shim, keeper):
            process.kill()
        control.wait()
        wait_until(lambda: not alive(belongings.shim), what="the shim is dead")
        assert sweep(home / "run") == (f"deleted `{belongings.directory}`",)
        assert belongings.left() == []
        Zygotes(home / "run", home / "logs", environ={})
        assert list((home / "run").iterdir()) == []


def test_no_secret_of_one_engine_is_in_the_memory_of_the_zygote_or_of_another(home: Path) -> None:
    async def main() -> None:
        async with warm(home) as zygotes, forked(home, zygotes) as one:
            secret = one.key.encode()
            if not occurrences(one.pid, secret):
                pytest.skip("this system shows no process another's memory")
            async with forked(home, zygotes, model="other") as two:
                assert occurrences(two.pid, two.key.encode())
                for pid in (two.pid, keeper_of(two).pid, *zygotes.pids):
                    assert occurrences(pid, secret) == 0

    asyncio.run(main())


def test_engine_with_variables_of_its_own_is_executed_and_the_log_says_why(home: Path) -> None:
    async def main() -> None:
        async with warm(home) as zygotes:
            engine = spec(env=(("VLLM_LOGGING_LEVEL", "DEBUG"),))
            process = await start(home, engine, zygote=await ask(zygotes))
            await process.wait_ready(timeout=20, probe=True)
            assert (
                "[appliance] started cold: its environment differs in `VLLM_LOGGING_LEVEL`" in process.log.read_text()
            )
            assert psutil.Process(process.pid).ppid() == json.loads(identity(process))["shim"][0]
            await process.stop(timeout=2)

    asyncio.run(main())


@pytest.mark.parametrize("trouble", ["gone", "killed", "hung"])
def test_engine_is_executed_where_the_zygote_does_not_answer(home: Path, trouble: str) -> None:
    async def main() -> None:
        async with warm(home) as zygotes:
            path = await ask(zygotes)
            if trouble == "gone":
                await zygotes.close()
            else:
                os.kill(zygotes.pids[0], signal.SIGKILL if trouble == "killed" else signal.SIGSTOP)
            process = await start(home, spec(*MESSY), zygote=path)
            await process.wait_ready(timeout=20, probe=True)
            assert "[appliance] started cold: no answer from the zygote" in process.log.read_text()
            belongings = await Belongings.of(process)
            await process.stop(timeout=5)
            assert belongings.left() == []

    asyncio.run(main())


def test_zygote_that_cannot_warm_up_is_not_tried_again(home: Path) -> None:
    async def main() -> None:
        async with warm(home) as zygotes:
            assert await zygotes.ask(PYTHON, "no_such_preparation", inherited(os.environ)) is None
            assert await zygotes.ask(PYTHON, "no_such_preparation", inherited(os.environ)) is None
            assert zygotes.pids == ()
            assert list((home / "run").glob("z-*")) == []
            (log,) = (home / "logs").iterdir()
            assert "no_such_preparation" in log.read_text()

    asyncio.run(main())


def test_start_that_is_called_off_leaves_the_zygote_to_the_others(home: Path) -> None:
    async def main() -> None:
        async with warm(home) as zygotes:
            first = asyncio.create_task(ask(zygotes))
            await asyncio.sleep(0)
            other = asyncio.create_task(ask(zygotes))
            first.cancel()
            assert (await other).exists()
            assert len(zygotes.pids) == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("driver", "platform", "fields"),
    [
        (VLLM(), "CudaPlatform", {}),
        (VLLM(), "", {}),
        (VLLM(), "CpuPlatform", {"engine": (("tensor_parallel_size", "2"),)}),
        (VLLM(), "CpuPlatform", {"env": (("VLLM_MAX_STOP_STRINGS", "9"),)}),
        (Command(name="mine", command=("serve", "{socket}")), "", {}),
        (VLLMMetal(mac=False), "CpuPlatform", {}),
        (VLLMMetal(mac=True), "MetalPlatform", {}),
        (VLLMMetal(mac=False), "MetalPlatform", {"versions": (("mlx-cuda-13", "0.32.4"),)}),
    ],
)
def test_nothing_is_warmed_where_a_fork_is_not_proved(
    home: Path, driver: VLLM | VLLMMetal | Command, platform: str, fields: dict[str, Any]
) -> None:
    versions = fields.pop("versions", ())

    async def main() -> None:
        async with warm(home) as zygotes:
            engine = EngineSpec(model="smol", backend=driver.name, source="nowhere", **fields)
            launch = Launch(PYTHON, home, home / "run" / "e-0", "key", platform=platform, versions=versions)
            assert await zygotes.socket(engine, driver, launch) is None
            assert zygotes.pids == ()

    asyncio.run(main())


@pytest.mark.engine
def test_vllm_starts_warm_and_leaves_nothing(home: Path, engine_python: Path, smollm2: Path) -> None:
    question = {"model": "smol", "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    arguments = (("kv_cache_memory_bytes", '"256M"'), ("max_model_len", "1024"))
    engine = EngineSpec(model="smol", backend="vllm", source=str(smollm2), engine=arguments)
    clock: dict[str, float] = {}
    answers = []

    async def once(label: str, zygotes: Zygotes | None) -> None:
        loop = asyncio.get_running_loop()
        directory = home / "run" / f"e-{secrets.token_hex(4)}"
        launch = Launch(engine_python, smollm2, directory, secrets.token_urlsafe(32), platform="CpuPlatform")
        path = await zygotes.socket(engine, VLLM(), launch) if zygotes else None
        assert zygotes is None or path is not None
        began = loop.time()
        process = await EngineProcess.start(
            engine,
            VLLM(),
            launch,
            run=home / "run",
            log=home / "logs" / f"{label}.log",
            environ=os.environ,
            zygote=path,
        )
        await process.wait_ready(timeout=300, probe=True)
        clock[label] = loop.time() - began
        assert "started cold" not in process.log.read_text()
        leader = psutil.Process(process.pid)
        family = [leader, *leader.children(recursive=True), *([keeper_of(process)] if path else [])]
        assert any("EngineCore" in " ".join(member.cmdline()) for member in family)
        segments = [Path(name) for name in json.loads(identity(process))["trace"]["segments"]]
        reply = await probe.request(process.address, "POST", "/v1/completions", question, timeout=120)
        answers.append(json.loads(reply.body)["choices"][0]["text"])
        if label == "killed":
            leader.kill()
            await asyncio.wait_for(process.exited, 60)
        await process.stop(timeout=10)
        await until(lambda: [member for member in family if alive(member)] == [])
        assert [name for name in (directory, *segments) if name.exists()] == []

    async def main() -> None:
        async with warm(home) as zygotes:
            await once("cold", None)
            for label in ("warm", "again", "killed"):
                await once(label, zygotes)

    asyncio.run(main())
    assert len(set(answers)) == 1
    print({label: f"{seconds:.1f} s, {seconds / clock['cold']:.2f} of cold" for label, seconds in clock.items()})


def identity(process: EngineProcess) -> str:
    return (process.launch.directory / "engine.json").read_text()


def kill(belongings: Belongings, keeper: psutil.Process, *victims: str) -> None:
    for victim in victims:
        target = keeper if victim == "keeper" else getattr(belongings, victim)
        for process in target if isinstance(target, tuple) else (target,):
            process.kill()


@contextmanager
def control_process(home: Path, *, grace: float) -> Iterator[tuple[subprocess.Popen[str], Belongings, psutil.Process]]:
    """A control process of its own with one zygote and one engine forked from it."""
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", CONTROL, str(home), str(grace)]
    with subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE, text=True) as control:
        assert control.stdout is not None
        told: dict[str, Any] = json.loads(next(line for line in control.stdout if line.startswith("{")))
        belongings = Belongings.told(Path(told["directory"]), told["stats"])
        try:
            yield control, belongings, psutil.Process(told["zygotes"][0])
        finally:
            control.kill()
            wait_until(lambda: not belongings.left(), what="nothing is left")


def occurrences(pid: int, secret: bytes) -> int:
    """In how many of its writable mappings this process holds these bytes."""
    found = 0
    try:
        with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for line in maps:
                span, access, *_ = line.split()
                if access.startswith("rw") and "[v" not in line:
                    begin, end = (int(address, 16) for address in span.split("-"))
                    memory.seek(begin)
                    found += secret in memory.read(end - begin)
    except OSError:
        return found
    return found
