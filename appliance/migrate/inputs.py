"""An input as text, within bounds that hold for anything somebody may hand us."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.config.positions import MOST_VALUES, Position, decode, parse
from appliance.config.problems import InvalidConfig, KeyPath, Problem
from appliance.config.syntax import DEEPEST

_BINARY = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True, slots=True)
class Input:
    """`name` is how messages call it; `base` is where its relative paths start."""

    name: str
    text: str = field(repr=False)
    base: Path
    path: Path | None = None


def read_input(path: Path) -> Input:
    """Raises InvalidConfig for what is not a text file of a sane size."""
    name = shown_name(path)
    if path.is_dir():
        raise refused(name, "is a directory", hint="name the files in it")
    try:
        with path.open("rb") as file:
            text = decode(file.read(LARGEST + 1), name)
    except FileNotFoundError:
        raise refused(name, "there is no such file", hint="name a file, or `-` for standard input") from None
    except (OSError, ValueError) as error:
        raise refused(name, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if isinstance(text, Problem):
        raise InvalidConfig([text])
    return checked(Input(name, text, path.parent, path))


LARGEST = 1024 * 1024


def checked(source: Input) -> Input:
    """The same, unless it is not text that a person wrote."""
    if _BINARY.search(source.text):
        raise refused(
            source.name, "is a binary file", hint="compose files, .env files, command lines and the like are text"
        )
    if len(source.text) > LARGEST:
        raise refused(source.name, f"{len(source.text):,} characters long; at most {LARGEST:,} are read")
    return source


def shown_name(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def refused(name: str, message: str, *, hint: str | None = None, line: int | None = None) -> InvalidConfig:
    return InvalidConfig([Problem(name, message, hint=hint, line=line)])


@dataclass(frozen=True, slots=True)
class Tree:
    """A YAML or JSON document as plain data that knows its lines."""

    name: str
    data: dict[str, Any] = field(repr=False)
    positions: Mapping[KeyPath, Position] = field(default_factory=dict, repr=False)
    tags: tuple[Problem, ...] = ()
    """Values with a tag such as `!reset`, which were read as if it were not there."""

    def place(self, *path: str | int) -> str:
        """`compose.yaml:12`, of the nearest key above that has a line."""
        for length in range(len(path), 0, -1):
            if position := self.positions.get(path[:length]):
                return f"{self.name}:{position.line}"
        return self.name


def tree(source: Input) -> Tree:
    """Raises InvalidConfig with every problem that keeps the text from being read."""
    if not source.text.strip():
        return Tree(source.name, {})
    if source.text.lstrip()[0] in "[{":
        return _from_json(source)
    document = parse(source.text, source.name)
    tags = [problem for problem in document.problems if problem.message.startswith("tag ")]
    rest = [problem for problem in document.problems if problem not in tags]
    rest = [problem for problem in rest if problem.message != "a key must be text"]  # read as it is written
    if rest or not document.readable:
        raise InvalidConfig(rest or document.problems)
    return Tree(source.name, document.data, document.positions, tuple(tags))


def _from_json(source: Input) -> Tree:
    """A top-level list becomes the key `items`. Flow-style YAML that is not JSON is read as YAML."""
    try:
        data = json.loads(source.text)
    except RecursionError:
        raise refused(source.name, f"more than {DEEPEST} levels deep") from None
    except ValueError as error:
        if source.text.lstrip()[0] == "{" and (document := parse(source.text, source.name)).readable:
            return Tree(source.name, document.data, document.positions)
        line = getattr(error, "lineno", None)
        raise refused(source.name, f"is not JSON: {getattr(error, 'msg', error)}", line=line) from None
    _bounded(data, source.name)
    return Tree(source.name, data if isinstance(data, dict) else {"items": data})


def _bounded(data: Any, name: str) -> None:
    count, level = 0, [data]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            count += 1
            below += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if count > MOST_VALUES:
            raise refused(name, f"more than {MOST_VALUES:,} values")
        if not below:
            return
        level = below
    raise refused(name, f"more than {DEEPEST} levels deep")


def inside(path: Path, folder: Path) -> bool:
    """Whether a file that an input names lies in the input's own folder, links followed."""
    try:
        path.resolve().relative_to(folder.resolve())
    except (ValueError, OSError, RuntimeError):
        return False
    return True
