"""The Grafana dashboard and the scrape configuration that are shipped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.gateway.families import FAMILIES
from appliance.gateway.metrics_reference import main, markdown

PACKAGING = Path(__file__).parent.parent.parent / "packaging"
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"}
VLLM = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
}
"""tests/end_to_end/test_metrics.py looks for these in real vLLM."""
WORDS = {
    "by", "sum", "min", "max", "count", "rate", "increase", "changes", "histogram_quantile", "label_values",
    "le", "model", "key", "status", "code", "limit", "outcome", "state", "__rate_interval", "m", "h",
}  # fmt: skip


def dashboard() -> Any:
    return json.loads((PACKAGING / "grafana" / "appliance.json").read_text())


def expressions() -> Iterator[str]:
    found = dashboard()
    for panel in found["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (each["expr"] for each in found["annotations"]["list"])
    yield from (each["definition"] for each in found["templating"]["list"] if each["type"] == "query")


def metrics_in(expression: str) -> set[str]:
    """Every word that is neither PromQL's nor a label's, nor within quotes."""
    bare = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"[a-zA-Z_][\w:]*", bare)) - WORDS


def test_every_query_uses_metrics_that_exist() -> None:
    there = {series for family in FAMILIES for series in family.series} | PROCESS | VLLM
    asked = [metrics_in(expression) for expression in expressions()]
    assert len(asked) > 25
    assert all(asked)
    assert set().union(*asked) <= there


def test_every_label_in_a_query_is_one_of_its_metrics() -> None:
    labels = {series: {*family.labels, "le"} for family in FAMILIES for series in family.series}
    for expression in expressions():
        for clause in re.findall(r"by \(([^)]*)\)", expression):
            known = set().union(*(labels.get(name, {"model", "le"}) for name in metrics_in(expression)))
            assert {word.strip() for word in clause.split(",")} <= known, expression


def test_nearly_every_metric_is_on_the_dashboard() -> None:
    asked = set().union(*map(metrics_in, expressions()))
    unseen = {family.name for family in FAMILIES if not asked & set(family.series)}
    assert unseen == {"appliance_observed_generation", "appliance_engine_scrape_success", "appliance_build_info"}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_scrape_configuration_reads_our_page_with_a_key() -> None:
    (job,) = yaml.safe_load((PACKAGING / "prometheus.yml").read_text())["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["authorization"]["type"] == "Bearer"


def test_the_reference_is_up_to_date_and_the_check_can_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert "--write" in capsys.readouterr().err
    assert all(family.help in markdown() for family in FAMILIES)
