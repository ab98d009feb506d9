"""Limits of a key, with time as an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.models import Limits
from appliance.gateway.limits import REMEMBERED, Bucket, Grant, Limiter, LimitReached, duration
from tests.gateway.served import key

GAPS = st.lists(st.floats(0, 30), min_size=1, max_size=60)


def admit(limiter: Limiter, now: float, limits: Limits, *, estimate: int = 0, name: str = "mine") -> Grant:
    return limiter.account(key(name, "sk-mine", limits=limits), now).admit(estimate, now)


def attempt(limiter: Limiter, now: float, limits: Limits) -> float | None:
    """Seconds to wait, where it was refused."""
    try:
        admit(limiter, now, limits)
    except LimitReached as error:
        return error.retry_after
    return None


def refusal(limiter: Limiter, now: float, limits: Limits) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        admit(limiter, now, limits)
    return caught.value


@given(st.integers(1, 600), GAPS)
def test_no_window_admits_more_than_a_full_bucket_and_what_flows_in(per_minute: int, gaps: list[float]) -> None:
    limiter, limits, now = Limiter(), Limits(requests_per_minute=per_minute), 0.0
    admitted: list[float] = []
    for gap in gaps:
        now += gap
        while (wait := attempt(limiter, now, limits)) is not None:
            assert 0 < wait <= 60
            early = now + 0.99 * wait
            assert attempt(limiter, early, limits) is not None
            now += wait + 1e-6  # the time told is true
        admitted.append(now)
        for start, first in enumerate(admitted):
            assert len(admitted) - start <= per_minute + (now - first) * per_minute / 60 + 1e-3


@given(st.integers(1, 10_000), st.lists(st.tuples(st.floats(0, 30), st.integers(0, 30_000)), max_size=40))
def test_tokens_spent_are_paid_for_whatever_each_request_turned_out_to_cost(
    per_minute: int, requests: list[tuple[float, int]]
) -> None:
    limiter, limits, now = Limiter(), Limits(tokens_per_minute=per_minute), 0.0
    spent, largest = 0, 0
    for gap, used in requests:
        now += gap
        if limiter.account(key("mine", "k", limits=limits), now).headers("openai", now)[1][1] == b"0":
            refusal(limiter, now, limits)
            continue
        grant = admit(limiter, now, limits, estimate=used // 3)
        grant.settle(used, now)
        spent, largest = spent + used, max(largest, used)
        # One at a time, so overdrawn by one request at most.
        assert spent <= per_minute + now * per_minute / 60 + largest + 1e-6


@given(st.integers(1, 1000), st.lists(st.tuples(st.floats(0, 50), st.floats(-50, 500)), max_size=30))
def test_a_bucket_never_holds_more_than_a_minutes_worth(per_minute: int, moves: list[tuple[float, float]]) -> None:
    bucket, now = Bucket(per_minute, 0.0), 0.0
    for gap, amount in moves:
        now += gap
        bucket.take(amount, now)
        assert bucket.level(now) <= per_minute
        assert bucket.level(now + bucket.wait(1, now)) >= 1 - 1e-6


def test_requests_are_refused_with_the_time_until_the_next_one() -> None:
    limiter, limits = Limiter(), Limits(requests_per_minute=2)
    admit(limiter, 0, limits)
    admit(limiter, 0, limits)
    error = refusal(limiter, 0, limits)
    assert (error.limit, error.status, error.retry_after) == ("requests_per_minute", 429, 30)
    refusal(limiter, 29.9, limits)
    admit(limiter, 30, limits)


def test_a_refused_request_costs_nothing() -> None:
    limiter, limits = Limiter(), Limits(requests_per_minute=1, tokens_per_minute=10)
    admit(limiter, 0, limits).settle(0, 0)
    for _ in range(100):
        assert refusal(limiter, 1, limits).retry_after == 59
    admit(limiter, 60, limits)


def test_what_is_reserved_counts_until_the_real_usage_is_known() -> None:
    limiter, limits = Limiter(), Limits(tokens_per_minute=100)
    grant = admit(limiter, 0, limits, estimate=100)
    assert refusal(limiter, 0, limits).limit == "tokens_per_minute"
    grant.settle(30, 0)
    second = admit(limiter, 0, limits)
    second.settle(130, 0)  # 60 more than there was
    assert refusal(limiter, 36, limits).retry_after == pytest.approx(0.6)
    admit(limiter, 36.7, limits)


def test_an_estimate_larger_than_the_limit_does_not_lock_a_key_out() -> None:
    limiter, limits = Limiter(), Limits(tokens_per_minute=100)
    grant = admit(limiter, 0, limits, estimate=5_000_000)  # an image
    grant.settle(20, 0)
    admit(limiter, 0, limits)


def test_requests_at_once_are_counted_until_each_has_ended() -> None:
    limiter, limits = Limiter(), Limits(concurrent=2)
    first, _ = admit(limiter, 0, limits), admit(limiter, 0, limits)
    assert refusal(limiter, 0, limits).limit == "concurrent"
    first.settle(0, 5)
    admit(limiter, 5, limits)


def test_a_limit_set_while_requests_run_counts_those_too() -> None:
    limiter = Limiter()
    running = admit(limiter, 0, Limits())
    refusal(limiter, 0, Limits(concurrent=1))
    running.settle(0, 1)
    admit(limiter, 1, Limits(concurrent=1))


def test_a_changed_limit_applies_at_once_and_what_was_spent_stays_spent() -> None:
    limiter = Limiter()
    for _ in range(10):
        admit(limiter, 0, Limits(requests_per_minute=10))
    refusal(limiter, 0, Limits(requests_per_minute=10))
    admit(limiter, 0, Limits(requests_per_minute=20))  # ten more
    refusal(limiter, 0, Limits(requests_per_minute=5))  # 11 were spent of 5
    admit(limiter, 0, Limits())


def test_the_same_limits_read_again_change_nothing() -> None:
    limiter = Limiter()
    admit(limiter, 0, Limits(requests_per_minute=1))
    assert refusal(limiter, 1, Limits(requests_per_minute=1)).retry_after == 59


def test_a_limit_removed_while_a_request_runs_is_no_debt_when_it_comes_back() -> None:
    limiter = Limiter()
    grant = admit(limiter, 0, Limits(tokens_per_minute=100), estimate=90)
    limiter.account(key("mine", "k", limits=Limits()), 0)
    limiter.account(key("mine", "k", limits=Limits(tokens_per_minute=100)), 0)
    grant.settle(40, 0)
    (_, _, left) = limiter.account(key("mine", "k", limits=Limits(tokens_per_minute=100)), 0).headers("openai", 0)[:3]
    assert left == (b"x-ratelimit-reset-tokens", b"24s")


def test_headers_tell_what_is_left_in_openais_words_and_in_anthropics_for_its_clients() -> None:
    limiter, limits = Limiter(), Limits(requests_per_minute=10, tokens_per_minute=1000)
    admit(limiter, 0, limits, estimate=100)
    account = limiter.account(key("mine", "k", limits=limits), 0)
    openai = dict(account.headers("openai", 0))
    assert openai == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-remaining-requests": b"9",
        b"x-ratelimit-reset-requests": b"6s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"900",
        b"x-ratelimit-reset-tokens": b"6s",
    }
    anthropic = dict(account.headers("anthropic", 0))
    assert anthropic[b"anthropic-ratelimit-requests-remaining"] == b"9"
    assert limiter.account(key("free", "k"), 0).headers("openai", 0) == []


def test_accounts_of_keys_that_are_gone_are_forgotten_once_they_are_at_rest() -> None:
    limiter = Limiter()
    busy = admit(limiter, 0, Limits(concurrent=1), name="busy")
    for number in range(3 * REMEMBERED):
        admit(limiter, 0, Limits(), name=f"key-{number}").settle(0, 0)
    assert len(limiter._accounts) <= REMEMBERED
    with pytest.raises(LimitReached):
        admit(limiter, 0, Limits(concurrent=1), name="busy")
    busy.settle(0, 0)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, b"0ms"), (0.0201, b"21ms"), (1, b"1s"), (1.41, b"1.5s"), (59.99, b"60s"), (360, b"6m0s"), (61.2, b"1m2s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, written: bytes) -> None:
    assert duration(seconds) == written
