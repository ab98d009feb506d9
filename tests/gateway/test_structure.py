from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RequestError
from appliance.gateway.structure import DEPTH, VALUES, check

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_what_is_within_the_limits_passes(value: Any) -> None:
    check(json.dumps(value).encode())


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"\\"":[', b'[{"]":'])
def test_depth_is_counted_outside_strings(opening: bytes) -> None:
    levels = opening.replace(b'"]"', b"").count(b"[") + opening.count(b"{")
    check(opening * (DEPTH // levels))
    with pytest.raises(RequestError, match="nested too deeply"):
        check(opening * (DEPTH // levels + 1))


def test_brackets_and_commas_in_text_count_for_nothing() -> None:
    check(json.dumps({"code": "[{(" * VALUES + '"\\' + "," * VALUES}).encode())


@pytest.mark.parametrize("item", [b"0,", b"{},", b"[],", b'"",'])
def test_more_values_than_any_prompt_has_are_refused(item: bytes) -> None:
    with pytest.raises(RequestError, match="values"):
        check(b"[" + item * (VALUES + 1) + b"0]")


def test_a_prompt_of_token_ids_passes() -> None:
    check(json.dumps({"prompt": list(range(VALUES - 10))}).encode())


@pytest.mark.parametrize("tail", [b'"' + b'\\"' * 1_000_000, b"\\" * 2_000_001, b'"' * 999_999, b'"\\' * 999_999])
def test_no_body_makes_it_look_twice(tail: bytes) -> None:
    # If it were quadratic, this would take hours.
    with pytest.raises(RequestError, match="nested too deeply"):
        check(b"[" * (DEPTH + 1) + tail)
