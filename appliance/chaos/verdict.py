"""Judge an answer: pure, so that the judge itself can be tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from appliance.chaos.stream import Stream

SLACK = 1.0
"""Seconds that a killed process may go on accepting connections while the kernel takes it down."""


class Verdict(StrEnum):
    WHOLE = "whole"
    INTERRUPTED = "interrupted"
    """Its engine was killed, and it was told so with exactly one error: the only loss there may be."""
    FAILED = "failed"
    CUT = "cut"
    WRONG_MODEL = "wrong model"


@dataclass(slots=True)
class Death:
    """An engine that the self-test took out. `until` is when nothing could reach it any more."""

    model: str
    pid: int
    since: float
    until: float

    def explains(self, stream: Stream) -> bool:
        """Whether this answer may have been lost with the engine: by its fingerprint, else by model and time."""
        if stream.engine:
            return stream.engine == f"pid {self.pid}"
        return stream.model == self.model and stream.began <= self.until + SLACK and stream.ended >= self.since


def judge(stream: Stream, expected: str | None, deaths: Sequence[Death]) -> Verdict:
    """A wrong word counts before a missing one, and an error is forgiven only if it is one and its engine was killed.

    `expected` is None where nobody knows what the engine will say.
    """
    text = "".join(stream.text)
    if stream.models - {stream.name} or not (expected or text).startswith(text):
        return Verdict.WRONG_MODEL
    if stream.status == 200 and stream.finish and stream.done and not stream.errors and not stream.broken:
        return Verdict.WHOLE if text == (expected or text) else Verdict.CUT
    if len(stream.errors) == 1 and not stream.done and not stream.broken:
        excused = any(death.explains(stream) for death in deaths)
        return Verdict.INTERRUPTED if excused else Verdict.FAILED
    return Verdict.FAILED if stream.status not in (0, 200) or stream.errors else Verdict.CUT


def describe(stream: Stream, verdict: Verdict) -> str:
    """One line for a person who looks for the reason."""
    said = "".join(stream.text)[-60:]
    why = stream.broken or "; ".join(stream.errors) or f"finish {stream.finish}, done {stream.done}, said …{said!r}"
    seconds = stream.ended - stream.began
    return (
        f"{verdict}: {stream.name} ({stream.engine or 'no engine yet'}), status {stream.status}, {seconds:.1f} s: {why}"
    )
