"""The scalar types of model-runner.yaml: durations, sizes, secrets, and numbers that refuse to be guessed from text."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SecretStr, Strict, WithJsonSchema

MASK = "**********"

_NUMBER = r"\d{1,16}(?:\.\d{1,16})?"
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")
_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_LONGEST = timedelta(days=3650)

_SIZE = re.compile(rf"({_NUMBER})\s*(B|[KMGT]i?B)")
_SHARE = re.compile(rf"({_NUMBER})\s*%")
_BYTES = {"B": 1} | {
    f"{letter}{i}B": (1024 if i else 1000) ** power for power, letter in enumerate("KMGT", 1) for i in ("i", "")
}
_LARGEST = 2**53  # beyond this a JSON reader may lose the last digits


def parse_duration(value: Any) -> timedelta:
    """`500ms`, `30s`, `10m`, `1h30m`, `2d`. A bare number is refused: nobody can tell its unit."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError("expected a duration such as `30s`, `10m` or `1h30m`")
    milliseconds = sum(float(number) * _MILLISECONDS[unit] for number, unit in _DURATION_PART.findall(value))
    if milliseconds != int(milliseconds):
        raise ValueError("expected a duration in whole milliseconds")
    if milliseconds > _LONGEST.total_seconds() * 1000:
        raise ValueError("expected a duration of at most `3650d`")
    return timedelta(milliseconds=milliseconds)


def format_duration(value: timedelta) -> str:
    milliseconds = round(value.total_seconds() * 1000)
    parts = []
    for unit, size in _MILLISECONDS.items():
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(value: Any) -> int:
    """`24GiB`, `512MB`: bytes. Binary and decimal units are both what they say."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a size such as `24GiB` or `512MB`")
    size = int(float(match[1]) * _BYTES[match[2]])
    if not 0 < size <= _LARGEST:
        raise ValueError("expected a size between `1B` and `8192TiB`")
    return size


def format_size(value: int) -> str:
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value and value % _BYTES[unit] == 0:
            return f"{value // _BYTES[unit]}{unit}"
    return f"{value}B"


def parse_budget(value: Any) -> int | float:
    """A size in bytes (int), or a share of physical memory (float, above 0 and up to 1) written as `75%`."""
    if isinstance(value, str) and (match := _SHARE.fullmatch(value)):
        share = float(match[1]) / 100
        if not 0 < share <= 1:
            raise ValueError("expected a share above `0%` and up to `100%`")
        return share
    try:
        return parse_size(value)
    except ValueError:
        raise ValueError("expected a size such as `24GiB` or a share such as `75%`") from None


def format_budget(value: int | float) -> str:
    return f"{value * 100:.12g}%" if isinstance(value, float) else format_size(value)


def parse_day(value: Any) -> date:
    """`2027-06-30`. A number is refused: pydantic would read it as seconds since 1970."""
    if isinstance(value, date):
        return value
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError("expected a day that is in the calendar") from None
    raise ValueError("expected a day such as `2027-06-30`")


def parse_version(value: Any) -> int:
    """`true` and `1.0` equal 1 in Python, and are not versions."""
    if type(value) is not int:
        raise ValueError("expected an integer")
    return value


def parse_argument(value: Any) -> Any:
    """Anything JSON can say, lists as tuples."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return tuple(parse_argument(item) for item in value)
        case dict() if all(isinstance(key, str) for key in value):
            return {key: parse_argument(item) for key, item in value.items()}
    raise ValueError("expected text, a number, `true`, `false`, null, or lists and mappings of these")


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("expected a duration above zero")
    return value


class SecretText(SecretStr):
    """Text that is never printed. `reference` is the `${…}` it was read through, which may be."""

    reference: str | None = None

    @property
    def shown(self) -> str:
        return self.reference or MASK


# `strict` keeps `yes`, `"8000"` and `4096.0` from becoming a number behind the writer's back.
Text = Annotated[str, Strict(), Field(min_length=1)]
Flag = Annotated[bool, Strict()]
Integer = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
Number = Annotated[float, Strict()]

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    AfterValidator(_positive),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$", "examples": ["30s", "10m", "1h30m"]}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*(B|[KMGT]i?B)$", "examples": ["32MiB"]}),
]
Budget = Annotated[
    int | float,
    BeforeValidator(parse_budget),
    PlainSerializer(format_budget, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*(%|B|[KMGT]i?B)$", "examples": ["75%", "24GiB"]}),
]
Day = Annotated[
    date,
    BeforeValidator(parse_day),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2027-06-30"]}),
]
Argument = Annotated[Any, BeforeValidator(parse_argument)]
Secret = Annotated[
    SecretText,
    PlainSerializer(lambda secret: secret.shown, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["${env:NAME}", "${file:~/.secret}"]}),
]
