"""Add and remove client keys in the file's text. Lines are inserted and deleted; every other line stays as it is."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import yaml


def add_key(text: str, entry: Mapping[str, Any]) -> str:
    """The text with one more item under `auth.keys`."""
    auth = _value(_root(text), "auth")
    keys = _value(auth, "keys")
    if auth is None:
        return _end_line(text) + _block(["auth:", "  keys:", *_item(entry, 4)])
    if isinstance(keys, yaml.SequenceNode) and keys.value and not keys.flow_style:
        return _insert(text, _last_line(keys), _item(entry, keys.start_mark.column))
    if keys is None and isinstance(auth, yaml.MappingNode) and auth.value and not auth.flow_style:
        indent = auth.start_mark.column
        return _insert(text, _last_line(auth), [f"{' ' * indent}keys:", *_item(entry, indent + 2)])
    return _rewritten(text, entry)


def remove_key(text: str, name: str) -> str | None:
    """The text without the key of this name, or None where it has none. An `auth:` left empty goes too."""
    root = _root(text)
    auth = _value(root, "auth")
    keys = _value(auth, "keys")
    items = keys.value if isinstance(keys, yaml.SequenceNode) else []
    found = next((item for item in items if _scalar(_value(item, "name")) == name), None)
    if found is None or not isinstance(auth, yaml.MappingNode) or not isinstance(root, yaml.MappingNode):
        return None
    if len(items) > 1:
        return _without(text, found) if not keys.flow_style else _rewritten(text, None, name)
    parent = auth if len(auth.value) > 1 else root
    entry = next(pair for pair in parent.value if pair[0].value == ("keys" if parent is auth else "auth"))
    return (
        _rewritten(text, None, name)
        if parent.flow_style
        else _delete(text, entry[0].start_mark.line, _last_line(entry[1]))
    )


def _root(text: str) -> yaml.Node | None:
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _value(node: yaml.Node | None, key: str) -> Any:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _scalar(node: yaml.Node | None) -> str | None:
    return node.value if isinstance(node, yaml.ScalarNode) else None


def _last_line(node: yaml.Node) -> int:
    """The line of the last thing written in a node: a block's own end mark lies beyond the comments after it."""
    if isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
        return max(_last_line(each) for pair in node.value for each in pair)
    if isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        return _last_line(node.value[-1])
    mark = node.end_mark
    return mark.line - 1 if isinstance(node, yaml.ScalarNode) and mark.column == 0 and mark.line else mark.line


def _without(text: str, item: yaml.Node) -> str:
    return _delete(text, item.start_mark.line, _last_line(item))


def _delete(text: str, first: int, last: int) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[:first] + lines[last + 1 :])


def _insert(text: str, after: int, added: list[str]) -> str:
    lines = _end_line(text).splitlines(keepends=True)
    return "".join([*lines[: after + 1], _block(added), *lines[after + 1 :]])


def _item(entry: Mapping[str, Any], indent: int) -> list[str]:
    """The entry as the lines of one block sequence item whose dash stands at `indent`."""
    # JSON is YAML, and its quotes keep a hash such as `12e345…` from being read as a number.
    lines = [f"{key}: {json.dumps(value, default=str)}" for key, value in entry.items()]
    return [" " * indent + ("- " if number == 0 else "  ") + line for number, line in enumerate(lines)]


def _block(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _end_line(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _rewritten(text: str, entry: Mapping[str, Any] | None, without: str | None = None) -> str:
    """By way of a round-trip parser, for flow style, where there are no lines to add or delete."""
    from ruamel.yaml import YAML

    round_trip = YAML()
    round_trip.preserve_quotes = True
    round_trip.width = 4096
    document = round_trip.load(text)
    auth = document["auth"] = document.get("auth") or {}
    auth["keys"] = [key for key in auth.get("keys") or [] if key.get("name") != without] + (
        [dict(entry)] if entry else []
    )
    result = io.StringIO()
    round_trip.dump(document, result)
    return result.getvalue()
