"""A save moves the appliance to the new state and no request notices."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import openai
import pytest

from tests.cli.conftest import Machine
from tests.support import wait_until

QUESTION: list[openai.types.chat.ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello?"}]


@dataclass
class Load:
    """Clients that stream one answer after another until told to stop, and what became of each answer."""

    base: str
    model: str = "tiny"
    clients: int = 4
    finished: int = 0
    errors: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.finished + len(self.errors) >= self.clients, what="the load is on")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        with openai.OpenAI(base_url=f"{self.base}/v1", api_key="unused", max_retries=0) as sdk:
            while not self._stop.is_set():
                try:
                    chunks = list(sdk.chat.completions.create(model=self.model, messages=QUESTION, stream=True))
                except openai.OpenAIError as error:
                    self.errors.append(repr(error))
                    continue
                if chunks[-1].choices[0].finish_reason is None or {chunk.model for chunk in chunks} != {self.model}:
                    self.errors.append(f"cut or mixed up after {len(chunks)} chunks")
                self.finished += 1


def revision(machine: Machine) -> str:
    return str(next(e for e in machine.status()["models"][0]["engines"] if e["state"] == "ready")["revision"])


def another_revision(before: str) -> Callable[[Machine], bool]:
    return lambda machine: revision(machine) != before and not moving(machine)


def test_a_live_edit_is_in_force_and_no_engine_is_touched(machine: Machine) -> None:
    machine.write()
    base = machine.up()
    pids = machine.engine_pids()
    machine.write(models="  tiny: {source: ./weights, aliases: [fresh]}")
    with openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0) as sdk:
        wait_until(lambda: "fresh" in [model.id for model in sdk.models.list()], what="the alias is known")
        assert sdk.chat.completions.create(model="fresh", messages=QUESTION).model == "fresh"
    assert machine.engine_pids() == pids


def test_a_rollout_under_load_fails_and_cuts_nothing(machine: Machine) -> None:
    machine.write("--events", "20", "--event-interval", "0.01")
    base = machine.up()
    with Load(base) as load:
        for events in ("21", "22", "23"):
            replaced = another_revision(revision(machine))
            machine.write("--events", events, "--event-interval", "0.01")
            wait_until(partial(replaced, machine), what="the rollout ends")
        seen = load.finished
        wait_until(lambda: load.finished > seen + 4, what="the load goes on")
    assert load.errors == []
    assert len(machine.engine_pids()) == 1


def test_recreate_holds_requests_while_no_engine_runs(machine: Machine) -> None:
    models = "  tiny: {source: ./weights, rollout: {strategy: recreate}}"
    machine.write("--events", "10", "--event-interval", "0.01", models=models)
    base = machine.up()
    before = revision(machine)
    with Load(base) as load:
        machine.write("--events", "11", "--event-interval", "0.01", models=models)
        wait_until(lambda: machine.status()["generation"] == 2 and not moving(machine), what="the rollout ends")
        seen = load.finished
        wait_until(lambda: load.finished > seen + 4, what="the load goes on")
    assert load.errors == []
    assert revision(machine) != before


@pytest.mark.parametrize("strategy", ["surge", "recreate"])
def test_a_queue_in_front_of_a_busy_engine_goes_through_a_rollout(machine: Machine, strategy: str) -> None:
    model = f"  tiny: {{source: ./weights, queue: {{concurrent: 1}}, rollout: {{strategy: {strategy}}}}}"
    machine.write("--events", "10", "--event-interval", "0.01", models=model)
    base = machine.up("--metrics")
    before = revision(machine)
    with Load(base, clients=6) as load:
        machine.write("--events", "11", "--event-interval", "0.01", models=model)
        wait_until(lambda: machine.status()["generation"] == 2 and not moving(machine), what="the rollout ends")
        seen = load.finished
        wait_until(lambda: load.finished > seen + 8, what="the load goes on")
        page = urllib.request.urlopen(f"{base}/metrics", timeout=30).read().decode()  # noqa: S310
    assert load.errors == []
    assert revision(machine) != before
    waits = re.search(r'^appliance_queue_wait_seconds_count{model="tiny"} (\d+)', page, re.MULTILINE)
    assert waits is not None
    assert int(waits[1]) > 6
    assert "appliance_dropped_requests_total 0.0" in page


def moving(machine: Machine) -> bool:
    status = machine.status()
    states = {engine["state"] for model in status["models"] for engine in model["engines"]}
    return status["observed_generation"] != status["generation"] or not states <= {"ready", "failed"}


def test_a_file_that_does_not_parse_changes_nothing_but_the_status(machine: Machine) -> None:
    machine.write()
    machine.up()
    pids = machine.engine_pids()
    machine.file.write_text("models: [unclosed")
    wait_until(lambda: machine.status()["problem"], what="the problem is told")
    assert "model-runner.yaml:1" in machine.status()["problem"]
    assert machine.engine_pids() == pids
    machine.write()
    wait_until(lambda: not machine.status()["problem"], what="the problem is gone")
    assert machine.engine_pids() == pids


def test_a_new_engine_that_fails_leaves_the_old_one_serving(machine: Machine) -> None:
    machine.write()
    base = machine.up()
    pids = machine.engine_pids()
    with Load(base) as load:
        machine.write("--exit-at-start", "--exit-code", "1", "--say", "ValueError: bad argument")
        wait_until(lambda: degraded(machine), what="the failure is told")
        seen = load.finished
        wait_until(lambda: load.finished > seen + 4, what="the load goes on")
    assert load.errors == []
    assert machine.engine_pids()[0] == pids[0]
    assert "bad argument" in str(degraded(machine))


def degraded(machine: Machine) -> object:
    conditions = machine.status()["models"][0]["conditions"]
    return next((condition["message"] for condition in conditions if condition["type"] == "Degraded"), None)


def test_a_rollout_that_failed_is_told_beside_the_revision_that_serves(machine: Machine) -> None:
    machine.write()
    machine.up()
    before = revision(machine)
    machine.write("--exit-at-start", "--exit-code", "1", "--say", "ValueError: bad argument")
    wait_until(lambda: degraded(machine), what="the failure is told")
    result = machine.run("status")
    assert result.returncode == 0
    assert f"Revision {before} goes on serving. " in result.stdout
    assert "ValueError: bad argument" in result.stdout


def test_a_save_is_in_force_although_the_history_cannot_be_written(machine: Machine) -> None:
    """As on a full disk; a file where the directory was fails in the same way for every user."""
    machine.write()
    machine.up()
    history = machine.home / "history"
    history.rename(machine.home / "kept")
    history.touch()
    machine.write(models="  tiny: {source: ./weights, aliases: [one]}")
    wait_until(lambda: machine.status()["generation"] == 2, what="the save is in force")
    (told,) = machine.status()["remarks"]
    assert told["name"] == "history"
    assert "generation 2 is in force, and `rollback` will not know of it" in machine.run("status").stderr
    history.unlink()
    (machine.home / "kept").rename(history)
    machine.write(models="  tiny: {source: ./weights, aliases: [two]}")
    wait_until(lambda: machine.status()["generation"] == 3, what="the next save is in force")
    assert machine.status()["remarks"] == []
    assert [entry["generation"] for entry in json.loads(machine.run("history", "--json").stdout)] == [1, 3]


def test_recreate_brings_the_old_revision_back_when_the_new_one_fails(machine: Machine) -> None:
    models = "  tiny: {source: ./weights, rollout: {strategy: recreate}}"
    machine.write(models=models)
    base = machine.up()
    before = revision(machine)
    with Load(base) as load:
        machine.write("--exit-at-start", "--exit-code", "1", models=models)
        wait_until(lambda: degraded(machine) and not moving(machine), what="the old revision is back")
        seen = load.finished
        wait_until(lambda: load.finished > seen + 4, what="the load goes on")
    assert load.errors == []
    assert revision(machine) == before


def test_history_tells_and_rollback_undoes(machine: Machine) -> None:
    machine.write()
    machine.up()
    good = machine.file.read_text()
    before = revision(machine)
    machine.write("--exit-at-start", "--exit-code", "1")
    wait_until(lambda: "degraded" in machine.run("history").stdout, what="the outcome is recorded")
    assert "-backends" in machine.run("diff", "1", "2").stdout
    result = machine.run("rollback")
    assert result.returncode == 0, result.stderr
    assert machine.file.read_text() == good
    wait_until(lambda: not degraded(machine) and not moving(machine), what="all is well again")
    assert revision(machine) == before


def test_a_removed_model_finishes_what_it_has_and_is_gone(machine: Machine) -> None:
    both = "  tiny: {source: ./weights}\n  other: {source: ./weights}"
    machine.write("--events", "30", "--event-interval", "0.05", models=both)
    base = machine.up()
    pieces: list[str] = []

    def read() -> None:
        with openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0) as sdk:
            for chunk in sdk.chat.completions.create(model="other", messages=QUESTION, stream=True):
                pieces.extend(choice.finish_reason or "" for choice in chunk.choices)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: len(pieces) > 2, what="the stream runs")
    machine.write("--events", "30", "--event-interval", "0.05", models="  tiny: {source: ./weights}")
    wait_until(lambda: len(machine.status()["models"]) == 1, what="the model is gone")
    reader.join(20)
    assert pieces[-1] in {"stop", "length"}
    wait_until(lambda: len(machine.engine_pids()) == 1, what="its engine is gone")


def test_a_field_of_the_process_is_reported_and_waits_for_a_restart(machine: Machine) -> None:
    machine.write()
    machine.up()
    machine.write(server="port: 0, max_body: 1MiB")
    wait_until(lambda: machine.status()["waiting_for_restart"] == ["server.max_body"], what="it is reported")
    assert "appliance restart" in machine.run("status").stderr


def test_hangup_and_apply_read_the_file_where_watching_is_off(machine: Machine) -> None:
    machine.write()
    machine.up("--no-watch")
    machine.write(models="  tiny: {source: ./weights, aliases: [one]}")
    time.sleep(0.5)  # several times what a watched save takes
    assert machine.status()["generation"] == 1
    assert machine.run("apply").stdout == "models.tiny.aliases\tlive\n"
    machine.write(models="  tiny: {source: ./weights, aliases: [two]}")
    os.kill(machine.started[0].pid, signal.SIGHUP)
    wait_until(lambda: machine.status()["generation"] == 3, what="the hangup is heard")
    machine.file.write_text("nonsense")
    assert machine.run("apply").returncode == 1
