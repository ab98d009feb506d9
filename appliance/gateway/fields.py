"""Typed access to what clients send, with an error that names the place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from appliance.errors import RequestError

T = TypeVar("T")

_NAMES: Mapping[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def invalid(where: str, message: str) -> RequestError:
    return RequestError(f"{where}: {message}", status=400, param=where, code="invalid_value")


def checked(value: object, kind: type[T], where: str) -> T:
    """`value` where it is of this kind of JSON value; `float` takes integers too, and neither takes a boolean."""
    fits = isinstance(value, int | float if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise invalid(where, f"must be {_NAMES[kind]}")
    return cast("T", value)


def optional(found: Mapping[str, Any], name: str, kind: type[T], where: str = "") -> T | None:
    """What is there under `name`; null is nothing. `where` is the path of `found`, with a dot at its end."""
    value = found.get(name)
    return None if value is None else checked(value, kind, where + name)


def required(found: Mapping[str, Any], name: str, kind: type[T], where: str = "") -> T:
    if found.get(name) is None:
        raise invalid(where + name, "is required")
    return checked(found[name], kind, where + name)


def objects(found: list[Any], where: str) -> list[tuple[str, dict[str, Any]]]:
    """Each item, which must be an object, with its path."""
    return [(f"{where}.{index}", checked(item, dict, f"{where}.{index}")) for index, item in enumerate(found)]
