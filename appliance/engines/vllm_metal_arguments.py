"""Which of vLLM's arguments the Metal plug-in does not take: leaving one out without a word would be a wrong answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from appliance.engines import vllm_arguments
from appliance.engines.driver import ArgumentProblem

_BY_REASON: Mapping[str, str] = {
    "MLX drives one device": """
        tensor_parallel_size pipeline_parallel_size data_parallel_size decode_context_parallel_size
        prefill_context_parallel_size data_parallel_address data_parallel_backend data_parallel_external_lb
        data_parallel_hybrid_lb data_parallel_rank data_parallel_rpc_port data_parallel_size_local
        data_parallel_start_rank enable_expert_parallel enable_eplb eplb_config all2all_backend enable_dbo ubatch_size
        enable_elastic_ep device_ids nnodes node_rank master_addr master_port""",
    "the model is mlx-lm's definition with the checkpoint's own config.json; `hf_overrides` changes that": """
        hf_config_path model_class_overrides model_impl""",
    "safetensors are what it loads, and MLX reads them": """
        load_format model_loader_extra_config pt_load_map_location safetensors_load_strategy
        safetensors_prefetch_block_size safetensors_prefetch_num_threads""",
    "MLX's own formats are recognised by themselves; others are not read": "quantization quantization_config",
    "kernels are MLX's and the plug-in's own": """
        attention_backend attention_config moe_backend linear_backend mamba_backend gdn_prefill_backend
        kda_prefill_backend kda_decode_backend kernel_config ir_op_priority""",
    "MLX compiles nothing of vLLM's": """
        compilation_config cudagraph_capture_sizes max_cudagraph_capture_size optimization_level""",
    "memory is shared, or there is no GPU": """
        cpu_offload_gb cpu_offload_params swap_space kv_offloading_backend kv_offloading_size offload_backend
        offload_group_size offload_num_in_group offload_params offload_prefetch_step""",
    "speculative decoding is not there yet": "speculative_config spec_method spec_model spec_tokens",
    "an adapter is used as it is, in the model's own type": "lora_dtype lora_target_modules",
    "tokens are drawn by the plug-in, or by vLLM's own sampler on the CPU": """
        enable_return_routed_experts return_sampling_mask use_fp64_gumbel watermark_config""",
    "it takes no foreign code": "logits_processors worker_extension_cls",
    "mlx-lm's own model definitions are used; it takes no foreign code": "trust_remote_code",
    "the worker is the plug-in's own": "worker_cls",
    "the engine is one process": "distributed_executor_backend",
    "the cache stays in one engine": "kv_transfer_config",
    "the cache has the model's own type": "kv_cache_dtype",
    "recurrent states are kept as mlx-lm computes them": """
        mamba_cache_dtype mamba_ssm_cache_dtype mamba_block_size mamba_cache_mode mamba_ssu_algorithm mamba_config
        mamba_cache_philox_rounds enable_mamba_cache_stochastic_rounding enable_mamba_shared_prefix_checkpoint
        use_replayssm replayssm_buffer_len""",
    "prompts are text or tokens": "enable_prompt_embeds",
    "weights are those of the checkpoint": "weight_transfer_config",
    "the plug-in has no settings there": "additional_config",
}
_NOT_THERE = {name: reason for reason, names in _BY_REASON.items() for name in names.split()}


def check(arguments: Mapping[str, Any]) -> Iterator[ArgumentProblem]:
    """What is not there by its own reason, and the rest as vLLM's own parser would."""
    for name in arguments:
        if reason := _NOT_THERE.get(name):
            yield ArgumentProblem(name, "not supported by vllm-metal", reason)
    yield from vllm_arguments.check({name: each for name, each in arguments.items() if name not in _NOT_THERE})
