"""The engines' own metrics, fetched over their sockets and labelled with the model's name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping

import structlog
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from appliance.gateway.connection import EngineGone
from appliance.gateway.proxy import address, read_all
from appliance.gateway.upstream import Upstream
from appliance.routing import Route

TIMEOUT = 2.0
"""Seconds for all engines together; Prometheus itself gives up after ten."""
LIMIT = 4 * 1024 * 1024
"""Bytes of one engine's page. vLLM's has 72 KB."""


_OWN = re.compile(r"[a-zA-Z_]\w*:[\w:]+", re.ASCII)


async def scrape(upstream: Upstream, routes: Mapping[str, Route | None]) -> dict[str, str | None]:
    """The page of every model that is ready, all at once; None for an engine that did not give it."""
    ready = [route for route in routes.values() if route is not None]
    pages = await asyncio.gather(*(_fetch(upstream, route) for route in ready))
    return {route.model: page for route, page in zip(ready, pages, strict=True)}


async def _fetch(upstream: Upstream, route: Route) -> str | None:
    head = b"GET /metrics HTTP/1.1\r\nhost: engine\r\naccept: text/plain\r\nauthorization: Bearer %b\r\n\r\n"
    try:
        async with asyncio.timeout(TIMEOUT):
            connection = await upstream.request(address(route), head % route.key.encode(), b"")
            try:
                page = await read_all(connection, LIMIT)
                return page.decode("utf-8", "replace") if connection.complete and connection.status == 200 else None
            finally:
                connection.release()
    except (EngineGone, TimeoutError):
        return None


def parse(pages: Mapping[str, str | None]) -> dict[str, list[Metric] | None]:
    """Each model's families; None where there is no page, or none that can be read. Takes 10 ms for one of vLLM's."""
    return {model: None if page is None else _parsed(model, page) for model, page in pages.items()}


def merge(parsed: Mapping[str, list[Metric] | None]) -> list[Metric]:
    """One family for all engines, its samples told apart by `model`."""
    found: dict[str, Metric] = {}
    for model, families in parsed.items():
        for family in families or ():
            whole = found.setdefault(family.name, Metric(family.name, family.documentation, family.type, family.unit))
            if whole.type == family.type:
                whole.samples += [_labelled(sample, model) for sample in family.samples]
    return [*found.values()]


def _parsed(model: str, page: str) -> list[Metric] | None:
    try:
        return [*_own(page)]
    except ValueError as error:
        log = structlog.get_logger("gateway")
        log.warning("an engine's metrics cannot be read", model=model, problem=str(error)[:200])
        return None


def _own(page: str) -> Iterator[Metric]:
    """The families of the engine itself: vLLM, llama.cpp and SGLang prefix theirs with their name and a colon.

    The others are those of its process and its web server, which any process has and ours too. `_created` series are
    times in the shape of values, and clash with the OpenMetrics format.
    """
    for family in text_string_to_metric_families(page):
        if _OWN.fullmatch(family.name) and not family.name.endswith("_created"):
            yield family


def _labelled(sample: Sample, model: str) -> Sample:
    return sample._replace(labels={**sample.labels, "model": model}, timestamp=None, exemplar=None)
