"""What a step yields, asked for when it is needed: MLX may still be computing it while the next step is scheduled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from vllm.v1.outputs import AsyncModelRunnerOutput, LogprobsLists, LogprobsTensors, ModelRunnerOutput

from .batch import Batch
from .requests import Request


@dataclass(frozen=True)
class _Place:
    """Where a sampled token belongs. `preemptions` tells a token that a preemption has overtaken."""

    request: Request
    index: int
    preemptions: int

    def put(self, token: int) -> None:
        if self.preemptions == self.request.preemptions:
            self.request.tokens.append(token)


class StepOutput(AsyncModelRunnerOutput):
    """`tokens` is MLX's (sampling rows,) array; `logprobs` has a row for each request of `scored`."""

    def __init__(
        self,
        batch: Batch,
        tokens: Any,
        *,
        logprobs: LogprobsTensors | None = None,
        scored: Sequence[str] = (),
        prompt_logprobs: dict[str, LogprobsTensors] | None = None,
    ) -> None:
        self.tokens = tokens
        self._names = [request.id for request in batch.requests]
        self._rows = {request.id: row for row, request in enumerate(batch.sampling)}
        self._places = [_Place(each, each.length, each.preemptions) for each in batch.sampling]
        self._logprobs = logprobs
        self._scored = {name: row for row, name in enumerate(scored)}
        self._prompt_logprobs = prompt_logprobs or {}
        self._sampled: list[int] | None = None
        for request in batch.sampling:
            request.length += 1

    def row(self, request: Request) -> int | None:
        """Where in `tokens` this request's newest token is."""
        return self._rows.get(request.id)

    def arrive(self) -> list[int]:
        """Wait for the tokens, and let their requests know them. Again: the same."""
        if self._sampled is None:
            self._sampled = np.asarray(self.tokens).tolist()
            for place, token in zip(self._places, self._sampled, strict=True):
                place.put(token)
        return self._sampled

    def get_output(self) -> ModelRunnerOutput:
        sampled = self.arrive()
        return ModelRunnerOutput(
            req_ids=self._names,
            req_id_to_index={name: index for index, name in enumerate(self._names)},
            sampled_token_ids=[[sampled[self._rows[name]]] if name in self._rows else [] for name in self._names],
            logprobs=self._listed_logprobs(),
            prompt_logprobs_dict=dict(self._prompt_logprobs),
        )

    def _listed_logprobs(self) -> LogprobsLists | None:
        if self._logprobs is None:
            return None
        # vLLM looks a request's row up by its place in the batch.
        rows = [self._scored.get(name, 0) for name in self._names]
        return self._logprobs.tolists(rows)
