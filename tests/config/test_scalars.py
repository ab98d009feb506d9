from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from appliance.config import scalars
from appliance.config.models import Server


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172_800), ("0s", 0)]
)
def test_durations_are_read_and_written(text: str, seconds: float) -> None:
    assert scalars.parse_duration(text) == timedelta(seconds=seconds)
    assert scalars.parse_duration(scalars.format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "5", 5, "5 s", "s", "-5s", "1e3s", "0.1ms", "9999999d", "9" * 400 + "d", None])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        scalars.parse_duration(value)


@pytest.mark.parametrize(
    ("text", "size", "written"),
    [
        ("24GiB", 24 * 1024**3, "24GiB"),
        ("512MB", 512_000_000, "500000KiB"),
        ("1.5 KiB", 1536, "1536B"),
        ("7B", 7, "7B"),
    ],
)
def test_sizes_are_read_and_written(text: str, size: int, written: str) -> None:
    assert scalars.parse_size(text) == size
    assert scalars.format_size(size) == written
    assert scalars.parse_size(written) == size


@pytest.mark.parametrize("value", ["", "5", 5, "5gb", "0B", "GiB", "9" * 400 + "B", "99999TiB", None, True])
def test_what_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        scalars.parse_size(value)


def test_budgets_are_a_share_or_a_size() -> None:
    assert scalars.parse_budget("75%") == 0.75
    assert scalars.format_budget(0.333) == "33.3%"
    assert scalars.parse_budget("1GiB") == 1024**3
    for value in ("0%", "101%", "much", 0.5, None):
        with pytest.raises(ValueError, match="expected a s"):
            scalars.parse_budget(value)


def test_days_are_calendar_days() -> None:
    assert scalars.parse_day("2027-06-30") == date(2027, 6, 30)
    assert scalars.parse_day(date(2027, 6, 30)) == date(2027, 6, 30)
    for value in ("2027-02-30", "30.6.2027", 20270630, None):
        with pytest.raises(ValueError, match="expected a day"):
            scalars.parse_day(value)


def test_arguments_are_what_json_can_say() -> None:
    assert scalars.parse_argument({"a": [1, {"b": None}]}) == {"a": (1, {"b": None})}
    for value in ({1: 2}, {"a": {1}}, object()):
        with pytest.raises(ValueError, match="expected text"):
            scalars.parse_argument(value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("127.9.9.9", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, loopback: bool) -> None:
    assert Server(host=host).loopback is loopback
