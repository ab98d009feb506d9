"""The pinned lists that ship in the package, one per backend, accelerator and platform."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from appliance.config.scalars import parse_size

_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;#]+)((?: --hash=sha256:[0-9a-f]{64})*)")
_SETTING = re.compile(r"# (python|glibc|macos|disk|omits|completes|builds): (.+)")


@dataclass(frozen=True)
class RequirementList:
    """One list. `omits` are distributions that a pinned one asks for and that are left out on purpose; `completes` is
    the distribution whose own dependencies are added when the index offers another build of it than the list is for;
    `builds` the one that is built here from its source distribution, after all the others."""

    name: str
    text: str
    pins: Mapping[str, str] = field(hash=False)
    pythons: tuple[str, ...] = ()
    glibc: tuple[int, ...] = ()
    macos: tuple[int, ...] = ()
    disk: int = 0
    omits: tuple[str, ...] = ()
    completes: str = ""
    builds: str = ""

    @property
    def wheels(self) -> str:
        """What pip installs as it is."""
        return "".join(f"{line}\n" for _, line in _lines(self.text) if not self._is_built(line))

    @property
    def source(self) -> str:
        """The pin of what is built here; empty where nothing is."""
        return "".join(f"{line}\n" for _, line in _lines(self.text) if self._is_built(line))

    def _is_built(self, line: str) -> bool:
        return bool(self.builds) and line.startswith(f"{self.builds}==")

    @property
    def digest(self) -> str:
        """Of the pins alone: a better comment must not make anybody install two gigabytes again."""
        lines = "".join(f"{name}=={version}\n" for name, version in sorted(self.pins.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def parse_list(name: str, text: str) -> RequirementList:
    settings: dict[str, str] = {}
    pins: dict[str, str] = {}
    for line in text.splitlines():
        if setting := _SETTING.fullmatch(line):
            settings[setting[1]] = setting[2]
    for number, line in _lines(text):
        pin = _PIN.fullmatch(line)
        if pin is None:
            raise ValueError(f"{name}.txt:{number}: expected `name==version`, got `{line}`")
        pins[canonical(pin[1])] = pin[2]
    return RequirementList(
        name=name,
        text=text,
        pins=pins,
        pythons=tuple(settings.get("python", "").split()),
        glibc=_version(settings.get("glibc", "")),
        macos=_version(settings.get("macos", "")),
        disk=parse_size(settings["disk"].replace(" ", "")) if "disk" in settings else 0,
        omits=tuple(settings.get("omits", "").split()),
        completes=settings.get("completes", ""),
        builds=settings.get("builds", ""),
    )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The pins, each with its hashes on one line, and the number of the line where it begins."""
    parts: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        parts.append(line.removesuffix("\\").strip())
        if not line.endswith("\\"):
            yield number - len(parts) + 1, " ".join(parts)
            parts = []


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")) if text else ()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def shipped_lists() -> Mapping[str, RequirementList]:
    directory = resources.files("appliance.engines") / "requirements"
    files = (Path(entry.name) for entry in directory.iterdir())
    return {
        file.stem: parse_list(file.stem, (directory / file.name).read_text(encoding="utf-8"))
        for file in sorted(files)
        if file.suffix == ".txt"
    }
