"""The control process is replaced, and neither an engine nor a client notices."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import openai
import psutil
import pytest

from appliance.state import StateDirectory
from tests.cli.conftest import Machine
from tests.cli.test_reload import QUESTION, Load, moving, revision
from tests.support import free_port, wait_until


def crash(machine: Machine) -> None:
    machine.started[-1].kill()
    machine.started[-1].wait()


def engine_directories(machine: Machine, glob: str = "e-*") -> list[Path]:
    return list(StateDirectory(machine.home).run.glob(glob))


def loads(machine: Machine) -> int:
    """How often an engine has started to load the model: each prints one line."""
    return (machine.home / "logs" / "tiny.log").read_text().count("loading weights")


def answers(base: str) -> bool:
    with openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0, timeout=30) as sdk:
        return bool(sdk.chat.completions.create(model="tiny", messages=QUESTION).choices)


def started(machine: Machine) -> str:
    return str(machine.status()["started"])


def test_up_after_a_crash_takes_over_the_engines_and_loads_nothing(machine: Machine) -> None:
    machine.write("--say", "loading weights")
    machine.up()
    pids = machine.engine_pids()
    crash(machine)
    base = machine.up()
    assert machine.engine_pids() == pids
    assert answers(base)
    assert "engine adopted" in machine.log
    assert loads(machine) == 1
    assert machine.run("down").returncode == 0
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), what="an adopted engine is stopped, too")
    assert engine_directories(machine) == []


def test_an_adopted_engine_that_crashes_is_started_again(machine: Machine) -> None:
    machine.write()
    machine.up()
    crash(machine)
    base = machine.up()
    (pid,) = machine.engine_pids()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: machine.status()["models"][0]["restarts"] == 1, what="the crash is noticed")
    wait_until(lambda: machine.status()["ready"], what="a new engine is ready")
    assert answers(base)


def test_an_engine_that_died_meanwhile_is_started_again(machine: Machine) -> None:
    machine.write()
    machine.up()
    (pid,) = machine.engine_pids()
    crash(machine)
    os.kill(pid, signal.SIGKILL)
    base = machine.up()
    assert machine.engine_pids() != [pid]
    assert answers(base)


def test_an_engine_that_hangs_is_not_taken_over(machine: Machine) -> None:
    machine.write()
    machine.up()
    (pid,) = machine.engine_pids()
    os.kill(pid, signal.SIGSTOP)
    crash(machine)
    base = machine.up()
    assert not psutil.pid_exists(pid)
    assert answers(base)


def test_an_engine_of_a_changed_model_serves_until_its_successor_is_ready(machine: Machine) -> None:
    machine.write("--say", "loading weights")
    machine.up()
    before = revision(machine)
    crash(machine)
    machine.write("--say", "loading weights", "--load-seconds", "6")
    process = machine.spawn_up()
    wait_until(lambda: "engine adopted" in machine.log, what="it is taken over")
    wait_until(lambda: started_up(machine), what="the control socket answers")
    assert revision(machine) == before
    assert answers(f"http://{machine.status()['address']}")
    wait_until(lambda: revision(machine) != before and not moving(machine), what="the rollout ends")
    assert process.poll() is None
    assert len(machine.engine_pids()) == 1


def started_up(machine: Machine) -> bool:
    with suppress(ValueError):
        return bool(machine.status()["models"])
    return False


def test_a_failing_successor_leaves_the_adopted_engine_serving(machine: Machine) -> None:
    machine.write(more="")
    machine.up()
    pids = machine.engine_pids()
    crash(machine)
    machine.write("--exit-at-start", "--exit-code", "1")
    base = machine.up()
    assert answers(base)
    assert machine.engine_pids()[0] == pids[0]


def test_the_engine_of_a_removed_model_is_stopped(machine: Machine) -> None:
    machine.write(models="  tiny: {source: ./weights}\n  other: {source: ./weights}")
    machine.up()
    pids = set(machine.engine_pids())
    crash(machine)
    machine.write()
    machine.up()
    (kept,) = machine.engine_pids()
    assert kept in pids
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids - {kept}), what="the other is gone")


def test_a_secret_in_a_models_environment_changes_nothing_and_is_not_written_down(machine: Machine) -> None:
    models = "  tiny: {source: ./weights, env: {SECRET_WORD: swordfish}}"
    machine.write(models=models)
    machine.up()
    pids = machine.engine_pids()
    crash(machine)
    (document,) = engine_directories(machine, "e-*/engine.json")
    assert "SECRET_WORD" in document.read_text()
    assert "swordfish" not in document.read_text()
    machine.up()
    assert machine.engine_pids() == pids


def test_restart_keeps_process_engines_options_and_address(machine: Machine) -> None:
    machine.write("--say", "loading weights")
    base = machine.up("--no-watch")
    pids = [machine.status()["pid"], *machine.engine_pids()]
    before = started(machine)
    result = machine.run("restart")
    assert result.returncode == 0, result.stderr
    assert "serving tiny" in result.stderr
    assert started(machine) > before
    assert [machine.status()["pid"], *machine.engine_pids()] == pids
    assert f"http://{machine.status()['address']}" == base
    assert answers(base)
    assert loads(machine) == 1
    assert "--no-watch" in psutil.Process(pids[0]).cmdline()


def test_restart_puts_a_field_of_the_process_in_force(machine: Machine) -> None:
    machine.write()
    machine.up()
    pids = machine.engine_pids()
    port = free_port()
    assert machine.run("restart").returncode == 0  # from now on the listener is an inherited one
    machine.write(server=f"port: {port}")
    wait_until(lambda: machine.status()["waiting_for_restart"] == ["server.port"], what="it is reported")
    assert machine.run("restart").returncode == 0
    assert machine.status()["waiting_for_restart"] == []
    assert answers(f"http://127.0.0.1:{port}")
    assert machine.engine_pids() == pids


def test_restart_refuses_a_broken_file_and_leaves_everything_as_it_is(machine: Machine) -> None:
    machine.write()
    base = machine.up()
    before = started(machine)
    machine.file.write_text("models: [")
    result = machine.run("restart")
    assert result.returncode == 1
    assert "model-runner.yaml:2:1" in result.stderr
    assert started(machine) == before
    assert answers(base)


def test_restart_lets_running_streams_finish(machine: Machine) -> None:
    machine.write("--events", "40", "--event-interval", "0.05")
    base = machine.up()
    pieces: list[str] = []

    def read() -> None:
        with openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0) as sdk:
            for chunk in sdk.chat.completions.create(model="tiny", messages=QUESTION, stream=True):
                pieces.extend(choice.finish_reason or choice.delta.content or "" for choice in chunk.choices)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: len(pieces) > 3, what="the stream runs")
    assert machine.run("restart").returncode == 0
    reader.join(20)
    assert pieces[-1] in {"stop", "length"}


def test_restarts_under_load_fail_and_cut_nothing(machine: Machine) -> None:
    machine.write("--events", "10", "--event-interval", "0.01")
    base = machine.up()
    pids = machine.engine_pids()
    with Load(base) as load, Callers(base) as callers:
        for _ in range(3):
            assert machine.run("restart").returncode == 0
        seen = load.finished
        wait_until(lambda: load.finished > seen + 4, what="the load goes on")
    assert load.errors == []
    assert callers.errors == []
    assert machine.engine_pids() == pids


def test_down_that_keeps_engines_leaves_them_to_the_next_appliance(machine: Machine) -> None:
    machine.write("--say", "loading weights")
    machine.up()
    pids = machine.engine_pids()
    result = machine.run("restart", "--backend", "fake")  # with options: another process takes over
    assert result.returncode == 0, result.stderr
    assert machine.started[0].wait(10) == 0
    assert machine.engine_pids() == pids
    assert loads(machine) == 1


# Socket activation


@dataclass
class Callers:
    """Clients that open a new connection for each request, and what went wrong."""

    base: str
    clients: int = 2
    answered: int = 0
    errors: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                connection = http.client.HTTPConnection(self.base.removeprefix("http://"), timeout=30)
                connection.request("GET", "/v1/models")
                answer = connection.getresponse()
                if answer.status != 200:
                    self.errors.append(answer.read().decode())
                connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
            self.answered += 1
            time.sleep(0.01)


@contextmanager
def activated(machine: Machine, listener: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """`appliance up` as systemd starts it: the listener is descriptor 3, and the variables say so."""
    # `exec` keeps the process id that LISTEN_PID names.
    script = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3, inheritable=True)\n"
        "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid()), 'LISTEN_FDNAMES': 'gateway'}\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'appliance', 'up'])"
    )
    command = [sys.executable, "-c", script, str(listener.fileno())]
    with (machine.directory / "activated.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=machine.directory, env=machine._env(), stderr=log, pass_fds=[listener.fileno()]
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield listener


def test_no_connection_is_refused_while_an_activated_control_process_is_killed_and_replaced(
    machine: Machine, listener: socket.socket
) -> None:
    machine.write()
    port = listener.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    with activated(machine, listener) as first:
        assert answers(base)  # queued until somebody accepts
        pids = machine.engine_pids()
        first.kill()
        first.wait()
        waiting = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(20)]
        for connection in waiting:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        with activated(machine, listener):
            for connection in waiting:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
                connection.close()
            assert answers(base)
            assert machine.engine_pids() == pids


def test_an_activated_control_process_keeps_its_listener_over_restarts(
    machine: Machine, listener: socket.socket
) -> None:
    machine.write()
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with activated(machine, listener), Load(base) as load, Callers(base) as callers:
        assert machine.run("restart").returncode == 0
        assert f"http://{machine.status()['address']}" == base
        seen = load.finished
        wait_until(lambda: load.finished > seen + 4, what="the load goes on")
    assert load.errors == []
    assert callers.errors == []


def test_engines_inherit_neither_listener_nor_variables(machine: Machine, listener: socket.socket) -> None:
    machine.write()
    with activated(machine, listener):
        assert answers(f"http://127.0.0.1:{listener.getsockname()[1]}")
        (pid,) = machine.engine_pids()
        assert not [name for name in psutil.Process(pid).environ() if name.startswith("LISTEN_")]
        held = os.stat(f"/proc/self/fd/{listener.fileno()}").st_ino  # noqa: PTH116
        assert held not in inodes(pid)


def inodes(pid: int) -> set[int]:
    return {path.stat().st_ino for path in Path(f"/proc/{pid}/fd").iterdir() if path.exists()}


def test_a_listener_open_to_others_needs_a_file_that_says_so(machine: Machine) -> None:
    machine.write()
    with socket.socket() as open_to_all:
        open_to_all.bind(("0.0.0.0", 0))
        open_to_all.listen()
        with activated(machine, open_to_all) as process:
            assert process.wait(30) == 1
    assert "`server.host` is `127.0.0.1`" in (machine.directory / "activated.log").read_text()
