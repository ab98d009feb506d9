"""`doctor`: examine this machine, and say what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from appliance.cli import output
from appliance.cli.control import NotRunning, ask
from appliance.cli.loading import read
from appliance.config.load import DEFAULT_FILE
from appliance.doctor import bundle
from appliance.doctor.examination import CHECKS, examine
from appliance.doctor.finding import Finding
from appliance.doctor.redaction import Redaction, secrets_of
from appliance.doctor.scene import Scene
from appliance.errors import ApplianceError, ConfigError
from appliance.process.logs import tail
from appliance.service.systemd import Systemd
from appliance.state import StateDirectory

LINES = 5000
"""Of the log, searched for requests that were refused."""


def doctor(file: Path | None, *, quick: bool, as_json: bool, archive: Path | None) -> bool:
    """Print every finding; True where nothing keeps the appliance from working."""
    scene = _scene(file, quick=quick)
    said = not as_json and sys.stderr.isatty()
    # An engine's last words may hold what it was given in confidence.
    redaction = Redaction(secrets_of(scene))
    found = examine(scene, began=lambda name: output.note(f"checking {name}") if said else None)
    findings = [*map(redaction.finding, found)]
    if archive is not None:
        _write(archive, scene, findings)
    if as_json:
        output.as_json([asdict(finding) for finding in findings])
    else:
        _show(findings)
    return not any(finding.level == "problem" for finding in findings)


def default_archive() -> Path:
    return Path(time.strftime("appliance-report-%Y%m%d-%H%M%S.tar.gz"))


def _show(findings: Sequence[Finding]) -> None:
    for finding in findings:
        output.data(f"{finding.level}: {finding.finding}")
        output.data(f"  cause: {finding.cause}")
        output.data(f"  remedy: {finding.remedy}")
    problems = sum(finding.level == "problem" for finding in findings)
    counted = (_counted(problems, "problem"), _counted(len(findings) - problems, "warning"))
    output.note(f"{len(CHECKS)} checks: {', '.join(counted)}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _write(archive: Path, scene: Scene, findings: Sequence[Finding]) -> None:
    try:
        bundle.write(archive, scene, findings)
    except OSError as error:
        raise ApplianceError(f"cannot write `{archive}`: {error.strerror}", hint="name another place") from error
    output.note(f"wrote {archive}: known secrets and what looks like one are taken out; look through it all the same")


def _scene(file: Path | None, *, quick: bool) -> Scene:
    state = StateDirectory.locate(os.environ)
    try:
        status = ask(state, "GET", "/admin/v1/status")
    except (NotRunning, ApplianceError):
        status = None
    path = file or Path(status["file"] if status and status["file"] else DEFAULT_FILE)
    try:
        loaded, problem = read(path), None
    except ConfigError as error:
        loaded, problem = None, error.message
    log = _log(state)
    return Scene(state, os.environ, path, loaded, problem, status, log, quick)


def _log(state: StateDirectory) -> Sequence[str]:
    """Of an appliance in the background, or of the service; what runs in a terminal keeps none."""
    path = state.logs / "appliance.log"
    if path.is_file():
        return tail(path, LINES)
    service = Systemd.of(os.environ, system=False)
    if sys.platform == "darwin" or not service.paths[0].exists():
        return ()
    try:
        command = service.journal(lines=LINES, follow=False)
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return ()
