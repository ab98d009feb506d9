"""Embeddings: from the hidden states of a prompt to one vector."""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.v1.outputs import ModelRunnerOutput

from .batch import Batch, Entry
from .device import mlx


class Pooler:
    """The last token's hidden state, normalised and cut to the dimensions that were asked for (Matryoshka)."""

    def __init__(self, config: VllmConfig) -> None:
        settings = config.model_config.pooler_config
        kind = settings.get_seq_pooling_type() if settings else "LAST"
        if kind != "LAST":
            raise ValueError(f"pooling type `{kind}` is not supported: decoders pool their last token (`LAST`)")

    def __call__(self, batch: Batch, hidden: Any) -> ModelRunnerOutput:
        mx = mlx()
        ending = [entry for entry in batch.entries if entry.samples]
        states = hidden[mx.array([entry.start + entry.count - 1 for entry in ending], dtype=mx.int32)]
        mx.eval(states)
        vectors = {entry.request.id: _vector(entry, states[row]) for row, entry in enumerate(ending)}
        names = [request.id for request in batch.requests]
        return ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: index for index, name in enumerate(names)},
            pooler_output=[vectors.get(name) for name in names],
        )


def _vector(entry: Entry, state: Any) -> torch.Tensor:
    vector = torch.tensor(state.astype(mlx().float32).tolist())
    params = entry.request.pooling
    if params.dimensions:
        vector = vector[: params.dimensions]
    return torch.nn.functional.normalize(vector, dim=-1) if params.use_activation is not False else vector
