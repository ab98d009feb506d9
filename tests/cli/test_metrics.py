"""The whole appliance's metrics, while engines come and go."""

from __future__ import annotations

import os
import signal
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.conftest import Machine
from tests.cli.test_reload import QUESTION
from tests.support import wait_until


def values(base: str) -> dict[tuple[str, ...], float]:
    """By name and label values."""
    with urllib.request.urlopen(f"{base}/metrics", timeout=30) as answer:  # noqa: S310
        families = [*text_string_to_metric_families(answer.read().decode())]
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_up_with_metrics_counts_reloads_restarts_and_nothing_dropped(machine: Machine) -> None:
    machine.write()
    base = machine.up("--metrics")
    assert values(base)["appliance_model_ready", "tiny"] == 1
    machine.write(models="  tiny: {source: ./weights, aliases: [another]}")
    wait_until(lambda: values(base)["appliance_generation",] == 2, what="the save is in force")
    machine.file.write_text("nonsense: true\n")
    wait_until(lambda: values(base)["appliance_reloads_total", "refused"] == 1, what="the garbage is refused")
    assert values(base)["appliance_file_valid",] == 0
    machine.write(models="  tiny: {source: ./weights}")
    wait_until(lambda: values(base)["appliance_file_valid",] == 1, what="the file is valid again")
    os.kill(machine.engine_pids()[0], signal.SIGKILL)
    wait_until(lambda: values(base)["appliance_engine_restarts_total", "tiny"] == 1, what="the crash is noticed")
    wait_until(lambda: values(base)["appliance_engine_state", "tiny", "ready"] == 1, what="it is up again")
    found = values(base)
    assert found["appliance_reloads_total", "applied"] == 2
    assert found["appliance_dropped_requests_total",] == 0
    assert found["appliance_engine_memory_bytes", "tiny"] > 0
    assert found["appliance_memory_budget_bytes",] > found["appliance_memory_taken_bytes",] > 0


def test_a_request_that_outlives_its_drain_timeout_is_counted_as_dropped(machine: Machine) -> None:
    model = "  tiny: {{source: ./weights, rollout: {{drain_timeout: 500ms, strategy: surge}}, env: {{V: '{}'}}}}"
    machine.write(models=model.format(1), server="port: 0, metrics: true")
    base = machine.up()
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(ask_for_ever, base)
        wait_until(lambda: values(base)["appliance_requests_in_flight", "tiny"] == 1, what="it runs")
        machine.write(models=model.format(2), server="port: 0, metrics: true")
        wait_until(lambda: values(base)["appliance_dropped_requests_total",] == 1, what="it is cut")
        assert "ended the connection" in stuck.result()


def ask_for_ever(base: str) -> str:
    with openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0, timeout=60) as sdk:
        stream = sdk.chat.completions.create(
            model="tiny", messages=QUESTION, stream=True, extra_body={"fake": {"stall_after": 1}}
        )
        try:
            list(stream)
        except openai.APIError as error:
            return str(error)
    return ""
