"""docs/reference/metrics.md, generated from the table of metrics.

`python -m appliance.gateway.metrics_reference --write` brings it up to date; `--check` fails where it is not.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from appliance import generated
from appliance.gateway.families import FAMILIES, Family

WRITE = "python -m appliance.gateway.metrics_reference --write"
PATH = "docs/reference/metrics.md"

_INTRODUCTION = """\
# Metrics

<!-- Generated from appliance/gateway/families.py by `{write}`; edit the help texts there. -->

`appliance up --metrics`, or `server.metrics: true` and `appliance restart`, serve these at `/metrics` for Prometheus:
as text, or as OpenMetrics where the scraper asks for it. Where there are keys, one with the scope `metrics` is needed.
[packaging/prometheus.yml](../../packaging/prometheus.yml) scrapes them, and
[packaging/grafana/appliance.json](../../packaging/grafana/appliance.json) is a dashboard of them.

The labels `model` and `key` have names from the file only, and are empty where a request came to neither. Counters are
kept in the control process and begin at 0 when it is restarted.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
{rows}

The usual `process_…` metrics of the control process are there too, and those of each engine that takes requests under
its own names, with a label `model`: `vllm:…` of vLLM (its
[documentation](https://docs.vllm.ai/en/latest/usage/metrics.html) describes them), `llamacpp:…` of llama.cpp. An
engine has two seconds and 4 MiB for them; one that does not give them leaves the rest of the page as it is.
"""


def outputs() -> Mapping[str, str]:
    return {PATH: markdown()}


def markdown() -> str:
    return _INTRODUCTION.format(write=WRITE, rows="\n".join(map(_row, FAMILIES)))


def _row(family: Family) -> str:
    name = f"`{family.series[0]}`" if family.kind != "histogram" else f"`{family.name}`"
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| {name} | {family.kind} | {labels} | {family.help} |"


def main(arguments: Sequence[str] | None = None) -> int:
    return generated.command("appliance.gateway.metrics_reference", __doc__, outputs, arguments)


if __name__ == "__main__":
    sys.exit(main())
