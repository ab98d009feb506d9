from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.engines.driver import Shape
from appliance.models.task import choices, length


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config.json": {"architectures": ["LlamaForCausalLM"]}}, {}),
        ({"config.json": {"architectures": ["BertModel"]}}, {"runner": "pooling"}),
        ({"config.json": {"architectures": ["XLMRobertaForSequenceClassification"]}}, {"runner": "pooling"}),
        (
            {"config.json": {"architectures": ["Qwen3ForCausalLM"]}, "modules.json": [{}]},
            {"runner": "pooling", "convert": "embed"},
        ),
        ({"config.json": []}, {}),
        ({"config.json": {"architectures": "LlamaForCausalLM"}}, {}),
        ({}, {}),
    ],
)
def test_task_is_what_the_checkpoint_says(tmp_path: Path, files: dict[str, object], expected: dict[str, str]) -> None:
    for name, document in files.items():
        (tmp_path / name).write_text(json.dumps(document))
    assert {choice.argument: choice.value for choice in choices(tmp_path)} == expected


@pytest.mark.parametrize(
    ("packed", "context", "expected"),
    [(None, 8192, []), (4096, 8192, [4096]), (16384, 8192, [8192]), (4096, None, [4096])],
)
def test_length_is_what_the_artifact_was_packed_for_as_far_as_the_model_reaches(
    packed: int | None, context: int | None, expected: list[int]
) -> None:
    assert [choice.value for choice in length(packed, Shape(0, context=context))] == expected
