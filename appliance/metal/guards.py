"""What this platform does not do, said before anything starts: a parameter that is ignored is a wrong answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vllm.exceptions import VLLMValidationError

from .encoder import KINDS

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def check_config(config: VllmConfig) -> None:
    """Raises ValueError with everything that was asked for and is not there."""
    if problems := list(_config_problems(config)):
        raise ValueError("not supported with vllm-metal: " + "; ".join(problems))


def check_request(params: Any) -> None:
    """Raises VLLMValidationError, which a client sees as status 400. Raised later it would end the engine."""
    for name, told in _UNSUPPORTED.items():
        if getattr(params, name, None):
            raise VLLMValidationError(f"`{name}` is not supported with vllm-metal{told}", parameter=name)
    for name in ("logprobs", "prompt_logprobs"):
        if getattr(params, name, None) == -1:
            raise VLLMValidationError(
                f"`{name}` of -1 (the whole vocabulary) is not supported with vllm-metal; ask for a number",
                parameter=name,
            )


_UNSUPPORTED = {
    "thinking_token_budget": "",
    "repetition_detection": "",
    "watermarking": "",
    "prompt_logprob_token_ids": "; `logprob_token_ids` is",
    "prompt_logprob_start": "",
    "trace_decode_token_ids": "",
    "routed_experts_prompt_start": "",
    "step_tag_id": "",
    "returned_token_ids": "",
    "late_interaction_params": "",
}


def _config_problems(config: VllmConfig) -> Iterator[str]:
    yield from _parallel_problems(config.parallel_config)
    yield from _model_problems(config.model_config, lora=config.lora_config is not None)
    if config.speculative_config is not None:
        yield "`speculative_config`"
    if config.kv_transfer_config is not None:
        yield "`kv_transfer_config`"
    if config.cache_config.cache_dtype not in ("auto", str(config.model_config.dtype).removeprefix("torch.")):
        yield f"`kv_cache_dtype` of `{config.cache_config.cache_dtype}`: the cache has the model's own type"
    if config.offload_config.uva.cpu_offload_gb:
        yield "`cpu_offload_gb`: memory is shared, or there is no GPU"


def _parallel_problems(parallel: Any) -> Iterator[str]:
    for name in _SIZES:
        if getattr(parallel, name) > 1:
            yield f"`{name}` above 1: MLX drives one device"
    if parallel.enable_expert_parallel or parallel.enable_eplb:
        yield "`enable_expert_parallel` and `enable_eplb`: there is one device"


def _model_problems(model: Any, *, lora: bool) -> Iterator[str]:
    if model.quantization is not None:
        yield f"`quantization` of `{model.quantization}`: MLX's own formats and plain safetensors are what it loads"
    if model.enable_prompt_embeds:
        yield "`enable_prompt_embeds`"
    if model.logits_processors:
        yield "`logits_processors`"
    if callable(model.hf_overrides):
        yield "`hf_overrides` that is a function"
    if model.is_encoder_decoder:
        yield "encoder-decoder models"
    if model.runner_type == "pooling" and model.convert_type not in ("embed", "none"):
        yield f"pooling models other than embedding ones (`{model.convert_type}`)"
    yield from _encoder_problems(model, lora=lora)


def _encoder_problems(model: Any, *, lora: bool) -> Iterator[str]:
    kind = model.hf_config.model_type
    if kind not in KINDS:
        if model.runner_type == "pooling" and model.attn_type == "encoder_only":
            yield f"attention in both directions with `{kind}`: mlx-lm's definition of it is causal"
        return
    if model.runner_type != "pooling":
        yield f"generating with `{kind}`, which is an encoder: set `runner` to `pooling`"
    if any(name.endswith("ForSequenceClassification") for name in model.architectures):
        yield "encoders that score: embeddings are what comes of one"
    if lora:
        yield f"LoRA adapters of `{kind}`"


_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "decode_context_parallel_size")
