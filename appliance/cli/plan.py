"""`plan`: what saving the file as it is now would do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from appliance.cli import output
from appliance.cli.control import NotRunning, ask
from appliance.cli.loading import base_of, read
from appliance.cli.lock import identities
from appliance.cli.weights import store_of
from appliance.errors import ConfigError
from appliance.reconcile.drift import drift
from appliance.reconcile.remarks import remarks
from appliance.state import StateDirectory


def plan(file: Path | None, *, as_json: bool) -> bool:
    """Print the plan; True where it is empty."""
    try:
        answer = ask(StateDirectory.locate(os.environ), "GET", "/admin/v1/plan")
    except NotRunning:
        answer = _from_nothing(file)
    if answer["problem"]:
        raise ConfigError(answer["problem"], hint="what runs would stay as it is")
    if as_json:
        output.as_json(answer)
    else:
        _show(answer)
    return not answer["changes"] and not answer["actions"]


def _from_nothing(file: Path | None) -> dict[str, Any]:
    """No appliance runs: everything that loads at startup would be started."""
    output.note("no appliance is running; this is what `appliance up` would do")
    loaded = read(file)
    models, base, store = loaded.appliance.models, base_of(loaded), store_of(loaded)
    started = [name for name, model in models.items() if model.load == "startup"]
    trusting = sorted(name for name, model in models.items() if model.engine.get("trust_remote_code") is True)
    actions = [{"action": "start", "model": name, "reason": "declared with `load: startup`"} for name in started]
    return {
        "problem": None,
        "changes": [],
        "actions": actions,
        "memory": {},
        "trust_remote_code": trusting,
        "drift": drift(loaded.appliance, loaded.path, base, store, identities(loaded)),
        "remarks": remarks(loaded.appliance, base, store),
    }


def _show(answer: dict[str, Any]) -> None:
    for name in answer.get("trust_remote_code", ()):
        output.warn(f"{name} would run code from its checkpoint (trust_remote_code)")
    for each in answer.get("drift", ()):
        output.note(f"drift: {each['name']}: {each['kind']} {each['message']}")
    for each in answer.get("remarks", ()):
        output.note(f"{each['name']}: {each['message']}")
    if not answer["changes"] and not answer["actions"]:
        output.note("nothing to do: the file is in force")
        return
    output.table(
        ("CHANGE", "COST", "BEFORE", "AFTER"),
        ((c["path"], c["cost"], _value(c["before"]), _value(c["after"])) for c in answer["changes"]),
    )
    output.table(
        ("ACTION", "MODEL", "IN FLIGHT", "REASON"),
        ((a["action"], a["model"], str(a.get("in_flight", "-")), a["reason"]) for a in answer["actions"]),
    )
    for action in answer["actions"]:
        if action.get("hint"):
            output.note(f"{action['model']}: {action['hint']}")
    memory = answer["memory"]
    if memory:
        sizes = {name: output.size(memory[name]) for name in ("now", "peak", "after", "budget")}
        output.data("memory\t" + ", ".join(f"{name} {size}" for name, size in sizes.items()))
    if tag := answer.get("tag"):
        output.note(f"`appliance apply --if-match {tag}` does this, or nothing if anything has moved meanwhile")


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
