"""`up`, `down`, `restart`: bring the appliance up in front of you or behind your back, and take it down again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.cli import output
from appliance.cli.control import NotRunning, ask
from appliance.cli.progress import shown
from appliance.errors import ApplianceError, ConfigError, StartupFailed
from appliance.progress import Progress, Report
from appliance.state import StateDirectory

POLL = 0.2
BOOT_TIMEOUT = 20.0
LOG = "appliance.log"


def up(file: Path | None, overrides: Mapping[str, Any], *, watch: bool, locked: bool = False) -> None:
    """Serve in the foreground until interrupted; `locked`, nothing but what the lock has."""
    import uvloop

    from appliance.cli.loading import read
    from appliance.cli.lock import lock_of
    from appliance.cli.log import configure
    from appliance.cli.log_file import keep_small
    from appliance.cli.serve import serve
    from appliance.gateway.activation import pass_on
    from appliance.reconcile.configuration import Configuration

    configuration = Configuration(lambda: read(file, overrides))
    for warning in configuration.warnings:
        output.note(f"warning: {warning.render().strip()}")
    state = StateDirectory.locate(os.environ)
    state.prepare()
    keep_small(state.logs / LOG)
    configure(configuration.appliance.server.log)

    with shown() as report:

        def on_settled(status: Mapping[str, Any]) -> None:
            _say_how_it_went(status)

        lock = lock_of(configuration.path) if locked else None
        serving = serve(configuration, state, watch=watch, report=report, on_settled=on_settled, lock=lock)
        listeners = uvloop.run(serving)
    if listeners is not None:
        # The same process id, terminal and supervisor, whatever code and file there are now.
        pass_on(listeners, os.environ)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - what we were started with


def up_detached(arguments: Sequence[str]) -> bool:
    """`start_detached`, told to a person; whether every model is ready."""
    with shown() as report:
        pid, status = start_detached(arguments, report)
    _say_how_it_went(status)
    log = StateDirectory.locate(os.environ).logs / LOG
    output.note(f"pid {pid}; `appliance status` shows it, `appliance down` stops it, its log is {log}")
    return bool(status["ready"])


def start_detached(arguments: Sequence[str], report: Report) -> tuple[int, dict[str, Any]]:
    """Start `appliance up` as a process of its own and wait until its models are ready or have failed.

    Its pid and its status then.
    """
    state = StateDirectory.locate(os.environ)
    state.prepare()
    if pid := state.holder():
        raise ApplianceError(f"the appliance is already up (pid {pid})", hint="`appliance restart` restarts it")
    log = state.logs / LOG
    with log.open("ab") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "appliance", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    return child.pid, _watch_start(state, child.poll, log, report)


def restart() -> bool:
    """Replace the control process by a new one in its place, which takes over all that it has. False: none runs."""
    state = StateDirectory.locate(os.environ)
    try:
        before = ask(state, "GET", "/admin/v1/status")
    except NotRunning:
        return False
    pid = int(before["pid"])
    if problem := ask(state, "POST", "/admin/v1/restart")["problem"]:
        raise ConfigError(problem, hint="what runs stays as it is")
    output.note(f"restarting pid {pid}" + _once_answered(before))
    with shown() as report:
        status = _watch_start(state, lambda: _gone(pid), state.logs / LOG, report, after=before["started"])
    _say_how_it_went(status)
    return True


def _gone(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "an error"
    return None


def _once_answered(status: Mapping[str, Any]) -> str:
    flying = sum(engine["in_flight"] for model in status["models"] for engine in model["engines"])
    return f" once {flying} requests in flight are answered" if flying else ""


def down(*, missing_ok: bool = False, keep_engines: bool = False) -> None:
    """Drain, stop every engine, and wait until the appliance is gone. Kept engines wait a minute for the next one."""
    state = StateDirectory.locate(os.environ)
    try:
        status = ask(state, "GET", "/admin/v1/status")
        ask(state, "POST", f"/admin/v1/stop?keep_engines={'true' if keep_engines else 'false'}")
    except NotRunning:
        if missing_ok:
            return
        raise
    output.note(f"stopping pid {status['pid']}" + _once_answered(status))
    while state.holder() == status["pid"]:
        time.sleep(POLL)
    output.note("stopped")


def _watch_start(
    state: StateDirectory, gone: Callable[[], object], log: Path, report: Report, *, after: str = ""
) -> dict[str, Any]:
    """The status once the start has settled, of a control process that started later than `after`."""
    deadline = time.monotonic() + BOOT_TIMEOUT
    while True:
        if (how := gone()) is not None:
            raise StartupFailed(f"the appliance exited with {how}: {_last_words(log)}", hint=f"see {log}")
        try:
            status = ask(state, "GET", "/admin/v1/status")
        except NotRunning:
            if time.monotonic() > deadline:
                raise ApplianceError("the appliance does not answer", hint=f"see {log}") from None
        else:
            if status["started"] > after:
                for model in status["models"]:
                    for engine in model["engines"]:
                        report(Progress(f"model {model['name']}", engine["step"] or engine["state"]))
                if _settled(status):
                    return status
            deadline = time.monotonic() + BOOT_TIMEOUT
        time.sleep(POLL)


def _settled(status: Mapping[str, Any]) -> bool:
    states = [engine["state"] for model in status["models"] for engine in model["engines"]]
    return status["observed_generation"] > 0 and "starting" not in states


def _last_words(log: Path) -> str:
    if not log.exists():
        return "it ran in the foreground"
    if not shutil.disk_usage(log).free:
        return "the disk of its log is full"  # which is why that says nothing
    lines = log.read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "no output")


def _say_how_it_went(status: Mapping[str, Any]) -> None:
    for model in status["models"]:
        failed = [condition for condition in model["conditions"] if condition["type"] == "Degraded"]
        for condition in failed:
            output.note(f"model {model['name']} failed: {condition['message']}")
    ready = [model["name"] for model in status["models"] if model["ready"]]
    waiting = [model["name"] for model in status["models"] if not model["ready"] and model["load"] == "on_demand"]
    output.note(f"serving {', '.join(ready) or 'nothing yet'} at http://{status['address']}/v1")
    if waiting:
        output.note(f"loads at the first request: {', '.join(waiting)}")
