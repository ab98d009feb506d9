"""Answers as figures, by the names and definitions of `vllm bench serve --save-result`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from appliance.bench.answer import Answer

PERCENTILES = (50, 90, 95, 99)
METRICS = ("ttft", "tpot", "itl", "e2el")

Figures = Mapping[str, Any]


def figures(answers: Sequence[Answer], *, model: str, concurrency: int, endpoint: str) -> dict[str, Any]:
    """Of one level of concurrency. Latencies in milliseconds, throughputs per second of the time from the first
    request to the last chunk; failed requests count in `failed` and nowhere else.
    """
    good = [answer for answer in answers if answer.complete and not answer.error]
    began = min((answer.start for answer in good), default=0.0)
    duration = max((answer.end for answer in good), default=0.0) - began
    read, written = sum(answer.input_tokens for answer in good), sum(answer.output_tokens for answer in good)
    values = {
        "ttft": [answer.ttft for answer in good],
        "tpot": [answer.tpot for answer in good if answer.tpot is not None],
        "itl": [gap for answer in good for gap in answer.itl],
        "e2el": [answer.e2el for answer in good],
    }
    return {
        "backend": endpoint,
        "model_id": model,
        "num_prompts": len(answers),
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": concurrency,
        "duration": duration,
        "completed": len(good),
        "failed": len(answers) - len(good),
        "total_input_tokens": read,
        "total_output_tokens": written,
        "request_throughput": _rate(len(good), duration),
        "output_throughput": _rate(written, duration),
        "total_token_throughput": _rate(read + written, duration),
        **{name: value for metric in METRICS for name, value in _described(metric, values[metric])},
        "input_lens": [answer.input_tokens for answer in answers],
        "output_lens": [answer.output_tokens for answer in answers],
        "ttfts": [answer.ttft for answer in answers],
        "itls": [answer.itl for answer in answers],
        "errors": [answer.error for answer in answers],
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Interpolated between the two nearest, as numpy does; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = (len(ordered) - 1) * share / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _described(metric: str, seconds: Sequence[float]) -> list[tuple[str, float]]:
    found = [1000 * each for each in seconds]
    return [
        (f"mean_{metric}_ms", statistics.fmean(found) if found else 0.0),
        (f"median_{metric}_ms", percentile(found, 50)),
        (f"std_{metric}_ms", statistics.pstdev(found) if found else 0.0),
        *((f"p{share}_{metric}_ms", percentile(found, share)) for share in PERCENTILES),
    ]


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
