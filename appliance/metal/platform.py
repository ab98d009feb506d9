"""vLLM's platform over MLX. Both the API server and the engine core ask it; only the core computes anything."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import torch
from vllm.platforms.interface import Platform, PlatformEnum

from . import device, guards

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class MetalPlatform(Platform):
    _enum = PlatformEnum.OOT
    # vLLM builds `torch.device` of these: its tensors are on the CPU, whatever MLX computes on.
    device_name = "cpu"
    device_type = "cpu"
    dispatch_key = "CPU"
    # The first request for log probabilities would otherwise wait half a minute for a compiler.
    simple_compile_backend = "eager"

    @property
    def supported_dtypes(self) -> list[torch.dtype]:
        """On the CPU float32 alone: MLX's float16 takes four times as long there, and its bfloat16 softmax loses 20 %.

        That is what `dtype: auto` goes by; a file that asks for bfloat16 gets it.
        """
        return [torch.float32] if device.on_cpu() else [torch.bfloat16, torch.float16, torch.float32]

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:  # noqa: ARG003 - there is one
        return device.name()

    @classmethod
    def get_device_uuid(cls, device_id: int = 0) -> str:  # noqa: ARG003 - there is one
        return device.name()

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:  # noqa: ARG003 - there is one
        return device.total_memory()

    @classmethod
    def get_current_memory_usage(cls, device: Any = None) -> float:  # noqa: ARG003 - there is one
        return float(_mlx().get_active_memory())

    @classmethod
    def set_device(cls, device: torch.device) -> None:
        """MLX's device is chosen by METAL_DEVICE."""

    @classmethod
    def manual_seed_all(cls, seed: int) -> None:
        _mlx().random.seed(seed)

    @classmethod
    def inference_mode(cls) -> Any:
        return torch.no_grad()

    @classmethod
    def import_kernels(cls) -> None:
        """None of vLLM's compiled kernels is used."""

    @classmethod
    def import_ir_kernels(cls) -> None:
        """None of vLLM's operators runs."""

    @classmethod
    def check_if_supports_dtype(cls, dtype: torch.dtype) -> None:
        if dtype not in (torch.bfloat16, torch.float16, torch.float32):
            raise ValueError(f"`dtype` of `{dtype}` is not supported with vllm-metal: float32, float16, bfloat16 are")

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """Asked in the API server and again in the engine core: it must change nothing the second time."""
        guards.check_config(vllm_config)
        parallel = vllm_config.parallel_config
        if parallel.worker_cls == "auto":
            parallel.worker_cls = f"{__package__}.worker.MetalWorker"
        parallel.distributed_executor_backend = "uni"
        parallel.disable_custom_all_reduce = True
        if not vllm_config.cache_config.user_specified_block_size:
            vllm_config.cache_config.block_size = 16
        _settle_recurrence(vllm_config)
        # Chosen by default wherever Triton works, and it schedules resumed requests in another form.
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
        # MLX's threads and Metal's connection do not survive a fork.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        return False

    def is_sleep_mode_available(self) -> bool:
        return True

    @classmethod
    def support_hybrid_kv_cache(cls) -> bool:
        return False

    @classmethod
    def support_static_graph_mode(cls) -> bool:
        return False

    @classmethod
    def use_custom_allreduce(cls) -> bool:
        return False

    @classmethod
    def validate_request(cls, processed_inputs: Any, params: Any) -> None:  # noqa: ARG003 - vLLM's signature
        guards.check_request(params)


def _settle_recurrence(config: VllmConfig) -> None:
    """What vLLM would do with recurrent layers and this plug-in does not: its cache has none of their states.

    A cached prefix would have keys and values, and no states to go on from. Caching is vLLM's own default, so only the
    command line tells whether anybody asked for it.
    """
    model, cache, scheduler = config.model_config, config.cache_config, config.scheduler_config
    if not (model.is_hybrid or model.is_attention_free):
        return
    kind = model.hf_config.model_type
    if "--enable-prefix-caching" in sys.argv:
        raise ValueError(
            f"`enable_prefix_caching` is not supported with vllm-metal for `{kind}`, whose recurrent layers keep no"
            " states by prefix: leave it out"
        )
    if cache.enable_prefix_caching:
        device.logger.info("prefix caching is off: the recurrent layers of `%s` keep no states by prefix", kind)
    cache.enable_prefix_caching = False
    cache.mamba_cache_mode = "none"
    cache.mamba_block_size = None  # vLLM refuses one without prefix caching
    if model.is_attention_free and scheduler.max_num_batched_tokens < model.max_model_len:
        # vLLM prefills in chunks only where it keeps blocks, and what does not fit a step would wait for ever.
        device.logger.info("`%s` has no attention: a step holds %d tokens, a whole prompt", kind, model.max_model_len)
        scheduler.max_num_batched_tokens = model.max_model_len


def _mlx() -> Any:
    return device.mlx()
