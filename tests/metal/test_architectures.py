"""Paged attention under mlx-lm's own model classes, at every step of chunked and batched sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.models.shape import measure
from tests.metal.support import run

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def found(metal_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(metal_python, "architectures.py", tmp_path_factory.mktemp("tiny"))


ARCHITECTURES = ["llama", "qwen2", "qwen3", "qwen3_moe", "gemma3_text", "mistral", "phi3", "granite"]
ARCHITECTURES += ["olmo2", "gemma2", "starcoder2", "gpt_oss", "mixtral", "cohere2", "deepseek_v2"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_mlx_lms_at_every_step(found: dict[str, Any], name: str) -> None:
    worst = found["worst"][name]
    assert worst["difference"] < 1e-4 * worst["spread"]
    # The same comparison sees one layer's cache being wrong.
    assert worst["ruined"] > 1e-2 * worst["spread"]


RECURRENT = ["qwen3_next", "qwen3_5", "olmo_hybrid", "lfm2", "lfm2_moe", "granitemoehybrid", "falcon_h1"]
RECURRENT += ["nemotron_h", "jamba", "mamba", "mamba2"]


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_carry_their_state_from_chunk_to_chunk_and_token_to_token(
    found: dict[str, Any], name: str
) -> None:
    worst = found["recurrent"][name]
    assert worst["difference"] < 1e-4 * worst["spread"]
    assert worst["ruined"] > 1e-2 * worst["spread"]


@pytest.mark.parametrize("name", RECURRENT)
def test_control_process_reckons_with_what_the_engine_keeps(found: dict[str, Any], name: str) -> None:
    engine = found["kept"][name]
    reckoned = measure(engine["config"], [])
    assert reckoned.state_bytes == engine["state"] > 0
    assert reckoned.cache_per_token == 2 * engine["values"]


QUANTIZED = [f"affine-{bits}" for bits in (2, 3, 4, 5, 6, 8)] + ["mxfp4", "mxfp8", "nvfp4", "experts in mxfp4"]


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_checkpoints_give_the_logits_of_mlx_lms_quantized_products(found: dict[str, Any], name: str) -> None:
    worst = found["quantized"][name]
    assert worst["difference"] < 1e-4 * worst["spread"]
    assert worst["ruined"] > 1e-2 * worst["spread"]


def test_every_architecture_that_is_tried_is_judged(found: dict[str, Any]) -> None:
    assert sorted(found["worst"]) == sorted(ARCHITECTURES)
    assert sorted(found["quantized"]) == sorted(QUANTIZED)
    assert sorted(found["recurrent"]) == sorted(RECURRENT)


@pytest.mark.parametrize(
    ("name", "why"),
    [("kimi_linear", "does not run on these caches")],
)
def test_what_paged_attention_cannot_drive_is_refused_by_name(found: dict[str, Any], name: str, why: str) -> None:
    assert found["refused"][name].startswith(f"`{name}`")
    assert why in found["refused"][name]
