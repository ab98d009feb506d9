"""The judge itself: what counts as lost, and what is forgiven."""

from __future__ import annotations

from dataclasses import replace

from appliance.chaos.stream import Stream
from appliance.chaos.verdict import Death, Verdict, judge

SAID = "alpha was asked something "
WHOLE = Stream(
    "alias", "alpha", "something", began=10.0, ended=12.0, status=200, engine="pid 7", models={"alias"},
    text=["alpha was ", "asked something "], finish="stop", done=True,
)  # fmt: skip
LOST = replace(WHOLE, text=["alpha "], finish=None, done=False, errors=["the engine ended"])
DEATH = Death("alpha", 7, 11.0, 11.5)


def test_an_answer_that_came_to_its_end_is_whole() -> None:
    assert judge(WHOLE, SAID, ()) is Verdict.WHOLE
    assert judge(WHOLE, None, ()) is Verdict.WHOLE


def test_an_answer_of_another_model_is_found_by_its_name_and_by_its_words() -> None:
    assert judge(replace(WHOLE, models={"alias", "beta"}), SAID, ()) is Verdict.WRONG_MODEL
    assert judge(replace(WHOLE, text=["beta was asked "]), SAID, ()) is Verdict.WRONG_MODEL
    assert judge(replace(LOST, text=["beta "]), SAID, (DEATH,)) is Verdict.WRONG_MODEL


def test_an_answer_without_its_end_is_cut() -> None:
    assert judge(replace(WHOLE, done=False), SAID, (DEATH,)) is Verdict.CUT
    assert judge(replace(WHOLE, finish=None), SAID, (DEATH,)) is Verdict.CUT
    assert judge(replace(WHOLE, text=["alpha was "]), SAID, (DEATH,)) is Verdict.CUT
    assert judge(replace(WHOLE, done=False, broken="ClientPayloadError"), SAID, (DEATH,)) is Verdict.CUT


def test_one_error_is_forgiven_where_the_engine_was_killed() -> None:
    assert judge(LOST, SAID, (DEATH,)) is Verdict.INTERRUPTED
    assert judge(LOST, SAID, (replace(DEATH, pid=8),)) is Verdict.FAILED
    assert judge(LOST, SAID, ()) is Verdict.FAILED


def test_two_errors_and_an_end_after_an_error_are_not_forgiven() -> None:
    assert judge(replace(LOST, errors=["one", "two"]), SAID, (DEATH,)) is Verdict.FAILED
    assert judge(replace(LOST, done=True), SAID, (DEATH,)) is Verdict.FAILED


def test_a_refusal_is_forgiven_by_model_and_time_where_no_engine_has_answered() -> None:
    refused = replace(LOST, status=502, engine="", models=set(), text=[])
    assert judge(refused, SAID, (DEATH,)) is Verdict.INTERRUPTED
    assert judge(refused, SAID, (replace(DEATH, model="beta"),)) is Verdict.FAILED
    assert judge(replace(refused, began=20.0, ended=21.0), SAID, (DEATH,)) is Verdict.FAILED
