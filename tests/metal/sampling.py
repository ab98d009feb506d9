"""Run by path inside the Metal engine environment: what MLX draws beside what it should. Prints one JSON object."""

from __future__ import annotations

from typing import Any

from tests.metal.reply import reply

DRAWS = 40_000
SIZE = 48
SETTINGS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.7},
    "hot": {"temperature": 1.6},
    "top_k": {"temperature": 1.0, "top_k": 7},
    "top_p": {"temperature": 1.0, "top_p": 0.8},
    "min_p": {"temperature": 1.0, "min_p": 0.1},
    "all": {"temperature": 1.2, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
}


def main() -> dict[str, Any]:
    return {
        "chi_square": {name: chi_square(settings) for name, settings in SETTINGS.items()},
        "seeds": seeds(),
        "reference": reference(),
        "grammar": grammar(),
    }


def _logits() -> Any:
    import mlx.core as mx

    mx.random.seed(3)
    return mx.random.normal((SIZE,)) * 2


def chi_square(settings: dict[str, Any]) -> dict[str, float]:
    """Against the distribution that vLLM's own masks and softmax give. `outside` counts draws of what they rule out."""
    import mlx.core as mx
    import numpy as np
    import torch
    from appliance_metal.sampling import sample
    from vllm import SamplingParams
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

    params = SamplingParams(**settings)
    logits = _logits()
    scaled = torch.tensor([logits.tolist()]) / params.temperature
    probabilities = scaled.softmax(-1)
    scaled[probabilities < params.min_p * probabilities.max()] = -torch.inf
    top_k = torch.tensor([params.top_k]) if params.top_k > 0 else None
    top_p = torch.tensor([params.top_p]) if params.top_p < 1 else None
    expected = apply_top_k_top_p(scaled, top_k, top_p).softmax(-1)[0].numpy() * DRAWS
    drawn = sample(mx.broadcast_to(logits, (DRAWS, SIZE)), [params] * DRAWS, [0] * DRAWS)
    counts = np.bincount(np.array(drawn), minlength=SIZE)
    kept = expected > 0
    # Cells of fewer than five expected draws are one cell: the test's own condition.
    small = kept & (expected < 5)
    cells = [(counts[index], expected[index]) for index in np.flatnonzero(kept & ~small)]
    if small.any() and expected[small].sum() >= 1:
        cells.append((counts[small].sum(), expected[small].sum()))
    value = sum((count - wanted) ** 2 / wanted for count, wanted in cells)
    return {"value": float(value), "freedom": len(cells) - 1, "outside": int(counts[~kept].sum())}


def seeds() -> dict[str, bool]:
    import mlx.core as mx
    from appliance_metal.sampling import sample
    from vllm import SamplingParams

    logits = mx.broadcast_to(_logits(), (64, SIZE))
    one, other = SamplingParams(temperature=1.5, seed=11), SamplingParams(temperature=1.5, seed=12)
    free, greedy = SamplingParams(temperature=1.5), SamplingParams(temperature=0)
    positions = list(range(64))
    first = sample(logits, [one] * 64, positions).tolist()
    among = sample(logits, [one, free, greedy, other] * 16, positions).tolist()
    return {
        "again the same": first == sample(logits, [one] * 64, positions).tolist(),
        "the same beside others": first[::4] == among[::4],
        "another seed differs": first != sample(logits, [other] * 64, positions).tolist(),
        "another position differs": len(set(first)) > 5,
        "greedy beside others": set(among[2::4]) == {mx.argmax(logits[0]).item()},
    }


def reference() -> dict[str, bool]:
    """vLLM's sampler as we feed it, against the plain arithmetic of its documentation."""
    import torch
    from appliance_metal.reference import ReferenceSampler
    from appliance_metal.requests import Request
    from vllm import SamplingParams
    from vllm.config import VllmConfig

    class Config:
        """What of a VllmConfig the sampler looks at."""

        class model_config:  # noqa: N801
            logprobs_mode = "raw_logprobs"

        class scheduler_config:  # noqa: N801
            max_num_seqs = 8

        speculative_config = None

    assert VllmConfig is not None
    sampler = ReferenceSampler(Config())
    logits = torch.tensor(_logits().tolist())
    prompt, output = [3, 3, 5], [7, 7, 7, 9]

    def drawn(end: int = 1, bad: list[list[int]] | None = None, **settings: Any) -> int:
        params = SamplingParams(temperature=0, **settings)
        params.update_from_generation_config({}, eos_token_id=end)
        params._bad_words_token_ids = bad  # as vLLM's front end sets it, which has the tokenizer
        request = Request("a", [*prompt, *output], len(prompt), [], 0, sampling=params)
        tokens, _ = sampler.sample(logits.clone()[None], [request])
        return int(tokens[0])

    counts = torch.bincount(torch.tensor(output), minlength=SIZE).float()
    seen = torch.zeros(SIZE, dtype=torch.bool)
    seen[prompt + output] = True
    repeated = torch.where(seen, torch.where(logits > 0, logits / 1.8, logits * 1.8), logits)
    best = int(logits.argmax())
    two = logits.topk(2).indices.tolist()
    return {
        "greedy": drawn() == best,
        "frequency": drawn(frequency_penalty=1.9) == int((logits - 1.9 * counts).argmax()),
        "presence": drawn(presence_penalty=-2.0) == int((logits + 2.0 * (counts > 0)).argmax()),
        "repetition": drawn(repetition_penalty=1.8) == int(repeated.argmax()),
        "bias": drawn(logit_bias={17: 50.0}) == 17,
        "ban": drawn(logit_bias={best: -100.0}) == two[1],
        "allowed": drawn(allowed_token_ids=[4, 6]) == (4 if logits[4] > logits[6] else 6),
        "too short to end": drawn(end=best, min_tokens=len(output) + 1) == two[1],
        "long enough to end": drawn(end=best, min_tokens=len(output)) == best,
        "bad word": drawn(bad=[[best]]) == two[1],
        "bad words that go on": drawn(bad=[[output[-1], best]]) == two[1],
        "bad words that do not": drawn(bad=[[output[-1], output[0], best]]) == best,
    }


def grammar() -> dict[str, bool]:
    import mlx.core as mx
    import numpy as np
    from appliance_metal.sampling import mask_by_grammar, sample
    from vllm import SamplingParams

    allowed = [2, 31, 33, 47]
    words = np.zeros((1, 2), dtype=np.uint32)
    for token in allowed:
        words[0, token // 32] |= np.uint32(1 << token % 32)
    logits = mask_by_grammar(mx.zeros((3, SIZE)), words.view(np.int32), [1])
    drawn = {sample(logits, [SamplingParams(temperature=1.0)] * 3, [0] * 3)[1].item() for _ in range(200)}
    return {"only what it allows": drawn == set(allowed), "other rows": bool((mx.max(logits[0]) == 0).item())}


if __name__ == "__main__":
    reply(main)
