"""Tools, the choice of one, and whether it was obeyed."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RequestError
from appliance.gateway.anthropic.obedience import obeys
from appliance.gateway.anthropic.tools import Forced, choice, functions

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
NEXT = {"next": {"$ref": "#/$defs/node"}}
REFERRING = {
    "type": "object",
    "properties": NEXT,
    "$defs": {"node": {"type": "object", "properties": NEXT, "additionalProperties": False}},
}
ONE = functions([{"name": "one", "input_schema": SCHEMA}])
TWO = functions([{"name": "one", "input_schema": SCHEMA}, {"name": "two", "input_schema": REFERRING}])


def test_a_tool_is_a_function_and_what_only_anthropic_knows_of_it_is_left_out() -> None:
    tool = {
        "name": "one", "type": "custom", "description": "Adds.", "input_schema": SCHEMA, "strict": True,
        "cache_control": {"type": "ephemeral"}, "defer_loading": True, "input_examples": [],
    }  # fmt: skip
    function = {"name": "one", "description": "Adds.", "parameters": SCHEMA, "strict": True}
    assert functions([tool]) == [{"type": "function", "function": function}]


def test_tools_that_run_on_anthropics_servers_are_not_offered() -> None:
    assert functions([{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]) == []
    assert functions(None) == []


@pytest.mark.parametrize(
    ("given", "offered", "added", "held_to"),
    [
        (None, [], {}, None),
        ({"type": "auto"}, [], {}, None),
        (None, ONE, {"tool_choice": "auto"}, None),
        ({"type": "auto"}, ONE, {"tool_choice": "auto"}, None),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            ONE,
            {"tool_choice": "auto", "parallel_tool_calls": False},
            None,
        ),
        ({"type": "none"}, ONE, {"tool_choice": "none"}, None),
        ({"type": "any"}, ONE, {"tool_choice": "none"}, ["one"]),
        ({"type": "any"}, TWO, {"tool_choice": "none"}, ["one", "two"]),
        ({"type": "tool", "name": "two"}, TWO, {"tool_choice": "none"}, ["two"]),
    ],
)
def test_a_choice_is_auto_none_or_a_grammar(given: Any, offered: Any, added: Any, held_to: Any) -> None:
    found, forced = choice(given, offered)
    form = found.pop("response_format", None)
    assert found == added
    assert (forced and list(forced.schemas)) == held_to
    assert (form is None) == (forced is None)


def test_a_named_tools_grammar_is_its_own_schema() -> None:
    form = Forced({"one": SCHEMA}).response_format()
    assert form["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("call", "fits"),
    [
        ({"name": "one", "arguments": {"a": 1}}, True),
        ({"name": "two", "arguments": {"next": {"next": {}}}}, True),
        ({"name": "two", "arguments": {"next": {"next": {"x": 1}}}}, False),
        ({"name": "one", "arguments": {"a": "x"}}, False),
        ({"name": "two"}, False),
        ({"name": "three", "arguments": {}}, False),
    ],
)
def test_the_grammar_of_any_tool_takes_calls_and_keeps_references_alive(call: Any, fits: bool) -> None:
    schema = Forced({"one": SCHEMA, "two": REFERRING}).response_format()["json_schema"]["schema"]
    assert jsonschema.Draft202012Validator(schema).is_valid(call) == fits


def test_a_call_is_read_from_the_answers_text() -> None:
    assert Forced({"one": SCHEMA}).call('{"a": 1}') == ("one", {"a": 1})
    both = Forced({"one": SCHEMA, "two": {}})
    assert both.call('{"name": "two", "arguments": {}}') == ("two", {})


@pytest.mark.parametrize("text", ["", "x", "[]", '"a"', '{"a": "x"}', "{}", '{"a": true}'])
def test_what_is_no_call_is_the_engines_fault(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        Forced({"one": SCHEMA}).call(text)
    assert caught.value.status == 500
    with pytest.raises(RequestError):
        Forced({"one": SCHEMA, "two": SCHEMA}).call(json.dumps({"name": "one", "arguments": text}))


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 2.0]), st.sampled_from(["a", "b"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=6,
)
SCHEMAS = st.recursive(
    st.one_of(
        st.just({}),
        st.builds(lambda kind: {"type": kind}, st.sampled_from(["string", "integer", "number", "boolean", "null"])),
        st.just({"type": ["string", "null"]}),
        st.just({"enum": ["a", 1, None]}),
    ),
    lambda inner: st.one_of(
        st.builds(lambda item: {"type": "array", "items": item}, inner),
        st.builds(
            lambda properties, required, closed: {
                "type": "object", "properties": properties, "required": required, "additionalProperties": not closed,
            },
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            st.lists(st.sampled_from("abc"), max_size=2, unique=True),
            st.booleans(),
        ),
    ),
    max_leaves=6,
)  # fmt: skip


@given(VALUES, SCHEMAS)
def test_obedience_is_json_schemas_for_the_keywords_that_it_knows(value: Any, schema: Any) -> None:
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)
    # Python takes True for 1, and so does this where an enumeration has it; JSON Schema does not.
    if "enum" not in json.dumps(schema):
        assert obeys(value, schema) == expected


@pytest.mark.parametrize("schema", [None, True, 7, {"type": 7}, {"type": "new"}, {"required": 7}, {"properties": []}])
def test_a_schema_that_makes_no_sense_asks_for_nothing(schema: Any) -> None:
    assert obeys({"a": 1}, schema)


def test_a_schema_may_be_deeper_than_anything_that_is_looked_at() -> None:
    schema: Any = {}
    for _ in range(5000):
        schema = {"type": "array", "items": schema}
    value: Any = []
    for _ in range(5000):
        value = [value]
    assert obeys(value, schema)
