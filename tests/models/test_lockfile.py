from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.models.lockfile import Entry, Lock, differences

ENTRY = Entry(
    "hf:org/name", "c" * 40, {"config.json": "1" * 64, "model.safetensors": "2" * 64}, {"max_model_len": 1024}
)
LOCK = Lock({"m": ENTRY}, {"vllm": "cpu-1"})
SAME = {"vllm": "cpu-1"}


def test_nothing_differs_from_what_was_locked() -> None:
    assert not [*differences(LOCK, {"m": ENTRY}, SAME)]


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        (replace(ENTRY, source="hf:org/other"), "source", "`hf:org/other`"),
        (replace(ENTRY, revision="d" * 40), "revision", "d" * 40),
        (replace(ENTRY, files={**ENTRY.files, "config.json": "3" * 64}), "files", "config.json"),
        (replace(ENTRY, files={"config.json": "1" * 64}), "files", "model.safetensors"),
        (replace(ENTRY, files={**ENTRY.files, "more.json": "4" * 64}), "files", "more.json"),
        (replace(ENTRY, arguments={"max_model_len": 2048}), "arguments", "max_model_len"),
        (replace(ENTRY, arguments={}), "arguments", "max_model_len"),
        (replace(ENTRY, arguments={**ENTRY.arguments, "seed": 1}), "arguments", "seed"),
    ],
)
def test_each_thing_that_differs_is_told_by_its_kind(changed: Entry, kind: str, said: str) -> None:
    (difference,) = differences(LOCK, {"m": changed}, SAME)
    assert (difference.name, difference.kind) == ("m", kind)
    assert said in difference.message


def test_another_engine_environment_and_undeclared_models_are_told() -> None:
    assert [each.kind for each in differences(LOCK, {"m": ENTRY}, {"vllm": "cpu-2"})] == ["environment"]
    assert [(each.name, each.kind) for each in differences(LOCK, {"n": ENTRY}, SAME)] == [
        ("m", "declared"),
        ("n", "declared"),
    ]
