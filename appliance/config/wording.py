"""Types and defaults in words, for the reference and for `explain`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from appliance.config import fields
from appliance.config.models import Name
from appliance.config.problems import one_of
from appliance.config.scalars import Argument, Budget, Count, Day, Duration, Flag, Integer, Number, Secret, Size, Text

_NOUNS: tuple[tuple[Any, str], ...] = (
    (Name, "name"),
    (Text, "text"),
    (Flag, "`true` or `false`"),
    (Count, "integer"),
    (Integer, "integer"),
    (Number, "number"),
    (Duration, "duration"),
    (Size, "size"),
    (Budget, "share or size"),
    (Day, "day"),
    (Secret, "secret"),
    (Argument, "any value"),
    (Path, "path"),
)


def type_in_words(annotation: Any) -> str:
    words = _bare(annotation)
    comma = "," if "," in words else ""
    return f"{words}{comma} or null" if fields.nullable(annotation) else words


def _bare(annotation: Any) -> str:
    if choices := fields.choices_of(annotation):
        return one_of(str(choice) for choice in choices)
    if fields.section_of(annotation):
        return "mapping"
    if (item := fields.item_of(annotation)) is not None:
        if get_origin(fields.unwrap(annotation)) is dict:
            inner = "" if fields.section_of(item) else f" to {_bare(item)}"
            return f"mapping from name{inner}"
        return f"list of {'mappings' if fields.section_of(item) else _plural(_bare(item))}"
    schema = _schema(annotation)
    noun = next((noun for known, noun in _NOUNS if known in _alternatives(annotation)), None)
    return (noun or _by_schema(schema)) + _bounds(schema)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The annotation with its metadata, with and without `| None`."""
    return (annotation, *getattr(annotation, "__args__", ())) if fields.nullable(annotation) else (annotation,)


def _plural(noun: str) -> str:
    return noun if noun == "text" or noun.startswith("`") else f"{noun}s"


def _schema(annotation: Any) -> dict[str, Any]:
    schema = TypeAdapter(annotation).json_schema()
    return next((part for part in schema.get("anyOf", ()) if part.get("type") != "null"), schema)


def _by_schema(schema: dict[str, Any]) -> str:
    return {"integer": "integer", "number": "number", "string": "text"}[schema["type"]]


def _bounds(schema: dict[str, Any]) -> str:
    low, above, high = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    if above is not None and high is not None:
        return f", above {above:g} and up to {high:g}"
    return f", at least {low:g}" if low is not None else ""


def plain_default(annotation: Any, field: FieldInfo | None) -> Any:
    """As it would be written in the file; None where there is none."""
    if field is None or field.is_required():
        return None
    default = field.get_default(call_default_factory=True)
    return TypeAdapter(annotation).dump_python(default, mode="json")


def default_in_words(annotation: Any, field: FieldInfo | None) -> str:
    if field is None or field.is_required():
        return "required"
    default = plain_default(annotation, field)
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


def meaning(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
