"""What is wrong with text that is not YAML, in words for the person who wrote it."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from appliance.config.problems import Problem

DEEPEST = 32
TOO_DEEP = f"more than {DEEPEST} levels deep"


@dataclass
class Malformed(Exception):
    """Reading stops here; line and column count from 1."""

    message: str
    line: int | None = None
    column: int | None = None
    hint: str | None = None

    def problem(self, source: str) -> Problem:
        return Problem(source, self.message, hint=self.hint, line=self.line, column=self.column)


@dataclass(frozen=True, slots=True)
class _Sentence:
    """For a parser message that has `marker` in it, as libyaml or as PyYAML words it."""

    marker: str
    message: str
    hint: str | None = None
    at_opening: bool = False
    """Point where the construct began: the end of the file tells nobody which quote was left open."""


_SENTENCES = (
    # libyaml counts levels itself from the one that PyYAML 6.0.4 carries, and reads far enough ahead to be first.
    _Sentence("exceeded maximum nesting depth", TOO_DEEP),
    _Sentence("tab character", "a tab in the indentation", "YAML is indented with spaces"),
    _Sentence(
        "mapping values are not allowed",
        "a `:` where no key can stand",
        "is a `:` missing on the line above? quote a value that contains `: `; align keys of one mapping",
    ),
    _Sentence("could not find expected ':'", "a key without `:` after it", "write `key: value`"),
    _Sentence("unexpected end of stream", "this quote is never closed", "add the closing quote", at_opening=True),
    _Sentence("',' or ']'", "this `[` is never closed", "add the `]`, and commas between items", at_opening=True),
    _Sentence("',' or '}'", "this `{` is never closed", "add the `}`, and commas between entries", at_opening=True),
    _Sentence(
        "unknown escape character", "an unknown escape after `\\`", "inside double quotes write `\\\\` for one `\\`"
    ),
    _Sentence("'-' indicator", "expected another `- item` of this list", "align the items of one list"),
    _Sentence("alphabetic or numeric character", "a bare `*` or `&`", "quote a value that begins with `*` or `&`"),
    _Sentence("expected node content", "expected a value here", "is a quote or bracket above it left open?"),
    _Sentence("the node content", "expected a value here", "is a quote or bracket above it left open?"),
    _Sentence("document start", "text after the end of the document"),
    _Sentence(
        "did not find expected key",
        "this line does not continue the mapping above it",
        "align keys of one mapping; close quotes and brackets",
    ),
    _Sentence(
        "expected <block end>",
        "this line does not continue the mapping above it",
        "align keys of one mapping; close quotes and brackets",
    ),
)


def explain_syntax(error: yaml.YAMLError, text: str) -> Malformed:
    if not isinstance(error, yaml.MarkedYAMLError):
        return _unreadable_character(error, text)
    problem, mark = error.problem or "", error.problem_mark
    character = text[mark.index : mark.index + 1] if mark else ""
    if "cannot start any token" in problem:
        if character != "\t":
            return _at(mark, f"a value cannot start with `{character}`", "quote the value")
        problem = "tab character"
    for sentence in _SENTENCES:
        if sentence.marker in problem:
            mark = error.context_mark if sentence.at_opening and error.context_mark else mark
            return _at(mark, sentence.message, sentence.hint)
    return _at(mark, f"not YAML: {problem}")


def _at(mark: yaml.Mark | None, message: str, hint: str | None = None) -> Malformed:
    if mark is None:
        return Malformed(message, hint=hint)
    return Malformed(message, mark.line + 1, mark.column + 1, hint)


def _unreadable_character(error: yaml.YAMLError, text: str) -> Malformed:
    character = getattr(error, "character", 0)
    before = text.partition(chr(character))[0]  # the error's own position is in bytes or in characters, by parser
    message = f"character U+{character:04X} may not be in a YAML file"
    return Malformed(message, before.count("\n") + 1, len(before) - before.rfind("\n"), "remove it")
