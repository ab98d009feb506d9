from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import Machine
from tests.models.checkpoint_builder import build_wheel, hf_files, safetensors
from tests.models.gguf_builder import tiny
from tests.models.hub_double import hub_double
from tests.support import wait_until

WEIGHTS = tiny().encode()


@pytest.fixture
def stocked(machine: Machine, tmp_path: Path) -> Machine:
    """A machine that has two packages' models, of which its file declares one."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    build_wheel(wheels, {"one/m.gguf": WEIGHTS}, name="one")
    build_wheel(wheels, {"two/m.gguf": tiny(kind="Q8_0").encode()}, name="two")
    machine.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    machine.write(models="  one: {source: 'pypi:one==1.0'}\n  two: {source: 'pypi:two==1.0'}")
    result = machine.run("pull")
    assert result.returncode == 0, result.stderr
    assert sorted(line.split("\t")[0] for line in result.stdout.splitlines()) == ["one", "two"]
    machine.write(models="  one: {source: 'pypi:one==1.0'}")
    return machine


def test_disk_usage_and_garbage_collection_agree(stocked: Machine) -> None:
    items = {each["name"]: each for each in json.loads(stocked.run("models", "df", "--json").stdout)}
    assert {name: each["declared"] for name, each in items.items()} == {"pypi:one==1.0": True, "pypi:two==1.0": False}
    assert items["pypi:one==1.0"]["size"] == len(WEIGHTS)
    assert "would free" in stocked.run("models", "gc", "--dry-run").stderr
    removed = json.loads(stocked.run("models", "gc", "--json").stdout)
    assert [each["name"] for each in removed] == ["pypi:two==1.0"]
    assert [each["name"] for each in json.loads(stocked.run("models", "df", "--json").stdout)] == ["pypi:one==1.0"]


def test_corrupt_model_fails_the_check_until_it_is_repaired(stocked: Machine) -> None:
    assert stocked.run("models", "verify").returncode == 0
    path = Path(json.loads(stocked.run("models", "--json").stdout)[0]["path"])
    path.write_bytes(WEIGHTS[:-1] + b"\xff")
    result = stocked.run("models", "verify", "one", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout) == [{"model": "one", "state": "corrupt", "files": ["m.gguf"], "repaired": False}]
    assert stocked.run("models", "verify", "--repair").returncode == 0
    assert path.read_bytes() == WEIGHTS


def test_model_is_removed_by_name_or_source_and_others_are_named(stocked: Machine) -> None:
    assert stocked.run("models", "rm", "pypi:two==1.0").returncode == 0
    assert stocked.run("models", "rm", "one").returncode == 0
    assert json.loads(stocked.run("models", "df", "--json").stdout) == []
    result = stocked.run("models", "rm", "three")
    assert result.returncode == 1
    assert "models df" in result.stderr


def test_fit_counts_a_local_model_and_names_a_target(machine: Machine) -> None:
    machine.write()
    config = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "num_attention_heads": 4}
    config |= {"hidden_size": 64, "max_position_embeddings": 2048}
    (machine.directory / "weights" / "config.json").write_text(json.dumps(config))
    (machine.directory / "weights" / "model.safetensors").write_bytes(safetensors())
    (result,) = json.loads(machine.run("fit", "./weights", "--target", "m2-16gb", "--json").stdout)
    assert result["target"] == "m2-16gb"
    assert result["cache_per_token"] == 2 * 2 * 64 * 2
    assert {each["max_model_len"] for each in result["table"]} == {1024, 2048}
    wrong = machine.run("fit", "--target", "pdp11")
    assert wrong.returncode == 1
    assert "m2-16gb" in wrong.stderr


def test_fit_counts_a_gguf_as_a_mac_holds_it_and_as_the_file_has_it_quantized(machine: Machine) -> None:
    gguf = tiny(kind="F16", embeddings="F16")
    gguf.write(machine.directory / "m.gguf")
    entries = (
        "plain: {source: ./m.gguf}",
        "eight: {source: ./m.gguf, quantize: 8}",
        "four: {source: ./m.gguf, quantize: 4}",
    )
    machine.write(models="".join(f"  {entry}\n" for entry in entries))
    found = json.loads(machine.run("fit", "--target", "m2-16gb", "--json").stdout)
    weights = {each["model"]: each["weights"] for each in found}
    matrices = sum(rows * columns for kind, (rows, *rest) in gguf.tensors.values() for columns in rest if kind == "F16")
    assert weights["plain"] - weights["eight"] == matrices * (16 - 9) // 8
    assert weights["plain"] - weights["four"] == matrices * (16 - 5) // 8


def test_fit_says_what_it_cannot_count(machine: Machine) -> None:
    machine.write()
    (machine.directory / "cut.gguf").write_bytes(tiny().encode()[:-1])
    cut = machine.run("fit", "./cut.gguf", "--target", "m2-16gb")
    assert (cut.returncode, cut.stdout) == (1, "")
    assert "fetch or copy the file again" in cut.stderr
    empty = machine.run("fit", "tiny", "--target", "m2-16gb")
    assert (empty.returncode, "has no weights in it" in empty.stderr) == (1, True)
    (machine.directory / "weights" / "model.safetensors").write_bytes(safetensors())
    config = '{"model_type": "llama", "num_hidden_layers": -5, "hidden_size": 1e400}'
    (machine.directory / "weights" / "config.json").write_text(config)
    untold = machine.run("fit", "tiny", "--target", "m2-16gb")
    assert "a cache that its config.json does not tell" in untold.stderr
    assert "declared are tiny; a source is a path" in machine.run("fit", "nothing").stderr
    machine.file.unlink()
    assert "no file here that declares any" in machine.run("fit", "nothing").stderr


def test_model_that_runs_code_of_its_checkpoint_is_named_in_the_plan(machine: Machine) -> None:
    engine = "{trust_remote_code: true}"
    machine.write(models=f"  one: {{source: ./weights, backend: vllm, engine: {engine}}}\n  two: {{source: ./weights}}")
    assert json.loads(machine.run("plan", "--json").stdout)["trust_remote_code"] == ["one"]
    said = "one would run code from its checkpoint (trust_remote_code)"
    assert said in machine.run("plan").stderr
    assert f"\x1b[31m{said}\x1b[0m" in on_a_terminal(machine, "plan")
    machine.environ["NO_COLOR"] = "1"
    assert said in (plain := on_a_terminal(machine, "plan"))
    assert "\x1b[31m" not in plain


def on_a_terminal(machine: Machine, *arguments: str) -> str:
    """What the command writes to standard error where that is one."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "appliance", *arguments]
    environ = machine._env()
    subprocess.run(command, cwd=machine.directory, env=environ, stdout=subprocess.DEVNULL, stderr=theirs, check=False)
    os.close(theirs)
    try:
        return os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)


def test_pull_that_is_interrupted_leaves_nothing_running_and_goes_on_later(machine: Machine, tmp_path: Path) -> None:
    weights = safetensors(1_000_000)
    with hub_double() as hub:
        hub.add("org/name", {**hf_files(), "model.safetensors": weights})
        hub.stall.set()
        machine.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf-home")}
        machine.write(models="  m: {source: 'hf:org/name'}")
        pull = machine.spawn("pull")
        partial = machine.home / "models" / "partial"
        wait_until(
            lambda: any(each.stat().st_size > 100_000 for each in partial.rglob("*.part")), what="a part has arrived"
        )
        children = psutil.Process(pull.pid).children(recursive=True)
        assert children
        pull.send_signal(signal.SIGINT)
        assert pull.wait(30) == 130
        assert not psutil.wait_procs(children, timeout=10)[1]
        hub.stall.clear()
        assert machine.run("pull").returncode == 0
        assert [each for each in hub.ranges() if not each.startswith("bytes=0-")]
    (found,) = (machine.home / "models" / "checkpoints").rglob("model.safetensors")
    assert found.read_bytes() == weights


def test_pull_brings_adapters_too_and_those_of_one_model_alone(stocked: Machine) -> None:
    stocked.write(
        models="  one: {source: 'pypi:one==1.0', adapters: [{name: low, source: 'pypi:two==1.0'}]}\n"
        "  three: {source: ./none}"
    )
    result = stocked.run("pull", "one")
    assert result.returncode == 0, result.stderr
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["one", "low"]
    everything = stocked.run("pull")
    assert everything.returncode == 1
    assert sorted(line.split("\t")[0] for line in everything.stdout.splitlines()) == ["low", "one"]
    assert "does not exist" in everything.stderr
