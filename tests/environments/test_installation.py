"""Real venvs and real pip, against an index in a directory."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from appliance.environments.installed import MARKER
from appliance.environments.provision import Environments, EnvironmentSpec
from appliance.errors import ApplianceError, Conflict, ProvisionError
from appliance.progress import Progress, silent
from tests.environments.conftest import CPU
from tests.environments.wheelhouse import (
    LIST_NAME,
    pip_environ,
    requirement_list,
    standard_wheels,
    write_slow_sdist,
    write_wheel,
)
from tests.support import wait_until

REPOSITORY = Path(__file__).parents[2]
Installed = tuple[Environments, EnvironmentSpec]


def environments_of(
    tmp_path: Path, wheels: Path, *more: str, settings: str | None = None, **environ: str
) -> Environments:
    requirements = requirement_list(*more) if settings is None else requirement_list(*more, settings=settings)
    return Environments(
        tmp_path / "environments", environ=pip_environ(wheels, **environ), lists={LIST_NAME: requirements}
    )


def refused(environments: Environments) -> ApplianceError:
    with pytest.raises(ProvisionError) as caught:
        asyncio.run(environments.ensure(environments.choose("vllm", CPU), silent))
    return caught.value


def test_environment_is_proved_marked_and_found_again(installed: Installed) -> None:
    environments, spec = installed
    found = environments.find(spec)
    assert found is not None
    assert found.name == spec.name
    assert (found.platform, found.versions["vllm"], found.versions["torch"]) == ("CpuPlatform", "0.32.0+cpu", "2.13.0")
    assert found.python.exists()
    assert found.size > 2**20
    assert environments.list() == (found,)
    steps: list[Progress] = []
    assert asyncio.run(environments.ensure(spec, steps.append)) == found
    assert steps == []


def test_bytecode_is_compiled_even_where_the_variables_forbid_it(installed: Installed) -> None:
    environments, spec = installed
    found = environments.find(spec)
    assert found is not None
    assert list(found.path.glob("lib/python*/site-packages/vllm/__pycache__/__init__.*.pyc"))


def test_verify_names_what_somebody_changed(tmp_path: Path, wheels: Path) -> None:
    environments = environments_of(tmp_path, wheels)
    spec = environments.choose("vllm", CPU)
    installed = asyncio.run(environments.ensure(spec, silent))
    assert asyncio.run(environments.verify(spec, silent)).platform == "CpuPlatform"
    write_wheel(wheels, "torch", "2.14.0", {"torch/__init__.py": '__version__ = "2.14.0"\n'})
    subprocess.run(
        [installed.python, "-m", "pip", "install", "-q", "--no-deps", "torch==2.14.0"],
        check=True,
        env=pip_environ(wheels),
    )
    with pytest.raises(ProvisionError, match=r"torch is 2\.14\.0, the list has 2\.13\.0"):
        asyncio.run(environments.verify(spec, silent))


def test_local_version_of_a_pin_is_preferred_and_fits(tmp_path: Path, wheels: Path) -> None:
    write_wheel(wheels, "torch", "2.13.0+cpu", {"torch/__init__.py": '__version__ = "2.13.0+cpu"\n'})
    environments = environments_of(tmp_path, wheels)
    installed = asyncio.run(environments.ensure(environments.choose("vllm", CPU), silent))
    assert installed.versions["torch"] == "2.13.0+cpu"


def test_progress_counts_the_list(tmp_path: Path, wheels: Path) -> None:
    environments = environments_of(tmp_path, wheels)
    spec = environments.choose("vllm", CPU)
    steps: list[Progress] = []
    asyncio.run(environments.ensure(spec, steps.append))
    assert {step.subject for step in steps} == {f"environment {spec.name}"}
    assert "creating the virtual environment" in [step.step for step in steps]
    assert ("fetching torch 2.13.0", 2, 2) in [(step.step, step.done, step.total) for step in steps]


def test_package_that_the_index_lacks_fails_clearly_and_is_resumed_once_it_is_there(
    tmp_path: Path, wheels: Path
) -> None:
    environments = environments_of(tmp_path, wheels, "absent==1.0")
    spec = environments.choose("vllm", CPU)
    error = refused(environments)
    assert "absent==1.0" in error.message
    assert error.hint is not None
    log = Path(re.findall(r"`(/[^`]+\.log)`", error.hint)[0])
    assert "absent" in log.read_text()
    assert environments.find(spec) is None
    assert [each.complete for each in environments.list()] == [False]

    venv = environments.list()[0].path / "pyvenv.cfg"
    made = venv.stat().st_ino
    write_wheel(wheels, "absent", "1.0", {"absent.py": ""})
    assert asyncio.run(environments.ensure(spec, silent)).complete
    assert venv.stat().st_ino == made


def test_requirement_left_out_without_a_word_in_the_list_is_refused(tmp_path: Path, wheels: Path) -> None:
    environments = environments_of(tmp_path, wheels, settings="")
    assert "requires torchvision, which is not installed" in refused(environments).message


def test_environment_on_another_platform_is_never_used(tmp_path: Path, wheels: Path) -> None:
    standard_wheels(wheels, platform="CudaPlatform")
    environments = environments_of(tmp_path, wheels)
    assert "`CudaPlatform` here, and `CpuPlatform` is expected" in refused(environments).message
    assert environments.find(environments.choose("vllm", CPU)) is None


def test_too_little_disk_is_said_before_anything_is_written(tmp_path: Path, wheels: Path) -> None:
    environments = environments_of(tmp_path, wheels, settings="# disk: 4000 TiB\n")
    error = refused(environments)
    assert "needs 4096000.0 GiB" in error.message
    assert list(environments.list()[0].path.iterdir()) == []


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    directory.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("no tmpfs can be mounted here")
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]
    if subprocess.run([mount, *options, directory], check=False, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield directory
    finally:
        subprocess.run([umount, directory], check=True)


def test_disk_that_fills_up_leaves_the_old_environments_and_nothing_that_would_be_used(
    tmp_path: Path, wheels: Path
) -> None:
    write_wheel(wheels, "large", "1.0", {"large.bin": bytes(150 << 20)})
    with small_disk(tmp_path / "disk", "120m") as disk:
        small = environments_of(disk, wheels)
        old = asyncio.run(small.ensure(small.choose("vllm", CPU), silent))
        large = environments_of(disk, wheels, "large==1.0")
        error = refused(large)
        assert "No space left on device" in error.message
        assert error.hint is not None
        assert error.hint.startswith("free some disk space")
        assert large.find(large.choose("vllm", CPU)) is None
        assert small.find(small.choose("vllm", CPU)) == old


@pytest.fixture
def slow(tmp_path: Path, wheels: Path) -> dict[str, str]:
    """The environment of an install that stops while pip builds `slow`, until the file SLOW_RELEASE is there."""
    write_slow_sdist(wheels)
    return {"SLOW_STARTED": str(tmp_path / "started"), "SLOW_RELEASE": str(tmp_path / "release")}


@contextmanager
def installer(tmp_path: Path, wheels: Path, slow: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    listed = tmp_path / "list.txt"
    listed.write_text(requirement_list("slow==1.0").text)
    command = [sys.executable, "-m", "tests.environments.installer", str(tmp_path / "environments"), str(listed)]
    environ = {**pip_environ(wheels, **slow), "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        try:
            yield process
        finally:
            process.kill()


def building(slow: dict[str, str]) -> int:
    """The pid of pip's build of `slow`, once it hangs."""
    started = Path(slow["SLOW_STARTED"])
    wait_until(started.exists, within=60, what="pip builds the slow package")
    return int(started.read_text())


def test_installer_killed_in_the_middle_is_resumed_and_its_pip_is_ended(
    tmp_path: Path, wheels: Path, slow: dict[str, str]
) -> None:
    with installer(tmp_path, wheels, slow) as first:
        orphan = building(slow)
        first.send_signal(signal.SIGKILL)
        first.wait()
    environments = environments_of(tmp_path, wheels, "slow==1.0", **slow)
    spec = environments.choose("vllm", CPU)
    assert environments.find(spec) is None
    assert [each.complete for each in environments.list()] == [False]

    Path(slow["SLOW_STARTED"]).unlink()

    async def resume() -> None:
        task = asyncio.create_task(environments.ensure(spec, silent))
        await asyncio.to_thread(wait_until, lambda: not running(orphan), within=30, what="the orphaned pip is ended")
        release(slow)
        assert (await task).complete

    asyncio.run(resume())
    assert environments.find(spec) is not None


def release(slow: dict[str, str]) -> None:
    Path(slow["SLOW_RELEASE"]).touch()


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_second_installer_waits_for_the_first_says_for_whom_and_finds_it_done(
    tmp_path: Path, wheels: Path, slow: dict[str, str]
) -> None:
    with installer(tmp_path, wheels, slow) as first:
        building(slow)
        with installer(tmp_path, wheels, slow) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == f"waiting for pid {first.pid}, which is installing it\n"
            release(slow)
            done = [process.communicate(timeout=120)[0].splitlines()[-1] for process in (first, second)]
    assert done[0].startswith("installed ")
    assert done[0] == done[1]


def test_cancelled_install_leaves_no_process_and_goes_on_later(
    tmp_path: Path, wheels: Path, slow: dict[str, str]
) -> None:
    environments = environments_of(tmp_path, wheels, "slow==1.0", **slow)
    spec = environments.choose("vllm", CPU)
    others = {each.pid for each in psutil.Process().children(recursive=True)}  # what the session's fixtures run

    async def cancelled() -> int:
        task = asyncio.create_task(environments.ensure(spec, silent))
        pid = await asyncio.to_thread(building, slow)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pid

    pid = asyncio.run(cancelled())
    wait_until(lambda: not running(pid), what="the build is gone")
    mine = [each for each in psutil.Process().children(recursive=True) if each.pid not in others]
    assert not [each for each in mine if running(each.pid)]
    assert environments.find(spec) is None
    release(slow)
    assert asyncio.run(environments.ensure(spec, silent)).complete


def test_distribution_that_pip_was_killed_in_is_installed_again(tmp_path: Path, wheels: Path) -> None:
    environments = environments_of(tmp_path, wheels, "absent==1.0")
    refused(environments)
    site = next((environments.list()[0].path / "lib").glob("python*/site-packages"))
    half = site / "torch-2.13.0.dist-info"
    half.mkdir()
    (half / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
    write_wheel(wheels, "absent", "1.0", {"absent.py": ""})
    asyncio.run(environments.ensure(environments.choose("vllm", CPU), silent))
    assert (site / "torch" / "__init__.py").exists()


def test_credentials_of_an_index_are_nowhere(tmp_path: Path, wheels: Path) -> None:
    environ = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://somebody:hunter2@127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    environments = environments_of(tmp_path, wheels, "absent==1.0", **environ)
    error = refused(environments)
    log = (tmp_path / "logs" / f"environment-{environments.choose('vllm', CPU).name}.log").read_text()
    assert "127.0.0.1" in log
    assert "hunter2" not in f"{error.message} {error.hint} {log}"


@pytest.mark.parametrize("damage", ["", "{", '{"format": 99}', "[]"])
def test_environment_with_a_damaged_marker_is_not_used(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "environments" / "some"
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").symlink_to(sys.executable)
    (path / MARKER).write_text(damage)
    assert [each.complete for each in Environments(tmp_path / "environments").list()] == [False]


def test_environment_in_use_is_not_removed_and_another_may_be(tmp_path: Path, installed: Installed) -> None:
    environments, spec = installed
    found = environments.find(spec)
    assert found is not None
    with environments.use(found) as descriptor:
        engine = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor])
    try:
        with pytest.raises(Conflict, match="in use"):
            environments.remove(spec.name)
    finally:
        engine.communicate(b"\n")
    assert environments.find(spec) == found

    copy = found.path.with_name("copy")
    shutil.copytree(found.path, copy, symlinks=True)
    environments.remove("copy")
    assert not copy.exists()
    assert not list(found.path.parent.glob(".removed*"))


@pytest.mark.parametrize("name", ["absent", "..", ".", "../environments", ""])
def test_what_is_no_environment_is_not_removed(installed: Installed, name: str) -> None:
    environments, spec = installed
    with pytest.raises(ProvisionError, match="there is no environment"):
        environments.remove(name)
    assert environments.find(spec) is not None


def given(tmp_path: Path, python: Path, accelerator: str = "auto") -> tuple[Environments, EnvironmentSpec]:
    environments = Environments(tmp_path / "environments")
    wanted = CPU.model_copy(update={"python": python, "accelerator": accelerator})
    return environments, environments.choose("vllm", wanted)


def test_given_interpreter_is_verified_and_nothing_is_installed(tmp_path: Path, installed: Installed) -> None:
    ready, spec = installed
    found = ready.find(spec)
    assert found is not None
    environments, wanted = given(tmp_path, found.python)
    used = asyncio.run(environments.ensure(wanted, silent))
    assert (used.python, used.platform, used.versions["vllm"]) == (found.python, "CpuPlatform", "0.32.0+cpu")
    assert environments.list() == ()


def test_given_interpreter_that_will_not_do_says_why(tmp_path: Path, installed: Installed) -> None:
    ready, spec = installed
    found = ready.find(spec)
    assert found is not None
    plain = tmp_path / "plain"
    plain.write_text("")
    for python, accelerator, says in (
        (tmp_path / "absent", "auto", "there is no"),
        (plain, "auto", "not an executable file"),
        (tmp_path, "auto", "not an executable file"),
        (Path(sys.executable), "auto", "vLLM is not installed"),
        (found.python, "cuda", "`CudaPlatform` is expected"),
    ):
        environments, wanted = given(tmp_path, python, accelerator)
        with pytest.raises(ProvisionError, match=re.escape(says)):
            asyncio.run(environments.ensure(wanted, silent))
