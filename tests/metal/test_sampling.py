"""What is drawn follows the distribution that the parameters ask for, and seeds repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.metal.support import run

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def found(metal_python: Path) -> dict[str, Any]:
    return run(metal_python, "sampling.py")


def highest(freedom: int) -> float:
    """What chi-square stays under with a probability above 0.9999 (Wilson and Hilferty's approximation)."""
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + 3.72 * spread**0.5) ** 3)


@pytest.mark.parametrize("settings", ["temperature", "hot", "top_k", "top_p", "min_p", "all"])
def test_draws_follow_the_distribution_of_vllms_own_masks(found: dict[str, Any], settings: str) -> None:
    result = found["chi_square"][settings]
    assert result["outside"] == 0
    assert result["freedom"] >= 5
    assert result["value"] < highest(result["freedom"])


@pytest.mark.parametrize("part", ["seeds", "reference", "grammar"])
def test_every_single_check_holds(found: dict[str, Any], part: str) -> None:
    assert len(found[part]) >= 2
    assert [name for name, holds in found[part].items() if not holds] == []
