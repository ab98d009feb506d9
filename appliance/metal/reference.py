"""vLLM's own sampler, on the CPU, for the requests that need more than MLX's: penalties, biases, log probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.sample.logits_processor import BatchUpdate, build_logitsprocs
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler

from .requests import Request
from .sampling import GREEDY

_CPU = torch.device("cpu")


class ReferenceSampler:
    """Holds no state between two steps but the requests' own generators: what vLLM keeps per batch is made anew."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self._sampler = Sampler(logprobs_mode=config.model_config.logprobs_mode)

    def sample(self, logits: torch.Tensor, requests: Sequence[Request]) -> tuple[list[int], LogprobsTensors | None]:
        """One token for each row of (rows, vocabulary) in float32, and the log probabilities that were asked for."""
        output = self._sampler(logits, self._metadata(requests, logits.shape[-1]))
        return output.sampled_token_ids[:, 0].tolist(), output.logprobs_tensors

    def prompt_logprobs(self, request: Request, logits: torch.Tensor, first: int) -> None:
        """Keep those of the tokens after the positions `first` …, which these rows predict."""
        following = torch.tensor(request.tokens[first + 1 : first + 1 + len(logits)], dtype=torch.int64)
        logprobs = self._sampler.compute_logprobs(logits[: len(following)])
        if len(following):
            request.prompt_logprobs.append(
                self._sampler.gather_logprobs(logprobs, request.sampling.prompt_logprobs, following)
            )

    def _metadata(self, requests: Sequence[Request], vocabulary: int) -> SamplingMetadata:
        params = [request.sampling for request in requests]
        return SamplingMetadata(
            temperature=torch.tensor([each.temperature for each in params], dtype=torch.float32),
            all_greedy=all(each.temperature < GREEDY for each in params),
            all_random=all(each.temperature >= GREEDY for each in params),
            top_p=torch.tensor([each.top_p for each in params]) if any(each.top_p < 1 for each in params) else None,
            top_k=_top_k([each.top_k for each in params], vocabulary),
            generators=_generators(requests),
            max_num_logprobs=max((each.logprobs for each in params if each.logprobs is not None), default=None),
            logprob_token_ids={row: each.logprob_token_ids for row, each in enumerate(params) if each.logprob_token_ids}
            or None,
            no_penalties=all(
                each.presence_penalty == each.frequency_penalty == 0 and each.repetition_penalty == 1 for each in params
            ),
            prompt_token_ids=_padded([request.tokens[: request.prompt_length] for request in requests], vocabulary),
            frequency_penalties=torch.tensor([each.frequency_penalty for each in params]),
            presence_penalties=torch.tensor([each.presence_penalty for each in params]),
            repetition_penalties=torch.tensor([each.repetition_penalty for each in params]),
            output_token_ids=[request.output for request in requests],
            allowed_token_ids_mask=_forbidden([each.allowed_token_ids for each in params], vocabulary),
            bad_words_token_ids={
                row: each.bad_words_token_ids for row, each in enumerate(params) if each.bad_words_token_ids
            },
            logitsprocs=self._processors(requests),
        )

    def _processors(self, requests: Sequence[Request]) -> Any:
        processors = build_logitsprocs(self._config, _CPU, is_pin_memory=False, is_pooling_model=False)
        added = [
            (row, request.sampling, request.tokens[: request.prompt_length], request.output)
            for row, request in enumerate(requests)
        ]
        for processor in processors.all:
            processor.update_state(BatchUpdate(len(requests), removed=(), added=added, moved=()))
        return processors


def _top_k(values: list[int], vocabulary: int) -> torch.Tensor | None:
    counts = [value if 0 < value < vocabulary else vocabulary for value in values]
    return torch.tensor(counts) if any(count < vocabulary for count in counts) else None


def _generators(requests: Sequence[Request]) -> dict[int, torch.Generator]:
    """Of seed and position, as in sampling.py: a request that is computed again draws the same again."""
    return {
        row: torch.Generator(_CPU).manual_seed((request.sampling.seed * 1_000_003 + len(request.tokens)) % 2**63)
        for row, request in enumerate(requests)
        if request.sampling.seed is not None
    }


def _padded(prompts: Sequence[Sequence[int]], padding: int) -> torch.Tensor:
    """(rows, longest prompt); the padding is no token."""
    longest = max(len(prompt) for prompt in prompts)
    return torch.tensor([[*prompt, *[padding] * (longest - len(prompt))] for prompt in prompts], dtype=torch.int64)


def _forbidden(allowed: Sequence[Sequence[int] | None], vocabulary: int) -> torch.Tensor | None:
    if not any(allowed):
        return None
    mask = torch.zeros((len(allowed), vocabulary), dtype=torch.bool)
    for row, tokens in enumerate(allowed):
        if tokens:
            mask[row] = True
            mask[row, list(tokens)] = False
    return mask
