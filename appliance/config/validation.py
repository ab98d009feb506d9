"""pydantic's errors in our own words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import ValidationError

from appliance.config import fields
from appliance.config.models import DOMAIN, NAME, ROUTE, SHA256, Appliance
from appliance.config.positions import kind_of
from appliance.config.problems import KeyPath, did_you_mean, one_of
from appliance.config.spellings import known_as

_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "`true` or `false`",
    "string_type": "text",
    "path_type": "a path",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
}
_PATTERNS = {
    NAME: "a name: letters, digits, `.`, `_` and `-`, a letter or digit first, at most 63",
    SHA256: "64 hexadecimal digits in lower case",
    ROUTE: "a path that starts with `/`",
    DOMAIN: "the name of a host in lower case, without scheme, port or path",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "above"),
}

Finding = tuple[KeyPath, str, str | None]
"""Key path, message, hint."""

REQUIRED, UNKNOWN = "required", "unknown key"


def findings(data: Mapping[str, Any], written: Mapping[KeyPath, str]) -> Iterator[Finding]:
    """Everything pydantic has to say about `data`; `written` has scalars as they were written."""
    try:
        Appliance.model_validate(data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path = tuple(part for part in detail["loc"] if part != "[key]")
            yield path, *_describe(dict(detail), path, written.get(path))


def _describe(detail: dict[str, Any], path: KeyPath, plain: str | None) -> tuple[str, str | None]:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    got = _show(value, path, plain)
    if kind == "missing":
        return REQUIRED, _required_hint(path)
    if kind == "extra_forbidden":
        return UNKNOWN, _unknown_hint(path)
    if kind == "literal_error":
        return _not_a_choice(path, value, got)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"out of range: expected {words} {context[name]:g}, got {got}", None
    if kind == "string_pattern_mismatch":
        if "[key]" in detail["loc"]:
            return f"not {_PATTERNS[NAME]}", None
        return f"expected {_PATTERNS[context['pattern']]}, got {got}", _pattern_hint(context["pattern"])
    if kind == "string_too_short":
        return "may not be empty", None
    if kind == "too_short":
        return f"expected at least {context['min_length']} item, got none", None
    if kind == "value_error":
        return f"{context['error']}, got {got}", _value_hint(path, str(context["error"]), value)
    if kind in ("model_type", "dict_type", "tuple_type"):
        return f"expected {_EXPECTED[kind]}, got {kind_of(value)}", _container_hint(path, value, kind)
    return f"expected {_EXPECTED[kind]}, got {got}", _scalar_hint(kind, path, value, plain)


def _show(value: Any, path: KeyPath, plain: str | None) -> str:
    if value is None or isinstance(value, dict | list | tuple) or fields.may_be_secret(path):
        return kind_of(value)
    text = plain if plain is not None else f'"{value}"' if isinstance(value, str) else str(value)
    return f"`{text}`" if len(text) <= 60 else f"`{text[:57]}…`"


def _required_hint(path: KeyPath) -> str | None:
    match path:
        case ("models", str(), "source"):
            return "`pypi:NAME==VERSION`, `hf:org/name@revision`, or a path"
        case ("auth", "keys", int(), _):
            return "`appliance key create NAME` writes the whole entry"
    return None


def _unknown_hint(path: KeyPath) -> str | None:
    *parent, key = path
    if name := known_as(path):
        return f"here it is `{name}`"
    if hint := did_you_mean(str(key), fields.names_at(tuple(parent))):
        return hint
    if path[0] == "models" and len(path) == 3:
        return "arguments of the backend go under `engine`"
    return f"known here: {', '.join(fields.names_at(tuple(parent)))}"


def _not_a_choice(path: KeyPath, value: Any, got: str) -> tuple[str, str | None]:
    if path == ("version",):
        return _unknown_version(value)
    place = fields.locate(path)
    choices = [str(choice) for choice in fields.choices_of(place.annotation)] if place else []
    return f"expected {one_of(choices)}, got {got}", did_you_mean(value, choices) if isinstance(value, str) else None


def _unknown_version(value: int) -> tuple[str, str | None]:
    return version_problem(value, max(get_args(Appliance.model_fields["version"].annotation)))


def version_problem(value: int, current: int) -> tuple[str, str | None]:
    """Message and hint for a version that is not the current one."""
    if value > current:
        return f"{value} is newer than this appliance, which reads version {current}", "upgrade the appliance"
    if value >= 1:
        message = f"{value} is an older form of the file, and this appliance reads version {current}"
        return message, "`appliance migrate FILE` rewrites it and keeps its comments"
    return f"there is no version {value}", f"write `version: {current}`"


def _pattern_hint(pattern: str) -> str | None:
    return "`appliance key create NAME` prints the key and writes its hash here" if pattern == SHA256 else None


def _container_hint(path: KeyPath, value: Any, kind: str) -> str | None:
    if value is None:
        return "remove the key, or indent its entries beneath it"
    if path == ("models",) and isinstance(value, list):
        return "write `models:` and beneath it `NAME:` with the model's keys, without `-`"
    if kind == "tuple_type" and isinstance(value, str):
        return "write `[…]`, or one `- item` per line"
    return None


def _value_hint(path: KeyPath, message: str, value: Any) -> str | None:
    if path == ("version",):
        return "write `version: 1`"
    if "duration such" in message and kind_of(value) == "a number":
        return f"add a unit: `{value}s`, `{value}m`"
    return None


def _scalar_hint(kind: str, path: KeyPath, value: Any, plain: str | None) -> str | None:
    if kind in ("string_type", "path_type"):
        if plain is None or value is None:
            return None
        word = "it" if fields.may_be_secret(path) else f"`{plain}`"
        return f"YAML reads {word} as {kind_of(value)}; quote it"
    if isinstance(value, str) and plain is None and value.isdecimal():
        return "remove the quotes"
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d[\d_:]*", value):
        return f"YAML reads `{value}` as text; write a number without leading `0`, `_` or `:`"
    return None
