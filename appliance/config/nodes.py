"""YAML text to a tree of nodes with positions, within bounds that hold for any input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from appliance.config.syntax import DEEPEST, TOO_DEEP, Malformed, explain_syntax


@dataclass(slots=True)
class Scalar:
    line: int
    column: int
    tag: str | None
    text: str
    plain: bool
    """Unquoted and untagged: YAML decides by its look what it is."""


@dataclass(slots=True)
class Sequence:
    line: int
    column: int
    tag: str | None
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    line: int
    column: int
    tag: str | None
    pairs: list[tuple[Node, Node]] = field(default_factory=list)


Node: TypeAlias = Scalar | Sequence | Mapping


def compose(text: str) -> Node | None:
    """The one document of `text`, or None where there is none. Raises Malformed."""
    # PyYAML's own composer recurses as deep as the text says, in C without a limit; so this works on events.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _document(yaml.parse(text, Loader=loader))
    except UnicodeEncodeError:
        raise Malformed("contains half a surrogate pair, which is not a character") from None
    except yaml.YAMLError as error:
        raise explain_syntax(error, text) from None


def _document(events: Iterator[Any]) -> Node | None:
    next(events)
    if isinstance(next(events), yaml.StreamEndEvent):
        return None
    root = _Composer(events).node(next(events), 0)
    next(events)
    if not isinstance(end := next(events), yaml.StreamEndEvent):
        line, column = _place(end)
        raise Malformed("a second document starts here", line, column, "one file holds one document; remove the `---`")
    return root


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


class _Composer:
    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._open: set[str] = set()

    def node(self, event: Any, depth: int) -> Node:
        if depth > DEEPEST:
            raise Malformed(TOO_DEEP, *_place(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if event.anchor:
            self._open.add(event.anchor)
        node = self._new(event, depth)
        if event.anchor:
            self._open.discard(event.anchor)
            self._anchors[event.anchor] = node
        return node

    def _new(self, event: Any, depth: int) -> Node:
        line, column = _place(event)
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(line, column, event.tag, event.value, plain=event.tag is None and bool(event.implicit[0]))
        if isinstance(event, yaml.SequenceStartEvent):
            sequence = Sequence(line, column, event.tag)
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                sequence.items.append(self.node(event, depth + 1))
            return sequence
        mapping = Mapping(line, column, event.tag)
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self.node(event, depth + 1)
            mapping.pairs.append((key, self.node(next(self._events), depth + 1)))
        return mapping

    def _alias(self, event: Any) -> Node:
        if event.anchor in self._open:
            raise Malformed(f"`*{event.anchor}` repeats a value that contains it", *_place(event))
        if event.anchor not in self._anchors:
            hint = f"write `&{event.anchor}` at the value it repeats, or quote the text"
            raise Malformed(f"`*{event.anchor}` has no anchor above it", *_place(event), hint=hint)
        return self._anchors[event.anchor]
