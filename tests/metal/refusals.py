"""Run by path inside the Metal engine environment: what the plug-in says no to. Prints one JSON object.

refusals.py SCRATCH
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.random_checkpoint import write
from tests.metal.reply import reply


def main(scratch: str) -> dict[str, Any]:
    return {
        "parameters": parameters(),
        "requests": requests(),
        "configurations": configurations(),
        "devices": {name: device(name) for name in ("gpu", "tpu")},
        "overrides": overrides(Path(scratch)),
    }


def parameters() -> dict[str, list[str]]:
    """All that a request of this vLLM may set."""
    from vllm import PoolingParams, SamplingParams

    return {each.__name__: list(each.__struct_fields__) for each in (SamplingParams, PoolingParams)}


def requests() -> dict[str, str]:
    from appliance_metal.guards import _UNSUPPORTED, check_request

    given = [(name, 1) for name in _UNSUPPORTED] + [("logprobs", -1), ("prompt_logprobs", -1), ("logprobs", 5)]
    return {f"{name}={value}": said(check_request, SimpleNamespace(**{name: value})) for name, value in given}


def configurations() -> dict[str, str]:
    """A configuration that is taken, and that one with a single thing changed."""
    from appliance_metal.guards import check_config

    changes: dict[str, dict[str, Any]] = {
        "nothing": {},
        "two devices": {"parallel_config.tensor_parallel_size": 2},
        "experts": {"parallel_config.enable_expert_parallel": True},
        "speculation": {"speculative_config": object()},
        "transfer": {"kv_transfer_config": object()},
        "cache": {"cache_config.cache_dtype": "fp8"},
        "offload": {"offload_config.uva.cpu_offload_gb": 4},
        "quantization": {"model_config.quantization": "awq"},
        "embeddings as prompts": {"model_config.enable_prompt_embeds": True},
        "processors": {"model_config.logits_processors": ["x"]},
        "function": {"model_config.hf_overrides": print},
        "encoder and decoder": {"model_config.is_encoder_decoder": True},
        "scores": {"model_config.runner_type": "pooling", "model_config.convert_type": "classify"},
        "both directions": {"model_config.runner_type": "pooling", "model_config.attn_type": "encoder_only"},
        "generating encoder": {"model_config.hf_config.model_type": "bert"},
        "adapted encoder": {
            "model_config.runner_type": "pooling",
            "model_config.hf_config.model_type": "bert",
            "lora_config": object(),
        },
    }
    return {name: said(check_config, _config(own)) for name, own in changes.items()}


def _config(changes: dict[str, Any]) -> Any:
    sizes = ("tensor", "pipeline", "data", "decode_context")
    config = SimpleNamespace(
        parallel_config=SimpleNamespace(enable_expert_parallel=False, enable_eplb=False),
        model_config=SimpleNamespace(
            quantization=None,
            enable_prompt_embeds=False,
            logits_processors=None,
            hf_overrides={},
            is_encoder_decoder=False,
            runner_type="generate",
            convert_type="none",
            attn_type="decoder",
            hf_config=SimpleNamespace(model_type="llama"),
            architectures=["LlamaForCausalLM"],
            dtype="torch.float32",
        ),
        cache_config=SimpleNamespace(cache_dtype="auto"),
        offload_config=SimpleNamespace(uva=SimpleNamespace(cpu_offload_gb=0)),
        speculative_config=None,
        kv_transfer_config=None,
        lora_config=None,
    )
    for name in sizes:
        setattr(config.parallel_config, f"{name}_parallel_size", 1)
    for path, value in changes.items():
        *parents, last = path.split(".")
        target = config
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, last, value)
    return config


def device(name: str) -> str:
    """What the first use of MLX raises with this METAL_DEVICE, on a machine without a GPU."""
    from appliance_metal.device import mlx

    os.environ["METAL_DEVICE"] = name
    mlx.cache_clear()
    try:
        return said(mlx)
    finally:
        del os.environ["METAL_DEVICE"]
        mlx.cache_clear()


def overrides(scratch: Path) -> dict[str, Any]:
    """Logits with the checkpoint's own configuration and with another constant of its norms, and refusals."""
    import mlx.core as mx
    import mlx_lm.utils
    from appliance_metal.model import load
    from appliance_metal.step import Span, Step

    path = scratch / "tiny"
    write("tiny", path)
    tokens = list(range(7, 27))

    def ours(changes: dict[str, Any]) -> Any:
        model = load(path, "float32", changes)
        for cache in model.caches:
            cache.allocate(4, 16, mx.float32)
        return model.logits(mx.array(tokens), Step.build([Span(0, len(tokens), [1, 2])], 16), None)

    reference, _ = mlx_lm.utils.load_model(path, model_config={"rms_norm_eps": 0.5})
    reference.set_dtype(mx.float32)
    changed, theirs = ours({"rms_norm_eps": 0.5, "architectures": ["X"]}), reference(mx.array([tokens]))[0]
    nested = {"text_config": {"a": 1, "b": 2}, "rope_scaling": {"c": 3}}
    from appliance_metal.overrides import merged

    return {
        "difference": mx.abs(changed - theirs).max().item(),
        "change": mx.abs(changed - ours({})).max().item(),
        "unknown": said(ours, {"rope_parameters": {}, "rope_theta": 50.0}),
        "nested": merged(nested, {"text_config": {"b": 4}, "rope_scaling": {"d": 5}}),
    }


def said(do: Callable[..., object], *arguments: Any) -> str:
    from vllm.exceptions import VLLMValidationError

    try:
        do(*arguments)
    except (ValueError, VLLMValidationError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    reply(main)
