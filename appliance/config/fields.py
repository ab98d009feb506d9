"""The shape of the file, read off the models: which fields there are, and what a key path leads to."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from appliance.config.models import Appliance, Strict
from appliance.config.problems import KeyPath

_SECRETS = (
    ("huggingface", "token"),
    ("models", "*", "env", "*"),
    ("models", "*", "engine", "api_key"),
    ("models", "*", "engine", "hf_token"),
    ("backends", "*", "env", "*"),
)
_PASTED = ("auth", "keys", "*", "sha256")  # a hash may be shown; what people paste here by mistake is the key


@dataclass(frozen=True, slots=True)
class Place:
    """What stands at one key path. `field` is None for an item of a mapping or list."""

    annotation: Any
    field: FieldInfo | None = None
    meaning: str = ""


@cache
def hints(model: type[Strict]) -> dict[str, Any]:
    return get_type_hints(model, include_extras=True)


def unwrap(annotation: Any) -> Any:
    """The type itself: without `| None` and without the metadata of Annotated."""
    if get_origin(annotation) in (Union, types.UnionType):
        present = [member for member in get_args(annotation) if member is not type(None)]
        annotation = present[0] if len(present) == 1 else annotation
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def nullable(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def item_of(annotation: Any) -> Any:
    """What a mapping or list holds, or None for anything else."""
    inner = unwrap(annotation)
    if get_origin(inner) is dict:
        return get_args(inner)[1]
    if get_origin(inner) is tuple:
        return get_args(inner)[0]
    return None


def section_of(annotation: Any) -> type[Strict] | None:
    inner = unwrap(annotation)
    return inner if isinstance(inner, type) and issubclass(inner, Strict) else None


def choices_of(annotation: Any) -> tuple[Any, ...]:
    inner = unwrap(annotation)
    return get_args(inner) if get_origin(inner) is Literal else ()


def _place(section: type[Strict], name: str) -> Place:
    field = section.model_fields[name]
    return Place(hints(section)[name], field, field.description or "")


def locate(path: KeyPath) -> Place | None:
    """What the format has at this path; None where it has nothing."""
    place = Place(Appliance)
    for part in path:
        if section := section_of(place.annotation):
            if part not in section.model_fields:
                return None
            place = _place(section, str(part))
        elif (item := item_of(place.annotation)) is not None:
            if isinstance(part, int) is not (get_origin(unwrap(place.annotation)) is tuple):
                return None
            inner = section_of(item)
            place = Place(item, None, str(inner.__doc__) if inner else place.meaning)
        else:
            return None
    return place


def names_at(path: KeyPath) -> tuple[str, ...]:
    """The field names of the section at this path; empty where names are free."""
    place = locate(path)
    section = section_of(place.annotation) if place else None
    return tuple(section.model_fields) if section else ()


def every_field(
    model: type[Strict] = Appliance, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Place]]:
    """All fields, depth first in the order of the source; `*` stands for a free name or an index."""
    for name in model.model_fields:
        path, place = (*prefix, name), _place(model, name)
        yield path, place
        if section := section_of(place.annotation):
            yield from every_field(section, path)
        elif section := section_of(item_of(place.annotation)):
            yield from every_field(section, (*path, "*"))


def is_secret(path: KeyPath) -> bool:
    return any(len(path) == len(pattern) and _matches(pattern, path) for pattern in _SECRETS)


def may_be_secret(path: KeyPath) -> bool:
    """Whether text put here, if only by mistake in place of a section, may be a secret."""
    return any(_matches(pattern, path) for pattern in (*_SECRETS, _PASTED))


def _matches(pattern: tuple[str, ...], path: KeyPath) -> bool:
    return all(wanted in ("*", part) for wanted, part in zip(pattern, path, strict=False))
