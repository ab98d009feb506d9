"""What requests add to the metrics, and the page that Prometheus reads.

prometheus_client is imported here, and this module only where metrics are on.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8
from starlette.types import Receive

from appliance.gateway import families
from appliance.gateway.access_log import CLIENT_GONE
from appliance.gateway.admission import Admission
from appliance.gateway.call import Call
from appliance.gateway.engine_metrics import merge, parse, scrape
from appliance.gateway.families import Family
from appliance.gateway.health import PATHS
from appliance.gateway.port import Port
from appliance.gateway.routes import Endpoint, Routes
from appliance.gateway.upstream import Upstream

CODES = 64
"""Codes of errors that get series of their own. The gateway has half as many; engines may make up others."""
OTHER = "other"
STATES = ("stopped", "starting", "ready", "draining", "stopping", "failed")


class Metrics:
    def __init__(self, port: Port, admission: Admission, upstream: Upstream, *, version: str) -> None:
        self._port = port
        self._admission = admission
        self._upstream = upstream
        self._version = version
        # When each series was made is of use to nobody, and half as many lines again.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = self._counter(families.REQUESTS)
        self._errors = self._counter(families.ERRORS)
        self._limited = self._counter(families.LIMITED)
        self._dropped = self._counter(families.DROPPED)()
        self._prompt = self._counter(families.PROMPT_TOKENS)
        self._completion = self._counter(families.COMPLETION_TOKENS)
        self._duration = self._histogram(families.DURATION)
        self._first_token = self._histogram(families.FIRST_TOKEN)
        self._inter_token = self._histogram(families.INTER_TOKEN)
        self._queue_wait = self._histogram(families.QUEUE_WAIT)
        self._hold = self._histogram(families.HOLD)
        self._codes: set[str] = set()

    def begun(self, call: Call) -> None:
        """Nothing is counted before the end."""

    def ended(self, call: Call) -> None:
        if call.path in PATHS:
            return
        model = call.model or ""
        key = call.key.name if call.key else ""
        self._requests(model, key, call.dialect, str(call.status or CLIENT_GONE)).inc()
        if call.error is not None:
            self._errors(model, self._code(call.error)).inc()
            self._dropped.inc(call.dropped)
        if call.limited is not None:
            self._limited(key, call.limited).inc()
        if call.waited:
            self._queue_wait(model).observe(call.waited)
        if call.held:
            self._hold(model).observe(call.held)
        if call.revision is not None:
            self._answered(call, model, key)

    async def close(self) -> None:
        """Nothing is open."""

    def _code(self, code: str) -> str:
        if code not in self._codes and len(self._codes) >= CODES:
            return OTHER
        self._codes.add(code)
        return code

    def _answered(self, call: Call, model: str, key: str) -> None:
        """An engine was asked."""
        now = perf_counter()
        self._duration(model).observe(now - call.started)
        if call.streaming and call.first_byte is not None:
            self._first_token(model).observe(call.first_byte - call.started)
        if call.usage is None:
            return
        self._prompt(model, key).inc(call.usage.prompt)
        self._completion(model, key).inc(call.usage.completion)
        if call.streaming and call.first_byte is not None and call.usage.completion > 1:
            self._inter_token(model).observe((now - call.first_byte) / (call.usage.completion - 1))

    def routes(self) -> Routes:
        return {"/metrics": {"GET": Endpoint(self._answer, scope="metrics")}}

    async def _answer(self, call: Call, _: Receive) -> None:
        pages = await scrape(self._upstream, self._port.routing().routes)
        accept = call.headers.get(b"accept", b"").decode("latin-1")
        # Parsing what engines say takes longer than an event may wait.
        body, content_type = await asyncio.to_thread(self._page, [*self._state()], pages, accept)
        headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
        await call.answer(200, headers, body)

    def _page(self, state: Iterable[Metric], pages: Mapping[str, str | None], accept: str) -> tuple[bytes, str]:
        parsed = parse(pages)
        scraped = _gauge(families.SCRAPED, _by_name((name, found is not None) for name, found in parsed.items()))
        encoder, content_type = choose_encoder(accept)
        page = _Page([*state, scraped, *self._registry.collect(), *merge(parsed)])
        # Every name here is a plain one, and so in no need of escaping: prometheus_client 0.26 would write the colon of
        # `vllm:` as `_` in OpenMetrics' samples, and not in their families.
        return encoder(page, escaping=ALLOWUTF8), content_type  # type: ignore[call-arg]

    def _state(self) -> Iterator[Metric]:
        """What others know, as it is now. To be read on the event loop, where it changes."""
        status = self._port.status()
        models = {model["name"]: model for model in status["models"]}
        nobody = dict.fromkeys(models, 0)
        states: Values = {(name, state): model["state"] == state for name, model in models.items() for state in STATES}
        yield _gauge(families.BUILD, {(self._version, platform.python_version()): 1})
        yield _gauge(families.IN_FLIGHT, _by_name((name, _in_flight(model)) for name, model in models.items()))
        yield _gauge(families.QUEUE_LENGTH, _by_name((nobody | dict(self._admission.waiting())).items()))
        yield _gauge(families.HELD, _by_name((nobody | self._admission.holding).items()))
        yield _total(families.RELOADS, _by_name(status["reloads"].items()))
        yield _total(families.ROLLOUTS, _by_name(status["rollouts"].items()))
        yield _gauge(families.GENERATION, {(): status["generation"]})
        yield _gauge(families.OBSERVED, {(): status["observed_generation"]})
        yield _gauge(families.FILE_VALID, {(): status["problem"] is None})
        yield _gauge(families.READY, _by_name((name, model["ready"]) for name, model in models.items()))
        yield _gauge(families.STATE, states)
        yield _total(families.RESTARTS, _by_name((name, model["restarts"]) for name, model in models.items()))
        yield _gauge(families.MEMORY, _by_name((name, _memory(model)) for name, model in models.items()))
        yield _gauge(families.BUDGET, {(): status["memory"]["budget"] or 0})
        yield _gauge(families.TAKEN, {(): status["memory"]["taken"]})

    def _counter(self, family: Family) -> Callable[..., Counter]:
        # Looking a child up by its labels is half the cost of counting with it.
        whole = Counter(family.name, family.help, family.labels, registry=self._registry)
        return cache(whole.labels) if family.labels else lambda: whole

    def _histogram(self, family: Family) -> Callable[..., Histogram]:
        whole = Histogram(family.name, family.help, family.labels, buckets=family.buckets, registry=self._registry)
        return cache(whole.labels)


class _Page:
    """What an encoder takes for a registry."""

    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


Values = Mapping[tuple[str, ...], float]
"""Values by their labels."""


def _gauge(family: Family, values: Values) -> Metric:
    metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in values.items():
        metric.add_metric(labels, value)
    return metric


def _total(family: Family, values: Values) -> Metric:
    metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in values.items():
        metric.add_metric(labels, value)
    return metric


def _by_name(pairs: Iterable[tuple[str, float]]) -> dict[tuple[str, ...], float]:
    return {(name,): value for name, value in pairs}


def _in_flight(model: Mapping[str, Any]) -> int:
    return sum(engine["in_flight"] for engine in model["engines"])


def _memory(model: Mapping[str, Any]) -> int:
    return sum(engine["memory"] or 0 for engine in model["engines"])
