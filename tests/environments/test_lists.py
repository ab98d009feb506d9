from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.environments.requirements import parse_list, shipped_lists
from tools.resolve_requirements import TABLE, hashed

REPOSITORY = Path(__file__).parents[2]
_METAL_MACOS = next(entry for entry in TABLE if entry.macos)
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def test_lists_mirror_their_table_and_the_extras_of_pyproject() -> None:
    tool = REPOSITORY / "tools" / "resolve_requirements.py"
    result = subprocess.run([sys.executable, tool, "--check"], check=False, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", ["vllm-cpu-linux-x86_64", "vllm-cpu-linux-aarch64", "vllm-cuda-linux-x86_64"])
def test_list_is_fully_pinned_and_says_what_it_asks_of_the_host(name: str) -> None:
    shipped = shipped_lists()[name]
    assert len(shipped.pins) > 100
    assert {"torch", "transformers", "gguf", "setuptools", "xgrammar"} <= set(shipped.pins)
    assert shipped.pythons[0] == "3.11"
    assert shipped.glibc == (2, 31)
    assert shipped.disk > 2**31


@pytest.mark.parametrize("name", ["vllm-cpu-linux-x86_64", "vllm-cpu-linux-aarch64"])
def test_cpu_list_leaves_out_what_breaks_beside_a_cpu_torch(name: str) -> None:
    shipped = shipped_lists()[name]
    assert not {"torchvision", "torchaudio", "torchcodec"} & set(shipped.pins)
    assert {"torchvision", "torchaudio", "torchcodec"} <= set(shipped.omits)
    assert not [pin for pin in shipped.pins if pin.startswith(("nvidia-", "cuda-"))]
    assert shipped.pins["torch"] == "2.13.0"  # without `+cpu`, which not every index has


def test_list_with_anything_but_pins_is_refused_with_its_line() -> None:
    with pytest.raises(ValueError, match=r"odd\.txt:2: .*`b>=1`"):
        parse_list("odd", "a==1\nb>=1\n")


def test_comment_does_not_change_the_digest_and_a_pin_does() -> None:
    assert parse_list("a", "# one\nA_b==1\n").digest == parse_list("a", "# two\na-b==1\n").digest
    assert parse_list("a", "a-b==1\n").digest != parse_list("a", "a-b==2\n").digest


def test_argument_data_describes_every_argument_in_the_documented_form() -> None:
    data = json.loads((REPOSITORY / "appliance/engines/arguments/vllm-0.32.json").read_text(encoding="utf-8"))
    assert data["vllm"] == "0.32.0"
    assert {"max_model_len", "enforce_eager", "uds", "served_model_name"} <= set(data["arguments"])
    known = {"flag", "type", "choices", "default", "help", "deprecated", "nullable"}
    known |= {"negative", "items", "repeat", "suffix", "also", "text", "bare"}
    for name, argument in data["arguments"].items():
        assert argument["flag"] == f"--{name.replace('_', '-')}"
        assert argument["type"] in ("int", "float", "str", "bool", "json", "list")
        assert set(argument) <= known
        assert 0 < len(argument["help"]) <= 120


def test_metal_list_is_the_cpu_list_with_mlx_so_that_one_download_serves_both() -> None:
    cpu, metal = (shipped_lists()[f"vllm-{kind}-linux-x86_64"] for kind in ("cpu", "metal"))
    assert set(metal.pins) - set(cpu.pins) == {"mlx", "mlx-cpu", "mlx-lm"}
    assert metal.glibc == (2, 35)
    large = ("vllm-cpu", "torch", "transformers", "opencv-python-headless")
    assert [metal.pins[name] for name in large] == [cpu.pins[name] for name in large]


def test_macos_list_has_what_ci_runs_on_linux_and_a_hash_for_every_file() -> None:
    linux, macos = (shipped_lists()[f"vllm-metal-{platform}"] for platform in ("linux-x86_64", "macos-aarch64"))
    common = linux.pins.keys() & macos.pins.keys()
    assert [name for name in common if linux.pins[name] != macos.pins[name]] == []
    assert linux.pins.keys() - common == {*_METAL_MACOS.leaves}
    assert {"vllm", "torch", "mlx", "mlx-metal", "mlx-lm"} <= macos.pins.keys()
    assert (macos.macos, macos.glibc, macos.pythons) == ((14, 0), (), linux.pythons)
    pins = [*macos.wheels.splitlines(), *macos.source.splitlines()]
    assert len(pins) == len(macos.pins)
    assert all(" --hash=sha256:" in pin for pin in pins)
    assert macos.source.startswith("vllm==0.32.0 --hash=")


def test_hash_of_a_pin_that_is_no_hash_is_refused_with_its_line() -> None:
    with pytest.raises(ValueError, match=r"odd\.txt:3: "):
        parse_list("odd", "a==1\n\nb==1 \\\n    --hash=sha256:abc\n")


@pytest.mark.engine
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_every_pin_of_the_macos_list_has_a_wheel_for_apple_silicon(python: str, tmp_path: Path) -> None:
    listed = shipped_lists()["vllm-metal-macos-aarch64"]
    (tmp_path / "wheels.txt").write_text(listed.wheels)
    command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-platform", "aarch64-apple-darwin", "--python-version", python]
    command += ["--target", str(tmp_path / "there"), "--requirement", str(tmp_path / "wheels.txt")]
    environ = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": ".".join(map(str, listed.macos))}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^ \+ ", done.stderr, re.MULTILINE)) == len(listed.pins) - 1  # vLLM is built


@pytest.mark.engine
def test_hashes_of_the_macos_list_are_those_that_the_index_tells() -> None:
    listed = shipped_lists()["vllm-metal-macos-aarch64"]
    wheels = tuple(line.partition(" ")[0] for line in listed.wheels.splitlines())
    told = {entry.partition(" ")[0]: set(_HASH.findall(entry)) for entry in hashed(wheels, _METAL_MACOS)}
    for line in listed.wheels.splitlines():
        assert len(found := set(_HASH.findall(line))) > 0, line
        assert found <= told[line.partition(" ")[0]], line
