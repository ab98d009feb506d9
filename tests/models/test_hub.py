from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from appliance.errors import SourceError, SourceNotFound, TransferFailed, UnsupportedModel
from appliance.models.checkpoint import Checkpoint
from appliance.models.shape import shape
from appliance.models.sources import HubSource
from appliance.models.store import Store
from appliance.progress import Progress, silent
from tests.models.checkpoint_builder import hf_files
from tests.models.gguf_builder import tiny
from tests.models.hub_double import Hub
from tests.support import wait_until

SOURCE = HubSource("org/name")
PULLER = Path(__file__).with_name("puller.py")
SIZE = 5_000_000


def large_files() -> dict[str, bytes]:
    header = json.dumps({"w": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + Random(3).randbytes(SIZE)  # noqa: S311
    return {**hf_files(), "model.safetensors": weights}


@pytest.fixture
def hub_environ(hub: Hub, environ: dict[str, str]) -> dict[str, str]:
    return environ | {"HF_ENDPOINT": hub.endpoint}


@pytest.fixture
def store(tmp_path: Path, hub_environ: dict[str, str]) -> Store:
    return Store(tmp_path / "models", environ=hub_environ)


def pull(store: Store, source: HubSource = SOURCE) -> Checkpoint:
    return asyncio.run(store.pull(source, silent, subject="model m"))


def test_repository_becomes_a_checkpoint_without_code_and_pickles(hub: Hub, store: Store) -> None:
    files = hf_files()
    unwanted = {"modeling.py": b"raise", "pytorch_model.bin": b"\x80", "onnx/model.onnx": b"x", "README.md": b"#"}
    unwanted |= {
        "consolidated.safetensors": files["model.safetensors"],
        ".gitattributes": b"",
        "sub/config.json": b"{}",
    }
    hub.add("org/name", {**files, **unwanted})
    checkpoint = pull(store)
    assert checkpoint.kind == "hf"
    assert {path.name: path.read_bytes() for path in checkpoint.path.iterdir()} == files
    assert checkpoint.size == sum(map(len, files.values()))
    assert store.list() == (checkpoint,)


def test_revision_is_resolved_to_a_commit_and_kept(hub: Hub, store: Store, tmp_path: Path) -> None:
    old = hub.add("org/name", hf_files(), branch="v1")
    hub.add("org/name", hf_files(vocab_size=7))
    tagged = pull(store, HubSource("org/name", "v1"))
    assert old[:12] in tagged.path.name
    main = pull(store)
    assert main.path != tagged.path
    hub.add("org/name", hf_files(vocab_size=8))
    assert pull(store) == main
    records = [json.loads(path.read_bytes()) for path in (tmp_path / "models" / "sources").iterdir()]
    assert old in {record["revision"] for record in records}


def test_what_is_fetched_again_is_the_commit_that_was_fetched_before(hub: Hub, store: Store) -> None:
    hub.add("org/name", hf_files())
    checkpoint = pull(store)
    record = store.record(SOURCE)
    hub.add("org/name", hf_files(vocab_size=7))
    (checkpoint.path / "config.json").write_bytes(b"{}")
    assert pull(store).path == checkpoint.path
    assert (checkpoint.path / "config.json").read_bytes() == hf_files()["config.json"]
    again = store.record(SOURCE)
    assert record is not None
    assert again is not None
    assert again.revision == record.revision


def updated(store: Store) -> Checkpoint:
    return asyncio.run(store.update(SOURCE, silent, subject="model m"))


def test_update_follows_a_branch_and_leaves_what_an_engine_has_loaded(hub: Hub, store: Store) -> None:
    hub.add("org/name", hf_files())
    old = updated(store)  # nothing is here yet: the same as a pull
    assert updated(store) == old
    commit = hub.add("org/name", hf_files(vocab_size=9))
    with store.use(old.path):
        new = updated(store)
        assert (old.path / "config.json").exists()
    record = store.record(SOURCE)
    assert record is not None
    assert record.revision == commit
    assert b"vocab_size" in (new.path / "config.json").read_bytes()
    assert [each.source for each in store.list()] == [SOURCE.text]
    store.sweep()
    assert not old.path.exists()


def test_update_that_fails_leaves_what_was_there(hub: Hub, store: Store) -> None:
    hub.add("org/name", hf_files())
    old = updated(store)
    hub.add("org/name", large_files())
    hub.corrupt = True
    with pytest.raises(TransferFailed):
        updated(store)
    assert store.find(SOURCE) == old


def test_two_names_of_one_commit_share_its_files(hub: Hub, store: Store) -> None:
    commit = hub.add("org/name", hf_files())
    by_branch, by_commit = pull(store), pull(store, HubSource("org/name", commit))
    assert by_branch.path == by_commit.path
    asyncio.run(store.remove(SOURCE))
    assert store.find(HubSource("org/name", commit)) == by_commit
    assert by_commit.path.exists()


def test_single_gguf_is_fetched_and_several_are_listed(hub: Hub, store: Store) -> None:
    hub.add("org/one", {"m.gguf": tiny().encode(), "README.md": b"#"})
    assert pull(store, HubSource("org/one")).kind == "gguf"
    hub.add("org/two", {"m-Q4_0.gguf": b"GGUF", "m-Q8_0.gguf": b"GGUF"})
    with pytest.raises(UnsupportedModel, match=r"m-Q4_0\.gguf, m-Q8_0\.gguf"):
        pull(store, HubSource("org/two"))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("Q4_K_M", ["m-Q4_K_M.gguf"]),
        ("q8_0", ["m-Q8_0.gguf"]),
        ("m-Q8_0.gguf", ["m-Q8_0.gguf"]),
        ("*Q4_K_M*", ["m-Q4_K_M.gguf"]),
        ("big", ["b-00001-of-00002.gguf", "b-00002-of-00002.gguf"]),
        ("fp16", ["config.json", "model.safetensors", "tokenizer.json"]),
        ("fp16/*.safetensors,fp16/*.json", ["config.json", "model.safetensors", "tokenizer.json"]),
        ("fp16/*", ["config.json", "model.safetensors", "tokenizer.json"]),
        ("fp16/*,fp16/*.py", ["config.json", "model.safetensors", "modeling.py", "tokenizer.json"]),
    ],
)
def test_part_of_a_repository_is_chosen_by_name(hub: Hub, store: Store, wanted: str, expected: list[str]) -> None:
    gguf = tiny().encode()
    files = {"m-Q4_K_M.gguf": gguf, "m-Q4_K_S.gguf": b"GGUF1", "m-Q8_0.gguf": gguf, "README.md": b"#"}
    files |= {f"big/b-0000{part}-of-00002.gguf": b"GGUF" + bytes([part]) for part in (1, 2)}
    files |= {f"fp16/{name}": data for name, data in hf_files().items()} | {"fp16/deep/x.json": b"{}"}
    files |= {"fp16/modeling.py": b"raise", "fp16/pytorch_model.bin": b"\x80"}
    hub.add("org/name", files)
    checkpoint = pull(store, HubSource("org/name", None, wanted))
    directory = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    assert sorted(path.name for path in directory.iterdir()) == expected


def test_choice_that_means_nothing_or_too_much_lists_what_there_is(hub: Hub, store: Store) -> None:
    hub.add("org/name", {"m-Q4_K_M.gguf": b"GGUF1", "m-Q4_K_S.gguf": b"GGUF2"})
    with pytest.raises(SourceNotFound, match="`Q5_K_M`") as caught:
        pull(store, HubSource("org/name", None, "Q5_K_M"))
    assert "m-Q4_K_M.gguf" in str(caught.value.hint)
    with pytest.raises(UnsupportedModel, match="2 GGUF models"):
        pull(store, HubSource("org/name", None, "*.gguf"))


def test_modules_of_a_sentence_transformer_come_along(hub: Hub, store: Store) -> None:
    modules = {"modules.json": b"[]", "1_Pooling/config.json": b"{}"}
    hub.add("org/name", {**hf_files(), **modules, "onnx/config.json": b"{}", "1_Pooling/run.py": b"raise"})
    directory = pull(store).path
    found = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert found == {*hf_files(), *modules}


def test_weights_that_another_source_brought_are_not_fetched_again(hub: Hub, store: Store) -> None:
    files = large_files()
    hub.add("org/name", files)
    hub.add("org/copy", files | {"config.json": b'{"model_type": "llama", "vocab_size": 1}'})
    one, other = pull(store), pull(store, HubSource("org/copy"))
    assert (one.path / "model.safetensors").samefile(other.path / "model.safetensors")
    assert len([each for each in hub.large_transfers() if each.method == "GET"]) == 1


def test_shape_is_known_before_the_weights_are_here(hub: Hub, store: Store, tmp_path: Path) -> None:
    hub.add("org/name", large_files())
    (tmp_path / "heads").mkdir()
    (tmp_path / "gguf").mkdir()
    path = asyncio.run(store.skeleton(SOURCE, tmp_path / "heads", silent, subject="model m"))
    assert shape(path).weights == SIZE
    whole = shape(pull(store).path)
    assert shape(path) == whole
    hub.add("org/gguf", {"m.gguf": tiny().encode()})
    path = asyncio.run(store.skeleton(HubSource("org/gguf"), tmp_path / "gguf", silent, subject="model m"))
    assert shape(path, "hf") == shape(tiny().write(tmp_path / "m.gguf"), "hf")


def test_progress_counts_bytes_of_a_known_total(hub: Hub, store: Store) -> None:
    files = large_files()
    hub.add("org/name", files)
    steps: list[Progress] = []
    asyncio.run(store.pull(SOURCE, steps.append, subject="model m"))
    counted = [(each.done, each.total) for each in steps if each.step == "downloading"]
    total = sum(map(len, files.values()))
    assert counted[-1] == (total, total)
    assert counted == sorted(counted)
    assert {each.unit for each in steps} == {"bytes"}


def test_broken_transfer_goes_on_from_the_last_byte(hub: Hub, store: Store) -> None:
    files = large_files()
    hub.add("org/name", files)
    hub.cut = [1_500_000, 1_000_000]
    checkpoint = pull(store)
    assert (checkpoint.path / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert hub.ranges() == ["bytes=1500000-"] * 2 + ["bytes=2500000-"] * 2  # each by way of the redirect


def test_killed_pull_is_resumed_by_the_next_from_where_it_was(
    hub: Hub, store: Store, tmp_path: Path, hub_environ: dict[str, str]
) -> None:
    files = large_files()
    hub.add("org/name", files)
    hub.stall.set()
    argv = [sys.executable, str(PULLER), str(tmp_path / "models"), SOURCE.text]
    with subprocess.Popen(argv, env=hub_environ, stdout=subprocess.DEVNULL) as process:
        partial = tmp_path / "models" / "partial"
        weights = "*/files/model.safetensors.*.part"
        wait_until(lambda: any(part.stat().st_size for part in partial.glob(weights)), what="weights arrive")
        process.kill()
    assert store.find(SOURCE) is None
    have = next(part.stat().st_size for part in partial.glob(weights))
    hub.stall.clear()
    checkpoint = pull(store)
    assert (checkpoint.path / "model.safetensors").read_bytes() == files["model.safetensors"]
    start = int(hub.ranges()[0].removeprefix("bytes=").rstrip("-"))
    assert have <= start < len(files["model.safetensors"])
    assert sum(each.range is None for each in hub.large_transfers()) == 1


def test_wrong_digest_is_noticed_and_never_kept(hub: Hub, store: Store) -> None:
    hub.add("org/name", hf_files())
    hub.corrupt = True
    with pytest.raises(TransferFailed, match="wrong digest"):
        pull(store)
    assert store.find(SOURCE) is None
    hub.corrupt = False
    assert pull(store).kind == "hf"


def test_leftovers_of_another_commit_are_not_mixed_in(hub: Hub, store: Store) -> None:
    hub.add("org/name", {**hf_files(), "old.txt": b"old"})
    hub.corrupt = True
    with pytest.raises(TransferFailed):
        pull(store)
    hub.corrupt = False
    files = hf_files(vocab_size=9)
    hub.add("org/name", files)
    assert {path.name: path.read_bytes() for path in pull(store).path.iterdir()} == files


def test_token_reaches_the_hub_and_nobody_else(hub: Hub, tmp_path: Path, hub_environ: dict[str, str]) -> None:
    hub.add("org/name", hf_files())
    hub.token = "hf_secret"
    pull(Store(tmp_path / "models", token="hf_secret", environ=hub_environ))
    assert {each.authorization for each in hub.large_transfers()} == {None}
    assert {each.authorization for each in hub.seen if not each.path.startswith("/cdn/")} == {"Bearer hf_secret"}


def test_token_in_the_environment_is_honoured(hub: Hub, tmp_path: Path, hub_environ: dict[str, str]) -> None:
    hub.add("org/name", hf_files())
    hub.token = "hf_secret"
    assert pull(Store(tmp_path / "models", environ=hub_environ | {"HF_TOKEN": "hf_secret"})).kind == "hf"


def test_private_repository_asks_for_a_token(hub: Hub, store: Store) -> None:
    hub.add("org/name", hf_files())
    hub.token = "hf_secret"
    with pytest.raises(SourceNotFound, match=r"does not exist on .*, or is private") as caught:
        pull(store)
    assert "HF_TOKEN" in str(caught.value.hint)


def test_gated_repository_says_where_to_ask(hub: Hub, store: Store) -> None:
    hub.add("org/name", hf_files())
    hub.gated = True
    with pytest.raises(SourceNotFound, match="is gated") as caught:
        pull(store)
    assert f"{hub.endpoint}/org/name" in str(caught.value.hint)


def test_missing_repository_and_revision_are_told_apart(hub: Hub, store: Store) -> None:
    with pytest.raises(SourceNotFound, match="org/name` does not exist"):
        pull(store)
    hub.add("org/name", hf_files())
    with pytest.raises(SourceNotFound, match="no revision `v9`"):
        pull(store, HubSource("org/name", "v9"))


@pytest.mark.parametrize(("status", "kind"), [(403, SourceNotFound), (500, TransferFailed), (503, TransferFailed)])
def test_other_answers_are_errors_with_their_status(
    hub: Hub, store: Store, status: int, kind: type[SourceError]
) -> None:
    hub.add("org/name", hf_files())
    hub.status = status
    with pytest.raises(kind, match=str(status)):
        pull(store)


def test_unreachable_hub_is_a_failed_transfer(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(TransferFailed, match="cannot be reached"):
        pull(Store(tmp_path / "models", environ=environ))


def test_offline_mode_is_a_failed_transfer(tmp_path: Path, hub_environ: dict[str, str]) -> None:
    with pytest.raises(TransferFailed, match="cannot be reached") as caught:
        pull(Store(tmp_path / "models", environ=hub_environ | {"HF_HUB_OFFLINE": "1"}))
    assert "HF_HUB_OFFLINE" in str(caught.value.hint)


def test_repository_of_pickles_or_of_nothing_is_refused(hub: Hub, store: Store) -> None:
    hub.add("org/pickles", {"config.json": b"{}", "pytorch_model.bin": b"\x80"})
    with pytest.raises(UnsupportedModel, match="pickles"):
        pull(store, HubSource("org/pickles"))
    hub.add("org/empty", {"README.md": b"#"})
    with pytest.raises(SourceNotFound, match="no weights"):
        pull(store, HubSource("org/empty"))


def test_incomplete_repository_is_named_by_its_source(hub: Hub, store: Store) -> None:
    files = hf_files()
    del files["tokenizer.json"]
    hub.add("org/name", files)
    with pytest.raises(SourceNotFound, match="`hf:org/name` has no tokenizer"):
        pull(store)


@pytest.mark.parametrize("name", ["../evil.json", "/etc/evil.json", "a/../../evil.json", "..json/../x.json"])
def test_hostile_file_names_are_not_followed(hub: Hub, store: Store, tmp_path: Path, name: str) -> None:
    hub.add("org/name", {**hf_files(), name: b"{}"})
    pull(store)
    assert not list(tmp_path.rglob("evil.json"))


def test_digests_that_would_be_paths_are_refused(hub: Hub, store: Store, tmp_path: Path) -> None:
    hub.add("org/name", hf_files())
    hub.lie = "/../../../../evil"
    with pytest.raises(TransferFailed, match="no usable digests"):
        pull(store)
    assert not list(tmp_path.rglob("*evil*"))
