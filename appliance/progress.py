"""What long work says about itself while it runs; the CLI decides how that looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of one piece of long work.

    `subject` names the work and stays the same throughout it (`environment vllm-cpu`, `model smollm2`); `step` is
    what is being done now, in a few words. `done` and `total` count `unit`; either is None where it is not known.
    """

    subject: str
    step: str
    done: int | None = None
    total: int | None = None
    unit: Literal["bytes", "items"] = "items"


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """A Report for callers with nobody to tell."""
