"""The file's own format, from an older version to the current one: migrations/mNNNN_*.py, text to text, in order."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from appliance.config.models import Appliance
from appliance.config.positions import parse
from appliance.config.problems import InvalidConfig
from appliance.errors import ConfigError
from appliance.migrate.rules import shipped_migrations

_MODULE = re.compile(r"m(\d{4})_[a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Step:
    """From version `number` to the next. `summary` is the first line of the module's docstring."""

    number: int
    name: str
    summary: str
    apply: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """`text` at the current version; no steps where it was there already."""

    text: str
    before: int
    after: int
    steps: tuple[Step, ...]


def current_version() -> int:
    return int(max(get_args(Appliance.model_fields["version"].annotation)))


def steps(directory: Path | None = None) -> tuple[Step, ...]:
    """The migrations that ship, or those of another directory. Raises ConfigError for one that is not of their form."""
    found = [_step(path) for path in sorted((directory or shipped_migrations()).glob("m[0-9]*.py"))]
    if len({step.number for step in found}) < len(found):
        raise ConfigError("two migrations start from one version")
    return tuple(found)


def _step(path: Path) -> Step:
    match = _MODULE.fullmatch(path.stem)
    spec = importlib.util.spec_from_file_location(f"appliance_migration_{path.stem}", path)
    if match is None or spec is None or spec.loader is None:
        raise ConfigError(f"`{path}` is not named mNNNN_words.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    summary = (module.__doc__ or "").strip().splitlines()
    if not summary or not callable(getattr(module, "migrate", None)):
        raise ConfigError(f"`{path}` needs a docstring and `migrate(text: str) -> str`")
    return Step(int(match[1]), path.stem, summary[0], module.migrate)


def upgrade(
    text: str, source: str, *, available: tuple[Step, ...] | None = None, current: int | None = None
) -> Upgrade:
    """One version after another. Raises ConfigError where no step leads on, and InvalidConfig for what is not YAML."""
    by_number = {step.number: step for step in (steps() if available is None else available)}
    goal = current_version() if current is None else current
    before = version = version_of(text, source)
    taken = []
    while version < goal:
        step = by_number.get(version)
        if step is None:
            raise ConfigError(f"`{source}` is at version {version}, and no migration starts from it")
        text = step.apply(text)
        if version_of(text, f"{source}, after {step.name}") != version + 1:
            raise ConfigError(f"{step.name} did not bring `{source}` to version {version + 1}")
        version += 1
        taken.append(step)
    if version > goal:
        raise ConfigError(
            f"`{source}` is at version {version}; this appliance writes {goal}", hint="upgrade the appliance"
        )
    return Upgrade(text, before, goal, tuple(taken))


def version_of(text: str, source: str) -> int:
    document = parse(text, source)
    if not document.readable:
        raise InvalidConfig(document.problems)
    version = document.data.get("version", 1)
    if type(version) is not int or version < 1:
        raise ConfigError(f"`{source}`: version is not a whole number above 0")
    return version
