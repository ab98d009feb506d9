from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from appliance.errors import SourceError, UnsupportedModel
from appliance.models.adapter import rank, smallest_rank
from appliance.models.checkpoint import identify
from appliance.models.convert.command import convert_adapter
from appliance.models.convert.lora import Heads
from appliance.models.convert.refused import Refused
from appliance.models.local import examine
from appliance.models.sources import LocalSource
from appliance.models.store import Store
from appliance.progress import silent
from tests.models.checkpoint_builder import hf_files, safetensors, write_files
from tests.models.gguf_builder import HEADS, HIDDEN, KV_HEADS, Gguf, tiny, tiny_adapter
from tests.models.test_conversion import as_transformers, document, floats, table_of

BASE = Heads(HEADS, KV_HEADS)
CONFIG = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}


def adapter(path: Path, **config: object) -> Path:
    files = {"adapter_config.json": json.dumps({**CONFIG, **config}).encode()}
    return write_files(path, {**files, "adapter_model.safetensors": safetensors()})


def rank_of(path: Path) -> int:
    return rank(examine(LocalSource(path)), Path("/nowhere"))


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
    assert rank_of(adapter(tmp_path / "a")) == 8
    assert rank_of(adapter(tmp_path / "b", rank_pattern={"q_proj": 24})) == 24
    assert rank_of(tiny_adapter(rank=12).write(tmp_path / "c.gguf")) == 12
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
        rank_of(adapter(tmp_path / "a", **config))


def converted(gguf: Gguf, tmp_path: Path, heads: Heads = BASE) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    convert_adapter(gguf.write(tmp_path / "a.gguf"), out, heads)
    return out


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_adapter_of_a_gguf_becomes_pefts(tmp_path: Path, architecture: str) -> None:
    gguf = tiny_adapter(architecture=architecture)
    out = converted(gguf, tmp_path)
    config, table = document(out, "adapter_config.json"), table_of(out / "adapter_model.safetensors")
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert config["target_modules"] == ["k_proj", "q_proj", "up_proj"]
    assert len(table) == len(gguf.tensors)
    base = "base_model.model.model.layers.1"
    assert table[f"{base}.mlp.up_proj.lora_A.weight"][1] == [4, HIDDEN]
    assert table[f"{base}.mlp.up_proj.lora_B.weight"][2] == floats(gguf, "blk.1.ffn_up.weight.lora_b").tobytes()
    rows = floats(gguf, "blk.1.attn_k.weight.lora_b")
    expected = as_transformers(rows, KV_HEADS) if architecture == "llama" else rows
    assert table[f"{base}.self_attn.k_proj.lora_B.weight"][2] == expected.tobytes()
    assert identify(out) == (out, "lora")


def test_adapter_that_does_not_add_up_is_refused(tmp_path: Path) -> None:
    whole = tiny_adapter()
    odd = dict(whole.tensors) | {"blk.0.attn_q.weight.lora_b": ("F32", (64, 3))}
    mixed = dict(whole.tensors) | {
        "blk.0.attn_q.weight.lora_a": ("F32", (3, 64)), "blk.0.attn_q.weight.lora_b": ("F32", (64, 3))
    }  # fmt: skip
    lone = {name: each for name, each in whole.tensors.items() if name != "blk.0.attn_q.weight.lora_a"}
    outer = dict(whole.tensors) | {"token_embd.weight.lora_a": ("F32", (4, 64))}
    cases = [
        (Gguf(whole.metadata, odd), "do not make up"),
        (Gguf(whole.metadata, lone), "do not make up"),
        (Gguf(whole.metadata, mixed), "ranks"),
        (Gguf(whole.metadata, outer), "token_embd"),
        (Gguf(whole.metadata, {}), "without tensors"),
        (whole.with_metadata(adapter__type="other"), "type"),
        (whole.with_metadata(general__architecture="bert"), "architecture"),
        (whole.with_metadata(general__architecture=None), "architecture"),
        (whole.with_metadata(adapter__lora__alpha=None), "alpha"),
        (tiny(), "no LoRA adapter"),
    ]
    for index, (gguf, named) in enumerate(cases):
        (tmp_path / str(index)).mkdir()
        with pytest.raises(Refused, match=named):
            converted(gguf, tmp_path / str(index))
    (tmp_path / "heads").mkdir()
    with pytest.raises(Refused, match="rows for 7 heads"):
        converted(whole, tmp_path / "heads", Heads(7, 7))


def test_model_is_no_adapter(tmp_path: Path) -> None:
    for path in (tiny().write(tmp_path / "m.gguf"), write_files(tmp_path / "m", hf_files())):
        with pytest.raises(SourceError, match="no LoRA adapter") as caught:
            rank_of(path)
        assert "adapter_config.json" in str(caught.value.hint)
