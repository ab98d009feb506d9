"""Whatever an engine streams, its events are a message."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from appliance.errors import RequestError
from appliance.gateway.anthropic.request import Asked
from appliance.gateway.anthropic.stream import MessageStream
from appliance.gateway.anthropic.tools import Forced

Json = dict[str, Any]

ASKED = Asked("tiny", True, {}, thinking=True, stops=("END",))


def events_of(data: bytes) -> list[Json]:
    found = []
    for part in data.decode().split("\n\n")[:-1]:
        name, _, body = part.partition("\ndata: ")
        event: Json = json.loads(body)
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def run(chunks: Iterable[Json], asked: Asked = ASKED) -> list[Json]:
    stream = MessageStream(asked)
    return events_of(b"".join([*map(stream.feed, chunks), stream.end()]))


def chunk(finish: str | None = None, **delta: Any) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None}


def tool(index: int, arguments: str | None = None, name: str | None = None) -> Json:
    return {"index": index, "function": {"name": name, "arguments": arguments}}


def message_of(events: list[Json]) -> list[Json]:
    """Checks the grammar of the events on the way, and gives back the blocks."""
    kinds = [event["type"] for event in events if event["type"] != "ping"]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    blocks: list[Json] = []
    open_ = False
    for found in events:
        match found["type"]:
            case "content_block_start":
                assert not open_
                assert found["index"] == len(blocks)
                blocks.append({**found["content_block"], "said": ""})
                open_ = True
            case "content_block_delta":
                assert open_
                assert found["index"] == len(blocks) - 1
                delta = found["delta"]
                fits = {"text": ("text_delta",), "tool_use": ("input_json_delta",)}
                kind = blocks[-1]["type"]
                assert delta["type"] in fits.get(kind, ("thinking_delta", "signature_delta"))
                blocks[-1]["said"] += delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
            case "content_block_stop":
                assert open_
                assert found["index"] == len(blocks) - 1
                open_ = False
            case "message_delta":
                assert not open_
    assert kinds.count("message_start") == kinds.count("message_delta") == 1
    return blocks


TEXTS = st.sampled_from(["", " ", "\n\n", "one ", "two", '{"a":', "1}", "{}", "\ud83d"])
CALLS = st.builds(
    tool, st.integers(0, 2), st.one_of(st.none(), TEXTS), st.sampled_from([None, "", "weather", "time"])
)  # fmt: skip
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.one_of(st.none(), TEXTS),
        "reasoning": st.one_of(st.none(), TEXTS),
        "reasoning_content": TEXTS,
        "tool_calls": st.one_of(st.none(), st.lists(CALLS, max_size=3)),
    },
)
USAGE = st.sampled_from([None, {"prompt_tokens": 3, "completion_tokens": 4}])
CHUNKS = st.one_of(
    st.builds(
        lambda delta, finish, usage: {
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            "usage": usage,
        },
        DELTAS,
        st.sampled_from([None, None, None, "stop", "length", "tool_calls", "content_filter"]),
        USAGE,
    ),
    st.builds(lambda usage: {"choices": [], "usage": usage}, USAGE),
    st.just({}),
)
FORCED = st.sampled_from([None, Forced({"weather": {}}), Forced({"weather": {}, "time": {}})])


@settings(max_examples=400)
@given(st.lists(CHUNKS, max_size=12), FORCED)
def test_any_chunks_are_a_valid_sequence_of_events_or_an_error(chunks: list[Json], forced: Forced | None) -> None:
    asked = Asked("tiny", True, {}, thinking=True, forced=forced)
    try:
        events = run(chunks, asked)
    except RequestError as error:
        event("the model is at fault, not its client")
        if error.status != 500:
            raise
        return
    blocks = message_of(events)
    cut = next(event for event in events if event["type"] == "message_delta")["delta"]["stop_reason"] == "max_tokens"
    for block in blocks:
        if block["type"] == "tool_use" and not cut:
            assert isinstance(json.loads(block["said"] or "{}"), dict)
        if block["type"] == "text":
            assert block["said"].strip()


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["content", "reasoning"]), st.text(min_size=1)), max_size=12))
def test_nothing_that_is_said_is_lost(pieces: list[tuple[str, str]]) -> None:
    blocks = message_of(run([*(chunk(**{kind: text}) for kind, text in pieces), chunk("stop")]))
    for kind, name in (("content", "text"), ("reasoning", "thinking")):
        said = "".join(text for found, text in pieces if found == kind)
        shown = "".join(block["said"] for block in blocks if block["type"] == name)
        # Space that is all there is between two other blocks has none of its own.
        assert "".join(shown.split()) == "".join(said.encode(errors="replace").decode().split())


def test_calls_whose_pieces_come_mixed_are_written_one_after_the_other() -> None:
    chunks = [
        chunk(tool_calls=[tool(0, "", "weather")]),
        chunk(tool_calls=[tool(1, '{"b"', "time"), tool(0, '{"a":')]),
        chunk(tool_calls=[tool(0, "1}"), tool(1, ":2}")]),
        chunk("tool_calls"),
    ]
    blocks = message_of(run(chunks))
    assert [(block["name"], block["said"]) for block in blocks] == [("weather", '{"a":1}'), ("time", '{"b":2}')]


def test_a_complete_call_is_closed_as_soon_as_another_begins() -> None:
    stream = MessageStream(ASKED)
    stream.feed(chunk(tool_calls=[tool(0, '{"a":1}', "weather")]))
    kinds = [event["type"] for event in events_of(stream.feed(chunk(tool_calls=[tool(1, "{", "time")])))]
    assert kinds == ["content_block_stop", "content_block_start", "content_block_delta"]


def test_text_before_and_after_calls_has_blocks_of_its_own_and_space_between_them_has_none() -> None:
    chunks = [
        chunk(role="assistant", content=""),
        chunk(reasoning="Hm."),
        chunk(content="\n\n"),
        chunk(content="Look: "),
        chunk(content="", tool_calls=[]),
        chunk(tool_calls=[tool(0, "{}", "weather")]),
        chunk(content="\n"),
        chunk(tool_calls=[tool(1, "", "time")]),
        chunk("stop", content=" Done."),
    ]
    blocks = message_of(run(chunks))
    assert [(block["type"], block["said"]) for block in blocks] == [
        ("thinking", "Hm."),
        ("text", "\n\nLook: "),
        ("tool_use", "{}"),
        ("tool_use", ""),
        ("text", " Done."),
    ]


def test_more_after_a_call_was_closed_is_an_error() -> None:
    chunks = [
        chunk(tool_calls=[tool(0, '{"a":1}', "weather")]),
        chunk(tool_calls=[tool(1, "{}", "time")]),
        chunk("tool_calls", tool_calls=[tool(0, "and more")]),
    ]
    with pytest.raises(RequestError, match="weather"):
        run(chunks)


@pytest.mark.parametrize(
    ("finish", "stop", "calls", "reason", "sequence"),
    [
        ("stop", None, (), "end_turn", None),
        ("stop", "END", (), "stop_sequence", "END"),
        ("stop", 128, (), "end_turn", None),
        ("stop", "other", (), "end_turn", None),
        ("length", None, (), "max_tokens", None),
        ("content_filter", None, (), "refusal", None),
        ("tool_calls", None, ("{}",), "tool_use", None),
        ("stop", None, ("{}",), "tool_use", None),
        (None, None, (), "end_turn", None),
    ],
)
def test_why_a_message_ended(finish: str | None, stop: Any, calls: Any, reason: str, sequence: str | None) -> None:
    last = chunk(finish, tool_calls=[tool(0, arguments, "weather") for arguments in calls])
    last["choices"][0]["stop_reason"] = stop
    (delta,) = [event["delta"] for event in run([last]) if event["type"] == "message_delta"]
    assert delta == {"stop_reason": reason, "stop_sequence": sequence}


def test_usage_counts_what_came_from_the_cache_once() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    events = run([chunk(content="x"), {"choices": [], "usage": usage}])
    assert events[-2]["usage"] == {
        "input_tokens": 2,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 8,
        "output_tokens": 3,
    }
