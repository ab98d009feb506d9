from __future__ import annotations

from appliance.plan.desired import EngineSpec
from appliance.reconcile.crashes import CALM, Crashes

TINY, OTHER = (EngineSpec(model=name, backend="fake", source="nowhere") for name in ("tiny", "other"))


def test_waits_grow_with_the_crashes_of_one_engine_and_of_no_other() -> None:
    crashes = Crashes()
    waits = [crashes.wait(TINY) or 0 for _ in range(4)]
    assert waits == sorted(waits)
    assert waits[-1] > 2 * waits[0]
    assert (crashes.wait(OTHER) or 0) < waits[-1]


def test_an_engine_that_was_ready_for_long_begins_anew() -> None:
    crashes = Crashes()
    waits = [crashes.wait(TINY) or 0 for _ in range(4)]
    assert (crashes.wait(TINY, calm=CALM - 1) or 0) > waits[0]
    assert (crashes.wait(TINY, calm=CALM + 1) or 0) < waits[-1]


def test_what_may_be_tried_so_often_is_given_up_then() -> None:
    crashes = Crashes()
    waits = [crashes.wait(TINY, tries=2) for _ in range(3)]
    assert [wait is None for wait in waits] == [False, False, True]
