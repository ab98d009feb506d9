"""One thing wrong with the configuration, and how a list of them reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from appliance.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """`source` is a file's path, `environment variable PORT` or a flag; line and column count from 1."""

    source: str
    message: str
    path: str = ""
    hint: str | None = None
    line: int | None = None
    column: int | None = None

    def render(self) -> str:
        place = ":".join(str(part) for part in (self.source, self.line, self.column) if part is not None)
        block = "  " + ": ".join(_printable(part) for part in (place, self.path, self.message) if part)
        return f"{block}\n    hint: {_printable(self.hint)}" if self.hint else block

    @property
    def in_a_file(self) -> bool:
        return not self.source.startswith(("environment variable ", "--"))


class InvalidConfig(ConfigError):
    """Every problem of every source at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(render(self.problems))


def render(problems: Sequence[Problem]) -> str:
    sources = {problem.source for problem in problems}
    in_one_file = len(sources) == 1 and problems[0].in_a_file
    subject = f"`{sources.pop()}`" if in_one_file else "the configuration"
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([f"{subject} has {count}", *(problem.render() for problem in problems)])


def _printable(text: str) -> str:
    """Names and values come from files that anybody may have written: no control characters, no endless lines."""
    text = text if len(text) <= 300 else f"{text[:300]}…"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def write_path(path: KeyPath) -> str:
    """`models.smollm2.aliases[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def one_of(words: Iterable[str]) -> str:
    quoted = [f"`{word}`" for word in words]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def did_you_mean(word: str, words: Iterable[str]) -> str | None:
    folded = {known.lower().replace("_", "-"): known for known in words}
    close = get_close_matches(word.lower().replace("_", "-"), folded, n=1, cutoff=0.6)
    return f"did you mean `{folded[close[0]]}`?" if close else None
