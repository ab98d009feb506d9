from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from appliance.engines.driver import LayerCache, LayerState
from appliance.errors import SourceError
from appliance.models.architecture import Numbers, layer_caches
from appliance.models.convert.command import convert
from appliance.models.shape import Stored, measure, shape
from tests.models.checkpoint_builder import safetensors_of
from tests.models.gguf_builder import HIDDEN, LAYERS, tiny

SMOLLM2 = {"num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30, "hidden_size": 576}
GEMMA3 = {"model_type": "gemma3_text", "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1}
GEMMA3 |= {"head_dim": 256, "hidden_size": 1152, "sliding_window": 512}
LINEAR = ["linear_attention", "full_attention"] * 2


def checkpoint(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], **config: object) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(safetensors_of(tensors))
    (path / "tokenizer.json").write_bytes(b"x" * 9000)
    return path


def test_weights_are_counted_by_what_an_engine_makes_of_them(tmp_path: Path) -> None:
    tensors = {
        "model.embed_tokens.weight": ("F32", (100, 8)),
        "model.layers.0.mlp.up_proj.weight": ("BF16", (16, 8)),
        "model.layers.0.mlp.down_proj.weight": ("U32", (8, 2)),
        "lm_head.weight": ("F32", (100, 8)),
    }
    found = shape(checkpoint(tmp_path, tensors, **SMOLLM2))
    assert found.weights == 2 * 800 + 2 * 128 + 64 + 2 * 800
    assert found.floats == 800 + 128 + 800
    assert found.edges == 16 + 8 + 8 + 2


def test_output_matrix_that_is_tied_to_the_embeddings_is_counted_once(tmp_path: Path) -> None:
    tensors = {"model.embed_tokens.weight": ("F16", (100, 8)), "lm_head.weight": ("F16", (100, 8))}
    assert shape(checkpoint(tmp_path, tensors, tie_word_embeddings=True)).weights == 1600


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SMOLLM2, (LayerCache(30, 2 * 3 * 64),)),
        ({"text_config": SMOLLM2, "hidden_size": 1}, (LayerCache(30, 2 * 3 * 64),)),
        (SMOLLM2 | {"head_dim": 128}, (LayerCache(30, 2 * 3 * 128),)),
        ({"n_layer": 12, "n_head": 12, "n_embd": 768}, (LayerCache(12, 2 * 12 * 64),)),
        ({"n_layer": 2, "n_head": 8, "hidden_size": 64, "multi_query": True}, (LayerCache(2, 2 * 8),)),
        (GEMMA3, (LayerCache(22, 512, 512), LayerCache(4, 512))),
        (SMOLLM2 | {"sliding_window": 4096}, (LayerCache(30, 384, 4096),)),
        (SMOLLM2 | {"sliding_window": 4096, "use_sliding_window": False}, (LayerCache(30, 384),)),
        (
            SMOLLM2 | {"model_type": "qwen2", "sliding_window": 64, "max_window_layers": 28},
            (LayerCache(28, 384), LayerCache(2, 384, 64)),
        ),
        (SMOLLM2 | {"num_hidden_layers": 4, "layer_types": LINEAR}, (LayerCache(2, 384),)),
        (SMOLLM2 | {"num_kv_shared_layers": 10}, (LayerCache(20, 384),)),
        (
            {"num_hidden_layers": 61, "num_attention_heads": 128, "hidden_size": 7168, "kv_lora_rank": 512}
            | {"qk_rope_head_dim": 64},
            (LayerCache(61, 576),),
        ),
        (SMOLLM2 | {"architectures": ["BertModel"]}, ()),
        ({"d_state": 16}, None),
        (SMOLLM2 | {"num_hidden_layers": 2**31 - 1}, None),
    ],
)  # fmt: skip
def test_what_a_token_leaves_behind_follows_from_the_architecture(config: dict[str, Any], expected: Any) -> None:
    assert layer_caches(Numbers(config)) == expected


def test_window_bounds_what_its_layers_keep() -> None:
    found = measure(GEMMA3, [])
    near, far = 22 * 512 * 2, 4 * 512 * 2
    assert found.cache_bytes(100) == 100 * (near + far)
    assert found.cache_bytes(4096) == 512 * near + 4096 * far
    assert found.cache_bytes(4096, batched=2048) == (511 + 2048) * near + 4096 * far
    assert found.cache_bytes(4096, width=1) == found.cache_bytes(4096) // 2
    assert found.cache_bytes(4096, block=128) == (512 + 128) * near + 4096 * far
    assert found.cache_bytes(100, block=128) == 256 * near + 100 * far


def test_linear_attention_keeps_a_state_however_long_the_sequence() -> None:
    config = SMOLLM2 | {"num_hidden_layers": 4, "layer_types": LINEAR, "linear_num_key_heads": 2}
    config |= {"linear_num_value_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 32}
    found = measure(config | {"linear_conv_kernel_dim": 4}, [])
    state = 2 * 3 * (2 * 2 * 32 + 4 * 32) + 4 * 4 * 32 * 32
    assert found.state == LayerState(2, state)
    assert found.cache_bytes(1000) - measure(config, []).cache_bytes(1000) == 2 * 2 * -(-state // 768) * 768
    assert found.cache_per_token == 2 * 384 * 2


@pytest.mark.parametrize(
    ("says", "attending", "holding"),
    [
        ({"full_attn_idxs": [2, 5], "conv_L_cache": 3}, 2, 28),
        ({"layer_types": ["conv", "full_attention", "conv"] * 10, "conv_L_cache": 3}, 10, 20),
        ({"attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16, "mamba_d_conv": 4}
         | {"mamba_expand": 2}, 4, 26),
        ({"hybrid_override_pattern": "M-M*M-" * 5, "mamba_num_heads": 8, "mamba_head_dim": 64, "ssm_state_size": 128}
         | {"n_groups": 8, "conv_kernel": 4}, 5, 15),
        ({"model_type": "falcon_h1", "mamba_n_heads": 24, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1}
         | {"mamba_d_conv": 4}, 30, 30),
        ({"model_type": "mamba", "state_size": 16, "conv_kernel": 4, "intermediate_size": 1152}, 0, 30),
    ],
)  # fmt: skip
def test_layers_that_attend_and_layers_with_a_state_are_told_apart(
    says: dict[str, Any], attending: int, holding: int
) -> None:
    found = measure(SMOLLM2 | says, [])
    assert sum(each.layers for each in found.cache or ()) == attending
    assert found.state is not None
    assert found.state.layers == holding
    assert found.cache_bytes(1000) - found.cache_bytes(0) == 1000 * attending * 384 * 2


def test_longest_context_is_the_last_that_fits() -> None:
    found = measure(SMOLLM2 | {"max_position_embeddings": 8192}, [])
    per_token = found.cache_per_token or 0
    assert found.longest(100 * per_token) == 96
    assert found.longest(100 * per_token, sequences=2) == 48
    assert found.longest(15 * per_token) == 0
    assert found.longest(2**60) == 8192


def test_gguf_counts_what_it_becomes(tmp_path: Path) -> None:
    gguf = tiny(tied=False)
    path = gguf.write(tmp_path / "m.gguf")
    numbers = sum(rows * (columns[0] if columns else 1) for _, (rows, *columns) in gguf.tensors.values())
    assert shape(path, "hf").weights == 2 * numbers
    assert shape(path, "mlx").weights < path.stat().st_size
    found = shape(path, "hf")
    assert found.cache == (LayerCache(LAYERS, 2 * 2 * 16),)
    assert found.context == 256
    assert found.width > 2 * HIDDEN


def test_single_damaged_file_is_its_own_weight(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"x" * 77)
    assert shape(file).weights == 77


def test_damaged_header_is_an_error(tmp_path: Path) -> None:
    checkpoint(tmp_path, {"w": ("F32", (4,))})
    (tmp_path / "model.safetensors").write_bytes(b"x" * 900)
    with pytest.raises(SourceError, match="damaged"):
        shape(tmp_path)


def test_tensors_of_unknown_kinds_count_as_they_are_stored() -> None:
    assert measure({}, [Stored("a", "F8_E4M3", (4, 4), 16), Stored("b", "I32", (4,), 16)]).weights == 32


@pytest.mark.parametrize(
    ("config", "bits"),
    [
        ({"torch_dtype": "bfloat16"}, 16),
        ({"torch_dtype": "float32"}, 32),
        ({"quantization": {"bits": 4, "group_size": 64}}, 4.5),
        ({"quantization": {"bits": 8, "group_size": 32}}, 9),
    ],
)
def test_bits_of_a_weight_include_its_share_of_the_scales(config: dict[str, object], bits: float) -> None:
    assert measure(config, []).bits == bits


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("kind", ["F16", "F32", "Q4_0", "Q4_1", "Q5_0", "Q8_0"])
def test_a_gguf_is_counted_as_what_its_conversion_for_mlx_takes(kind: str, bits: int | None, tmp_path: Path) -> None:
    gguf = tiny(kind=kind).write(tmp_path / "m.gguf")
    (converted := tmp_path / "mlx").mkdir()
    convert(gguf, converted, "mlx", bits=bits)
    assert shape(gguf, "mlx", bits=bits).weights == shape(converted, "mlx").weights
