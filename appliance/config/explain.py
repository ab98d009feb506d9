"""One key of the configuration: its value, who set it, who else wanted to, and what it means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from appliance.config import fields
from appliance.config.dump import mask, to_plain
from appliance.config.load import Loaded
from appliance.config.problems import KeyPath, did_you_mean, write_path
from appliance.config.wording import meaning, plain_default, type_in_words
from appliance.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Say:
    """A source that set the key, in vain or not."""

    origin: str
    value: Any


@dataclass(frozen=True, slots=True)
class Explanation:
    key: str
    value: Any
    origin: str
    shadowed: tuple[Say, ...]
    """Sources that set it too, and lost; for a mapping, sources whose entries are merged beneath."""
    type: str
    default: Any
    required: bool
    meaning: str


def explain(loaded: Loaded, key: str) -> Explanation:
    """Raises ConfigError for a key that the format does not have."""
    plain = to_plain(loaded.appliance)
    path = parse_key(key, plain)
    place = fields.locate(path)
    assert place is not None  # noqa: S101 - parse_key has walked there
    value = _value_at(plain, path)
    says = [Say(layer.origin(path), mask(layer.get(path), path)) for layer in loaded.layers if layer.has(path)]
    origin = loaded.origin(path)
    return Explanation(
        key=write_path(path),
        value=value,
        origin=origin,
        shadowed=tuple(say for say in says if say.origin != origin),
        type=type_in_words(place.annotation),
        default=plain_default(place.annotation, place.field),
        required=place.field.is_required() if place.field else False,
        meaning=meaning(place.meaning),
    )


def _value_at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[int(part)] if isinstance(data, list) else (data or {}).get(part)
    return data


def parse_key(key: str, data: Any) -> KeyPath:
    """`models.smollm2.aliases[0]`. Names may have dots in them, so those in `data` are tried, longest first."""
    words = re.sub(r"\[(\d+)\]", r".\1", key).split(".")
    path: KeyPath = ()
    while words:
        part, count = _next_part(words, path, data)
        path, words = (*path, part), words[count:]
        place = fields.locate(path)
        present = part in (range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ())
        # A name in `engine` or `env` may be asked for before it is set; a model or backend that is not there may not.
        if place is None or (not present and (isinstance(part, int) or fields.section_of(place.annotation))):
            raise _unknown(path, data)
        data = data[part] if present else None
    return path


def _next_part(words: list[str], path: KeyPath, data: Any) -> tuple[str | int, int]:
    if isinstance(data, list):
        return (int(words[0]) if words[0].isdigit() else words[0]), 1
    if isinstance(data, dict) and not fields.names_at(path):
        for count in range(len(words), 0, -1):
            if (name := ".".join(words[:count])) in data:
                return name, count
    return words[0], 1


def _unknown(path: KeyPath, data: Any) -> ConfigError:
    parent = path[:-1]
    beside = fields.names_at(parent) or (tuple(data) if isinstance(data, dict) else ())
    close = did_you_mean(write_path(path), [write_path((*parent, name)) for name in beside])
    known = f"known here: {', '.join(beside)}" if beside else None
    return ConfigError(f"there is no key `{write_path(path)}`", hint=close or known)
