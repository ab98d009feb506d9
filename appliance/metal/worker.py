"""vLLM's worker over MLX: device, weights, cache, sleep; each step is the runner's."""

from __future__ import annotations

from pathlib import Path

import torch
from vllm.lora.request import LoRARequest
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheSpec
from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput
from vllm.v1.worker.worker_base import CompilationTimes, WorkerBase

from . import device, warm_up
from .device import logger, mlx
from .encoder import Encoder, is_encoder, load_encoder
from .model import Model, load
from .runner import MetalModelRunner
from .seats import seats_for

_LAYOUT = "LBHNC"
"""Pages of one head within blocks: how paged.py keeps keys and values."""


class MetalWorker(WorkerBase):
    model_runner: MetalModelRunner
    _blocks: int = 0
    _groups: int = 0

    def init_device(self) -> None:
        mx = mlx()
        # vLLM empties the accelerator's cache when it ends, which raises where torch has no accelerator.
        if not torch.accelerator.is_available():
            torch.accelerator.empty_cache = torch.accelerator.empty_host_cache = lambda: None
        mx.random.seed(self.model_config.seed or 0)
        logger.info("MLX %s on %s", mx.__version__, device.name())
        device.report(type(self.current_platform).__name__)

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        if load_dummy_weights:
            raise ValueError("dummy weights are not supported: MLX loads a checkpoint's own")
        self.model_runner = MetalModelRunner(self.vllm_config, self._load())
        logger.info("weights: %.2f GiB", self.model_runner.mlx_model.bytes / 2**30)

    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("embed",) if self.model_config.runner_type == "pooling" else ("generate",)

    def get_kv_cache_spec(self) -> dict[str, KVCacheSpec]:
        """A sliding window's layer keeps its whole context too: blocks then mean the same in every layer."""
        return {
            f"layers.{cache.index}": FullAttentionSpec(
                block_size=self.cache_config.block_size,
                num_kv_heads=cache.shape.heads,
                head_size=cache.shape.key_size,
                head_size_v=cache.shape.value_size,
                dtype=self.model_config.dtype,
            )
            for cache in self.model_runner.mlx_model.caches
        }

    def get_supported_kv_cache_layouts(self) -> list[str]:
        return [_LAYOUT]

    def determine_available_memory(self) -> int:
        """Bytes for keys and values: what the arguments say, else their share of the device without the weights.
        Recurrent states come out of either."""
        size = self._cache_memory()
        return size - self._seat(size)

    def initialize_from_config(self, kv_cache_config: KVCacheConfig) -> None:
        if not kv_cache_config.kv_cache_groups:
            self._seat(self._cache_memory())  # nobody asked for the memory of keys and values
        if len(kv_cache_config.kv_cache_groups) > 1:
            raise ValueError("layers whose blocks differ in size are not supported")
        self._blocks, self._groups = kv_cache_config.num_blocks, len(kv_cache_config.kv_cache_groups)
        self._allocate()

    def compile_or_warm_up_model(self) -> CompilationTimes:
        """At the start alone: what MLX has compiled stays with the process, asleep or not."""
        if not warm_up.wanted():
            return CompilationTimes(language_model=0.0, encoder=0.0)
        seconds = warm_up.warm_up(self.model_runner, self.vllm_config, self._groups)
        self._allocate()  # the pools as they were
        encodes = isinstance(self.model_runner.mlx_model, Encoder)
        return CompilationTimes(language_model=0.0 if encodes else seconds, encoder=seconds if encodes else 0.0)

    def execute_model(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput | AsyncModelRunnerOutput | None:
        return self.model_runner.execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> AsyncModelRunnerOutput:
        return self.model_runner.sample_tokens(grammar_output)

    def sleep(self, level: int = 1) -> None:  # noqa: ARG002 - both levels give everything back
        """Weights and cache are dropped and their memory returned. They are read from the checkpoint on waking: a copy
        in the same memory would save nothing."""
        self.model_runner.sleep()
        device.release()

    def wake_up(self, tags: list[str] | None = None) -> None:
        """`weights` and `kv_cache` one after the other, or both where no tags are given."""
        if tags is None or "weights" in tags:
            self.model_runner.wake(self._load())
            device.release()  # what was read, and is something else now
        if tags is None or "kv_cache" in tags:
            self._allocate()

    def synchronize_device(self) -> None:
        mlx().synchronize()

    def check_health(self) -> None:
        mlx().eval(mlx().zeros((1,)))

    def reset_encoder_cache(self) -> None:
        """There is none: vLLM resets every cache it knows of before a sleep."""

    def add_lora(self, lora_request: LoRARequest) -> bool:
        return self.model_runner.adapters.add(lora_request)

    def remove_lora(self, lora_id: int) -> bool:
        return self.model_runner.adapters.remove(lora_id)

    def pin_lora(self, lora_id: int) -> bool:
        return lora_id in self.model_runner.adapters.numbers()

    def list_loras(self) -> set[int]:
        return self.model_runner.adapters.numbers()

    def _cache_memory(self) -> int:
        if size := self.cache_config.kv_cache_memory_bytes:
            return int(size)
        share = int(device.total_memory() * self.cache_config.gpu_memory_utilization)
        return share - self.model_runner.mlx_model.bytes

    def _seat(self, size: int) -> int:
        """Bytes of the cache's `size` that are for recurrent states; no more sequences run at once than have one."""
        model, scheduler = self.model_runner.mlx_model, self.vllm_config.scheduler_config
        if not isinstance(model, Model) or not model.states:
            return 0
        if self.cache_config.enable_prefix_caching:
            raise ValueError(
                f"prefix caching is not supported for `{model.kind}`: it has recurrent layers, and vLLM does not know"
                " that: set `enable_prefix_caching` to `false`"
            )
        block = sum(spec.page_size_bytes for spec in self.get_kv_cache_spec().values())
        # -1 has vLLM choose the length by what is left.
        longest = 1 if self.model_config.original_max_model_len == -1 else self.model_config.max_model_len
        whole = -(-longest // self.cache_config.block_size) * block
        seats = seats_for(size, state=model.state_bytes, whole=whole, most=scheduler.max_num_seqs)
        if seats < scheduler.max_num_seqs:
            state, most = model.state_bytes / 2**20, scheduler.max_num_seqs
            logger.info("%d sequences run at once, not %d: each has states of %.1f MiB", seats, most, state)
            scheduler.max_num_seqs = seats
        return seats * model.state_bytes

    def _load(self) -> Model | Encoder:
        path, changes = Path(self.model_config.model), self.model_config.hf_overrides
        if not is_encoder(path):
            return load(path, self._dtype, changes)
        encoder = load_encoder(path, self._dtype, changes)
        if self.model_config.max_model_len > encoder.longest:
            raise ValueError(f"`{encoder.kind}` has {encoder.longest} positions: set `max_model_len` to at most that")
        return encoder

    def _allocate(self) -> None:
        self.model_runner.allocate(self._blocks, self._dtype)

    @property
    def _dtype(self) -> str:
        """MLX's name of the type that vLLM decided on."""
        return str(self.model_config.dtype).removeprefix("torch.")
