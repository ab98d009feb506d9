"""Rollouts of the real model under load: nothing fails, nothing is cut, and not a word differs."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from appliance.cli.control import ask
from appliance.state import StateDirectory
from tests.end_to_end.conftest import Served
from tests.support import wait_until

pytestmark = pytest.mark.engine

QUESTIONS = tuple(f"Name {count} animals that live in {place}." for count in (2, 3) for place in ("Africa", "the sea"))
ROLLOUT = 240.0
"""Seconds that one may take with eight streams on the same two cores."""
PAUSE = 0.4
"""Seconds between two answers to the first client, twice that to the second, and so on: in step, all would be between
two answers when a rollout begins."""


def answer(sdk: openai.OpenAI, question: str) -> tuple[str, str | None]:
    """The text of a streamed answer at temperature 0, and why it ended."""
    chunks = sdk.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=24,
        stream=True,
    )
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason


@dataclass
class Load:
    served: Served
    answers: list[tuple[str, str, str | None]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def client(self, number: int) -> None:
        with self.served.client() as sdk:
            while not self.over.is_set():
                question = QUESTIONS[number % len(QUESTIONS)]
                try:
                    self.answers.append((question, *answer(sdk, question)))
                except openai.OpenAIError as error:
                    self.errors.append(repr(error))
                self.over.wait(PAUSE * (number + 1))


@pytest.fixture
def restored(served: Served) -> Iterator[Served]:
    """The session's appliance, brought back to its file afterwards."""
    before = served.file.read_text()
    yield served
    generation = status(served)["generation"]
    served.file.write_text(before)
    settle(served, generation)


def status(served: Served) -> dict[str, Any]:
    return ask(StateDirectory(served.home), "GET", "/admin/v1/status")


def settle(served: Served, generation: int) -> None:
    """Until a later generation than this one has come to rest."""
    deadline = time.monotonic() + ROLLOUT
    while not at_rest(status(served), generation):
        assert time.monotonic() < deadline, served.log.read_text()[-2000:]
        time.sleep(0.5)  # asking more often would take the processor from what is waited for


def at_rest(status: dict[str, Any], generation: int) -> bool:
    (model,) = (each for each in status["models"] if each["name"] == "smollm2")
    engines = [engine["state"] for engine in model["engines"]]
    return status["observed_generation"] > generation and engines == ["ready"]


def roll_out(served: Served, **changes: Any) -> str:
    """Save the changes and wait for their engine; its revision."""
    generation = status(served)["generation"]
    document = yaml.safe_load(served.file.read_text())
    model = document["models"]["smollm2"]
    model["engine"].update(changes.pop("engine", {}))
    model.update(changes)
    served.file.write_text(yaml.safe_dump(document))
    settle(served, generation)
    return str(status(served)["models"][0]["engines"][0]["revision"])


def test_rollouts_under_load_lose_nothing_and_change_no_word(restored: Served, smollm2: Path, tmp_path: Path) -> None:
    served = restored
    # In bfloat16 the next word may depend on how many others are generated beside it, whatever else happens.
    roll_out(served, engine={"dtype": "float32"})
    with served.client() as sdk:
        undisturbed = {question: answer(sdk, question) for question in QUESTIONS}
    copy = shutil.copytree(smollm2, tmp_path / "copy")
    load = Load(served)
    clients = [threading.Thread(target=load.client, args=(number,)) for number in range(8)]
    for client in clients:
        client.start()
    revisions = set()
    try:
        for changes in (
            {"engine": {"max_model_len": 1024}, "rollout": {"strategy": "surge"}},
            {"engine": {"max_model_len": 1536}, "rollout": {"strategy": "recreate"}},
            {"engine": {"max_model_len": 2000}},
            {"source": str(copy)},
        ):
            revisions.add(roll_out(served, **changes))
            seen = len(load.answers)
            wait_until(lambda: len(load.answers) > seen + 8, within=ROLLOUT, what="the new engine answers")  # noqa: B023
    finally:
        load.over.set()
        for client in clients:
            client.join(120)
    assert load.errors == []
    assert len(revisions) == 4
    assert {(question, text, finish) for question, text, finish in load.answers} == {
        (question, *undisturbed[question]) for question in QUESTIONS
    }
