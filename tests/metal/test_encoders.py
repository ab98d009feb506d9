"""BERT-like encoders of our own in MLX, beside transformers' definitions; and what pooling makes of hidden states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.metal.support import run

pytestmark = pytest.mark.engine

KINDS = ["bert", "bert with another activation", "roberta", "xlm-roberta"]


@pytest.fixture(scope="module")
def found(metal_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(metal_python, "encoders.py", tmp_path_factory.mktemp("encoders"))


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_transformers_for_several_sequences_in_one_step(found: dict[str, Any], kind: str) -> None:
    measured = found["differences"][kind]
    assert measured["largest"] < 1e-5 * max(1, measured["spread"])
    assert measured["of another order"] > 0.1 * measured["spread"]  # positions and neighbours do matter


def test_positions_behind_the_padding_are_not_counted(found: dict[str, Any]) -> None:
    assert {kind: found["differences"][kind]["longest"] for kind in KINDS} == {
        "bert": 40,
        "bert with another activation": 40,
        "roberta": 38,
        "xlm-roberta": 38,
    }


def test_states_are_pooled_as_the_checkpoint_says(found: dict[str, Any]) -> None:
    whole, normalised = 0, 1
    pooled = found["pooled"]
    assert [pooled[kind][whole] for kind in ("LAST", "MEAN", "CLS")] == [[3, 4]] * 3
    assert pooled["LAST"][normalised] == [0, 1]
    assert pooled["CLS"][normalised] == [1, 0]
    mean = [1 / 3, 8 / 3]
    length = sum(each**2 for each in mean) ** 0.5
    assert pooled["MEAN"][normalised] == pytest.approx([each / length for each in mean], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "why"),
    [("positions", "`relative_key`"), ("activation", "`silu`"), ("module", "`Dense`"), ("weights", "encoder.layer.3.")],
)
def test_what_an_encoder_does_otherwise_is_refused_by_name(found: dict[str, Any], name: str, why: str) -> None:
    assert found["refused"][name].startswith("`bert`")
    assert why in found["refused"][name]
