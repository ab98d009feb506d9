"""What the plug-in does not do is said: at the start, at a request, and where vLLM runs on another platform."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from appliance.engines.vllm_metal import plugin_environ
from tests.metal.support import run

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def found(metal_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(metal_python, "refusals.py", tmp_path_factory.mktemp("refusals"))


SERVED = {
    "vLLM's front end does it": """
        n stop stop_token_ids ignore_eos max_tokens detokenize skip_special_tokens spaces_between_special_tokens
        include_stop_str_in_output output_kind stream_interval skip_clone output_text_buffer_length flat_logprobs
        _eos_token_id _all_stop_token_ids _bad_words_token_ids _watermarking_skipped extra_args extra_kwargs
        skip_reading_prefix_cache requires_token_ids task""",
    "MLX or vLLM's own sampler does it": """
        presence_penalty frequency_penalty repetition_penalty temperature top_p top_k min_p seed min_tokens logprobs
        prompt_logprobs logprob_token_ids logit_bias allowed_token_ids bad_words structured_outputs""",
    "pooling does it": "dimensions use_activation",
}


def test_every_parameter_of_a_request_is_served_or_refused(found: dict[str, Any]) -> None:
    """A vLLM that adds one fails here."""
    refused = {each.partition("=")[0] for each, said in found["requests"].items() if said}
    served = {name for names in SERVED.values() for name in names.split()}
    known = {name for names in found["parameters"].values() for name in names}
    assert known == served | refused
    assert served & refused == {"logprobs", "prompt_logprobs"}  # for the whole vocabulary alone


def test_refused_parameter_is_named_and_is_a_clients_mistake(found: dict[str, Any]) -> None:
    assert found["requests"].pop("logprobs=5") == ""
    for request, said in found["requests"].items():
        assert said.startswith(f"VLLMValidationError: `{request.partition('=')[0]}` ")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("two devices", "`tensor_parallel_size` above 1"),
        ("experts", "`enable_expert_parallel`"),
        ("speculation", "`speculative_config`"),
        ("transfer", "`kv_transfer_config`"),
        ("cache", "`kv_cache_dtype` of `fp8`"),
        ("offload", "`cpu_offload_gb`"),
        ("quantization", "`quantization` of `awq`"),
        ("embeddings as prompts", "`enable_prompt_embeds`"),
        ("processors", "`logits_processors`"),
        ("function", "`hf_overrides` that is a function"),
        ("encoder and decoder", "encoder-decoder models"),
        ("scores", "other than embedding ones (`classify`)"),
        ("both directions", "attention in both directions with `llama`"),
        ("generating encoder", "generating with `bert`"),
        ("adapted encoder", "LoRA adapters of `bert`"),
    ],
)
def test_configuration_that_would_be_ignored_ends_the_start(found: dict[str, Any], change: str, why: str) -> None:
    assert found["configurations"]["nothing"] == ""
    said = found["configurations"][change]
    assert said.startswith("ValueError: not supported with vllm-metal: ")
    assert why in said
    assert ";" not in said.partition(why)[0]


def test_device_that_there_is_not_is_told(found: dict[str, Any]) -> None:
    assert "METAL_DEVICE is `gpu`, and this build of MLX" in found["devices"]["gpu"]
    assert "METAL_DEVICE: expected one of default, gpu, cpu, got `tpu`" in found["devices"]["tpu"]


def test_overrides_of_a_checkpoints_configuration_reach_mlx_or_are_refused(found: dict[str, Any]) -> None:
    overrides = found["overrides"]
    assert overrides["difference"] < 1e-3
    assert overrides["change"] > 0.05
    assert "`hf_overrides`: mlx-lm's definition of `llama` has no `rope_parameters`" in overrides["unknown"]
    assert overrides["nested"] == {"text_config": {"a": 1, "b": 4}, "rope_scaling": {"d": 5}}


def test_server_does_not_start_on_another_platform(metal_python: Path) -> None:
    environ = {**os.environ, **plugin_environ(), "VLLM_PLUGINS": "another"}
    argv = [str(metal_python), "-m", "appliance_metal.serve", "--model=/nonexistent"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "serve: error: vLLM selected `CpuPlatform` instead of `MetalPlatform`" in done.stderr
