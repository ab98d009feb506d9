from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance.environments import examine
from appliance.environments.preflight import machine_problem
from tests.environments.wheelhouse import fake_vllm

SCRIPT = Path(examine.__file__).with_name("preflight.py")


def preflight(
    directory: Path, files: dict[str, str], expect: str = "CpuPlatform", python: str = sys.executable, **environ: str
) -> tuple[int, dict[str, Any]]:
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    result = subprocess.run(
        [python, SCRIPT, "--expect", expect],
        check=False,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(directory), **environ},
    )
    return result.returncode, json.loads(result.stdout)


def good(platform: str = "CpuPlatform") -> dict[str, str]:
    return {**fake_vllm(platform), "torch/__init__.py": '__version__ = "2.13.0+cpu"\n'}


def test_good_environment_says_what_it_is(tmp_path: Path) -> None:
    status, result = preflight(tmp_path, good())
    assert (status, result["problems"]) == (0, [])
    assert (result["platform"], result["device"]) == ("CpuPlatform", "cpu")
    assert (result["vllm"], result["torch"]) == ("0.32.0+cpu", "2.13.0+cpu")
    assert "pytest" in result["installed"]


def test_what_vllm_prints_does_not_reach_standard_output(tmp_path: Path) -> None:
    noisy = 'import os\nos.write(1, b"INFO starting\\n")\nprint("more")\n__version__ = "0.32.0"\n'
    status, result = preflight(tmp_path, {**good(), "vllm/__init__.py": noisy})
    assert (status, result["vllm"]) == (0, "0.32.0")


def test_our_own_modules_do_not_shadow_the_environment(tmp_path: Path) -> None:
    reads = "import requirements\n__version__ = requirements.VERSION\n"
    _, result = preflight(tmp_path, {**good(), "vllm/__init__.py": reads, "requirements.py": 'VERSION = "1"\n'})
    assert result["vllm"] == "1"


def test_subclass_of_the_expected_platform_is_right(tmp_path: Path) -> None:
    assert preflight(tmp_path, good("ZenCpuPlatform"), expect="Platform")[0] == 0


def broken(text: str) -> dict[str, str]:
    return {**good(), "vllm/__init__.py": text}


@pytest.mark.parametrize(
    ("files", "expect", "says"),
    [
        ({}, "CpuPlatform", "vLLM is not installed"),
        (good(), "CudaPlatform", "vLLM selects `CpuPlatform` here, and `CudaPlatform` is expected"),
        (good("UnspecifiedPlatform"), "", "selects no platform"),
        (broken('raise RuntimeError("operator torchvision::nms does not exist")'), "", "uninstall torchvision"),
        (
            broken('raise ImportError("libcublas.so.13: cannot open shared object file")'),
            "",
            "CUDA build whose libraries",
        ),
        (broken('raise ImportError("_C.so: undefined symbol: _ZN3c10")'), "", "another torch"),
        (broken("import depyf_that_is_missing"), "", "`depyf_that_is_missing` is missing"),
        (broken("raise SystemError('odd')"), "", "SystemError: odd"),
    ],
)
def test_each_way_to_be_wrong_is_a_sentence(tmp_path: Path, files: dict[str, str], expect: str, says: str) -> None:
    files = {**files, "torch/__init__.py": '__version__ = "2.13.0+cpu"\n'}
    status, result = preflight(tmp_path, files, expect)
    assert status == 1
    assert says in " ".join(result["problems"])


def test_build_time_variable_at_run_time_is_a_problem(tmp_path: Path) -> None:
    status, result = preflight(tmp_path, good(), VLLM_TARGET_DEVICE="cpu")
    assert status == 1
    assert "VLLM_TARGET_DEVICE" in result["problems"][0]


def test_python_that_is_too_old_is_said(tmp_path: Path) -> None:
    """Few machines have an old one: this one says that it is."""
    program = (
        "import runpy, sys; sys.version_info = (3, 10, 13, 'final', 0); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    old = tmp_path / "python3.10"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$@"\n')
    old.chmod(0o755)
    status, result = preflight(tmp_path, good(), python=str(old))
    assert status == 1
    assert "Python 3.10.13 is too old" in result["problems"][0]


@pytest.mark.parametrize(
    ("system", "machine", "wrong"), [("darwin", "arm64", False), ("darwin", "x86_64", True), ("linux", "x86_64", False)]
)
def test_interpreter_that_rosetta_translates_is_no_environment_for_metal(
    system: str, machine: str, wrong: bool
) -> None:
    problem = machine_problem(system, machine)
    assert bool(problem) == wrong
    assert not wrong or "Rosetta" in str(problem)
