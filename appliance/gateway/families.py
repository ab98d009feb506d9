"""Every metric of the appliance itself, as a table: what the registry is built from, and the reference too.

`model` and `key` have names from the file only, whatever clients send, so that no client can make series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """`name` is without the suffixes that Prometheus adds to counters and histograms."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names that queries use."""
        if self.kind == "counter":
            return (f"{self.name}_total",)
        if self.kind == "histogram":
            return tuple(f"{self.name}_{suffix}" for suffix in ("bucket", "sum", "count"))
        return (self.name,)


ANSWER = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
"""Seconds: from a cached embedding to a long answer on a slow machine."""
FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
TOKEN = (0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1)
WAIT = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600)

REQUESTS = Family(
    "appliance_requests",
    "counter",
    "Requests that have ended, health checks left out. status 499: the client left; a stream that failed after it had "
    "begun has 200 here and is in appliance_errors_total.",
    ("model", "key", "dialect", "status"),
)
ERRORS = Family(
    "appliance_errors",
    "counter",
    "Requests that ended in an error, by the `code` that the client was told.",
    ("model", "code"),
)
LIMITED = Family(
    "appliance_limited_requests",
    "counter",
    "Requests refused with 429, by the limit of `auth.keys[].limits` that was reached.",
    ("key", "limit"),
)
PROMPT_TOKENS = Family(
    "appliance_prompt_tokens",
    "counter",
    "Tokens read, by the engines' own count; estimated where a client left before there was one.",
    ("model", "key"),
)
COMPLETION_TOKENS = Family(
    "appliance_completion_tokens",
    "counter",
    "Tokens written, counted like those read.",
    ("model", "key"),
)
DROPPED = Family(
    "appliance_dropped_requests",
    "counter",
    "Requests that the appliance itself cut short: their engine was stopped, or the appliance ended, before they had. "
    "Stays 0 unless a `drain_timeout` runs out.",
)
RELOADS = Family(
    "appliance_reloads",
    "counter",
    "Times the file was read again. outcome: applied, unchanged, or refused because it cannot be used.",
    ("outcome",),
)
ROLLOUTS = Family(
    "appliance_rollouts",
    "counter",
    "Generations that have come to rest. outcome: ready, or degraded where an engine did not start.",
    ("outcome",),
)
RESTARTS = Family(
    "appliance_engine_restarts",
    "counter",
    "Engines that ended unasked, or hung and were killed, after they had been ready.",
    ("model",),
)

DURATION = Family(
    "appliance_request_duration_seconds",
    "histogram",
    "From a request's headers to the last byte of its answer, waiting included.",
    ("model",),
    ANSWER,
)
FIRST_TOKEN = Family(
    "appliance_time_to_first_token_seconds",
    "histogram",
    "From a request's headers to the first byte of its stream, keep-alives not counted.",
    ("model",),
    FIRST,
)
INTER_TOKEN = Family(
    "appliance_inter_token_seconds",
    "histogram",
    "Mean time between two tokens of one stream, observed once a stream.",
    ("model",),
    TOKEN,
)
QUEUE_WAIT = Family(
    "appliance_queue_wait_seconds",
    "histogram",
    "Time that requests waited for a place at a busy engine. Those that did not wait are not in it.",
    ("model",),
    WAIT,
)
HOLD = Family(
    "appliance_hold_seconds",
    "histogram",
    "Time that requests were held while their model came up. Those that were not held are not in it.",
    ("model",),
    WAIT,
)

IN_FLIGHT = Family("appliance_requests_in_flight", "gauge", "Requests that engines work on now.", ("model",))
QUEUE_LENGTH = Family("appliance_queue_length", "gauge", "Requests that wait for a place now.", ("model",))
HELD = Family("appliance_held_requests", "gauge", "Requests held until their model is ready.", ("model",))
READY = Family("appliance_model_ready", "gauge", "1 where the model has an engine that takes requests.", ("model",))
STATE = Family(
    "appliance_engine_state",
    "gauge",
    "1 for the state that the model's engine is in, 0 for the others.",
    ("model", "state"),
)
MEMORY = Family(
    "appliance_engine_memory_bytes",
    "gauge",
    "Memory of the model's engines: an estimate until one is ready, then what it was seen to take.",
    ("model",),
)
BUDGET = Family("appliance_memory_budget_bytes", "gauge", "What all engines together may take.")
TAKEN = Family("appliance_memory_taken_bytes", "gauge", "What engines hold or have been promised.")
GENERATION = Family("appliance_generation", "gauge", "The generation of the file that is wanted.")
OBSERVED = Family(
    "appliance_observed_generation", "gauge", "The latest generation acted upon; behind while a pass is due."
)
FILE_VALID = Family("appliance_file_valid", "gauge", "0 where the file cannot be used and what runs stays as it is.")
SCRAPED = Family(
    "appliance_engine_scrape_success",
    "gauge",
    "1 where the engine's own metrics are on this page, 0 where it did not give them in time.",
    ("model",),
)
BUILD = Family("appliance_build_info", "gauge", "Always 1; the versions are in the labels.", ("version", "python"))

FAMILIES = (
    REQUESTS,
    ERRORS,
    LIMITED,
    PROMPT_TOKENS,
    COMPLETION_TOKENS,
    DURATION,
    FIRST_TOKEN,
    INTER_TOKEN,
    IN_FLIGHT,
    QUEUE_LENGTH,
    QUEUE_WAIT,
    HELD,
    HOLD,
    DROPPED,
    RELOADS,
    ROLLOUTS,
    GENERATION,
    OBSERVED,
    FILE_VALID,
    READY,
    STATE,
    RESTARTS,
    MEMORY,
    BUDGET,
    TAKEN,
    SCRAPED,
    BUILD,
)
