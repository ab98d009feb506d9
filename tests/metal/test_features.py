"""Sleep, LoRA adapters and embeddings, each beside what mlx_lm computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.metal.support import run

pytestmark = pytest.mark.engine

WEIGHTS, CACHE = 512, 256
"""MiB: the demo model in float32, and the cache that the script asks for."""


@pytest.fixture(scope="module")
def found(metal_python: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(metal_python, "features.py", smollm2, tmp_path_factory.mktemp("features"))


def test_rows_of_one_batch_have_each_their_own_adapter(found: dict[str, Any]) -> None:
    generation = found["generation"]
    assert generation["adapted"] == generation["merged"]
    assert generation["adapted"][:2] != generation["plain"][:2]
    assert generation["adapted"][2] == generation["plain"][2]


def test_sleep_gives_weights_and_cache_back_to_the_system(found: dict[str, Any]) -> None:
    resident = found["generation"]["resident"]
    assert resident["awake"] - resident["asleep"] > 0.9 * (WEIGHTS + CACHE)


def test_what_wakes_answers_as_before_and_knows_its_adapters(found: dict[str, Any]) -> None:
    assert found["generation"]["after sleep"] == [True, True]


def test_embeddings_are_the_normalised_last_hidden_state(found: dict[str, Any]) -> None:
    embeddings = found["embeddings"]
    assert min(embeddings["cosines"]) > 0.9999
    assert embeddings["between"] < 0.9
    assert embeddings["norms"] == pytest.approx([1.0] * 4, abs=1e-4)
