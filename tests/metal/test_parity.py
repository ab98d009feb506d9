"""Greedy tokens are mlx_lm's: alone, beside others, chunked, with a cached prefix, after a preemption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.engines.vllm_metal import PLATFORM
from tests.metal.support import run

pytestmark = pytest.mark.engine

TIE = 2e-3
"""Two logits this close are a tie in float32 after thirty layers; the logits of the demo model spread over twenty."""


@pytest.fixture(scope="module")
def eight_bits(metal_python: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlx") / "8bit"
    run(metal_python, "quantize.py", smollm2, path, 8)
    return path


def untied(found: dict[str, Any]) -> dict[str, list[Any]]:
    """The differences that are no tie: the token we took is really less likely in mlx_lm."""
    return {mode: [each for each in all_ if each["gap"] > TIE] for mode, all_ in found["differences"].items()}


def assert_equal_in_every_way(found: dict[str, Any]) -> None:
    assert found["platform"] == PLATFORM
    assert found["steps"]["longest prompt"] > found["steps"]["chunk"]
    assert found["cached"][1] > found["cached"][0]
    assert found["preemptions"] > 0
    assert untied(found) == {"batched": [], "prefix-cached": [], "alone": [], "preempted": []}


def test_float32_tokens_are_mlx_lms_in_every_way_of_scheduling_them(metal_python: Path, smollm2: Path) -> None:
    assert_equal_in_every_way(run(metal_python, "parity.py", smollm2, 12, "alone", "preempted"))


def test_four_bit_tokens_are_those_of_mlx_lms_quantized_products(metal_python: Path, smollm2_mlx: Path) -> None:
    assert_equal_in_every_way(run(metal_python, "parity.py", smollm2_mlx, 6, "short", "alone", "preempted"))


def test_eight_bit_tokens_are_those_of_mlx_lms_quantized_products(metal_python: Path, eight_bits: Path) -> None:
    assert_equal_in_every_way(run(metal_python, "parity.py", eight_bits, 6, "short", "alone", "preempted"))
