from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.golden import CASES, Case


@pytest.mark.parametrize("path", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_bad_input_gets_exactly_this_text(path: Path) -> None:
    case = Case.read(path)
    assert case.outcome() == case.expected


def test_every_bad_case_is_told_apart_from_a_good_one() -> None:
    assert len(list(CASES.glob("*.yaml"))) >= 40
    assert not [path.stem for path in CASES.glob("*.yaml") if Case.read(path).expected == "no problem\n"]
