"""The layers that a GPU gets in the place of mlx-lm's quantized ones give the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.metal.support import run

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def found(metal_python: Path) -> dict[str, Any]:
    return run(metal_python, "products.py")


def test_flattened_products_are_those_of_the_plain_layers(found: dict[str, Any]) -> None:
    assert len(found["differences"]) == 12
    assert max(found["differences"]) < 1e-4


def test_a_choice_of_kernels_that_there_is_not_is_told(found: dict[str, Any]) -> None:
    assert found["refusal"] == "METAL_KERNELS: expected one of auto, on, off, got `perhaps`"
