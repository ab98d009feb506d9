"""`status`, `ps`, `logs`: what the running appliance says of itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from appliance.cli import output
from appliance.cli.control import ask
from appliance.errors import ApplianceError, ConfigError
from appliance.process.logs import Tail
from appliance.state import StateDirectory

POLL = 0.2
"""Seconds between two looks at a log that has nothing new."""

COLUMNS = ("MODEL", "STATE", "BACKEND", "REVISION", "MEMORY", "IN FLIGHT", "RESTARTS", "WHY")


def show_status(*, as_json: bool) -> bool:
    """Print the status; True when every declared model is as it should be."""
    status = ask(StateDirectory.locate(os.environ), "GET", "/admin/v1/status")
    if as_json:
        output.as_json(status)
    else:
        output.note(headline(status))
        output.table(COLUMNS, map(model_row, status["models"]))
        for line in remarks_of(status):
            output.note(line)
    return bool(status["ready"])


def headline(status: dict[str, Any]) -> str:
    memory = status["memory"]
    room = f"memory {output.size(memory['taken'])} of {output.size(memory['budget'])}"
    return (
        f"appliance {status['version']}, pid {status['pid']}, http://{status['address']}, {status['file']}, "
        f"generation {status['generation']}, {room}"
    )


def remarks_of(status: dict[str, Any]) -> list[str]:
    """What a person has to do something about."""
    remarks = [f"{path} has changed and needs `appliance restart`" for path in status["waiting_for_restart"]]
    trusting = [model["name"] for model in status["models"] if model["trust_remote_code"]]
    remarks += [f"{name} runs code from its checkpoint (trust_remote_code)" for name in trusting]
    remarks += [f"drift: {each['name']}: {each['kind']} {each['message']}" for each in status["drift"]]
    remarks += [f"{each['name']}: {each['message']}" for each in status.get("remarks", ())]
    if status["problem"]:
        remarks.insert(0, f"the file cannot be used as it is now; the last valid one is in force\n{status['problem']}")
    return remarks


def model_row(model: dict[str, Any]) -> tuple[str, ...]:
    engine = next((e for e in model["engines"] if e["state"] == model["state"]), None) or {}
    return (
        model["name"],
        model["state"],
        model["backend"],
        engine.get("revision") or "-",
        output.size(engine.get("memory")),
        str(engine.get("in_flight", 0)),
        str(model["restarts"]),
        " ".join(_reasons(model)),
    )


def _reasons(model: dict[str, Any]) -> Iterator[str]:
    """Why it is not ready; of one that is, what keeps it from being as the file wants it."""
    for number, condition in enumerate(model["conditions"]):
        unfinished = condition["type"] in {"Degraded", "RolloutDeferred"} or condition["reason"] == "PreviousRevision"
        if unfinished if model["ready"] else number == 0:
            yield condition["message"]


def apply(*, tag: str | None, as_json: bool) -> None:
    headers = {"if-match": f'"{tag}"'} if tag else {}
    outcome = ask(StateDirectory.locate(os.environ), "POST", "/admin/v1/apply", headers)
    if as_json:
        output.as_json(outcome)
    for change in () if as_json else outcome["changes"]:
        output.data(f"{change['path']}\t{change['cost']}")
    if outcome["problem"]:
        raise ConfigError(outcome["problem"], hint="nothing was changed")
    if not outcome["changes"]:
        output.note("the file is in force already")


def show_engines(*, as_json: bool) -> None:
    status = ask(StateDirectory.locate(os.environ), "GET", "/admin/v1/status")
    engines = [{"model": model["name"], **engine} for model in status["models"] for engine in model["engines"]]
    if as_json:
        output.as_json(engines)
        return
    output.table(
        ("ENGINE", "MODEL", "PID", "STATE", "AGE", "MEMORY", "IN FLIGHT"),
        (
            (
                engine["id"],
                engine["model"],
                str(engine["pid"] or "-"),
                engine["state"],
                output.duration(engine["age"]),
                output.size(engine["memory"]),
                str(engine["in_flight"]),
            )
            for engine in engines
        ),
    )


def show_logs(model: str | None, *, follow: bool, lines: int) -> None:
    """Print the end of a log; with `follow` go on, also across its rotation."""
    state = StateDirectory.locate(os.environ)
    path = state.logs / f"{model or 'appliance'}.log"
    if not path.is_file():
        known = ", ".join(sorted(f"`{file.stem}`" for file in state.logs.glob("*.log"))) or "none yet"
        why = "" if model else "an appliance in a terminal writes there, a service of systemd's to the journal; "
        raise ApplianceError(f"there is no log `{path}`", hint=f"{why}logs there are: {known}")
    with Tail(path, lines=lines) as log:
        while (found := log.read()) or follow:
            for line in found:
                output.data(line)
            if not found:
                time.sleep(POLL)
