"""Pin what the control process and its tests need, for every Python and platform that pyproject.toml allows.

    python -m tools.lock            resolve again and write both files
    python -m tools.lock --check    fail if pyproject.toml asks for something that they do not hold

`packaging/control.txt` has what the control process needs, with the hash of every file: the container installs from it,
and the Homebrew formula takes its resources from it. `packaging/tested.txt` has those and what tests and lint need: a
checkout installs within it, so a release of somebody else's turns nothing red before it was tried here. Resolved by uv;
the check touches no network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "packaging" / "control.txt"
TESTED = ROOT / "packaging" / "tested.txt"
PLATFORMS = ("sys_platform == 'darwin'", "sys_platform == 'linux'")

_HEAD = """\
# What the control process needs, with the hash of every file. Written by `python -m tools.lock`; do not edit.
# The comment above each pin is its source distribution, which is what the first hash belongs to.
"""
_TESTED_HEAD = """\
# What the control process, its tests and lint ran with: a constraint for pip.
# Written by `python -m tools.lock`; do not edit.
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


def resolve_tested(pins: Sequence[Pin]) -> str:
    """What `.[dev]` installs, at the versions that the control process is pinned to."""
    with tempfile.TemporaryDirectory() as scratch:
        held = Path(scratch) / "control.txt"
        held.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins), encoding="utf-8")
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--extra", "dev", "--constraint", str(held)]
        command += ["--no-annotate", "--no-header", "--python", sys.executable, "pyproject.toml"]
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return _TESTED_HEAD + done.stdout


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


def problems(pins: Iterable[Pin], tested: str) -> Iterator[str]:
    """What pyproject.toml asks for and a file does not hold, and where the two files differ."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    control = {canonicalize_name(pin.name): [pin.version] for pin in pins}
    ran: dict[str, list[str]] = {}
    for line in tested.removeprefix(_TESTED_HEAD).splitlines():
        requirement = Requirement(line)
        (version,) = (specifier.version for specifier in requirement.specifier)
        ran.setdefault(canonicalize_name(requirement.name), []).append(version)
    yield from _unmet(LOCK, project["dependencies"], control)
    yield from _unmet(TESTED, [*project["dependencies"], *project["optional-dependencies"]["dev"]], ran)
    for name, (version,) in control.items():
        if version not in ran.get(name, ()):
            yield f"{TESTED.relative_to(ROOT)}: {name} is not at {version}, as in {LOCK.name}"


def _unmet(file: Path, asked: Iterable[str], held: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for text in asked:
        wanted = Requirement(text)
        versions = held.get(canonicalize_name(wanted.name), ())
        if not any(wanted.specifier.contains(version, prereleases=True) for version in versions):
            yield f"{file.relative_to(ROOT)}: `{text}` is not met by {' or '.join(versions) or 'anything in it'}"


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
        pins = resolve()
        LOCK.write_text(render(pins), encoding="utf-8")
        TESTED.write_text(resolve_tested(pins), encoding="utf-8")
        return 0
    wrong = [*problems(read(), TESTED.read_text(encoding="utf-8"))]
    for problem in wrong:
        print(f"error: {problem}\n  hint: run `make lock`", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
