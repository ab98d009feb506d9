"""What is run before the first request changes nothing but the time that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.metal.support import run
from tests.metal.warming import BUDGET, LENGTH, SEQUENCES

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def found(metal_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(metal_python, "warming.py", tmp_path_factory.mktemp("warming"))


KINDS = ["generating", "embedding by a decoder", "embedding by an encoder"]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_an_engine_that_was_not_warmed_up(found: dict[str, Any], kind: str) -> None:
    for what in ("tokens", "vectors"):
        assert found[kind]["on"].get(what) == found[kind]["off"].get(what)


@pytest.mark.parametrize("kind", KINDS)
def test_no_trace_of_it_is_left_in_the_cache(found: dict[str, Any], kind: str) -> None:
    warm, cold = found[kind]["on"], found[kind]["off"]
    assert warm["pools"] == (0 if kind == "embedding by an encoder" else 4)
    assert warm["zero"]
    assert (warm["requests"], warm["free blocks"]) == (0, cold["free blocks"])


def test_its_seconds_are_told_for_what_was_warmed_up(found: dict[str, Any]) -> None:
    assert found["generating"]["off"]["seconds"] == {"language_model": 0, "encoder": 0}
    for kind, part in zip(KINDS, ("language_model", "language_model", "encoder"), strict=True):
        seconds = found[kind]["on"]["seconds"]
        assert [name for name, value in seconds.items() if value > 0] == [part]


def test_every_step_is_one_that_the_scheduler_could_have_made(found: dict[str, Any]) -> None:
    limits = {"large": (2048, 256, 8192), "small": (BUDGET, SEQUENCES, LENGTH), "least": (1, 1, 1)}
    for name, steps in found["shapes"].items():
        budget, sequences, longest = limits[name.partition(" ")[2]]
        for requests, count, context in steps:
            assert 1 <= requests <= sequences
            assert requests * count <= budget
            assert 1 <= count <= context <= longest


def test_decodes_and_chunks_of_every_kind_are_tried(found: dict[str, Any]) -> None:
    steps = found["shapes"]["generated large"]
    assert {rows for rows, count, _ in steps if count == 1} == {1, 2, 4, 8, 16, 32, 64}
    assert max(context for _, count, context in steps if count == 1) > 512  # in two parts of the kernel
    assert [2048, 2048] in [[count, context] for _, count, context in steps]
    assert [count for _, count, context in steps if 1 < count < context] != []
    assert [1, 2048, 2048] in found["shapes"]["embedded large"]


def test_a_choice_that_there_is_not_is_told(found: dict[str, Any]) -> None:
    assert found["refusal"] == "METAL_WARM_UP: expected one of auto, on, off, got `perhaps`"
