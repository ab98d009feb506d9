"""`appliance service` under a real systemd: a user's manager, unit files, an activated socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

from tests.cli.conftest import Machine
from tests.cli.test_reload import QUESTION
from tests.service.conftest import Session
from tests.support import wait_until


def ready(base: str) -> bool:
    try:
        return httpx.get(f"{base}/readyz", timeout=20).status_code == 200
    except httpx.HTTPError:
        return False


def status(session: Session) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(session.service("status", "--json").stdout)
    return answer


def test_a_service_serves_on_the_socket_that_systemd_holds_and_is_installed_once(session: Session) -> None:
    session.serve()
    result = session.service("install")
    assert result.returncode == 0, result.stderr
    assert session.base in result.stderr
    assert "loginctl enable-linger" in result.stderr
    wait_until(lambda: ready(session.base), what="it serves")
    state = status(session)
    assert (state["installed"], state["running"], state["outdated"]) == (True, True, False)
    assert state["pid"] == session.status()["pid"]
    again = session.service("install", "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["changed"] is False
    assert status(session)["pid"] == state["pid"]
    assert session.systemctl("is-enabled", "appliance.socket", "appliance.service").split() == ["enabled", "enabled"]
    # The listener is systemd's: one that the appliance had bound itself would not be there without it.
    session.systemctl("stop", "appliance.service")
    assert session.systemctl("is-active", "appliance.socket") == "active"
    wait_until(lambda: ready(session.base), what="a connection starts it again")


def test_a_new_port_is_reported_and_put_in_force_by_installing_again(session: Session) -> None:
    session.serve()
    session.service("install")
    old = session.base
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        session.port = probe.getsockname()[1]
    session.serve()
    shown = session.service("status")
    assert "appliance service install" in shown.stderr
    assert json.loads(session.service("install", "--json").stdout)["changed"] is True
    wait_until(lambda: ready(session.base), what="the new port answers")
    assert not ready(old)


def test_a_crash_of_the_control_process_loses_no_engine_and_refuses_no_client(session: Session) -> None:
    session.serve()
    session.service("install")
    wait_until(lambda: ready(session.base), what="it serves")
    engines, before = session.engine_pids(), status(session)["pid"]
    os.kill(before, signal.SIGKILL)
    # Nobody accepts until systemd has started the next one; the connection waits in the socket meanwhile.
    with openai.OpenAI(base_url=f"{session.base}/v1", api_key="unused", max_retries=0, timeout=30) as sdk:
        assert sdk.chat.completions.create(model="tiny", messages=QUESTION).choices
    assert status(session)["pid"] != before
    assert session.engine_pids() == engines


def test_uninstalling_while_it_runs_lets_a_stream_finish_and_leaves_nothing(session: Session) -> None:
    session.serve("--events", "40", "--event-interval", "0.05")
    session.service("install")
    wait_until(lambda: ready(session.base), what="it serves")
    pids = [status(session)["pid"], *session.engine_pids()]
    pieces: list[str] = []

    def read() -> None:
        with openai.OpenAI(base_url=f"{session.base}/v1", api_key="unused", max_retries=0) as sdk:
            for chunk in sdk.chat.completions.create(model="tiny", messages=QUESTION, stream=True):
                pieces.extend(choice.finish_reason or "" for choice in chunk.choices)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: len(pieces) > 3, what="the stream runs")
    result = session.service("uninstall")
    assert result.returncode == 0, result.stderr
    reader.join(20)
    assert pieces[-1] in {"stop", "length"}
    assert session.installed == []
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert status(session)["installed"] is False
    again = session.service("uninstall")
    assert (again.returncode, again.stderr.strip()) == (0, "no service is installed")


def test_a_port_that_somebody_holds_leaves_nothing_installed(session: Session) -> None:
    session.serve()
    with socket.create_server(("127.0.0.1", session.port)):
        result = session.service("install")
    assert result.returncode == 1
    assert "systemctl --user enable --now" in result.stderr
    assert session.installed == []
    assert status(session)["installed"] is False


def test_an_appliance_that_is_no_service_is_not_doubled(session: Session) -> None:
    session.serve()
    assert session.run("up", "-d").returncode == 0
    result = session.service("install")
    assert result.returncode == 1
    assert "appliance down" in result.stderr
    assert session.installed == []
    session.run("down")


def test_a_file_that_only_the_shell_makes_valid_is_not_installed(session: Session) -> None:
    session.serve(more="huggingface: {token: '${env:SECRET_OF_MINE}'}")
    session.environ["SECRET_OF_MINE"] = "hf_secret"
    result = session.service("install")
    assert result.returncode == 1
    assert "SECRET_OF_MINE" in result.stderr
    assert "--env NAME" in result.stderr
    assert session.installed == []
    assert session.service("install", "--env", "SECRET_OF_MINE", "--dry-run").returncode == 0


def test_the_logs_command_asks_the_journal_of_the_unit(session: Session) -> None:
    assert "no service is installed" in session.service("logs").stderr
    session.units.mkdir(parents=True, exist_ok=True)
    (session.units / "appliance.service").write_text("[Service]\nExecStart=/bin/true\n")
    # Nothing collects a journal in these namespaces; what is asked of it is what can be seen.
    fake = session.directory / "bin" / "journalctl"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    session.environ["PATH"] = f"{fake.parent}:{os.environ['PATH']}"
    assert session.service("logs", "-f", "-n", "5").stdout.split() == [
        "--user-unit=appliance.service", "--lines=5", "--output=cat", "--no-pager", "--follow",
    ]  # fmt: skip


def test_where_no_manager_runs_that_is_what_it_says(machine: Machine) -> None:
    machine.write()
    command = [sys.executable, "-m", "appliance", "service", "install"]
    user = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.getuid() == 0 else []
    environ = {**machine._env(), "XDG_RUNTIME_DIR": str(machine.directory)}
    result = subprocess.run(
        [*user, *command], cwd=machine.directory, env=environ, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "systemd --user cannot be used here" in result.stderr
    assert "hint:" in result.stderr


def test_as_root_it_asks_whom_to_run_as(machine: Machine) -> None:
    if os.getuid() != 0:
        return
    machine.write()
    assert "engines as root" in machine.run("service", "install", "--dry-run").stderr
    assert "`--user NAME`" in machine.run("service", "install", "--system", "--dry-run").stderr
    unknown = machine.run("service", "install", "--system", "--user", "nobody-like-this", "--dry-run")
    assert "useradd" in unknown.stderr


def test_a_dry_run_prints_units_and_commands_and_does_nothing(machine: Machine) -> None:
    machine.write(server="port: 8123")
    machine.environ["XDG_CONFIG_HOME"] = str(machine.directory / "config")
    result = machine.run("service", "install", "--system", "--user", "daemon", "--dry-run", "--json")
    plan = json.loads(result.stdout)
    units = {Path(path).name: text for path, text in plan["files"].items()}
    assert "User=daemon\n" in units["appliance.service"]
    assert "ListenStream=127.0.0.1:8123\n" in units["appliance.socket"]
    assert plan["commands"][0] == ["systemctl", "daemon-reload"]
    assert not (machine.directory / "config").exists()
    assert not machine.home.exists()


def test_a_port_of_zero_is_no_service(machine: Machine) -> None:
    machine.write()
    result = machine.run("service", "install", "--system", "--user", "daemon", "--dry-run")
    assert result.returncode == 1
    assert "`server.port` is 0" in result.stderr
