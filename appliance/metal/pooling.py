"""Embeddings: from the hidden states of a prompt to one vector."""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.v1.outputs import ModelRunnerOutput

from .batch import Batch, Entry
from .device import mlx

KINDS = ("LAST", "MEAN", "CLS")


class Pooler:
    """The last token's hidden state, the first one's, or the mean of all: what the checkpoint's own configuration says.

    Then normalised, and cut to the dimensions that were asked for (Matryoshka). Where all tokens count, vLLM computes
    a prompt in one step.
    """

    def __init__(self, kind: str) -> None:
        if kind not in KINDS:
            raise ValueError(f"pooling type `{kind}` is not supported with vllm-metal: {', '.join(KINDS)} are")
        self._kind = kind

    @classmethod
    def of(cls, config: VllmConfig) -> Pooler:
        settings = config.model_config.pooler_config
        return cls(settings.get_seq_pooling_type() if settings else "LAST")

    def __call__(self, batch: Batch, hidden: Any) -> ModelRunnerOutput:
        """`hidden` is (tokens, hidden size)."""
        mx = mlx()
        ending = [entry for entry in batch.entries if entry.samples]
        states = [self._pool(entry, hidden) for entry in ending]
        mx.eval(states)
        vectors = {entry.request.id: _vector(entry, state) for entry, state in zip(ending, states, strict=True)}
        names = [request.id for request in batch.requests]
        return ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: index for index, name in enumerate(names)},
            pooler_output=[vectors.get(name) for name in names],
        )

    def _pool(self, entry: Entry, hidden: Any) -> Any:
        end = entry.start + entry.count
        if self._kind == "LAST":
            return hidden[end - 1].astype(mlx().float32)
        if entry.request.computed:
            raise AssertionError("a prompt whose tokens all count came in parts")
        states = hidden[entry.start : end].astype(mlx().float32)
        return states[0] if self._kind == "CLS" else mlx().mean(states, axis=0)


def _vector(entry: Entry, state: Any) -> torch.Tensor:
    vector = torch.tensor(state.tolist())
    params = entry.request.pooling
    if params.dimensions:
        vector = vector[: params.dimensions]
    return torch.nn.functional.normalize(vector, dim=-1) if params.use_activation is not False else vector
