"""Reads the metrics page with Prometheus' own parsers."""

from __future__ import annotations

from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.gateway.served import Served

SCRAPER = {"authorization": "Bearer sk-scraper"}
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"


def page(served: Served, accept: str = "text/plain") -> dict[str, Metric]:
    answer = served.ask("GET", "/metrics", headers={**SCRAPER, "accept": accept})
    assert answer.status == 200, answer.content
    parse = parse_openmetrics if "openmetrics" in answer.headers["content-type"] else parse_text
    return {family.name: family for family in parse(answer.content.decode())}


def value(served: Served, name: str, **labels: str) -> float:
    """The sum of the samples of this name that have these labels."""
    samples = [sample for family in page(served).values() for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())
