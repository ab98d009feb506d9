"""Install and uninstall: everything or nothing, and as often as one likes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import Conflict, ServiceError
from appliance.service.definition import Definition
from appliance.service.supervisor import Activity, Answer, Argv, Supervisor
from appliance.state import write_atomic

Run = Callable[[Argv], Answer]

_MODE = 0o644
"""systemd tells variables to everybody who asks it, and complains about a unit that pretends otherwise."""


def run(argv: Argv) -> Answer:
    """Waited for however long it takes: a stop lets requests finish, for as long as the file allows them."""
    environ = {**os.environ, "SYSTEMD_COLORS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=environ, check=False)
    except FileNotFoundError:
        return Answer(127, f"there is no command `{argv[0]}`")
    return Answer(done.returncode, (done.stdout + done.stderr).strip())


@dataclass(frozen=True, slots=True)
class Plan:
    """What an installation would do. Nothing where there are neither files nor commands."""

    files: Mapping[Path, bytes]
    commands: Sequence[Argv]


@dataclass(frozen=True, slots=True)
class Installation:
    """The service of one supervisor on this machine."""

    supervisor: Supervisor
    run: Run = run

    def activity(self) -> Activity:
        return self.supervisor.activity(self.run(self.supervisor.ask()))

    @property
    def installed(self) -> bool:
        return any(path.exists() for path in self.supervisor.paths)

    def differs(self, definition: Definition) -> bool:
        """Whether what is installed is not what this definition says."""
        return any(_content(path) != text for path, text in self.supervisor.files(definition).items())

    def plan(self, definition: Definition) -> Plan:
        """The files that differ and the commands that follow; none where the service runs as defined already."""
        files = {p: text for p, text in self.supervisor.files(definition).items() if _content(p) != text}
        activity = self.activity()
        if not files and activity.running:
            return Plan({}, ())
        return Plan(files, self.supervisor.start(again=activity.loaded and activity.running))

    def install(self, plan: Plan, *, holder: int | None) -> None:
        """`holder` is the pid of the appliance that runs on the state directory, if one does.

        If any step fails, the files are what they were before and the supervisor knows it.
        """
        if holder is not None and holder != self.activity().pid:
            raise Conflict(
                f"an appliance that is no service runs already (pid {holder})", hint="`appliance down`, then try again"
            )
        before, running = {path: _content(path) for path in plan.files}, self.activity().running
        try:
            self._write(plan.files)
            self._run(plan.commands)
        except BaseException:
            self._restore(before, running=running)
            raise

    def uninstall(self) -> bool:
        """Stop it, which lets requests in flight finish, and remove it. False where nothing was installed."""
        activity = self.activity()
        if not self.installed and not activity.loaded:
            return False
        self._require_writable()
        if activity.loaded:
            self._run(self.supervisor.stop())
        for path in self.supervisor.paths:
            path.unlink(missing_ok=True)
        self._run(self.supervisor.forget())
        return True

    def require_supervisor(self) -> None:
        answer = self.run(self.supervisor.probe)
        if answer.status != 0:
            said = f": {answer.output.splitlines()[-1]}" if answer.output else ""
            raise ServiceError(f"{self.supervisor.name} cannot be used here{said}", hint=self.supervisor.absent)

    def _require_writable(self) -> None:
        """Before anything is stopped."""
        for path in self.supervisor.paths:
            if path.exists() and not os.access(path.parent, os.W_OK):
                raise ServiceError(f"`{path}` may not be removed by this user", hint="run it with `sudo`")

    def _write(self, files: Mapping[Path, bytes]) -> None:
        for path, text in files.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, text, mode=_MODE)
            except PermissionError as error:
                raise ServiceError(f"`{path}` may not be written by this user", hint="run it with `sudo`") from error

    def _run(self, commands: Sequence[Argv]) -> None:
        for argv in commands:
            answer = self.run(argv)
            if answer.status != 0:
                said = answer.output or f"exit status {answer.status}"
                raise ServiceError(f"`{' '.join(argv)}` failed: {said}", hint="nothing was changed for good")

    def _restore(self, before: Mapping[Path, bytes | None], *, running: bool) -> None:
        if any(text is None for text in before.values()):
            for argv in self.supervisor.stop():
                self.run(argv)  # it may have been started in part; that it was not is no second failure
        for path, text in before.items():
            if text is None:
                path.unlink(missing_ok=True)
            elif _content(path) != text:
                write_atomic(path, text, mode=_MODE)
        for argv in self.supervisor.start(again=False) if running else self.supervisor.forget():
            self.run(argv)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
