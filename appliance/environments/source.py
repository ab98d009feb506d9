"""vLLM from its source distribution, without compiled kernels: for platforms that no index has a build of it for.

vLLM's own switch for that is VLLM_TARGET_DEVICE=empty at build time, which leaves Python alone. On macOS its setup.py
overrules the switch and compiles kernels for the CPU, which the Metal plug-in never calls: some minutes, and a compiler
that may not be there. So that one condition is changed, in the unpacked tree; what is installed is vLLM's as it is.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from appliance.environments.pip import QUIET
from appliance.errors import ProvisionError

OVERRULES = 'if sys.platform.startswith("darwin") and VLLM_TARGET_DEVICE != "cpu":'
OBEYS = 'if sys.platform.startswith("darwin") and VLLM_TARGET_DEVICE not in ("cpu", "empty"):'

# The list has brought what the build needs; in an environment of its own pip would fetch torch a second time.
_OPTIONS = ("--no-deps", "--no-build-isolation")


def variables(version: str) -> dict[str, str]:
    """Of the build alone: at run time the first would make vLLM skip its platform plug-ins."""
    return {
        "VLLM_TARGET_DEVICE": "empty",
        # Its own version would be a local one, `+empty`, and another than the pinned one.
        "VLLM_VERSION_OVERRIDE": version,
        # A server in Rust that the engine does not start: setup.py goes without it where it finds no cargo.
        "CARGO": "/nonexistent/cargo",
    }


def fetch_argv(python: Path, requirement: Path, directory: Path) -> tuple[str | Path, ...]:
    words = ("download", *QUIET, *_OPTIONS, "--no-binary=:all:", "--require-hashes", "--progress-bar=off")
    return (python, "-I", "-u", "-m", "pip", *words, "--dest", directory, "--requirement", requirement)


def install_argv(python: Path, tree: Path) -> tuple[str | Path, ...]:
    return (python, "-I", "-u", "-m", "pip", "install", *QUIET, *_OPTIONS, "--compile", "--no-user", tree)


def unpack(directory: Path, name: str) -> Path:
    """The tree of the one archive that was fetched, ready to be built."""
    (archive,) = directory.glob(f"{name}-*.tar.gz")
    with tarfile.open(archive) as members:
        members.extractall(directory, filter="data")
    tree = directory / archive.name.removesuffix(".tar.gz")
    setup = tree / "setup.py"
    text = setup.read_text(encoding="utf-8")
    if text.count(OVERRULES) != 1:
        raise ProvisionError(
            f"`{archive.name}`: its setup.py is not the one that this version of the appliance knows",
            hint="`environment.python` takes an interpreter that has vLLM",
        )
    setup.write_text(text.replace(OVERRULES, OBEYS), encoding="utf-8")
    return tree
