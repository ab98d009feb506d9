"""Token counts found in answers, and taken out of them again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.gateway.usage import Unasked, Usage, estimate, find

COUNTS = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def chunk(**more: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", **more}).encode() + b"\n\n"


def words(*texts: str) -> list[bytes]:
    return [chunk(choices=[{"index": 0, "delta": {"content": text}}]) for text in texts]


TRAILER = chunk(choices=[], usage=COUNTS)
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"choices": [], "usage": COUNTS}, Usage(7, 3)),
        ({"usage": {"input_tokens": 5, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}}, Usage(5, 2)),
        ({"data": [0.5], "usage": {"prompt_tokens": 4, "total_tokens": 4}}, Usage(4, 0)),
        ({"tools": [{"parameters": {"usage": {"type": "object"}}}], "usage": COUNTS}, Usage(7, 3)),
        ({"usage": COUNTS, "metadata": {"usage": {"type": "object"}}}, Usage(7, 3)),
        ({"text": '"usage":{"prompt_tokens":999,"completion_tokens":999}'}, None),
        ({"usage": COUNTS, "text": '"usage":{"prompt_tokens":999,"completion_tokens":999}'}, Usage(7, 3)),
        ({"usage": {"type": "duration", "seconds": 4}}, None),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": 1}}, None),
        ({"usage": {"prompt_tokens": True, "completion_tokens": 1}}, None),
        ({"usage": None}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_the_engines_own_count_is_found(body: object, usage: Usage | None, separators: tuple[str, str]) -> None:
    data = json.dumps(body, separators=separators).encode()
    assert find(data) == usage
    assert find(data[: len(data) // 2 + 1]) in (None, usage)


def test_the_count_of_a_stream_is_that_of_its_last_events() -> None:
    assert find(chunk(choices=[], usage={**COUNTS, "completion_tokens": 1}) + TRAILER + DONE) == Usage(7, 3)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_break_the_search(before: bytes, after: bytes) -> None:
    find(before + b'"usage":{' + after)


@given(st.lists(st.text(max_size=20), max_size=12), st.data())
def test_a_stream_without_its_trailer_is_what_it_would_have_been_unasked_however_it_is_cut(
    texts: list[str], data: st.DataObject
) -> None:
    plain = b"".join(words(*texts))
    stream = plain + TRAILER + DONE
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    unasked = Unasked()
    assert b"".join([*map(unasked.feed, pieces), unasked.flush()]) == plain + DONE


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_an_empty_usage_in_every_event_goes_too(end: bytes) -> None:
    event = b'data: {"choices":[{"delta":{"content":"say \\"usage\\":null"}}],"usage":null}' + end
    trailer = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}' + end
    unasked = Unasked()
    got = unasked.feed(event + trailer + event)
    assert got == 2 * (b'data: {"choices":[{"delta":{"content":"say \\"usage\\":null"}}]}' + end)


def test_a_usage_beside_content_stays_since_the_event_is_needed() -> None:
    event = chunk(choices=[{"delta": {"content": "x"}}], usage=COUNTS)
    assert Unasked().feed(event) == event


def test_events_pass_as_the_very_bytes_that_came() -> None:
    (event,) = words("hello")
    assert Unasked().feed(event) is event


def test_an_answer_called_off_is_estimated_by_its_events() -> None:
    event = b"data: 0123456789\n\n"
    assert estimate(400, 50 * len(event), event * 2) == Usage(100, 50)
    assert estimate(0, 0, b"") == Usage(0, 0)
    assert estimate(0, 40, b"plain") == Usage(0, 10)
