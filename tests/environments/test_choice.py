from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.config.models import Environment
from appliance.environments.host import Host
from appliance.environments.requirements import shipped_lists
from appliance.environments.spec import EnvironmentSpec, choose
from appliance.errors import ProvisionError

LINUX = Host(system="linux", machine="x86_64", bits=64, glibc=(2, 36), python="3.11", nvidia=False)


def chosen(host: Host = LINUX, **environment: object) -> EnvironmentSpec:
    return choose("vllm", Environment.model_validate(environment), host, shipped_lists())


@pytest.mark.parametrize(
    ("host", "accelerator", "expected"),
    [
        (LINUX, "auto", ("vllm-cpu-linux-x86_64-py311-", "CpuPlatform")),
        (LINUX, "cuda", ("vllm-cuda-linux-x86_64-py311-", "CudaPlatform")),
        (replace(LINUX, nvidia=True), "auto", ("vllm-cuda-linux-x86_64-py311-", "CudaPlatform")),
        (replace(LINUX, nvidia=True), "cpu", ("vllm-cpu-linux-x86_64-py311-", "CpuPlatform")),
        (replace(LINUX, machine="aarch64"), "auto", ("vllm-cpu-linux-aarch64-py311-", "CpuPlatform")),
        (replace(LINUX, machine="aarch64", nvidia=True), "auto", ("vllm-cpu-linux-aarch64-py311-", "CpuPlatform")),
        (replace(LINUX, python="3.13"), "auto", ("vllm-cpu-linux-x86_64-py313-", "CpuPlatform")),
    ],
)
def test_environment_follows_the_platform_and_the_accelerator(
    host: Host, accelerator: str, expected: tuple[str, str]
) -> None:
    spec = chosen(host, accelerator=accelerator)
    assert spec.name.startswith(expected[0])
    assert len(spec.name) == len(expected[0]) + 8
    assert spec.expected_platform == expected[1]
    assert spec.identity == spec.name


@pytest.mark.parametrize(
    ("host", "says"),
    [
        (
            replace(LINUX, system="macos", machine="aarch64", glibc=()),
            ["vllm-cpu-macos-aarch64", "vllm-cpu-linux-x86_64"],
        ),
        (replace(LINUX, machine="riscv64"), ["vllm-cpu-linux-riscv64", "vllm-cuda-linux-x86_64"]),
        (replace(LINUX, glibc=()), ["musl", "2.31"]),
        (replace(LINUX, glibc=(2, 28)), ["glibc 2.28", "2.31"]),
        (replace(LINUX, bits=32), ["32-bit"]),
        (replace(LINUX, python="3.15"), ["3.15", "3.14"]),
    ],
)
def test_platform_without_a_list_is_named_beside_the_lists_there_are(host: Host, says: list[str]) -> None:
    with pytest.raises(ProvisionError) as caught:
        chosen(host)
    assert all(word in caught.value.message for word in says)
    assert caught.value.hint


MAC = Host(
    system="macos", machine="aarch64", bits=64, glibc=(), python="3.12", nvidia=False, macos=(15, 4), translated=False
)


def test_vllm_without_the_plug_in_is_told_what_runs_on_a_mac() -> None:
    with pytest.raises(ProvisionError) as caught:
        chosen(MAC)
    assert "`backend: vllm-metal`" in str(caught.value.hint)


def test_given_interpreter_needs_no_list_and_is_its_own_identity() -> None:
    spec = chosen(replace(LINUX, machine="riscv64"), python=Path("/opt/vllm/bin/python"))
    assert spec.requirements is None
    assert spec.identity == "/opt/vllm/bin/python"
    assert spec.expected_platform == ""
    assert chosen(python=Path("/opt/vllm/bin/python"), accelerator="cuda").expected_platform == "CudaPlatform"


def test_backend_that_needs_no_environment_is_refused() -> None:
    with pytest.raises(ProvisionError, match="`llamacpp`"):
        choose("llamacpp", Environment(), LINUX, shipped_lists())


def metal(host: Host = LINUX, **environment: object) -> EnvironmentSpec:
    return choose("vllm-metal", Environment.model_validate(environment), host, shipped_lists())


def test_metal_environment_is_proved_to_run_the_plug_in_of_this_installation() -> None:
    spec = metal()
    assert spec.name.startswith("vllm-metal-linux-x86_64-py311-")
    assert spec.expected_platform == "appliance_metal.platform.MetalPlatform"
    assert dict(spec.variables)["VLLM_PLUGINS"] == "appliance_metal"


def test_given_interpreter_gets_the_plug_in_too() -> None:
    spec = metal(python=Path("/opt/vllm/bin/python"))
    assert (spec.requirements, spec.identity) == (None, "/opt/vllm/bin/python")
    assert spec.variables == metal().variables


def test_older_glibc_than_mlx_is_built_for_is_refused() -> None:
    with pytest.raises(ProvisionError, match=r"glibc 2\.35 or newer"):
        metal(replace(LINUX, glibc=(2, 31)))


def test_mac_gets_its_own_list() -> None:
    spec = metal(MAC)
    assert spec.name.startswith("vllm-metal-macos-aarch64-py312-")
    assert spec.expected_platform == "appliance_metal.platform.MetalPlatform"


@pytest.mark.parametrize(
    ("host", "says", "hint"),
    [
        (replace(MAC, machine="x86_64", translated=True), "runs under Rosetta", "arm64 Python"),
        (
            replace(MAC, macos=(13, 6)),
            "macOS 14.0 or newer, which MLX is built for, and this machine has 13.6",
            "update",
        ),
        (replace(MAC, macos=()), "does not tell its version", "update"),
        (replace(MAC, machine="x86_64"), "vllm-metal-macos-x86_64", "Intel"),
        (replace(MAC, python="3.15"), "3.15", "environment.python"),
    ],
)
def test_mac_that_cannot_run_it_is_told_why(host: Host, says: str, hint: str) -> None:
    with pytest.raises(ProvisionError) as caught:
        metal(host)
    assert says in caught.value.message
    assert hint in str(caught.value.hint)


def test_translated_python_is_told_so_whatever_the_backend() -> None:
    """`auto` takes it for an Intel Mac, which has vLLM's own backend."""
    with pytest.raises(ProvisionError, match="runs under Rosetta"):
        chosen(replace(MAC, machine="x86_64", translated=True))
