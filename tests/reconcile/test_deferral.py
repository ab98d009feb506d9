"""A rollout that cannot go on yet says what it waits for, and goes on when that is there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai

from tests.cli.conftest import Machine
from tests.support import wait_until

QUESTION: list[openai.types.chat.ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello?"}]
ENDLESS = ("--events", "100000", "--event-interval", "0.05")
BIG = 100 * 2**20


@contextmanager
def an_answer_in_flight(base: str, model: str) -> Iterator[None]:
    """From its first word until the block ends, which is when its client goes away."""
    with (
        openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0) as sdk,
        sdk.chat.completions.create(model=model, messages=QUESTION, stream=True) as stream,
    ):
        next(iter(stream))
        yield


def deferral(machine: Machine, model: str) -> dict[str, Any] | None:
    (found,) = [each for each in machine.status()["models"] if each["name"] == model]
    conditions = [each for each in found["conditions"] if each["type"] == "RolloutDeferred"]
    assert len(conditions) <= 1
    return conditions[0] if conditions else None


def deferred(machine: Machine, model: str, reason: str) -> dict[str, Any]:
    condition = wait_until(lambda: deferral(machine, model), what=f"{model} is deferred")
    assert condition is not None
    assert condition["status"] is True
    assert condition["reason"] == reason
    return condition


def settled(machine: Machine, model: str) -> bool:
    (found,) = [each for each in machine.status()["models"] if each["name"] == model]
    return bool(found["ready"]) and [each["type"] for each in found["conditions"]] == ["Ready"]


def test_a_rollout_that_recreates_waits_for_the_answers_of_the_old_engine(machine: Machine) -> None:
    models = "  tiny: {source: ./weights, rollout: {strategy: recreate, drain_timeout: 10m}}"
    machine.write(*ENDLESS, models=models)
    base = machine.up()
    assert settled(machine, "tiny")
    (old,) = machine.status()["models"][0]["engines"]
    with an_answer_in_flight(base, "tiny"):
        machine.write(*ENDLESS, "--say", "another revision", models=models)
        message = deferred(machine, "tiny", "WaitingForDrain")["message"]
        assert message == f"Waits for revision {old['revision']} to leave; 1 request is in flight on it."
        assert machine.engine_pids() == [old["pid"]]
    wait_until(lambda: settled(machine, "tiny"), what="the new revision serves")
    assert [engine["revision"] for engine in machine.status()["models"][0]["engines"]] != [old["revision"]]


def test_a_model_waits_for_the_memory_of_one_that_is_on_its_way_out(machine: Machine) -> None:
    def only(model: str) -> None:
        machine.write(*ENDLESS, models=f"  {model}: {{source: ./weights}}", more="memory: {budget: 110MiB}\n")

    def heavy() -> None:
        with (machine.directory / "weights" / "more.safetensors").open("wb") as file:
            header = json.dumps({"w": {"dtype": "U8", "shape": [BIG], "data_offsets": [0, BIG]}}).encode()
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(file.tell() + BIG)  # sparse: it counts as weights and takes no disk

    only("leaving")
    heavy()
    base = machine.up()
    with an_answer_in_flight(base, "leaving"):
        only("waiting")
        wait_until(lambda: machine.status()["generation"] == 2, what="the file is in force")
        message = deferred(machine, "waiting", "WaitingForMemory")["message"]
        assert message == "Waits for 100 MiB that others give up."
    wait_until(lambda: settled(machine, "waiting"), what="it is ready")


def test_a_model_that_keeps_crashing_says_when_it_is_tried_again(machine: Machine) -> None:
    machine.write()
    machine.up()

    def crashed() -> dict[str, Any] | None:
        if (condition := deferral(machine, "tiny")) is not None:
            return condition
        for pid in machine.engine_pids():  # each time the wait is twice as long, so that one of them is seen
            os.kill(pid, signal.SIGKILL)
        return None

    condition = wait_until(crashed, within=60, what="it waits before it is tried again")
    assert condition is not None
    assert condition["reason"] == "Backoff"
    assert condition["message"].startswith("Tries again in ")
    wait_until(lambda: settled(machine, "tiny"), within=60, what="it is back")
