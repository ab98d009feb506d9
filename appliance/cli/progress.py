"""Long work on a terminal: one live line per subject, and one for all; elsewhere one plain line per step."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.cli.output import note, size
from appliance.progress import Progress, Report

if TYPE_CHECKING:
    import rich.progress

EVERY = 5.0
"""Seconds between two lines about the same step."""


@contextmanager
def shown(*, live: bool | None = None) -> Iterator[Report]:
    """A Report whose output ends with the block. `live` decides the form; None asks whether stderr is a terminal."""
    if sys.stderr.isatty() if live is None else live:
        with _bars() as report:
            yield report
    else:
        yield _lines()


def _lines() -> Report:
    """A line per step, and of steps that count along only one every few seconds: a log is not a ticker."""
    said: dict[str, tuple[str, float]] = {}

    def report(progress: Progress) -> None:
        now = time.monotonic()
        step, since = said.get(progress.subject, ("", 0.0))
        if progress.step == step or (progress.done and now - since < EVERY):
            return
        said[progress.subject] = (progress.step, now)
        amount = _amount(progress)
        note(f"{progress.subject}: {progress.step}" + (f" ({amount})" if amount else ""))

    return report


@contextmanager
def _bars() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[step]}", markup=False, style="dim"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
    )
    tasks: dict[str, rich.progress.TaskID] = {}
    transfers = Transfers()
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

        def report(progress: Progress) -> None:
            show(progress)
            if (whole := transfers.hear(progress)) is not None:
                show(whole)

        def show(progress: Progress) -> None:
            if progress.subject not in tasks:
                tasks[progress.subject] = bars.add_task(progress.subject, total=None, step="", amount="")
            bars.update(
                tasks[progress.subject],
                step=progress.step,
                amount=_amount(progress),
                completed=progress.done or 0,
                total=progress.total,
            )

        yield report


class Transfers:
    """What counts bytes, by subject, and what all of it comes to."""

    def __init__(self) -> None:
        self._latest: dict[str, Progress] = {}

    def hear(self, progress: Progress) -> Progress | None:
        """All of them, where there are several. One that has gone on to another step has all its bytes."""
        before = self._latest.get(progress.subject)
        if progress.unit == "bytes" and progress.total:
            self._latest[progress.subject] = progress
        elif before is not None:
            self._latest[progress.subject] = replace(before, done=before.total)
        every = self._latest.values()
        if len(every) < 2:
            return None
        done, total = sum(each.done or 0 for each in every), sum(each.total or 0 for each in every)
        return Progress("in all", "", done, total, "bytes")


def _amount(progress: Progress) -> str:
    if not progress.done:
        return ""
    if progress.unit == "bytes":
        return size(progress.done) + (f" of {size(progress.total)}" if progress.total else "")
    return f"{progress.done}" + (f" of {progress.total}" if progress.total else "")
