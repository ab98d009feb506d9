"""What figures mean: vLLM's definitions, on answers whose times are known."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bench.answer import Answer
from appliance.bench.figures import METRICS, figures, percentile
from appliance.bench.plot import PLOTS, svg
from appliance.bench.prompts import Prompts, Scale


def answer(start: float, gaps: list[float], tokens: int) -> Answer:
    """One whose first chunk came after `gaps[0]` seconds, the others as long after each other as `gaps` says."""
    e2el = sum(gaps)
    return Answer(
        start=start, end=start + e2el, ttft=gaps[0], itl=gaps[1:], e2el=e2el, input_tokens=10, output_tokens=tokens,
        complete=True,
    )  # fmt: skip


def found(*answers: Answer) -> dict[str, Any]:
    return figures(answers, model="m", concurrency=2, endpoint="openai-chat")


def test_latencies_are_counted_from_the_request_and_between_chunks() -> None:
    run = found(answer(0.0, [0.5, 0.1, 0.3], tokens=5), answer(1.0, [0.7, 0.2, 0.2], tokens=3))
    assert run["mean_ttft_ms"] == pytest.approx(600)
    assert run["mean_itl_ms"] == pytest.approx(200)  # of all gaps together, not of each answer's mean
    assert run["mean_tpot_ms"] == pytest.approx((400 / 4 + 400 / 2) / 2)  # per token, however they were cut into chunks
    assert run["mean_e2el_ms"] == pytest.approx(1000)


def test_throughput_is_over_the_time_from_the_first_request_to_the_last_chunk() -> None:
    run = found(answer(5.0, [1.0], tokens=6), answer(6.0, [3.0], tokens=2))
    assert run["duration"] == pytest.approx(4)
    assert run["output_throughput"] == pytest.approx(2)
    assert run["total_token_throughput"] == pytest.approx(7)
    assert run["request_throughput"] == pytest.approx(0.5)


def test_a_failed_request_is_counted_as_failed_and_spoils_no_figure() -> None:
    run = found(answer(0.0, [1.0], tokens=6), Answer(start=0.0, end=99.0, ttft=99.0, e2el=99.0, error="503: not ready"))
    assert (run["completed"], run["failed"], run["num_prompts"]) == (1, 1, 2)
    assert run["duration"] == pytest.approx(1)
    assert run["p99_ttft_ms"] == pytest.approx(1000)
    assert run["errors"] == ["", "503: not ready"]


def test_an_answer_of_one_token_has_no_time_per_further_token() -> None:
    run = found(answer(0.0, [1.0], tokens=1))
    assert run["mean_tpot_ms"] == 0
    assert run["mean_ttft_ms"] == pytest.approx(1000)


def test_nothing_but_failures_is_zeros_and_no_division() -> None:
    run = found(Answer(error="refused"))
    assert run["completed"] == 0
    assert all(run[f"p99_{metric}_ms"] == 0 for metric in METRICS)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.integers(0, 100))
def test_percentiles_are_numpys(values: list[float], share: int) -> None:
    assert percentile(values, share) == pytest.approx(float(np.percentile(values, share)), rel=1e-9, abs=1e-9)


def test_prompts_share_their_prefix_and_nothing_else() -> None:
    prompts = Prompts(Scale(), input_tokens=40, prefix_tokens=25, seed=1)
    made = [prompts.next().split() for _ in range(20)]
    assert {len(words) for words in made} == {65}
    assert len({" ".join(words[:25]) for words in made}) == 1
    assert len({" ".join(words[25:]) for words in made}) == 20


def test_the_same_seed_makes_the_same_prompts() -> None:
    first, second, other = (Prompts(Scale(), input_tokens=9, prefix_tokens=3, seed=seed) for seed in (4, 4, 5))
    same = [first.next() for _ in range(5)]
    assert same == [second.next() for _ in range(5)]
    assert same != [other.next() for _ in range(5)]


def test_a_models_own_way_to_count_decides_how_many_words_a_prompt_has() -> None:
    scale = Scale.through((32, 32 * 3 // 2 + 20), (160, 160 * 3 // 2 + 20))  # 1.5 tokens a word, and a template of 20
    assert scale.words(170) == 100
    assert scale.words(5) == 1
    assert Scale.through((32, 0), (160, 0)).words(50) == 50  # a server that counts nothing


def test_the_plot_has_a_point_for_every_level_of_every_line() -> None:
    runs = [
        figures([answer(0.0, [0.1 * level, 0.01], tokens=4)], model="m", concurrency=level, endpoint="openai")
        for level in (1, 2, 4)
    ]
    drawn = ET.fromstring(svg(runs, title="a <model> & more"))  # noqa: S314 - our own text
    points = list(drawn.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(points) == 3 * sum(len(lines) for _, lines in PLOTS)
    title = drawn.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == "a <model> & more"


def test_a_sweep_of_one_level_is_drawn_too() -> None:
    run = found(answer(0.0, [1.0], tokens=1))
    assert ET.fromstring(svg([run], title="one")) is not None  # noqa: S314
