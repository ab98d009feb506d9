from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.config.models import Appliance
from appliance.models.lockfile import Entry, Lock
from appliance.reconcile.local_files import LocalFiles
from tests.models.checkpoint_builder import safetensors, write_files
from tests.models.gguf_builder import tiny

CHECKPOINT = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b"{}",
    "model.safetensors": safetensors(),
}


def appliance(**sources: str) -> Appliance:
    return Appliance.model_validate({"models": {name: {"source": source} for name, source in sources.items()}})


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    write_files(tmp_path / "weights", CHECKPOINT)
    files = LocalFiles(tmp_path, None)
    files.follow(appliance(m="./weights"))
    return files


def looks(files: LocalFiles, count: int = 2) -> list[tuple[str, ...]]:
    return [files.look(appliance(m="./weights")) for _ in range(count)]


def test_untouched_files_are_never_taken_again(files: LocalFiles) -> None:
    before = files.contents(appliance(m="./weights"))
    assert before["m"]
    assert looks(files, 3) == [(), (), ()]
    assert files.contents(appliance(m="./weights")) == before


def test_changed_files_are_taken_once_two_looks_have_seen_the_same(files: LocalFiles, tmp_path: Path) -> None:
    before = files.contents(appliance(m="./weights"))
    (tmp_path / "weights" / "tokenizer.json").write_text('{"other": 1}')
    assert looks(files, 1) == [()]
    assert files.contents(appliance(m="./weights")) == before
    (tmp_path / "weights" / "tokenizer.json").write_text('{"another": 1}')
    assert looks(files, 3) == [(), ("m",), ()]
    assert files.contents(appliance(m="./weights")) != before


def test_what_is_shorter_than_its_header_says_is_not_taken_until_it_is_whole(files: LocalFiles, tmp_path: Path) -> None:
    whole = safetensors(64)
    weights = tmp_path / "weights" / "model.safetensors"
    weights.write_bytes(whole[:-1])
    assert looks(files) == [(), ()]
    assert "its header says" in files.flaws["m"]
    weights.write_bytes(whole)
    assert looks(files) == [(), ("m",)]
    assert not files.flaws


def test_a_gguf_that_is_cut_short_is_not_taken(tmp_path: Path) -> None:
    data = tiny().encode()
    model, files = appliance(m="./m.gguf"), LocalFiles(tmp_path, None)
    (tmp_path / "m.gguf").write_bytes(data)
    files.follow(model)
    (tmp_path / "m.gguf").write_bytes(data[:-1])
    assert [files.look(model) for _ in range(3)] == [(), (), ()]
    assert files.flaws["m"]
    (tmp_path / "m.gguf").write_bytes(data)
    assert [files.look(model) for _ in range(2)] == [(), ("m",)]


def test_files_that_are_gone_leave_what_is_wanted_as_it_was(files: LocalFiles, tmp_path: Path) -> None:
    before = files.contents(appliance(m="./weights"))
    (tmp_path / "weights").rename(tmp_path / "elsewhere")
    assert looks(files) == [(), ()]
    assert "does not exist" in files.flaws["m"]
    assert files.contents(appliance(m="./weights")) == before


def test_a_path_where_nothing_lies_yet_is_taken_once_it_is_whole(tmp_path: Path) -> None:
    files, model = LocalFiles(tmp_path, None), appliance(m="./weights")
    files.follow(model)
    write_files(tmp_path / "weights", {**CHECKPOINT, "model.safetensors": b"half"})
    assert [files.look(model) for _ in range(2)] == [(), ()]
    assert files.contents(model) == {"m": ""}
    write_files(tmp_path / "weights", CHECKPOINT)
    assert [files.look(model) for _ in range(2)] == [(), ("m",)]
    assert files.contents(model)["m"]


def test_a_link_that_is_turned_to_another_checkpoint_is_a_change(tmp_path: Path) -> None:
    for version in ("one", "two"):
        write_files(tmp_path / version, CHECKPOINT)
    link, model = tmp_path / "current", appliance(m="./current")
    link.symlink_to("one")
    files = LocalFiles(tmp_path, None)
    files.follow(model)
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(link)
    assert [files.look(model) for _ in range(2)] == [(), ("m",)]


@pytest.mark.parametrize("name", [".DS_Store", "README.md", "runs/log.txt", ".cache/lock"])
def test_what_no_engine_reads_is_not_looked_at(files: LocalFiles, tmp_path: Path, name: str) -> None:
    (tmp_path / "weights" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "weights" / name).write_text("seen")
    assert looks(files) == [(), ()]


def test_a_module_of_sentence_transformers_belongs_to_its_model(files: LocalFiles, tmp_path: Path) -> None:
    write_files(tmp_path / "weights" / "1_Pooling", {"config.json": b"{}"})
    assert looks(files) == [(), ("m",)]


def test_what_is_written_with_its_old_time_and_length_is_a_change_all_the_same(
    files: LocalFiles, tmp_path: Path
) -> None:
    weights = tmp_path / "weights" / "tokenizer.json"
    found = weights.stat()
    (tmp_path / "new").write_bytes(b"[]")
    os.utime(tmp_path / "new", ns=(found.st_atime_ns, found.st_mtime_ns))
    (tmp_path / "new").replace(weights)
    assert looks(files) == [(), ("m",)]


def test_a_source_that_comes_back_into_the_file_is_taken_as_it_lies(files: LocalFiles, tmp_path: Path) -> None:
    files.follow(appliance(other="pypi:x==1"))
    (tmp_path / "weights" / "tokenizer.json").write_text('{"other": 1}')
    files.follow(appliance(m="./weights"))
    assert looks(files) == [(), ()]


def test_with_a_lock_content_is_what_is_locked_and_nothing_else(tmp_path: Path) -> None:
    write_files(tmp_path / "weights", CHECKPOINT)
    model = appliance(m="./weights", n="hf:org/name")
    entries = {name: Entry(name, None, {"a": "1" * 64}) for name in ("m", "n")}
    first, again = LocalFiles(tmp_path, Lock(entries)), LocalFiles(tmp_path, Lock(entries))
    other = LocalFiles(tmp_path, Lock({**entries, "n": Entry("n", None, {"a": "2" * 64})}))
    assert first.contents(model) == again.contents(model)
    assert first.contents(model)["m"] == other.contents(model)["m"]
    assert first.contents(model)["n"] != other.contents(model)["n"]
    (tmp_path / "weights" / "tokenizer.json").write_text('{"other": 1}')
    before = first.contents(model)
    for _ in range(3):
        first.look(model)
    assert first.contents(model) == before
