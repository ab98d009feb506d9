"""Command lines apart from each other, as a shell takes them."""

from __future__ import annotations

import pytest

from appliance.migrate.readers.shell import commands


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b && c; d | e & f", [["a", "b"], ["c"], ["d"], ["e"], ["f"]]),
        ("a '&' \"x;y\" 'it|s' \\& b", [["a", "&", "x;y", "it|s", "&", "b"]]),
        ("a > out.log 2>&1 &", [["a"]]),
        ("a >>out 2>/dev/null b < 'in file' c", [["a", "b", "c"]]),
        ("a &> all.log; b", [["a"], ["b"]]),
        ("a 2 b#c # a comment", [["a", "2", "b#c"]]),
        ("# a comment\n\n  sudo a \\\n  b\n", [["a", "b"]]),
        ("*/5 * * * * a b\n@reboot c\n", [["a", "b"], ["c"]]),
        (": 1732000003:0;a b\n  12  c d\n", [["a", "b"], ["c", "d"]]),
        ("a 'left open", [["a", "'left", "open"]]),
        ("a >", [["a"]]),
    ],
)
def test_a_line_is_taken_apart_as_a_shell_does(text: str, expected: list[list[str]]) -> None:
    assert [argv for argv, _ in commands(text)] == expected
