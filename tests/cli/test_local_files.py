"""The files of a model at a path change beneath a running appliance."""

from __future__ import annotations

import os
from typing import Any

import openai

from tests.cli.conftest import WEIGHTS, Machine
from tests.cli.test_reload import QUESTION
from tests.models.checkpoint_builder import safetensors
from tests.support import wait_until


def drift(machine: Machine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = machine.status()["drift"]
    return found


def test_other_files_are_rolled_out_when_they_are_whole_and_no_answer_is_cut(machine: Machine) -> None:
    machine.write("--events", "40", "--event-interval", "0.5")
    base = machine.up()
    (old,) = machine.engine_pids()
    weights, whole = machine.directory / "weights" / "model.safetensors", safetensors(64)
    weights.write_bytes(whole[:-1])
    wait_until(lambda: any("header says" in each["message"] for each in drift(machine)), what="the flaw is told")
    assert machine.engine_pids() == [old]
    with openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0) as sdk:
        stream = sdk.chat.completions.create(model="tiny", messages=QUESTION, stream=True)
        chunks = [next(iter(stream))]
        weights.write_bytes(whole)
        wait_until(lambda: len(machine.engine_pids()) == 2, what="a successor beside the old engine")
        chunks += stream
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert len([choice for choice in choices if choice.delta.content]) == 40
    assert choices[-1].finish_reason == "stop"
    wait_until(lambda: old not in machine.engine_pids() and not drift(machine), what="the old engine leaves")
    assert "local files have changed" in machine.log
    (model,) = machine.status()["models"]
    assert (model["ready"], len(model["engines"])) == (True, 1)


def test_a_request_waits_for_files_that_have_just_been_written(machine: Machine) -> None:
    machine.write(models="  tiny: {source: ./weights, load: on_demand}")
    base = machine.up()
    (machine.directory / "weights" / "tokenizer.json").write_text('{"other": 1}')
    with openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0) as sdk:
        assert sdk.chat.completions.create(model="tiny", messages=QUESTION).choices
    assert "have changed since they were asked for" in machine.log
    (model,) = machine.status()["models"]
    assert [each["type"] for each in model["conditions"]] == ["Ready"]


def test_files_that_changed_while_nothing_ran_are_loaded_by_the_next_start(machine: Machine) -> None:
    machine.write()
    machine.up()
    (old,) = machine.engine_pids()
    os.kill(machine.started[-1].pid, 9)
    machine.started[-1].wait(30)
    (machine.directory / "weights" / "tokenizer.json").write_text('{"other": 1}')
    machine.up()
    wait_until(
        lambda: machine.engine_pids() and old not in machine.engine_pids(), what="the adopted engine is replaced"
    )


def test_locked_files_that_change_are_told_and_not_loaded(machine: Machine) -> None:
    machine.write()
    machine.run("lock")
    machine.up("--locked")
    before = machine.engine_pids()
    tokenizer = machine.directory / "weights" / "tokenizer.json"
    tokenizer.write_text('{"other": 1}')
    wait_until(lambda: any("differ from the lock" in each["message"] for each in drift(machine)), what="drift")
    tokenizer.write_bytes(WEIGHTS["tokenizer.json"])
    wait_until(lambda: not drift(machine), what="the same bytes are the locked ones")
    assert machine.engine_pids() == before
    assert len(machine.status()["models"][0]["engines"]) == 1
