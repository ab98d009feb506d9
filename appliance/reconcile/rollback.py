"""Write an earlier generation back to the file; that the file has changed does the rest."""

from __future__ import annotations

from pathlib import Path

from appliance.errors import ApplianceError
from appliance.reconcile.history import Entry, History
from appliance.state import write_atomic


def write_back(history: History, generation: int | None) -> Entry:
    """The entry whose text the file has now; without a number, that of the last good generation before this one."""
    target = _target(history, generation)
    path = Path(target.path)
    if not path.is_file():
        raise ApplianceError(f"generation {target.generation} came from `{path}`, which is not there any more")
    write_atomic(path, target.text.encode(), mode=path.stat().st_mode & 0o777)
    return target


def _target(history: History, generation: int | None) -> Entry:
    if generation is not None:
        return history.get(generation)
    if (previous := history.previous_good()) is None:
        raise ApplianceError("there is no earlier generation to go back to", hint="`appliance history` lists them")
    return previous
