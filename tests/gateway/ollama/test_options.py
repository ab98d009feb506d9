"""Durations as Go writes them, and that no option is forgotten."""

from __future__ import annotations

import math
from typing import Any

import ollama
import pytest

from appliance.errors import RequestError
from appliance.gateway.ollama.models import tagged
from appliance.gateway.ollama.options import NEUTRAL, READ_HERE, SAMPLING, sampling, seconds


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (300, 300), (0, 0), (-1, math.inf), (0.5, 0.5), ("10m", 600), ("1h30m", 5400), ("300ms", 0.3), ("1.5h", 5400),
        ("0", 0), ("-1", math.inf), ("-1m", math.inf), ("24h", 86400), ("0s", 0), ("60", 60), ("+5s", 5),
        (10**400, math.inf), ("9" * 5000, math.inf), ("-" + "9" * 5000, math.inf), ("9" * 5000 + "h", math.inf),
    ],
)  # fmt: skip
def test_a_duration_is_a_number_of_seconds(given: Any, expected: float) -> None:
    assert seconds(given) == pytest.approx(expected)


@pytest.mark.parametrize("given", ["soon", "", "5 m", "m", "1d", True, [], {}])
def test_what_is_no_duration_is_refused(given: Any) -> None:
    with pytest.raises(RequestError, match="keep_alive"):
        seconds(given)


def test_every_option_of_the_official_client_is_known() -> None:
    known = {*SAMPLING, *READ_HERE, *NEUTRAL}
    assert set(ollama.Options.model_fields) - known == set()


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_an_option_without_a_counterpart_takes_the_value_that_asks_for_nothing(name: str) -> None:
    value, reason = NEUTRAL[name]
    assert sampling({name: value}) == {}
    assert sampling({name: None}) == {}
    with pytest.raises(RequestError) as caught:
        sampling({name: not value if isinstance(value, bool) else value + 1})
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"stop": []}, {}),
        ({"num_predict": -1}, {"max_tokens": None}),
        ({"num_predict": 5}, {"max_tokens": 5}),
        ({"repeat_penalty": 1.2, "repeat_last_n": 0}, {}),
        ({"repeat_last_n": 64}, {}),
        ({"repeat_penalty": 1, "repeat_last_n": 64}, {"repetition_penalty": 1}),
        ({"mirostat_tau": 5.0, "mirostat_eta": 0.1}, {}),
    ],
)
def test_options_are_fields_of_an_engines_request(options: Any, expected: Any) -> None:
    assert sampling(options) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny", "tiny:latest"),
        ("tiny:q4", "tiny:q4"),
        ("ai/tiny", "ai/tiny:latest"),
        ("host:5000/x", "host:5000/x:latest"),
    ],
)
def test_every_name_has_a_tag(name: str, expected: str) -> None:
    assert tagged(name) == expected
