"""What each key may still ask for: a bucket of requests, a bucket of tokens, and a count of what runs.

Times are seconds of any clock that only goes forward, passed in by the caller.
"""

from __future__ import annotations

import math

from appliance.config.models import Key, Limits
from appliance.errors import RequestError
from appliance.gateway.errors import Dialect, Header

MINUTE = 60.0
REMEMBERED = 256
"""Accounts beyond which those at rest are forgotten: keys come and go, and the process stays."""
CONCURRENT_WAIT = 1.0
"""Seconds after which to try again where another request of the same key has to end first: nobody knows when."""


class Bucket:
    """A token bucket: it holds one minute's worth and fills evenly.

    What a request costs is known only when it has ended, so a bucket may be overdrawn, and pays that back first.
    """

    __slots__ = ("_at", "_level", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def level(self, now: float) -> float:
        """What is left; below 0 where it is overdrawn."""
        return min(self.per_minute, self._level + (now - self._at) * self.per_minute / MINUTE)

    def take(self, amount: float, now: float) -> None:
        """Never refuses; a negative amount gives back."""
        self._level, self._at = min(self.per_minute, self.level(now) - amount), now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much is left."""
        return max(0.0, amount - self.level(now)) * MINUTE / self.per_minute

    def resize(self, per_minute: int, now: float) -> None:
        """What has been spent stays spent, so that a change neither forgives nor punishes."""
        spent = self.per_minute - self.level(now)
        self.per_minute, self._level, self._at = per_minute, per_minute - spent, now


class LimitReached(RequestError):
    """`limit` is the key of `auth.keys[].limits` that was reached."""

    def __init__(self, key: str, limit: str, allowed: int, retry_after: float) -> None:
        what = {
            "requests_per_minute": f"make {allowed} requests per minute",
            "tokens_per_minute": f"use {allowed} tokens per minute",
            "concurrent": f"have {allowed} requests at once",
        }[limit]
        super().__init__(
            f"API key `{key}` may {what}; try again in {math.ceil(retry_after)} s",
            status=429,
            type="rate_limit_error",
            code="rate_limit_exceeded",
            retry_after=retry_after,
        )
        self.limit = limit


class Account:
    """One key's state, kept for as long as the process; its limits may change meanwhile."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._limits = Limits()
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self.in_flight = 0

    def configure(self, limits: Limits, now: float) -> None:
        if limits is self._limits:
            return
        self._requests = _resized(self._requests, limits.requests_per_minute, now)
        self._tokens = _resized(self._tokens, limits.tokens_per_minute, now)
        self._limits = limits

    def admit(self, estimate: int, now: float) -> Grant:
        """Takes one request and, until its usage is known, this many tokens. Raises LimitReached and takes nothing.

        The tokens that a request will use are unknown, so one is admitted while any are left.
        """
        concurrent, requests, tokens = self._limits.concurrent, self._requests, self._tokens
        if concurrent is not None and self.in_flight >= concurrent:
            raise LimitReached(self._name, "concurrent", concurrent, CONCURRENT_WAIT)
        if requests is not None and (wait := requests.wait(1, now)):
            raise LimitReached(self._name, "requests_per_minute", requests.per_minute, wait)
        if tokens is not None and (wait := tokens.wait(1, now)):
            raise LimitReached(self._name, "tokens_per_minute", tokens.per_minute, wait)
        if requests is not None:
            requests.take(1, now)
        reserved = 0
        if tokens is not None:
            # Images make a body long and are few tokens: a guess may not take more than a whole minute's worth.
            reserved = min(estimate, tokens.per_minute)
            tokens.take(reserved, now)
        self.in_flight += 1
        return Grant(self, tokens, reserved)

    def settle(self, bucket: Bucket | None, reserved: int, used: int, now: float) -> None:
        self.in_flight -= 1
        if self._tokens is not None:
            self._tokens.take(used - (reserved if bucket is self._tokens else 0), now)

    def at_rest(self, now: float) -> bool:
        """Whether forgetting it would change nothing."""
        buckets = (self._requests, self._tokens)
        return not self.in_flight and all(b is None or b.level(now) >= b.per_minute for b in buckets)

    def headers(self, dialect: Dialect, now: float) -> list[Header]:
        """What is left, as the dialect's clients read it."""
        found: list[Header] = []
        for kind, bucket in ((b"requests", self._requests), (b"tokens", self._tokens)):
            if bucket is not None:
                left = b"%d" % max(0, math.floor(bucket.level(now)))
                limit, reset = b"%d" % bucket.per_minute, bucket.wait(bucket.per_minute, now)
                found += (
                    (b"x-ratelimit-limit-" + kind, limit),
                    (b"x-ratelimit-remaining-" + kind, left),
                    (b"x-ratelimit-reset-" + kind, duration(reset)),
                )
                if dialect == "anthropic":
                    name = b"anthropic-ratelimit-" + kind
                    found += ((name + b"-limit", limit), (name + b"-remaining", left))
        return found


class Grant:
    """One admitted request, to be settled exactly once."""

    __slots__ = ("_account", "_bucket", "_reserved")

    def __init__(self, account: Account, bucket: Bucket | None, reserved: int) -> None:
        self._account = account
        self._bucket = bucket
        self._reserved = reserved

    def settle(self, used: int, now: float) -> None:
        """The request has ended and has used so many tokens; 0 where it came to nothing."""
        self._account.settle(self._bucket, self._reserved, used, now)


class Limiter:
    """Every key's account, by the key's name: another hash under the same name is the same holder."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def account(self, key: Key, now: float) -> Account:
        """With the limits that the key has now."""
        account = self._accounts.get(key.name)
        if account is None:
            if len(self._accounts) >= REMEMBERED:
                self._forget(now)
            account = self._accounts[key.name] = Account(key.name)
        account.configure(key.limits, now)
        return account

    def _forget(self, now: float) -> None:
        for name in [name for name, account in self._accounts.items() if account.at_rest(now)]:
            del self._accounts[name]


def _resized(bucket: Bucket | None, per_minute: int | None, now: float) -> Bucket | None:
    if per_minute is None:
        return None
    if bucket is None:
        return Bucket(per_minute, now)
    if bucket.per_minute != per_minute:
        bucket.resize(per_minute, now)
    return bucket


def duration(seconds: float) -> bytes:
    """As OpenAI writes it: `20ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000)
    if seconds < MINUTE:
        return b"%gs" % (math.ceil(seconds * 10) / 10)
    minutes, rest = divmod(math.ceil(seconds), 60)
    return b"%dm%ds" % (minutes, rest)
