"""`history`, `diff`, `rollback`: the generations of the file, and the way back."""

from __future__ import annotations

import dataclasses
import os

from appliance.cli import output
from appliance.cli.control import NotRunning, ask
from appliance.errors import ApplianceError, ConfigError
from appliance.reconcile.history import History, difference
from appliance.reconcile.rollback import write_back
from appliance.state import StateDirectory


def _history() -> History:
    return History(StateDirectory.locate(os.environ).history)


def show(*, as_json: bool) -> None:
    entries = _history().entries()
    if as_json:
        output.as_json([dataclasses.asdict(entry) for entry in entries])
        return
    output.table(
        ("GENERATION", "TIME", "RESULT", "CHANGES"),
        ((str(e.generation), e.time, e.result, ", ".join(e.changes) or "-") for e in entries),
    )


def diff(before: int, after: int | None) -> None:
    """A unified diff between two generations, or between one and the last."""
    history = _history()
    old, new = history.get(before), history.get(after) if after is not None else history.last()
    if new is None:
        raise ApplianceError("there is no history yet")
    for line in difference(old, new):
        output.data(line)


def rollback(generation: int | None) -> None:
    """Write an earlier text back to the file; the change does the rest."""
    state = StateDirectory.locate(os.environ)
    target = write_back(History(state.history), generation)
    output.note(f"wrote generation {target.generation} ({target.time}) back to {target.path}")
    try:
        outcome = ask(state, "POST", "/admin/v1/apply")
    except NotRunning:
        output.note("no appliance is running; the next `appliance up` uses it")
        return
    if outcome["problem"]:
        raise ConfigError(outcome["problem"], hint="the appliance goes on as it was")
