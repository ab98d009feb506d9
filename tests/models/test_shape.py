from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.models.shape import shape

SMOLLM2 = {"num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30, "hidden_size": 576}


def checkpoint(path: Path, **config: object) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    (path / "model-1.safetensors").write_bytes(b"x" * 1000)
    (path / "model-2.safetensors").write_bytes(b"x" * 500)
    (path / "tokenizer.json").write_bytes(b"x" * 9000)
    return path


def test_weights_are_counted_and_nothing_else(tmp_path: Path) -> None:
    assert shape(checkpoint(tmp_path, **SMOLLM2)).weights == 1500


def test_the_cache_of_one_token_follows_from_grouped_heads(tmp_path: Path) -> None:
    assert shape(checkpoint(tmp_path, **SMOLLM2)).cache_per_token == 2 * 30 * 3 * 64 * 2


def test_a_multimodal_config_is_read_where_its_text_part_is(tmp_path: Path) -> None:
    assert shape(checkpoint(tmp_path, text_config=SMOLLM2)).cache_per_token == 2 * 30 * 3 * 64 * 2


def test_an_unknown_architecture_has_no_cache_size(tmp_path: Path) -> None:
    assert shape(checkpoint(tmp_path, d_state=16)).cache_per_token is None


def test_a_single_file_is_its_own_weight(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"x" * 77)
    assert shape(file).weights == 77


def test_the_context_is_what_the_checkpoint_was_made_for(tmp_path: Path) -> None:
    assert shape(checkpoint(tmp_path, **SMOLLM2, max_position_embeddings=8192)).context == 8192


@pytest.mark.parametrize(
    ("config", "bits"),
    [
        ({"torch_dtype": "bfloat16"}, 16),
        ({"torch_dtype": "float32"}, 32),
        ({"quantization": {"bits": 4, "group_size": 64}}, 4.5),
        ({"quantization": {"bits": 8, "group_size": 32}}, 9),
    ],
)
def test_bits_of_a_weight_include_its_share_of_the_scales(
    tmp_path: Path, config: dict[str, object], bits: float
) -> None:
    assert shape(checkpoint(tmp_path, **config)).bits == bits
