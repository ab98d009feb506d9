from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from appliance.errors import SourceError, UnsupportedModel
from appliance.models.adapter import rank, smallest_rank
from appliance.models.checkpoint import identify
from appliance.models.sources import LocalSource
from appliance.models.store import Store
from appliance.progress import silent
from tests.models.checkpoint_builder import safetensors, write_files

CONFIG = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}


def adapter(path: Path, **config: object) -> Path:
    files = {"adapter_config.json": json.dumps({**CONFIG, **config}).encode()}
    return write_files(path, {**files, "adapter_model.safetensors": safetensors()})


def test_adapter_is_known_by_its_configuration_and_never_served_as_a_model(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    assert identify(path) == (path, "lora")
    store = Store(tmp_path / "models")
    checkpoint = asyncio.run(store.pull(LocalSource(path), silent, subject="adapter a"))
    for wanted in ("hf", "mlx", "any"):
        with pytest.raises(UnsupportedModel, match="LoRA adapter"):
            asyncio.run(store.prepare(checkpoint, wanted, None, silent, subject="adapter a"))


def test_pickled_adapter_is_refused(tmp_path: Path) -> None:
    path = write_files(tmp_path / "a", {"adapter_config.json": b"{}", "adapter_model.bin": b"\x80"})
    with pytest.raises(UnsupportedModel, match="pickle"):
        identify(path)


def test_rank_is_the_largest_of_any_matrix(tmp_path: Path) -> None:
    assert rank(adapter(tmp_path / "a")) == 8
    assert rank(adapter(tmp_path / "b", rank_pattern={"q_proj": 24})) == 24
    assert smallest_rank([8, 24]) == 32


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"r": None}, UnsupportedModel),
        ({"r": 0}, UnsupportedModel),
        ({"r": 4096}, UnsupportedModel),
        ({"use_dora": True}, UnsupportedModel),
        ({"modules_to_save": ["lm_head"]}, UnsupportedModel),
        ({"rank_pattern": 3}, SourceError),
    ],
)
def test_what_cannot_be_applied_is_refused(tmp_path: Path, config: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        rank(adapter(tmp_path / "a", **config))
