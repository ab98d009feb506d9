"""`service install`, `uninstall`, `status`, `logs`."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.cli import inspect, output
from appliance.cli.loading import read_with
from appliance.config.load import DEFAULT_FILE
from appliance.errors import ApplianceError, ConfigError, ServiceError
from appliance.service.definition import Definition, define
from appliance.service.installation import Installation, Plan
from appliance.service.launchd import Launchd
from appliance.service.supervisor import Supervisor
from appliance.service.systemd import SYSTEM_HOME, Systemd
from appliance.state import StateDirectory

_ALWAYS = ("HOME", "PATH", "XDG_STATE_HOME", "LANG")
"""What every service gets of the installer's environment, where there is such a variable."""


def install(
    file: Path | None, *, system: bool, user: str | None, names: Sequence[str], dry_run: bool, as_json: bool
) -> None:
    installation = Installation(_supervisor(system=system))
    if not dry_run:
        installation.require_supervisor()
    definition = _define(file, system=system, user=user, names=names)
    plan = installation.plan(definition)
    if dry_run:
        _show(plan, as_json=as_json)
        return
    if plan.commands:
        state = StateDirectory(definition.home)
        _prepare(state, definition.user)
        installation.install(plan, holder=state.holder() if state.root.is_dir() else None)
    if as_json:
        output.as_json({"changed": bool(plan.commands), "files": [*map(str, plan.files)], **_state(installation)})
        return
    done = "installed and started" if plan.commands else "installed and running already, nothing to do"
    output.note(f"{done}: {installation.supervisor.name}, http://{definition.host}:{definition.port}/v1")
    for line in _remarks(installation, definition, system=system):
        output.note(line)


def uninstall(*, system: bool, as_json: bool) -> None:
    installation = Installation(_supervisor(system=system))
    if not as_json and installation.activity().running:
        output.note("stopping, once requests in flight are answered")
    removed = installation.uninstall()
    if as_json:
        output.as_json({"changed": removed, **_state(installation)})
    else:
        output.note("uninstalled" if removed else "no service is installed")


def status(file: Path | None, *, system: bool, as_json: bool) -> bool:
    installation = Installation(_supervisor(system=system))
    state = _state(installation)
    state["outdated"] = _outdated(installation, file, system=system) if state["installed"] else None
    if as_json:
        output.as_json(state)
        return bool(state["running"])
    if not state["installed"]:
        output.note("no service is installed; `appliance service install` installs one")
        return False
    output.data(f"{state['supervisor']}\t{state['state']}\tpid {state['pid'] or '-'}")
    for path in state["files"]:
        output.data(path)
    if state["outdated"]:
        output.note("its definition is not what the file asks for now; `appliance service install` renews it")
    return bool(state["running"])


def logs(*, system: bool, follow: bool, lines: int) -> None:
    supervisor = _supervisor(system=system)
    if not Installation(supervisor).installed:
        raise ServiceError("no service is installed", hint="`appliance logs` shows an appliance without one")
    argv = supervisor.journal(lines=lines, follow=follow)
    if argv is None:
        inspect.show_logs(None, follow=follow, lines=lines)
        return
    try:
        status = subprocess.run(argv, check=False).returncode
    except FileNotFoundError as error:
        raise ServiceError(f"there is no command `{argv[0]}`", hint="install systemd's journal tools") from error
    if status != 0:
        raise ServiceError(f"`{shlex.join(argv)}` ended with {status}")


def _supervisor(*, system: bool) -> Supervisor:
    if sys.platform == "darwin":
        return Launchd.of(os.environ, system=system, uid=os.getuid())
    return Systemd.of(os.environ, system=system)


def _define(file: Path | None, *, system: bool, user: str | None, names: Sequence[str]) -> Definition:
    user = _user(system=system, user=user)
    path = (file or DEFAULT_FILE).expanduser().absolute()
    home = _home(user)
    environ = _environ(names, user)
    try:
        loaded = read_with(path, {**environ, "APPLIANCE_HOME": str(home)})
    except ConfigError as error:
        if error.hint is None and "environment variable" in error.message:
            error.hint = "a service has none of your shell's variables but those given with `--env NAME`"
        raise
    if loaded.path is None:
        raise ConfigError(f"there is no `{path}`", hint="a service serves a file; write one, or name it with `-f`")
    program = _program()
    return define(loaded.appliance, path, program=program, home=home, environ=environ, user=user)


def _user(*, system: bool, user: str | None) -> str | None:
    """Whom it runs as; None for a service of one's own. Root only where somebody says `--user root`."""
    if not system:
        if user is not None:
            raise ServiceError("`--user` needs `--system`", hint="your own service runs as you")
        if os.getuid() == 0:
            raise ServiceError(
                "this would run engines as root", hint="run it as the user who is to serve, or `--system --user NAME`"
            )
        return None
    user = user or os.environ.get("SUDO_USER")
    if not user:
        raise ServiceError("whom is the service to run as?", hint="`--user NAME`; `useradd --system NAME` makes one")
    try:
        pwd.getpwnam(user)
    except KeyError:
        hint = f"`useradd --system --create-home {user}` makes one" if sys.platform != "darwin" else None
        raise ServiceError(f"there is no user `{user}`", hint=hint) from None
    return user


def _home(user: str | None) -> Path:
    if user is None or "APPLIANCE_HOME" in os.environ:
        return StateDirectory.locate(os.environ).root
    if sys.platform == "darwin":
        return Path(pwd.getpwnam(user).pw_dir) / "Library" / "Application Support" / "appliance"
    return SYSTEM_HOME


def _environ(names: Sequence[str], user: str | None) -> Mapping[str, str]:
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ServiceError(f"`--env {missing[0]}`: there is no such variable here", hint=f"export {missing[0]}=…")
    always = {name: os.environ[name] for name in _ALWAYS if os.environ.get(name)}
    if user is not None:
        always = {"HOME": pwd.getpwnam(user).pw_dir, "PATH": always.get("PATH", os.defpath)}
    return {**always, **{name: os.environ[name] for name in names}}


def _program() -> tuple[str, ...]:
    """The command that was typed, where it is one: a package manager's link outlives the version behind it."""
    typed = Path(sys.argv[0])
    if typed.name == "appliance" and typed.is_file() and os.access(typed, os.X_OK):
        return (str(typed.absolute()),)
    return (sys.executable, "-m", "appliance")


def _prepare(state: StateDirectory, user: str | None) -> None:
    """launchd opens the log before anything of ours runs; systemd makes its StateDirectory itself."""
    if user is None:
        state.prepare()
    elif sys.platform == "darwin":
        for path in (state.root, state.logs):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chown(path, pwd.getpwnam(user).pw_uid, -1)


def _outdated(installation: Installation, file: Path | None, *, system: bool) -> bool | None:
    """None where that cannot be told: the file is not here, or not valid, or it was installed by somebody else."""
    try:
        definition = _define(file, system=system, user=None, names=())
    except ApplianceError:
        return None
    return installation.differs(definition)


def _state(installation: Installation) -> dict[str, Any]:
    activity = installation.activity()
    return {
        "supervisor": installation.supervisor.name,
        "installed": installation.installed,
        "running": activity.running,
        "state": activity.state,
        "pid": activity.pid,
        "files": [str(path) for path in installation.supervisor.paths if path.exists()],
    }


def _show(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        files = {str(path): text.decode() for path, text in plan.files.items()}
        output.as_json({"files": files, "commands": [list(argv) for argv in plan.commands]})
        return
    for path, text in plan.files.items():
        output.data(f"# {path}\n{text.decode()}")
    for argv in plan.commands:
        output.data(f"$ {shlex.join(argv)}")
    if not plan.commands:
        output.note("installed and running already, nothing to do")


def _remarks(installation: Installation, definition: Definition, *, system: bool) -> Sequence[str]:
    remarks = ["`appliance service logs -f` follows its start, `appliance status` says when models are ready"]
    if system:
        remarks.append(f"its commands are for its user: APPLIANCE_HOME={definition.home} appliance status")
        if definition.user == "root":
            remarks.append("warning: engines run as root, as you asked; a fault in one is a fault in the machine")
    elif installation.supervisor.name == "systemd --user" and not _lingers(installation):
        remarks.append("it ends when you log out; `loginctl enable-linger` lets it run on, and start at boot")
    return remarks


def _lingers(installation: Installation) -> bool:
    return installation.run(("loginctl", "show-user", str(os.getuid()), "--property=Linger")).output == "Linger=yes"
