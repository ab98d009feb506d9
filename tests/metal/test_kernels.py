"""The kernel's way through block tables, in Python, beside the attention that is the reference. The kernel itself needs
a GPU: docs/metal.md says what it was compared with there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.metal.support import run

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def cases(metal_python: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run(metal_python, "kernel_model.py")["cases"]
    return found


def test_the_kernels_indices_find_what_the_reference_gathers(cases: list[dict[str, Any]]) -> None:
    wrong = [each for each in cases if not each["difference"] < 1e-4]
    assert not wrong


def test_every_output_is_written_once(cases: list[dict[str, Any]]) -> None:
    assert all(each["written"] == [1] for each in cases)


def test_what_the_kernel_writes_is_what_mlx_scatters(cases: list[dict[str, Any]]) -> None:
    assert {each["writes"] for each in cases} == {True, False}
    assert all(each["pools"] for each in cases)


def test_the_cases_have_contexts_in_one_part_and_in_several(cases: list[dict[str, Any]]) -> None:
    assert {1, 2} <= {each["parts"] for each in cases}
