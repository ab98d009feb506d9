"""A short form of `make fuzz`, with a seed of its own: what fails here fails every time."""

from __future__ import annotations

from random import Random

from tests.cli.conftest import Machine, machine  # noqa: F401 - the fixture
from tests.fuzz.inputs import KINDS, make
from tests.fuzz.run import WARM_UP, fuzz

GROWTH = 20 * 2**20
"""Bytes that the second half may add: the first of the largest bodies raises the allocator's peak by 15 MiB, once."""


def test_hostile_inputs_are_answered_and_leave_nothing_behind(machine: Machine) -> None:  # noqa: F811
    outcome = fuzz(machine, WARM_UP + 300, seed=20261124)
    assert outcome.failures == [], outcome.describe()
    assert outcome.kinds.keys() == KINDS.keys()
    assert outcome.statuses[200] > 20
    assert outcome.statuses[400] > 100
    assert outcome.grown < GROWTH, outcome.describe()


def test_a_seed_gives_the_same_inputs() -> None:
    first, second = Random(7), Random(7)
    assert [make(first) for _ in range(200)] == [make(second) for _ in range(200)]
