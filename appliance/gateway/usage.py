"""How many tokens an answer was, in the engine's own count."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BYTES_PER_TOKEN = 4
"""A usual guess for English, where nothing better is known yet."""

_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written."""

    prompt: int
    completion: int

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt + other.prompt, self.completion + other.completion)


def find(data: bytes) -> Usage | None:
    """The last usage in the end of an answer, streamed or not.

    In a JSON string the quotes of `"usage":` would be escaped, so what is found is a key. Other objects of that name,
    like a tool's parameter that a response repeats, have no counts in them.
    """
    for match in reversed([*_USAGE.finditer(data)]):
        try:
            value, _ = _DECODER.raw_decode(data[match.end() :].decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
        if (usage := _counted(value)) is not None:
            return usage
    return None


def _counted(value: Mapping[str, Any]) -> Usage | None:
    prompt = value.get("prompt_tokens", value.get("input_tokens"))
    completion = value.get("completion_tokens", value.get("output_tokens", 0))
    if not _is_count(prompt) or not _is_count(completion):
        return None
    return Usage(prompt, completion)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def estimate(received: int, sent: int, last: bytes) -> Usage:
    """Of an answer that was called off before the engine had counted it: its events are about as long as the last.

    `received` and `sent` are the bytes of the request and of the answer so far, `last` the latest of those.
    """
    events = last.count(b"data: ")
    return Usage(received // BYTES_PER_TOKEN, sent * events // len(last) if events else sent // BYTES_PER_TOKEN)


class Unasked:
    """A filter that takes the usage out of a stream whose client did not ask for it: the gateway did.

    Lines without the word pass unread, and in one piece where the engine's writes end with theirs. A line that was cut
    in two is put together first, since JSON has no raw line break in it.
    """

    __slots__ = ("_dropping", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._dropping = False
        """The event of the last line is left out, and so is the empty line that ends it."""

    def leaves(self, data: bytes) -> bool:
        """Whether `feed` would give back just this. It is what nearly all events come to."""
        return b'"usage"' not in data and data.endswith(b"\n") and not self._rest and not self._dropping

    def feed(self, data: bytes) -> bytes:
        if self.leaves(data):
            return data
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._rest += data
            return b""
        whole, self._rest = self._rest + data[:cut], data[cut:]
        return b"".join(self._kept(whole))

    def flush(self) -> bytes:
        """What is left of a stream that ended within a line."""
        rest, self._rest = self._rest, b""
        return rest

    def _kept(self, lines: bytes) -> Iterator[bytes]:
        """Whole lines in as few pieces as can be: only those with the word are looked at."""
        done = 0
        while done < len(lines):
            if self._dropping:
                self._dropping = False
                end = lines.index(b"\n", done) + 1
                if not lines[done:end].strip():
                    done = end
                    continue
            word = lines.find(b'"usage"', done)
            if word < 0:
                yield lines[done:]
                return
            begin, end = max(done, lines.rfind(b"\n", done, word) + 1), lines.index(b"\n", word) + 1
            yield lines[done:begin]
            line = lines[begin:end]
            if _is_trailer(line):
                self._dropping = True
            else:
                yield _NO_USAGE.sub(b"", line)
            done = end


_NO_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')


def _is_trailer(line: bytes) -> bool:
    """Whether this is the chunk that has nothing but the usage."""
    if not _USAGE.search(line):
        return False
    try:
        chunk = json.loads(line.removeprefix(b"data:"))
    except (ValueError, RecursionError):
        return False
    return isinstance(chunk, dict) and chunk.get("choices") == [] and chunk.get("usage") is not None
