"""Sampling in MLX: temperature, top-k, top-p, min-p and seeds, for many rows at once.

Everything else (penalties, biases, bad words, log probabilities) is vLLM's own sampler's, in reference.py. Which of the
two serves a request depends on its own parameters alone, so that a seeded answer does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .device import mlx

GREEDY = 1e-5
"""The temperature below which vLLM takes the likeliest token."""


def served_here(params: Any) -> bool:
    """Whether this module does all that these vllm.SamplingParams ask for."""
    return (
        params.logprobs is None
        and params.prompt_logprobs is None
        and not params.logprob_token_ids
        and not params.logit_bias
        and not params.allowed_token_ids
        and not params.bad_words_token_ids
        and not params.min_tokens
        and params.presence_penalty == params.frequency_penalty == 0
        and params.repetition_penalty == 1
    )


def sample(logits: Any, params: Sequence[Any], indices: Sequence[int]) -> Any:
    """One token for each row of (rows, vocabulary), as (rows,) int32.

    `indices` are the positions that the tokens will have in their sequences: together with the seed they decide what a
    seeded row draws, so that a preemption or another batch changes nothing.
    """
    mx = mlx()
    if all(each.temperature < GREEDY for each in params):
        return mx.argmax(logits, axis=-1).astype(mx.int32)
    logits = logits.astype(mx.float32)
    greedy = mx.array([each.temperature < GREEDY for each in params])
    temperatures = mx.array([1.0 if each.temperature < GREEDY else each.temperature for each in params])
    scaled = _keep(logits / temperatures[:, None], params)
    drawn = mx.argmax(scaled + _noise(scaled.shape[-1], params, indices), axis=-1)
    return mx.where(greedy, mx.argmax(logits, axis=-1), drawn).astype(mx.int32)


def mask_by_grammar(logits: Any, bitmask: Any, rows: Sequence[int]) -> Any:
    """Rule out, in these rows of (rows, vocabulary), what the grammar does not allow next.

    `bitmask` is (len(rows), words) of int32, one bit a token, the lowest bit first.
    """
    mx = mlx()
    words = mx.array(bitmask)
    bits = (words[:, :, None] >> mx.arange(32, dtype=mx.int32)) & 1
    allowed = bits.reshape(len(rows), -1)[:, : logits.shape[-1]].astype(mx.bool_)
    if allowed.shape[-1] < logits.shape[-1]:  # padding of the vocabulary, which no grammar allows
        allowed = mx.pad(allowed, ((0, 0), (0, logits.shape[-1] - allowed.shape[-1])))
    index = mx.array(list(rows))
    logits[index] = mx.where(allowed, logits[index], mx.array(-mx.inf, dtype=logits.dtype))
    return logits


def _keep(logits: Any, params: Sequence[Any]) -> Any:
    """Minus infinity for what min-p, top-k and top-p leave out, in vLLM's order: each sees what the former left."""
    mx = mlx()
    if any(each.min_p > 0 for each in params):
        logits = _above(logits, mx.max(logits, axis=-1, keepdims=True) + _log([each.min_p for each in params]))
    size = logits.shape[-1]
    counts = [each.top_k if 0 < each.top_k < size else size for each in params]
    shares = [each.top_p for each in params]
    if all(count == size for count in counts) and all(share >= 1 for share in shares):
        return logits
    ranked = -mx.sort(-logits, axis=-1)
    kept = mx.arange(size)[None, :] < mx.array(counts)[:, None]
    weights = mx.softmax(mx.where(kept, ranked, -mx.inf), axis=-1)
    before = mx.cumsum(weights, axis=-1) - weights
    # The likeliest token always stays.
    kept = kept & ((before < mx.array(shares)[:, None]) | (mx.arange(size)[None, :] == 0))
    return _above(logits, mx.min(mx.where(kept, ranked, mx.inf), axis=-1, keepdims=True))


def _above(logits: Any, least: Any) -> Any:
    mx = mlx()
    return mx.where(logits >= least, logits, -mx.inf)


def _log(shares: list[float]) -> Any:
    mx = mlx()
    return mx.log(mx.array(shares))[:, None]


def _noise(size: int, params: Sequence[Any], indices: Sequence[int]) -> Any:
    """Gumbel noise: the likeliest token of logits with it added is a sample of their distribution."""
    mx = mlx()
    if all(each.seed is None for each in params):
        return mx.random.gumbel((len(params), size))
    rows = [
        mx.random.gumbel((size,), key=None if each.seed is None else _key(each.seed, index))
        for each, index in zip(params, indices, strict=True)
    ]
    return mx.stack(rows)


def _key(seed: int, index: int) -> Any:
    """Of a counter-based generator: its own stream for each seed, its own part of it for each position."""
    mx = mlx()
    return mx.random.split(mx.random.key(seed & (2**64 - 1)), 2)[0] ^ mx.array([0, index], dtype=mx.uint32)
