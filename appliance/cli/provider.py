"""The provider that Docker Compose runs: JSON lines on stdout, nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.cli import output
from appliance.cli.control import NotRunning, ask
from appliance.cli.loading import read
from appliance.cli.up import POLL, start_detached
from appliance.cli.up import down as take_down
from appliance.compose import protocol
from appliance.compose.users import User, Users
from appliance.errors import ApplianceError, ConfigError, Conflict, StartupFailed
from appliance.progress import Progress
from appliance.state import StateDirectory


def up(project: str, service: str, *, file: Path | None, models: Sequence[str], host: str | None) -> bool:
    """False where it failed, which Compose has been told by then."""

    def bring_up() -> None:
        state = StateDirectory.locate(os.environ)
        state.prepare()
        users = _users(state)
        with users.alone():
            started = _ensure_running(state, file)
            users.add(User(project, service), started=started)
        names = _ensure_ready(state, models)
        address = ask(state, "GET", "/admin/v1/status")["address"]
        for name, value in protocol.variables(address, names, host=host).items():
            output.data(protocol.line("setenv", f"{name}={value}"))

    return _told(bring_up)


def down(project: str, service: str) -> bool:
    def let_go() -> None:
        state = StateDirectory.locate(os.environ)
        state.prepare()
        users = _users(state)
        with users.alone():
            started = users.remove(User(project, service))
            # Somebody may have stopped it since, and started another that is none of Compose's business.
            if started is not None and state.holder() == started:
                _info("stopping, once requests in flight are answered")
                take_down(missing_ok=True)

    return _told(let_go)


def metadata() -> None:
    output.as_json(protocol.metadata())


def _told(work: Callable[[], None]) -> bool:
    try:
        work()
    except ApplianceError as error:
        message = error.message + (f" ({error.hint})" if error.hint else "")
        output.data(protocol.line("error", message))
        return False
    return True


def _info(message: str) -> None:
    output.data(protocol.line("info", message))


def _users(state: StateDirectory) -> Users:
    return Users(state.root / "compose.json")


def _ensure_running(state: StateDirectory, file: Path | None) -> int | None:
    """The pid of the appliance that this started; None where one runs already, and serves that file."""
    try:
        status = ask(state, "GET", "/admin/v1/status")
    except NotRunning:
        loaded = read(file)
        where = ["--file", str(loaded.path.absolute())] if loaded.path else []
        pid, _ = start_detached(where, lambda progress: _info(_words(progress)))
        return pid
    if file is not None and (served := Path(status["file"])) != file.absolute():
        raise Conflict(
            f"the appliance that runs here serves `{served}`, not `{file.absolute()}`",
            hint="`appliance down` stops it; APPLIANCE_HOME gives a second one a directory of its own",
        )
    return None


def _words(progress: Progress) -> str:
    return f"{progress.subject}: {progress.step}"


def _ensure_ready(state: StateDirectory, asked: Sequence[str]) -> Sequence[str]:
    """The names to ask for, once each can be: it is ready, or loads at its first request."""
    names = _declared(state, asked)
    said = ""
    while True:
        status = ask(state, "GET", "/admin/v1/status")
        models = {model["name"]: model for model in status["models"]}
        waiting = [models[name] for name in names.values() if not _can_be_asked(models[name])]
        if not waiting:
            return tuple(names)
        for model in waiting:
            if failed := next((c["message"] for c in model["conditions"] if c["type"] == "Degraded"), None):
                raise StartupFailed(f"model {model['name']}: {failed}")
        step = f"model {waiting[0]['name']}: {waiting[0]['conditions'][0]['message']}"
        if step != said:
            _info(said := step)
        time.sleep(POLL)


def _can_be_asked(model: dict[str, Any]) -> bool:
    return bool(model["ready"] or model["load"] == "on_demand")


def _declared(state: StateDirectory, asked: Sequence[str]) -> dict[str, str]:
    """The declared model behind each name that was asked for; every model where none was."""
    models = read(Path(ask(state, "GET", "/admin/v1/status")["file"])).appliance.models
    aliases = {alias: name for name, model in models.items() for alias in model.aliases}
    found = {name: name if name in models else aliases.get(name) for name in asked or models}
    if unknown := [name for name, model in found.items() if model is None]:
        raise ConfigError(
            f"the file declares no model `{unknown[0]}`", hint=f"it declares {', '.join(sorted({*models, *aliases}))}"
        )
    return {name: model for name, model in found.items() if model is not None}
