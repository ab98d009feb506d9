from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.models.task import choices


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
