"""The memory budget with real processes: what fits runs, what does not makes room or is refused."""

from __future__ import annotations

import json

import openai
import pytest

from tests.cli.conftest import Machine
from tests.support import wait_until

QUESTION: list[openai.types.chat.ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello?"}]
BIG = 100 * 2**20


def ask(base: str, model: str) -> openai.types.chat.ChatCompletion:
    with openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0) as sdk:
        return sdk.chat.completions.create(model=model, messages=QUESTION)


def two_models(machine: Machine, budget: str, load: str = "on_demand", idle: str = "") -> None:
    models = "\n".join(f"  {name}: {{source: ./weights, load: {load}{idle}}}" for name in ("first", "second"))
    machine.write(models=models, more=f"memory: {{budget: {budget}}}\n")
    weights = machine.directory / "weights" / "more.safetensors"
    if weights.exists():
        return
    with weights.open("wb") as file:
        header = json.dumps({"w": {"dtype": "U8", "shape": [BIG], "data_offsets": [0, BIG]}}).encode()
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(file.tell() + BIG)  # sparse: it counts as weights and takes no disk


def running(machine: Machine) -> set[str]:
    return {model["name"] for model in machine.status()["models"] if model["ready"]}


def test_the_idle_model_makes_room_for_the_one_that_is_asked_for(machine: Machine) -> None:
    two_models(machine, "110MiB")
    base = machine.up()
    ask(base, "first")
    assert running(machine) == {"first"}
    ask(base, "second")
    wait_until(lambda: running(machine) == {"second"}, what="the first has made room")


def test_what_can_never_fit_is_refused_with_the_sizes(machine: Machine) -> None:
    two_models(machine, "90MiB")
    base = machine.up()
    with pytest.raises(openai.InternalServerError, match="needs 100 MiB, and of 90 MiB") as error:
        ask(base, "first")
    assert error.value.status_code == 503
    (condition,) = [c for c in machine.status()["models"][0]["conditions"] if c["type"] == "Degraded"]
    assert condition["reason"] == "InsufficientMemory"


def test_what_was_refused_is_tried_again_when_the_budget_grows(machine: Machine) -> None:
    two_models(machine, "90MiB", load="startup")
    machine.up()
    assert running(machine) == set()
    two_models(machine, "1GiB", load="startup")
    wait_until(lambda: running(machine) == {"first", "second"}, what="both are loaded")


def test_an_idle_model_is_unloaded_and_loads_again_when_asked_for(machine: Machine) -> None:
    two_models(machine, "1GiB", idle=", idle_unload: 500ms")
    base = machine.up()
    ask(base, "first")
    wait_until(lambda: running(machine) == set(), what="it is unloaded")
    assert ask(base, "first").choices
