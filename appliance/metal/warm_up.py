"""Steps of made-up requests before the first real one, since GPUs compile a kernel when it is first used.

MLX compiles for its CUDA back end in up to 40 s a kernel, and which kernels a step takes depends on its rows, on the
length of its context and on how its tokens are drawn. On the CPU nothing is compiled (device.py), and nothing is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from vllm import PoolingParams, SamplingParams
from vllm.config import VllmConfig
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput

from .device import logger, on_cpu
from .kernels import PART
from .linear import DENSE
from .runner import MetalModelRunner

VARIABLE = "METAL_WARM_UP"
_CHOICES = ("auto", "on", "off")
_WIDEST = 64
"""Rows of the widest step of decodes that is tried: beyond, MLX takes the products of a prefill chunk."""
_GREEDY = SamplingParams(temperature=0)
# A seed of their own: MLX's generator stays where it was.
_DRAWN = SamplingParams(temperature=0.8, top_p=0.95, top_k=50, min_p=0.02, seed=0)
_WHOLE = PoolingParams(task="embed")


@dataclass(frozen=True)
class Shape:
    """A step of so many `requests`, of each of which `count` tokens are computed and `context` are there afterwards."""

    requests: int
    count: int
    context: int
    sampling: SamplingParams | None = _GREEDY

    @property
    def tokens(self) -> int:
        return self.requests * self.count


def wanted() -> bool:
    """METAL_WARM_UP: `on` and `off`, or `auto`, which is on for GPUs. Raises ValueError where it is neither."""
    choice = os.environ.get(VARIABLE, "auto") or "auto"
    if choice not in _CHOICES:
        raise ValueError(f"{VARIABLE}: expected one of {', '.join(_CHOICES)}, got `{choice}`")
    return choice == "on" or (choice == "auto" and not on_cpu())


def warm_up(runner: MetalModelRunner, config: VllmConfig, groups: int) -> float:
    """Run every shape through the runner and return the seconds that it took.

    The requests' blocks are the first one in each of so many groups, vLLM's null block, which no request is ever given.
    What is written there stays: whoever calls this has the pools allocated again.
    """
    began, shapes = time.perf_counter(), list(_shapes(config))
    for shape in shapes:
        step = _step(shape, config.cache_config.block_size, groups)
        if shape.context > shape.count:
            runner.pretend(step.num_scheduled_tokens)
        if runner.execute_model(step) is None:
            runner.sample_tokens(None).get_output()
        over = SchedulerOutput.make_empty()
        over.finished_req_ids = set(step.num_scheduled_tokens)
        runner.execute_model(over)
    seconds = time.perf_counter() - began
    logger.info("warmed up in %.1f s, with %d steps", seconds, len(shapes))
    return seconds


def _shapes(config: VllmConfig) -> Iterator[Shape]:
    scheduler, longest = config.scheduler_config, config.model_config.max_model_len
    if config.model_config.runner_type == "pooling":
        return embedded(scheduler.max_num_batched_tokens, scheduler.max_num_seqs, longest)
    return generated(scheduler.max_num_batched_tokens, scheduler.max_num_seqs, longest)


def generated(budget: int, sequences: int, longest: int) -> Iterator[Shape]:
    """Of at most `budget` tokens and so many `sequences` each, within a context of `longest` tokens.

    (1) Decodes in powers of two rows: a product takes one kernel for single rows, others for few and for many. (2) One
    whose context is in several parts of the attention kernel. (3) Tokens that are drawn. (4) Prefill chunks: a short
    one, one from which quantized weights are dequantized, the longest; and one behind tokens that are cached.
    """
    rows = 1
    while rows <= min(sequences, budget, _WIDEST):
        yield Shape(rows, 1, min(8, longest))
        rows *= 2
    yield Shape(1, 1, min(PART + 1, longest))
    yield Shape(min(2, sequences, budget), 1, min(8, longest), _DRAWN)
    for count in sorted({min(each, budget, longest) for each in (16, DENSE, budget)}):
        yield Shape(1, count, count)
    if (count := min(16, budget, longest // 2)) > 1:
        yield Shape(1, count, 2 * count)


def embedded(budget: int, sequences: int, longest: int) -> Iterator[Shape]:
    """Whole texts: a short one, several in one step, and the longest."""
    yield Shape(1, min(8, budget, longest), min(8, budget, longest), None)
    if (several := min(4, sequences, budget)) > 1:
        count = min(budget // several, longest)
        yield Shape(several, count, count, None)
    yield Shape(1, min(budget, longest), min(budget, longest), None)


def _step(shape: Shape, block_size: int, groups: int) -> SchedulerOutput:
    """As the scheduler would have it of requests that are all new."""
    step = SchedulerOutput.make_empty()
    blocks = [0] * -(-shape.context // block_size)
    step.scheduled_new_reqs = [
        NewRequestData(
            req_id=f"warm-up-{number}",
            prompt_token_ids=[0] * shape.context,
            mm_features=[],
            sampling_params=shape.sampling,
            pooling_params=_WHOLE if shape.sampling is None else None,
            block_ids=tuple(list(blocks) for _ in range(groups)),
            num_computed_tokens=shape.context - shape.count,
            lora_request=None,
        )
        for number in range(shape.requests)
    ]
    step.num_scheduled_tokens = {each.req_id: shape.count for each in step.scheduled_new_reqs}
    step.total_num_scheduled_tokens = shape.tokens
    return step
