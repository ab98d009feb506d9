from __future__ import annotations

from typing import Any

import pytest

from appliance.config.problems import KeyPath
from appliance.config.salvage import salvage
from appliance.config.validation import findings

MODEL = {"source": "x"}


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({"models": {"a": MODEL}, "prot": 1}, {"a"}),
        ({"models": {"a": {"engin": 1}}}, {"a"}),
        ({"models": {"a": MODEL, "b c": MODEL}}, {"a"}),
        ({"models": [MODEL]}, set()),
        ({"models": {"a": {**MODEL, "aliases": [1, "x", 2]}}}, {"a"}),
        ({"models": {"a": {**MODEL, "adapters": [{"name": "n"}]}}}, {"a"}),
        ({"models": {"a": MODEL}, "backends": {"own": {"cmd": []}}}, {"a"}),
        ({"models": {"a": {**MODEL, "rollout": {"probe": {"x": 1}, "x": 1}}}}, {"a"}),
    ],
)
def test_what_is_sound_is_kept_without_what_is_broken(data: dict[str, Any], kept: set[str]) -> None:
    broken: list[KeyPath] = [path for path, _, _ in findings(data, {})]
    assert broken
    appliance = salvage(data, broken)
    assert appliance is not None
    assert set(appliance.models) == kept


def test_items_are_taken_out_from_the_end_so_that_indices_stay_true() -> None:
    data = {"models": {"a": {**MODEL, "aliases": [1, "x", 2, "y"]}}}
    appliance = salvage(data, [("models", "a", "aliases", 0), ("models", "a", "aliases", 2)])
    assert appliance is not None
    assert appliance.models["a"].aliases == ("x", "y")


def test_a_path_inside_something_already_taken_out_is_no_trouble() -> None:
    assert salvage({"models": {"a": MODEL}}, [("server", "port", "x"), ("server",)]) is not None
