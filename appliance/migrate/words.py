"""Shell words and loose values: what is written on a command line, in an .env file or in a unit."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,18}\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")


def split(text: str) -> list[str]:
    """As a shell does; where a quote is left open, at white space."""
    try:
        return shlex.split(text, comments=False)
    except ValueError:
        return text.split()


def words_of(value: Any) -> list[str]:
    """A command in list or in string form."""
    if isinstance(value, str):
        return split(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value if item is not None]
    return []


def plain(value: Any) -> str:
    """A YAML scalar as it would stand on a command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value)
    return "" if value is None else str(value)


def listed(value: Any) -> list[Any]:
    """The items where there is a list; none where there is anything else."""
    return value if isinstance(value, list) else []


def mapping(value: Any) -> dict[str, Any] | None:
    """The mapping, also where it is written as a JSON object; None for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def number(text: Any) -> int | float | None:
    """The number that `text` is, or None."""
    if isinstance(text, bool):
        return None
    if isinstance(text, int | float):
        return text
    if isinstance(text, str) and _INTEGER.fullmatch(text.strip()):
        return int(text)
    if isinstance(text, str) and _FLOAT.fullmatch(text.strip()):
        return float(text)
    return None


def integer(value: Any) -> int | None:
    found = number(value)
    if isinstance(found, float) and found.is_integer() and abs(found) < 1e15:
        return int(found)
    return found if isinstance(found, int) else None


def truth(value: Any) -> bool | None:
    """What a switch's value says, or None where it says nothing known."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in {"1", "true", "yes", "on", "enabled"}:
        return True
    return False if word in {"0", "false", "no", "off", "disabled", ""} else None
