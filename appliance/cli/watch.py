"""`status --watch`: how everything is, at a glance and kept current."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from appliance.cli import output
from appliance.cli.control import ask
from appliance.cli.inspect import COLUMNS, headline, model_row, remarks_of
from appliance.reconcile.status import essence
from appliance.state import StateDirectory

if TYPE_CHECKING:
    from rich.console import Group

REFRESH = 0.5
"""Seconds between two looks."""
ACROSS = 60
"""Points of a line of activity: two minutes."""
BARS = "▁▂▃▄▅▆▇█"
MEMORY = 24
"""Characters of the bar of memory."""


def watch_status(*, as_json: bool) -> None:
    """On a terminal the whole picture, kept current; elsewhere, and as JSON, one line for each change."""
    state = StateDirectory.locate(os.environ)
    if as_json or not sys.stdout.isatty():
        _print_changes(state, as_json=as_json)
        return
    from rich.live import Live

    with Live(screen=True, auto_refresh=False) as live:
        while True:
            status = ask(state, "GET", "/admin/v1/status")
            live.update(glance(status, ask(state, "GET", "/admin/v1/activity")), refresh=True)
            time.sleep(REFRESH)


def glance(status: dict[str, Any], activity: dict[str, Any]) -> Group:
    """Models, what moves or is wrong with them, memory, and what went through of late."""
    from rich.console import Group
    from rich.text import Text

    lines = [Text(line) for line in (*_moves(status), *remarks_of(status))]
    return Group(
        Text(headline(status)),
        "",
        output.grid(COLUMNS, map(model_row, status["models"])),
        "",
        *lines,
        *([""] if lines else []),
        output.grid(("", "NOW", "MOST", "THE LAST MINUTES"), _activity(status["memory"], activity)),
    )


def _print_changes(state: StateDirectory, *, as_json: bool) -> None:
    before: Any = None
    while True:
        status = ask(state, "GET", "/admin/v1/status")
        if (seen := essence(status)) != before:
            before = seen
            for model in status["models"]:
                line = json.dumps(model, ensure_ascii=False) if as_json else "\t".join(model_row(model))
                output.data(line)
        time.sleep(REFRESH)


def _moves(status: dict[str, Any]) -> Iterator[str]:
    """Every condition that is about something on its way or gone wrong: the rollout under way, model by model."""
    for model in status["models"]:
        for condition in model["conditions"]:
            if condition["type"] != "Ready":
                yield f"{model['name']}: {condition['type']}, {condition['reason']}: {condition['message']}"


def _activity(memory: dict[str, Any], activity: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    points, interval = activity["points"][-ACROSS:], activity["interval"]
    rows: tuple[tuple[str, list[float | None], str], ...] = (
        ("requests/s", [point["requests"] / interval for point in points], "{:.1f}"),
        ("errors/s", [point["errors"] / interval for point in points], "{:.1f}"),
        ("tokens/s", [point["completion_tokens"] / interval for point in points], "{:.0f}"),
        ("first token, ms", [point["first_token"] and point["first_token"][0] for point in points], "{:.0f}"),
        ("in flight", [point["in_flight"] for point in points], "{:.0f}"),
        ("waiting", [point["waiting"] for point in points], "{:.0f}"),
    )
    for name, values, shape in rows:
        known = [value for value in values if value is not None]
        now = shape.format(known[-1]) if known else "-"
        yield name, now, shape.format(max(known)) if known else "-", sparkline(values)
    taken, budget = memory["taken"], memory["budget"]
    full = min(MEMORY, round(MEMORY * taken / budget)) if budget else 0
    yield "memory", output.size(taken), output.size(budget), "█" * full + "░" * (MEMORY - full)


def sparkline(values: Sequence[float | None]) -> str:
    """A bar for each value, the largest the highest; a space where there is none."""
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    last = len(BARS) - 1
    return "".join(" " if value is None else BARS[round(value / most * last)] for value in values)
