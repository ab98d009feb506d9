"""Whether a tool's arguments are what its schema asks for.

The engine's grammar is what holds a model to a schema; this notices an engine that has none. References and patterns
are left to the grammar: one request's pattern could keep all others waiting for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "number": (int, float),
    "integer": int,
    "null": type(None),
}


def obeys(value: Any, schema: Any, depth: int = 32) -> bool:
    """Type, enumeration, required properties and items, `depth` levels deep; other keywords are not looked at."""
    if not isinstance(schema, dict) or not depth:
        return True
    if not _is(value, schema.get("type")):
        return False
    if isinstance(schema.get("enum"), list) and value not in schema["enum"]:
        return False
    if isinstance(value, list):
        return all(obeys(item, schema.get("items"), depth - 1) for item in value)
    if isinstance(value, dict):
        properties = schema.get("properties")
        inner = properties if isinstance(properties, dict) else {}
        missing = [name for name in _list(schema.get("required")) if name not in value]
        closed = schema.get("additionalProperties") is False and not value.keys() <= inner.keys()
        return not missing and not closed and all(obeys(value[name], inner.get(name), depth - 1) for name in value)
    return True


def _is(value: Any, kind: Any) -> bool:
    kinds: list[Any] = kind if isinstance(kind, list) else [kind]
    return any(_matches(value, name) for name in kinds)


def _matches(value: Any, name: Any) -> bool:
    expected = _TYPES.get(name) if isinstance(name, str) else None
    if expected is None:
        return True
    if isinstance(value, bool):
        return expected is bool
    return isinstance(value, expected) or (name == "integer" and isinstance(value, float) and value.is_integer())


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
