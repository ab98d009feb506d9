"""Models with recurrent layers in vLLM: every way of scheduling them, and nothing left behind by those who go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.metal.support import run

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", params=["qwen3_5", "mamba2"])
def found(
    request: pytest.FixtureRequest, metal_python: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    scratch = tmp_path_factory.mktemp(request.param)
    return {"name": request.param, **run(metal_python, "hybrids.py", smollm2, scratch, "engine", request.param)}


def test_tokens_are_mlx_lms_beside_others_in_chunks_alone_and_after_a_preemption(found: dict[str, Any]) -> None:
    assert found["wrong"] == []
    assert found["alone"]
    if found["name"] != "mamba2":  # which keeps no blocks that could run out
        assert found["preemptions"] > 0


def test_several_answers_to_one_prompt_have_each_a_state_of_their_own(found: dict[str, Any]) -> None:
    assert found["several"] == [3, 3]
    assert found["seeded"]


def test_adapters_inside_a_recurrent_layer_change_the_rows_that_have_them(found: dict[str, Any]) -> None:
    assert found["adapted"] == [True, True]


def test_clients_that_go_leave_no_state(found: dict[str, Any]) -> None:
    gone, most = found["aborted"]
    assert gone > 10
    assert most == 5  # of the six that may run at once, as many as the memory has states for
    assert found["left"] == [[0, 0]]


def test_what_wakes_answers_as_before(found: dict[str, Any]) -> None:
    assert found["asleep"] == [[0, 0]]
    assert found["after sleep"]


def test_prefixes_are_not_cached_whatever_vllms_default_is(found: dict[str, Any]) -> None:
    assert not found["cached"]
