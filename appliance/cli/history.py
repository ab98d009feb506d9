"""`history`, `diff`, `rollback`: the generations of the file, and the way back."""

from __future__ import annotations

import dataclasses
import difflib
import os
from pathlib import Path

from appliance.cli import output
from appliance.cli.control import NotRunning, ask
from appliance.errors import ApplianceError, ConfigError
from appliance.reconcile.history import Entry, History
from appliance.state import StateDirectory, write_atomic


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
    names = (f"generation {old.generation}", f"generation {new.generation}")
    for line in difflib.unified_diff(old.text.splitlines(), new.text.splitlines(), *names, lineterm=""):
        output.data(line)


def rollback(generation: int | None) -> None:
    """Write an earlier text back to the file; the change does the rest."""
    state = StateDirectory.locate(os.environ)
    target = _target(History(state.history), generation)
    path = Path(target.path)
    if not path.is_file():
        raise ApplianceError(f"generation {target.generation} came from `{path}`, which is not there any more")
    write_atomic(path, target.text.encode(), mode=path.stat().st_mode & 0o777)
    output.note(f"wrote generation {target.generation} ({target.time}) back to {path}")
    try:
        outcome = ask(state, "POST", "/admin/v1/apply")
    except NotRunning:
        output.note("no appliance is running; the next `appliance up` uses it")
        return
    if outcome["problem"]:
        raise ConfigError(outcome["problem"], hint="the appliance goes on as it was")


def _target(history: History, generation: int | None) -> Entry:
    if generation is not None:
        return history.get(generation)
    if (previous := history.previous_good()) is None:
        raise ApplianceError("there is no earlier generation to go back to", hint="`appliance history` lists them")
    return previous
