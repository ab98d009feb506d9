"""`bench` against an engine whose delays are known. Delays are compared with each other, never with a clock."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cli.conftest import Machine, Result
from tests.support import fake_engine, free_port, wait_until


@contextmanager
def engine(*flags: str, key: str = "") -> Iterator[str]:
    port = free_port()
    with fake_engine(*flags, port=port, key=key):
        yield f"http://127.0.0.1:{port}"


def bench(machine: Machine, url: str, *arguments: str) -> tuple[Result, dict[str, Any]]:
    """What it printed, and its file."""
    path = machine.directory / "result.json"
    path.unlink(missing_ok=True)
    short = ("--input-len", "12", "--output-len", "6")
    result = machine.run("bench", "--url", url, "--json", str(path), *short, *arguments)
    return result, json.loads(path.read_text()) if path.exists() else {}


def test_every_level_has_its_requests_lengths_and_gaps(machine: Machine) -> None:
    with engine("--events", "50") as url:
        result, found = bench(machine, url, "--concurrency", "1,3", "--requests", "7", "--prefix-len", "5")
    assert result.returncode == 0, result.stderr
    assert found["complete"] is True
    assert [run["max_concurrency"] for run in found["runs"]] == [1, 3]
    for run in found["runs"]:
        assert (run["completed"], run["failed"], run["num_prompts"]) == (7, 0, 7)
        assert set(run["input_lens"]) == {17}  # the prefix comes on top
        assert set(run["output_lens"]) == {6}
        assert run["total_output_tokens"] == 42
        assert {len(gaps) for gaps in run["itls"]} == {6}  # between the role's chunk and six words
        ends = [ttft + sum(gaps) for ttft, gaps in zip(run["ttfts"], run["itls"], strict=True)]
        assert run["mean_e2el_ms"] == pytest.approx(1000 * sum(ends) / len(ends))
        assert run["mean_tpot_ms"] == pytest.approx(1000 * sum(map(sum, run["itls"])) / len(ends) / 5)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:3] for row in rows] == [["1", "7", "0"], ["3", "7", "0"]]


def test_what_is_slow_is_what_the_figures_say_is_slow(machine: Machine) -> None:
    chosen = ("--concurrency", "1", "--requests", "2", "--endpoint", "openai")
    with engine("--first-event", "0.6", "--event-interval", "0.01") as url:
        late = bench(machine, url, *chosen)[1]["runs"][0]
    with engine("--event-interval", "0.2") as url:
        halting = bench(machine, url, *chosen)[1]["runs"][0]
    assert late["median_ttft_ms"] > 2 * halting["median_ttft_ms"]
    assert halting["median_itl_ms"] > 2 * late["median_itl_ms"]
    assert halting["median_tpot_ms"] > 2 * late["median_tpot_ms"]
    assert late["median_ttft_ms"] > late["median_e2el_ms"] / 2


def test_more_clients_get_more_out_of_an_engine_that_serves_them_at_once(machine: Machine) -> None:
    with engine("--event-interval", "0.1") as url:
        _, found = bench(machine, url, "--concurrency", "1,4", "--requests", "4")
    one, four = found["runs"]
    assert four["output_throughput"] > 1.5 * one["output_throughput"]
    assert one["duration"] > 1.5 * four["duration"]


def test_a_duration_ends_a_level_and_what_was_begun_is_read_to_its_end(machine: Machine) -> None:
    with engine("--event-interval", "0.02") as url:
        _, found = bench(machine, url, "--concurrency", "2", "--duration", "0.8")
    (run,) = found["runs"]
    assert run["completed"] == run["num_prompts"] >= 2
    assert set(run["output_lens"]) == {6}


def test_failed_requests_are_counted_named_and_an_exit_code(machine: Machine) -> None:
    with engine("--crash-after-events", "3") as url:
        result, found = bench(machine, url, "--concurrency", "1", "--requests", "3")
    assert result.returncode == 1
    assert (found["runs"][0]["completed"], found["runs"][0]["failed"]) == (0, 3)
    assert "failed: " in result.stderr


def test_an_interrupt_shows_what_there_is(machine: Machine) -> None:
    path = machine.directory / "result.json"
    with engine("--event-interval", "0.02") as url:
        command = [sys.executable, "-m", "appliance", "bench", "--url", url, "--json", str(path), "--duration", "300"]
        command += ["--output-len", "5", "--concurrency", "2,4"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: _stats(url)["finished"] >= 6, what="some are answered")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        wait_until(lambda: _stats(url)["running"] == 0, what="the others are called off")
    assert process.returncode == 130
    assert "interrupted" in stderr
    found = json.loads(path.read_text())
    (run,) = found["runs"]
    assert found["complete"] is False
    assert run["completed"] >= 4
    assert run["failed"] == 0
    assert stdout.split("\t")[:2] == ["2", str(run["completed"])]


def _stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/fake/stats") as answer:  # noqa: S310 - loopback
        stats: dict[str, Any] = json.load(answer)
    return stats


@pytest.mark.parametrize("url", ["http://192.0.2.1:8000", "http://example.com", "https://localhost.example.com"])
def test_no_other_machine_gets_a_load_unless_one_says_so(machine: Machine, url: str) -> None:
    result = machine.run("bench", "--url", url, "--model", "m")
    assert result.returncode == 1
    assert "--remote says that it is meant" in result.stderr


def test_the_key_comes_from_the_environment_or_a_file(machine: Machine) -> None:
    chosen = ("--concurrency", "1", "--requests", "1", "--model", "fake")
    file = machine.directory / "key"
    file.write_text("sk-right\n")
    with engine(key="sk-right") as url:
        refused, _ = bench(machine, url, *chosen)
        assert refused.returncode == 1
        assert "OPENAI_API_KEY" in refused.stderr
        assert bench(machine, url, *chosen, "--key-file", str(file))[0].returncode == 0
        machine.environ["OPENAI_API_KEY"] = "sk-right"
        result, found = bench(machine, url, *chosen)
        assert result.returncode == 0
        assert "sk-right" not in json.dumps(found) + result.stdout + result.stderr
        missing, _ = bench(machine, url, *chosen, "--key-file", "/nowhere")
        assert "cannot read the key" in missing.stderr


def test_the_running_appliance_and_its_only_model_are_the_default(machine: Machine) -> None:
    machine.write()
    machine.up()
    picture = machine.directory / "sweep.svg"
    arguments = ("--concurrency", "1,2", "--requests", "3", "--output-len", "4", "--plot", str(picture))
    result = machine.run("bench", *arguments, "--json", "-")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert [run["model_id"] for run in found["runs"]] == ["tiny", "tiny"]
    assert ET.parse(picture).getroot().tag.endswith("svg")  # noqa: S314 - our own file


def test_of_several_models_one_has_to_be_named(machine: Machine) -> None:
    machine.write(models="  one: {source: ./weights}\n  two: {source: ./weights, load: on_demand}")
    machine.up()
    result = machine.run("bench", "--requests", "1", "--concurrency", "1")
    assert result.returncode == 1
    assert "--model one | two" in result.stderr


def test_a_result_of_vllm_can_be_shown_beneath(machine: Machine) -> None:
    theirs = machine.directory / "vllm.json"
    run = {"max_concurrency": 8, "completed": 100, "failed": 0, "request_throughput": 3.5, "output_throughput": 448.0}
    for metric in ("ttft", "tpot", "itl"):
        run |= {
            f"mean_{metric}_ms": 2.0,
            f"median_{metric}_ms": 2.0,
            f"std_{metric}_ms": 0.1,
            f"p99_{metric}_ms": 250.0,
        }
    theirs.write_text(json.dumps(run))
    with engine() as url:
        result, _ = bench(machine, url, "--concurrency", "1", "--requests", "1", "--compare", str(theirs))
    last = result.stdout.splitlines()[-1].split("\t")
    assert last == ["8 *", "100", "0", "3.50", "448.0", *["2.0 / - / 250"] * 3, "- / - / -"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--concurrency", "1,none"), 2, "whole numbers with commas"),
        (("--concurrency", "0"), 2, "whole numbers with commas"),
        (("--endpoint", "tgi"), 2, "openai-chat or openai"),
        (("--requests", "1", "--duration", "1"), 2, "give one"),
        (("--url", "ftp://127.0.0.1"), 1, "no address to send a load to"),
        (("--url", "http://127.0.0.1:1"), 1, "does not list its models"),
        (("--url", "http://127.0.0.1:1", "--model", "m"), 1, "does not answer"),
        (("--url", "http://127.0.0.1:1", "--json", "/nowhere/r.json"), 1, "no directory"),
        (("--url", "http://127.0.0.1:1", "--compare", "/nowhere"), 1, "no result to compare with"),
        ((), 1, "no appliance is running"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    machine: Machine, arguments: tuple[str, ...], code: int, told: str
) -> None:
    result = machine.run("bench", *arguments)
    assert result.returncode == code
    assert told in " ".join(result.stderr.replace("│", " ").split())
