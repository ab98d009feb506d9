from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import psutil
import pytest

from appliance.errors import EngineCrashed, StartupFailed
from appliance.plan.observed import EngineState
from appliance.process import probe
from tests.process.rig import MESSY, TCP, Belongings, alive, ready, spec, start, until


@pytest.mark.parametrize("listen", [("--uds", "{socket}"), TCP])
def test_engine_is_ready_once_it_has_generated_a_token(home: Path, listen: tuple[str, ...]) -> None:
    async def main() -> None:
        async with ready(home, "--load-seconds", "0.3", listen=listen) as process:
            stats = json.loads((await probe.request(process.address, "GET", "/fake/stats", timeout=5)).body)
            assert stats["finished"] == 1
            assert process.state is EngineState.READY
            assert process.context == 4096
            assert psutil.Process(process.pid).is_running()

    asyncio.run(main())


@pytest.mark.parametrize("task", ["generate", "embed", "listen"])
def test_probe_suits_what_the_engine_serves(home: Path, task: str) -> None:
    async def main() -> None:
        async with ready(home, "--task", task) as process:
            assert process.state is EngineState.READY

    asyncio.run(main())


@pytest.mark.parametrize("flag", ["--never-ready", "--hang-health", "--fail-health"])
def test_engine_that_never_becomes_ready_is_stopped_with_an_excerpt_of_its_log(home: Path, flag: str) -> None:
    async def main() -> None:
        process = await start(home, spec(flag, "--say", "waiting for a tensor that never comes"))
        await until(lambda: "waiting" in process.log.read_text())
        with pytest.raises(StartupFailed) as failure:
            await process.wait_ready(timeout=0.5, probe=True)
        assert "not ready within 0.5 s" in failure.value.message
        assert "waiting for a tensor that never comes" in failure.value.message
        assert str(process.log) in (failure.value.hint or "")
        assert not process.launch.directory.exists()
        assert process.exited.done()

    asyncio.run(main())


def test_engine_that_dies_while_starting_fails_at_once_with_the_line_that_says_why(home: Path) -> None:
    async def main() -> None:
        flags = ("--say", "ValueError: no such quantization", "--say", "bye", "--exit-at-start", "--exit-code", "3")
        process = await start(home, spec(*flags))
        with pytest.raises(StartupFailed) as failure:
            await process.wait_ready(timeout=60, probe=True)
        assert "exited while starting (exit code 3: ValueError: no such quantization)" in failure.value.message
        assert process.state is EngineState.FAILED

    asyncio.run(main())


@pytest.mark.parametrize(("task", "path"), [("any", "/v1/completions"), ("listen", "/v1/audio/transcriptions")])
def test_engine_that_cannot_do_what_it_serves_is_not_ready(home: Path, task: str, path: str) -> None:
    async def main() -> None:
        process = await start(home, spec("--fail-probe", "--task", task))
        with pytest.raises(StartupFailed, match=f"{path}: 500 .*told to fail"):
            await process.wait_ready(timeout=20, probe=True)
        assert process.exited.done()

    asyncio.run(main())


def test_probe_can_be_left_out(home: Path) -> None:
    async def main() -> None:
        process = await start(home, spec("--fail-probe"))
        await process.wait_ready(timeout=20, probe=False)
        await process.stop(timeout=2)

    asyncio.run(main())


def test_command_that_cannot_be_executed_is_a_start_up_failure_that_names_it(home: Path) -> None:
    async def main() -> None:
        with pytest.raises(StartupFailed, match=r"cannot run `/no/such/engine`: No such file"):
            await start(home, spec(command=("/no/such/engine", "{socket}")))
        assert not list((home / "run").iterdir())

    asyncio.run(main())


def test_missing_model_path_is_found_before_the_engine_can_mislead_about_it(home: Path) -> None:
    async def main() -> None:
        with pytest.raises(StartupFailed, match=r"there is no `.*/gone`"):
            await start(home, spec(), model=home / "gone")

    asyncio.run(main())


@pytest.mark.parametrize("code", [0, 7])
def test_exit_nobody_asked_for_is_a_crash_whatever_its_code(home: Path, code: int) -> None:
    async def main() -> None:
        process = await start(home, spec("--exit-after", "0.5", "--exit-code", str(code)))
        await process.wait_ready(timeout=20, probe=True)
        exit_ = await asyncio.wait_for(process.exited, 20)
        assert (exit_.code, exit_.asked) == (code, False)
        assert process.state is EngineState.FAILED

    asyncio.run(main())


def test_stop_is_asked_for_and_leaves_nothing(home: Path) -> None:
    async def main() -> None:
        async with ready(home, *MESSY) as process:
            belongings = await Belongings.of(process)
            await process.stop(timeout=5)
            assert belongings.left() == []
            exit_ = process.exited.result()
            assert (exit_.code, exit_.asked, str(exit_)) == (0, True, "exit code 0")
            assert process.state is EngineState.STOPPED

    asyncio.run(main())


def test_engine_that_ignores_sigterm_is_killed(home: Path) -> None:
    async def main() -> None:
        async with ready(home, "--ignore-sigterm", *MESSY) as process:
            belongings = await Belongings.of(process)
            await process.stop(timeout=0.3)
            assert belongings.left() == []
            assert process.exited.result().signal == signal.SIGKILL

    asyncio.run(main())


def test_stop_during_start_up_is_no_start_up_failure_to_wait_for(home: Path) -> None:
    async def main() -> None:
        process = await start(home, spec("--never-ready"))
        waiting = asyncio.create_task(process.wait_ready(timeout=60, probe=True))
        await asyncio.sleep(0)
        await process.stop(timeout=5)
        with pytest.raises(StartupFailed):
            await waiting
        assert process.state is EngineState.STOPPED

    asyncio.run(main())


def test_two_engines_of_one_model_live_side_by_side(home: Path) -> None:
    async def main() -> None:
        async with ready(home, "--say", "one") as one, ready(home, "--say", "two") as two:
            assert one.launch.directory != two.launch.directory
            await one.stop(timeout=5)
            assert await probe.healthy(two.address, "/health", timeout=5)
            assert {"one", "two"} <= set(two.log.read_text().splitlines())

    asyncio.run(main())


def test_shim_that_hangs_is_killed_and_its_guard_cleans_up(home: Path) -> None:
    async def main() -> None:
        async with ready(home, *MESSY) as process:
            belongings = await Belongings.of(process)
            belongings.shim.suspend()
            await process.stop(timeout=0.1, cleaning=0.5)
            assert belongings.left() == []

    asyncio.run(main())


def test_cancelled_start_leaves_nothing(home: Path) -> None:
    async def main() -> None:
        starting = asyncio.create_task(start(home, spec()))
        await until(lambda: any((home / "run").glob("e-*")))
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert not list((home / "run").iterdir())

    asyncio.run(main())


def test_engine_log_outlives_the_engine_and_rotates_by_size(home: Path) -> None:
    async def main() -> None:
        process = await start(home, spec("--chatter", "3000"), log_size=50_000)
        await process.wait_ready(timeout=20, probe=True)
        await process.stop(timeout=5)
        logs = sorted(file.name for file in process.log.parent.iterdir())
        assert logs == ["smol.log", "smol.log.1", "smol.log.2"]
        assert all(file.stat().st_size < 200_000 for file in process.log.parent.iterdir())

    asyncio.run(main())


def test_engine_key_is_in_no_argument_list_and_no_log(home: Path) -> None:
    async def main() -> None:
        async with ready(home, "--chatter", "5", *MESSY) as process:
            listed = arguments_of_all_processes()
            assert str(process.launch.directory) in listed
            assert process.key not in listed
            assert process.key not in process.log.read_text()
            assert process.key not in repr(process.address)

    asyncio.run(main())


def test_everything_of_an_engine_is_its_users_alone(home: Path) -> None:
    async def main() -> None:
        async with ready(home, "--leak-tmp") as process:
            directory = process.launch.directory
            assert {mode(path) for path in (directory, directory.parent, process.log.parent)} == {0o700}
            assert {mode(path) & 0o077 for path in directory.iterdir()} == {0}
            assert mode(directory / "engine.json") == 0o600
            assert mode(process.log) == 0o600

    asyncio.run(main())


def test_temporary_directory_of_an_engine_is_its_own(home: Path) -> None:
    async def main() -> None:
        async with ready(home, "--leak-tmp") as process:
            assert list(process.launch.directory.glob("leak-*"))

    asyncio.run(main())


def test_engine_inherits_no_settings_for_vllm_and_no_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")

    async def main() -> None:
        process = await start(home, spec(env=(("GIVEN", "yes"),)))
        environ = psutil.Process(process.pid).environ()
        await process.stop(timeout=2)
        assert "VLLM_SERVER_DEV_MODE" not in environ
        assert "HF_TOKEN" not in environ
        assert environ["HTTPS_PROXY"] == "http://proxy"
        assert environ["GIVEN"] == "yes"

    asyncio.run(main())


def test_shim_asked_to_terminate_stops_its_engine(home: Path) -> None:
    async def main() -> None:
        async with ready(home, *MESSY) as process:
            belongings = await Belongings.of(process)
            belongings.shim.terminate()
            exit_ = await asyncio.wait_for(process.exited, 20)
            assert not exit_.asked
            assert not alive(belongings.engine)
            assert belongings.left() == []

    asyncio.run(main())


def arguments_of_all_processes() -> str:
    argv = ["ps", "-ww", "-eo", "args"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_engine_that_somebody_kills_while_it_starts_is_a_crash_and_no_failure_of_its_own(home: Path) -> None:
    async def scene() -> None:
        process = await start(home, spec("--never-ready"))
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(EngineCrashed, match="ended while starting"):
            await process.wait_ready(timeout=20, probe=True)

    asyncio.run(scene())
