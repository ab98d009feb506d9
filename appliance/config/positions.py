"""YAML text to plain data that remembers where every key and value was written.

The subset is what a person expects of a configuration file: mappings with text keys, lists, and plain scalars. Numbers
follow YAML 1.2 (`0800`, `1_000` and `12:30` are text, not 512 or 750); the words `yes`, `no`, `on` and `off` are
booleans as in YAML 1.1, because the tools around this file read them so, and a problem about one says that.
"""

from __future__ import annotations

import math
import re
from collections import abc
from dataclasses import dataclass, field
from typing import Any

from appliance.config.nodes import Mapping, Node, Scalar, Sequence, compose
from appliance.config.problems import KeyPath, Problem, write_path
from appliance.config.syntax import DEEPEST, Malformed

LARGEST_FILE = 1024 * 1024
MOST_VALUES = 50_000  # counted after aliases are expanded, which is where ten lines can become ten gigabytes

_TAG = "tag:yaml.org,2002:"
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {
    variant: value
    for value, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for word in words
    for variant in (word, word.capitalize(), word.upper())
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})|0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20}")
_FLOAT = re.compile(r"(?=.*[.eE])[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Position:
    """Where an entry is written, counted from 1: its key (a list item: the item), and its value."""

    line: int
    column: int
    value_line: int
    value_column: int
    plain: str | None = None
    """An unquoted scalar as written: `no` for what became False."""


@dataclass(frozen=True, slots=True)
class Document:
    """`data` holds whatever could be read even where there are problems, so that the rest is checked too."""

    data: dict[str, Any] = field(default_factory=dict, repr=False)
    positions: abc.Mapping[KeyPath, Position] = field(default_factory=dict, repr=False)
    problems: tuple[Problem, ...] = ()
    readable: bool = True
    """Whether the whole text was read, problems or not."""


def decode(content: bytes, source: str) -> str | Problem:
    """The text of a file, or what keeps it from being text."""
    hint = "save it as UTF-8 without a byte order mark"
    if len(content) > LARGEST_FILE:
        return Problem(source, f"{len(content):,} bytes long; at most {LARGEST_FILE:,} are read")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Problem(source, "the file is UTF-16", hint=hint)
    if content.startswith(b"\xef\xbb\xbf"):
        return Problem(source, "the file starts with a byte order mark", hint=hint, line=1, column=1)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = f"byte 0x{content[error.start]:02x} is not UTF-8"
        return Problem(source, message, hint="save the file as UTF-8", line=line, column=column)


def parse(text: str, source: str) -> Document:
    """A whole file: one document whose top level is a mapping."""
    reader = _Reader(source)
    try:
        root = compose(text)
        if root is None or (isinstance(root, Scalar) and root.plain and root.text in _NULL):
            raise Malformed("the file is empty", hint="it needs at least one model, under `models:`")
        if not isinstance(root, Mapping):
            kind = "a list" if isinstance(root, Sequence) else "one plain value"
            raise Malformed(f"expected keys such as `models:` at the top level, got {kind}", root.line, root.column)
        data = reader.value(root, ())
    except Malformed as error:
        return Document(problems=(*reader.problems, error.problem(source)), readable=False)
    return Document(data, reader.positions, tuple(reader.problems))


def parse_value(text: str) -> Any:
    """One value as it might stand behind a key: what an environment variable holds. Raises Malformed."""
    reader = _Reader("")
    root = compose(text)
    value = None if root is None else reader.value(root, ())
    if reader.problems:
        raise Malformed(reader.problems[0].message, hint=reader.problems[0].hint)
    return value


class _Reader:
    """Nodes to data, one walk; collects what can be reported and read past."""

    def __init__(self, source: str) -> None:
        self.positions: dict[KeyPath, Position] = {}
        self.problems: list[Problem] = []
        self._source = source
        self._count = 0

    def value(self, node: Node, path: KeyPath) -> Any:
        self._count += 1
        if self._count > MOST_VALUES:
            raise Malformed(f"more than {MOST_VALUES:,} values, aliases expanded", node.line, node.column)
        if len(path) > DEEPEST:
            raise Malformed(f"more than {DEEPEST} levels deep, aliases expanded", node.line, node.column)
        if isinstance(node, Scalar):
            return self._scalar(node, path)
        expected = "map" if isinstance(node, Mapping) else "seq"
        if node.tag not in (None, "!", _TAG + expected):
            self._refuse_tag(node, path)
        if isinstance(node, Mapping):
            return self._mapping(node, path)
        return [self._entry(item, item, (*path, index)) for index, item in enumerate(node.items)]

    def _entry(self, key: Node, node: Node, path: KeyPath) -> Any:
        plain = node.text if isinstance(node, Scalar) and node.plain else None
        self.positions[path] = Position(key.line, key.column, node.line, node.column, plain)
        return self.value(node, path)

    def _mapping(self, node: Mapping, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: list[Node] = []
        for key, value in node.pairs:
            if isinstance(key, Scalar) and key.plain and key.text == "<<":
                merged += value.items if isinstance(value, Sequence) else [value]
                continue
            name = self._key(key, path)
            if name is None:
                continue
            if name in data:
                first = self.positions[*path, name]
                hint = f"it is already given at {first.line}:{first.column}; keep one of them"
                self._refuse("duplicate key", key, (*path, name), hint)
                continue
            data[name] = self._entry(key, value, (*path, name))
        for other in merged:
            self._merge(other, data, path)
        return data

    def _merge(self, node: Node, data: dict[str, Any], path: KeyPath) -> None:
        """`<<: *other`: the other mapping's entries, where this one has none of its own."""
        if not isinstance(node, Mapping):
            self._refuse("`<<` takes a mapping", node, path, "write `<<: *name` with `&name` at a mapping")
            return
        own = {name: self.positions[*path, name] for name in data}
        inner = self._mapping(node, path)
        self.positions.update({(*path, name): position for name, position in own.items()})
        for name, value in inner.items():
            data.setdefault(name, value)

    def _key(self, node: Node, path: KeyPath) -> str | None:
        if not isinstance(node, Scalar):
            self._refuse("a key must be plain text", node, path, "a `{` or `[` at the start of a value needs quotes")
            return None
        value = plain_scalar(node.text) if node.plain else node.text
        if not isinstance(value, str):
            hint = f"YAML reads `{node.text}` as {kind_of(value)}; quote it"
            self._refuse("a key must be text", node, (*path, node.text), hint)
        return node.text

    def _scalar(self, node: Scalar, path: KeyPath) -> Any:
        if node.plain:
            return plain_scalar(node.text)
        if node.tag in (None, "!", _TAG + "str"):
            return node.text
        value = plain_scalar(node.text)
        if node.tag not in {_TAG + name for name in _tags_of(value)}:
            self._refuse_tag(node, path)
        return value

    def _refuse_tag(self, node: Node, path: KeyPath) -> None:
        tag = (node.tag or "").replace(_TAG, "!!")
        self._refuse(f"tag `{tag}` is not supported here", node, path, "remove the tag")

    def _refuse(self, message: str, node: Node, path: KeyPath, hint: str) -> None:
        self.problems.append(
            Problem(self._source, message, path=write_path(path), hint=hint, line=node.line, column=node.column)
        )


def plain_scalar(text: str) -> Any:
    """What an unquoted scalar stands for."""
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def _tags_of(value: Any) -> tuple[str, ...]:
    match value:
        case None:
            return ("null",)
        case bool():
            return ("bool",)
        case int():
            return ("int", "float")
        case float():
            return ("float",)
    return ()


def kind_of(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return "text"
