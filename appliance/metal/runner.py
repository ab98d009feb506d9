"""One step of the engine: from what the scheduler wants to the tokens that come of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from vllm.config import VllmConfig
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, LogprobsTensors, ModelRunnerOutput

from .batch import Batch, Entry
from .device import mlx
from .encoder import Encoder
from .lora import Adapters
from .model import Model
from .output import StepOutput
from .pooling import Pooler
from .reference import ReferenceSampler
from .requests import Request, Requests
from .sampling import mask_by_grammar, sample, served_here
from .seats import Seats


class MetalModelRunner:
    """`execute_model` builds the forward pass, `sample_tokens` what follows it; MLX computes once both are known."""

    def __init__(self, config: VllmConfig, model: Model | Encoder) -> None:
        self.mlx_model = model
        self.requests = Requests()
        self.seats = Seats()
        self.adapters = Adapters(model.module, model.rows)
        self._block_size = config.cache_config.block_size
        self._pooler = Pooler.of(config) if config.model_config.runner_type == "pooling" else None
        self._reference = ReferenceSampler(config) if self._pooler is None else None
        self._waiting: tuple[Batch, Any, list[Any]] | None = None
        self._last: StepOutput | None = None

    def execute_model(self, scheduled: SchedulerOutput) -> ModelRunnerOutput | None:
        """None where tokens are to be sampled: the scheduler makes the grammar's bitmask meanwhile."""
        self.requests.update(scheduled)
        self._leave(scheduled)
        if not scheduled.total_num_scheduled_tokens:
            return EMPTY_MODEL_RUNNER_OUTPUT
        self._copy_blocks(scheduled)
        model = self.mlx_model
        if isinstance(model, Encoder):
            assert self._pooler is not None  # noqa: S101 - checked when it was loaded
            batch = Batch.of(scheduled.num_scheduled_tokens, self.requests, self._block_size)
            return self._pooler(batch, model.hidden(self._tokens(batch), [entry.count for entry in batch.entries]))
        batch = Batch.of(scheduled.num_scheduled_tokens, self.requests, self._block_size, short=model.short)
        tokens = self._tokens(batch)
        seating = batch.seating(self.seats) if model.states else None
        step = batch.step(self._block_size, short=model.short, rounded=model.compiled, seating=seating)
        adapted = self.adapters.use(batch.adapters)
        if self._pooler is not None:
            hidden = model.hidden(tokens, step)
            mlx().async_eval(hidden, *model.take_written())
            return self._pooler(batch, hidden)
        # A graph that is traced once would keep the adapters of the step that it was traced in.
        whole = not adapted and batch.rows == list(range(len(tokens)))
        rows = None if whole else mlx().array(batch.rows, dtype=mlx().int32)
        self._waiting = batch, model.logits(tokens, step, rows), model.take_written()
        return None

    def sample_tokens(self, grammar: GrammarOutput | None) -> StepOutput:
        assert self._waiting is not None  # noqa: S101 - vLLM's order of calls
        (batch, logits, written), self._waiting = self._waiting, None
        prompt_logprobs = self._prompt_logprobs(batch, logits)
        if batch.sampling_rows != list(range(len(batch.rows))):
            logits = logits[mlx().array(batch.sampling_rows, dtype=mlx().int32)]
        if grammar is not None:
            logits = _constrained(logits, grammar, batch.sampling)
        self._last = self._sample(batch, logits, prompt_logprobs)
        # Keys and values as well: nothing may depend on those of a chunk before its next one.
        mlx().async_eval(self._last.tokens, *written)
        return self._last

    def allocate(self, blocks: int, dtype: str) -> None:
        for cache in self.mlx_model.caches:
            cache.allocate(blocks, self._block_size, getattr(mlx(), dtype))
        mlx().eval(self.pools())

    def pretend(self, names: Iterable[str]) -> None:
        """Nobody has a recurrent state, and these get empty ones, as if tokens of theirs had been computed."""
        if isinstance(self.mlx_model, Model):
            for state in self.mlx_model.states:
                state.fill(self.seats.take(names))

    def sleep(self) -> None:
        """Let go of weights and cache. The engine has no request left by then."""
        self.mlx_model.drop()
        self.adapters.detach()
        self.seats = Seats()
        self._last = None

    def wake(self, model: Model | Encoder) -> None:
        self.mlx_model = model
        self.adapters.attach(model.module, model.rows)

    def pools(self) -> list[Any]:
        return [array for cache in self.mlx_model.caches for array in cache.arrays]

    def _leave(self, scheduled: SchedulerOutput) -> None:
        """Who has ended, or was preempted and will be computed anew, has no recurrent state any more."""
        self.seats.leave((*scheduled.finished_req_ids, *(scheduled.preempted_req_ids or ())))
        if not self.seats and isinstance(self.mlx_model, Model):
            self.mlx_model.forget()

    def _tokens(self, batch: Batch) -> Any:
        """(tokens,): known ones, and those that the last step is still computing."""
        mx = mlx()
        known = np.zeros(sum(entry.count for entry in batch.entries), dtype=np.int32)
        targets, sources = [], []
        for entry in batch.entries:
            request, start = entry.request, entry.start
            tokens = request.tokens[request.computed : request.computed + entry.count]
            known[start : start + len(tokens)] = tokens
            if len(tokens) < entry.count:
                assert self._last is not None  # noqa: S101 - a token that is not here is on its way
                targets.append(start)
                sources.append(self._last.row(request))
        array = mx.array(known)
        if targets:
            array[mx.array(targets)] = self._last.tokens[mx.array(sources)]  # type: ignore[union-attr]
        return array

    def _sample(self, batch: Batch, logits: Any, prompt_logprobs: dict[str, LogprobsTensors]) -> StepOutput:
        mx = mlx()
        requests = batch.sampling
        here = [row for row, each in enumerate(requests) if served_here(each.sampling)]
        there = [row for row in range(len(requests)) if row not in set(here)]
        if not there:
            tokens = _drawn(logits, requests) if requests else mx.zeros((0,), dtype=mx.int32)
            return StepOutput(batch, tokens, prompt_logprobs=prompt_logprobs)
        if self._last is not None:
            self._last.arrive()  # penalties count every token before
        others = [requests[row] for row in there]
        drawn, logprobs = self._reference.sample(_to_torch(logits[mx.array(there)]), others)  # type: ignore[union-attr]
        tokens = mx.zeros((len(requests),), dtype=mx.int32)
        tokens[mx.array(there)] = mx.array(drawn, dtype=mx.int32)
        if here:
            tokens[mx.array(here)] = _drawn(logits[mx.array(here)], [requests[row] for row in here])
        scored = [request.id for request in others]
        return StepOutput(batch, tokens, logprobs=logprobs, scored=scored, prompt_logprobs=prompt_logprobs)

    def _prompt_logprobs(self, batch: Batch, logits: Any) -> dict[str, LogprobsTensors]:
        """Of the requests whose prompt ends in this step; the others' are kept."""
        complete, row = {}, 0
        for entry in batch.entries:
            if entry.scored:
                rows = _to_torch(logits[row : row + entry.scored])
                self._reference.prompt_logprobs(entry.request, rows, entry.request.computed)  # type: ignore[union-attr]
            if _prompt_ends(entry) and entry.request.prompt_logprobs:
                complete[entry.request.id] = LogprobsTensors.cat(entry.request.prompt_logprobs)
                entry.request.prompt_logprobs.clear()
            row += len(entry.rows)
        return complete

    def _copy_blocks(self, scheduled: SchedulerOutput) -> None:
        if pairs := scheduled.kv_cache_block_copies:
            for cache in self.mlx_model.caches:
                cache.copy_blocks([(pair.src_block_id, pair.dst_block_id) for pair in pairs], self._block_size)


def _prompt_ends(entry: Entry) -> bool:
    return entry.request.computed + entry.count >= entry.request.prompt_length


def _drawn(logits: Any, requests: list[Request]) -> Any:
    return sample(logits, [each.sampling for each in requests], [each.length for each in requests])


def _constrained(logits: Any, grammar: GrammarOutput, requests: list[Request]) -> Any:
    places = {request.id: row for row, request in enumerate(requests)}
    names = grammar.structured_output_request_ids
    present = [index for index, name in enumerate(names) if name in places]
    if not present:
        return logits
    return mask_by_grammar(logits, grammar.grammar_bitmask[present], [places[names[index]] for index in present])


def _to_torch(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array.astype(mlx().float32)))
