from __future__ import annotations

from typing import Any

import pytest
import yaml

from appliance.config.positions import LARGEST_FILE, Position, decode, parse, parse_value
from appliance.config.problems import Problem
from appliance.config.syntax import DEEPEST, Malformed, explain_syntax


def problems(text: str) -> str:
    return "\n".join(problem.render() for problem in parse(text, "f").problems)


def test_every_key_and_value_has_its_line_and_column() -> None:
    document = parse("server:\n  port: 8000\nlist: [a, 'b']\n", "f")
    assert document.data == {"server": {"port": 8000}, "list": ["a", "b"]}
    assert document.positions["server", "port"] == Position(2, 3, 2, 9, plain="8000")
    assert document.positions["list", 0] == Position(3, 8, 3, 8, plain="a")
    assert document.positions["list", 1] == Position(3, 11, 3, 11, plain=None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-0x1f", "-0x1f"),
        ("0x1f", 31),
        ("0o17", 15),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("010", "010"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2027-06-30", "2027-06-30"),
        (".nan", ".nan"),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("9" * 40, "9" * 40),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!int 1", 1),
        ("!!float 1", 1),
        ("!!float 1.5", 1.5),
        ("!!bool yes", True),
        ("!!null ~", None),
        ("! 1", "1"),
        ("[a, {b: 1}]", ["a", {"b": 1}]),
        ("!!seq [1]", [1]),
        ("=", "="),
    ],
)
def test_scalars_are_what_they_look_like_and_nothing_else(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize("text", ["!!int foo", "!!binary aGk=", "!own x", "!!timestamp 2027-06-30", "!!omap []"])
def test_other_tags_are_refused(text: str) -> None:
    with pytest.raises(Malformed, match="not supported"):
        parse_value(text)


def test_an_alias_repeats_its_anchor_with_the_anchors_position() -> None:
    document = parse("a: &x {b: 1}\nc: *x\n", "f")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.positions["c", "b"].line == 1


def test_merge_keys_fill_in_what_a_mapping_does_not_say_itself() -> None:
    document = parse("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 3\n", "f")
    assert document.problems == ()
    assert document.data["c"] == {"x": 3, "y": 1, "z": 2}
    assert document.positions["c", "x"].line == 5
    assert document.positions["c", "z"].line == 2


def test_an_alias_bomb_is_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    assert "more than 50,000 values" in problems(bomb)


def test_nesting_is_bounded_as_written_and_through_aliases() -> None:
    assert f"more than {DEEPEST} levels deep" in problems("a: " + "[" * 100_000)
    chain = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60))
    assert "levels deep, aliases expanded" in problems(chain)


def test_a_file_that_is_too_long_is_refused() -> None:
    assert isinstance(decode(b"#" * LARGEST_FILE, "f"), str)
    refused = decode(b"#" * (LARGEST_FILE + 1), "f")
    assert isinstance(refused, Problem)
    assert refused.message == "1,048,577 bytes long; at most 1,048,576 are read"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfversion: 1", "  f:1:1: the file starts with a byte order mark"),
        ("version: 1".encode("utf-16"), "  f: the file is UTF-16"),
        (b"a: 1\nb: \xc3\xa9\xff\n", "  f:2:5: byte 0xff is not UTF-8"),
    ],
)
def test_a_file_that_is_not_utf_8_is_refused(content: bytes, expected: str) -> None:
    refused = decode(content, "f")
    assert isinstance(refused, Problem)
    assert refused.render().splitlines()[0] == expected
    assert refused.hint


def test_control_characters_are_located() -> None:
    assert "f:2:4: character U+0007 may not be in a YAML file" in problems("a: 1\nb: \x07\n")


def test_half_a_surrogate_pair_is_refused() -> None:
    assert "half a surrogate pair" in problems("a: \udc80")


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a:\n\tb: 1\n", "a tab in the indentation", 2),
        ("a: 1\nb: 'x\n", "this quote is never closed", 2),
        ("a: [1\nb: 2\n", "this `[` is never closed", 1),
        ("a: {x: 1\nb: 2\n", "this `{` is never closed", 1),
        ("a: b: c\n", "a `:` where no key can stand", 1),
        ("a: @b\n", "a value cannot start with `@`", 1),
        ('a: "\\q"\n', "an unknown escape after `\\`", 1),
        ("a: [*]\n", "a bare `*` or `&`", 1),
        ("a: 1\n...\nb\n", "text after the end of the document", 3),
        ("a: }\n", "expected a value here", 1),
    ],
)
def test_both_parsers_faults_read_the_same(loader: Any, text: str, message: str, line: int) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        list(yaml.parse(text, Loader=loader))
    fault = explain_syntax(caught.value, text)
    assert (fault.message, fault.line) == (message, line)


def test_a_fault_nobody_has_put_into_words_keeps_the_parsers() -> None:
    fault = explain_syntax(yaml.MarkedYAMLError(problem="novel trouble"), "")
    assert fault == Malformed("not YAML: novel trouble")
