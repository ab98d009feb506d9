"""Pin what the control process needs, with the hash of every file: `packaging/control.txt`.

    python -m tools.lock            resolve again and write it
    python -m tools.lock --check    fail if pyproject.toml asks for something that it does not hold

The container installs from it, and the Homebrew formula takes its resources from it. Resolved by uv for every Python
and platform that pyproject.toml allows; the check touches no network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "packaging" / "control.txt"
PLATFORMS = ("sys_platform == 'darwin'", "sys_platform == 'linux'")

_HEAD = """\
# What the control process needs, with the hash of every file. Written by `python -m tools.lock`; do not edit.
# The comment above each pin is its source distribution, which is what the first hash belongs to.
"""


@dataclass(frozen=True, slots=True)
class Pin:
    """One distribution. `sdist` is the address of its source distribution, whose hash comes first in `hashes`."""

    name: str
    version: str
    marker: str
    sdist: str
    hashes: tuple[str, ...]


def read() -> tuple[Pin, ...]:
    """The committed lock."""
    pins = []
    for block in LOCK.read_text(encoding="utf-8").removeprefix(_HEAD).strip().split("\n\n"):
        sdist, pinned, *hashes = (line.strip().removesuffix(" \\") for line in block.splitlines())
        requirement = Requirement(pinned)
        (version,) = (specifier.version for specifier in requirement.specifier)
        digests = tuple(each.removeprefix("--hash=sha256:") for each in hashes)
        marker = str(requirement.marker or "")
        pins.append(Pin(requirement.name, version, marker, sdist.removeprefix("# "), digests))
    return tuple(pins)


def resolve() -> tuple[Pin, ...]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with tempfile.TemporaryDirectory() as scratch:
        document = (
            f'[project]\nname = "control"\nversion = "0"\nrequires-python = "{project["requires-python"]}"\n'
            f"dependencies = {json.dumps(project['dependencies'])}\n[tool.uv]\nenvironments = {json.dumps(PLATFORMS)}\n"
        )
        (Path(scratch) / "pyproject.toml").write_text(document, encoding="utf-8")
        command = ["uv", "lock", "--no-python-downloads", "--python", sys.executable, "--directory", scratch]
        subprocess.run([sys.executable, "-m", *command], check=True)
        locked = tomllib.loads((Path(scratch) / "uv.lock").read_text(encoding="utf-8"))
    packages = {package["name"]: package for package in locked["package"]}
    return tuple(_pin(package, packages) for name, package in sorted(packages.items()) if name != "control")


def _pin(package: Mapping[str, Any], packages: Mapping[str, Any]) -> Pin:
    sdist, wheels = package["sdist"], package.get("wheels", ())
    hashes = [each["hash"].removeprefix("sha256:") for each in (sdist, *wheels)]
    return Pin(package["name"], package["version"], _marker(package["name"], packages), sdist["url"], tuple(hashes))


def _marker(name: str, packages: Mapping[str, Any]) -> str:
    """Under which condition anything asks for it; none where anything asks always."""
    asked = [
        dependency.get("marker")
        for package in packages.values()
        for dependency in package.get("dependencies", ())
        if dependency["name"] == name
    ]
    # Nested conditions are left out: a pin too many does no harm, one too few would.
    return str(Marker(" or ".join(sorted({f"({each})" for each in asked})))) if asked and all(asked) else ""


def render(pins: tuple[Pin, ...]) -> str:
    return _HEAD + "\n".join(map(_block, pins))


def _block(pin: Pin) -> str:
    condition = f" ; {pin.marker}" if pin.marker else ""
    lines = [f"{pin.name}=={pin.version}{condition}", *(f"    --hash=sha256:{each}" for each in pin.hashes)]
    return f"# {pin.sdist}\n" + " \\\n".join(lines) + "\n"


def problems(pins: tuple[Pin, ...]) -> Iterator[str]:
    """What pyproject.toml asks for and the lock does not hold."""
    held = {canonicalize_name(pin.name): pin for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in project["dependencies"]:
        wanted = Requirement(text)
        pin = held.get(canonicalize_name(wanted.name))
        if pin is None:
            yield f"`{text}` is not in it"
        elif not wanted.specifier.contains(pin.version, prereleases=True):
            yield f"`{text}` is not met by {pin.version}"


def applies(pin: Pin, *, python: str, platform: str) -> bool:
    """Whether a machine with this Python (`3.12`) and `sys.platform` needs it."""
    if not pin.marker:
        return True
    environment = {**default_environment(), "sys_platform": platform, "python_version": python}
    return Marker(pin.marker).evaluate({**environment, "python_full_version": f"{python}.0"})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.lock", description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        LOCK.write_text(render(resolve()), encoding="utf-8")
        return 0
    wrong = [*problems(read())]
    for problem in wrong:
        print(f"error: {LOCK.relative_to(ROOT)}: {problem}\n  hint: run `make lock`", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
