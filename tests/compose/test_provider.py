"""What Compose sees: JSON lines on stdout, an exit status, and variables for the services that depend on this one."""

from __future__ import annotations

import json
import os
from typing import Any

import openai
import pytest

from appliance.compose.protocol import metadata, variables
from tests.cli.conftest import Machine, Result
from tests.cli.test_reload import QUESTION


def provider(machine: Machine, *arguments: str, project: str = "shop") -> Result:
    """As Compose calls it: options as `--name=value`, the service last."""
    return machine.run("compose", f"--project-name={project}", *arguments)


def said(result: Result) -> list[tuple[str, str]]:
    messages = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(message.keys() == {"type", "message"} for message in messages)
    return [(message["type"], message["message"]) for message in messages]


def environment(result: Result) -> dict[str, str]:
    """Compose splits at the first `=`."""
    return dict(message.split("=", 1) for kind, message in said(result) if kind == "setenv")


def test_up_starts_the_appliance_and_says_where_its_models_are(machine: Machine) -> None:
    machine.write()
    result = provider(machine, "up", "--model=tiny", "llm")
    assert result.returncode == 0, result.stdout
    assert result.stderr == ""
    assert any(kind == "info" for kind, _ in said(result))
    status = machine.status()
    port = status["address"].rpartition(":")[2]
    assert environment(result) == {"URL": f"http://host.docker.internal:{port}/v1", "MODEL": "tiny"}
    with openai.OpenAI(base_url=f"http://{status['address']}/v1", api_key="none") as sdk:
        # A container's request carries the name that it used.
        headers = {"host": f"host.docker.internal:{port}"}
        assert sdk.chat.completions.create(model="tiny", messages=QUESTION, extra_headers=headers).choices

    again = provider(machine, "up", "--model=tiny", "llm")
    assert environment(again) == environment(result), "Compose asks for the same variables each time"
    assert machine.status()["pid"] == status["pid"]


def test_the_last_service_to_go_stops_what_compose_started(machine: Machine) -> None:
    machine.write()
    provider(machine, "up", "--model=tiny", "llm")
    provider(machine, "up", "--model=gpt-test", "assistant", project="other")
    assert provider(machine, "down", "llm").returncode == 0
    assert machine.status()["ready"]
    last = provider(machine, "down", "assistant", project="other")
    assert last.returncode == 0
    assert machine.run("status").returncode == 1
    assert provider(machine, "down", "assistant", project="other").returncode == 0


def test_an_appliance_that_ran_before_runs_on(machine: Machine) -> None:
    machine.write()
    machine.up()
    result = provider(machine, "up", "--model=tinny", "llm")
    assert result.returncode == 1
    kind, message = said(result)[-1]
    assert kind == "error"
    assert "`tinny`" in message
    assert "gpt-test, tiny" in message
    other = machine.directory / "other.yaml"
    other.write_text(machine.file.read_text())
    refused = provider(machine, "up", f"--file={other}", "llm")
    assert refused.returncode == 1
    assert str(machine.file) in said(refused)[-1][1]
    assert provider(machine, "down", "llm").returncode == 0
    assert machine.status()["ready"]


def test_a_model_that_does_not_start_is_an_error_with_its_reason(machine: Machine) -> None:
    machine.write("--exit-at-start", "--exit-code", "3", "--say", "RuntimeError: no such kernel")
    result = provider(machine, "up", "llm")
    assert result.returncode == 1
    assert "no such kernel" in said(result)[-1][1]


def test_a_file_with_a_problem_is_an_error_and_nothing_runs(machine: Machine) -> None:
    machine.file.write_text("models: {tiny: {sauce: ./weights}}\n")
    result = provider(machine, "up", "llm")
    assert result.returncode == 1
    assert "sauce" in said(result)[-1][1]
    assert machine.run("status").returncode == 1


def test_a_broken_record_is_an_error_rather_than_a_guess(machine: Machine) -> None:
    machine.write()
    machine.home.mkdir()
    (machine.home / "compose.json").write_text("{")
    result = provider(machine, "down", "llm")
    assert result.returncode == 1
    assert "compose.json" in said(result)[-1][1]


def test_a_service_of_an_on_demand_model_waits_for_nothing(machine: Machine) -> None:
    machine.write(models="  tiny: {source: ./weights, load: on_demand}")
    assert environment(provider(machine, "up", "llm"))["MODEL"] == "tiny"
    assert machine.engine_pids() == []


@pytest.mark.parametrize(
    ("address", "host", "url"),
    [
        ("127.0.0.1:8000", None, "http://host.docker.internal:8000/v1"),
        ("0.0.0.0:8000", None, "http://host.docker.internal:8000/v1"),
        ("172.17.0.1:8000", None, "http://172.17.0.1:8000/v1"),
        ("127.0.0.1:8000", "10.0.2.2", "http://10.0.2.2:8000/v1"),
    ],
)
def test_containers_get_an_address_that_they_reach(address: str, host: str | None, url: str) -> None:
    assert variables(address, ["a", "b"], host=host) == {"URL": url, "MODEL": "a,b"}


def test_the_metadata_names_every_option_that_up_takes(machine: Machine) -> None:
    shown: dict[str, Any] = json.loads(machine.run("compose", "metadata").stdout)
    assert shown == metadata()
    usage = machine.run("compose", "up", "--help").stdout
    for parameter in shown["up"]["parameters"]:
        assert parameter.keys() >= {"name", "description", "required", "type"}
        assert f"--{parameter['name']}" in usage
    assert os.fspath(machine.home)  # nothing was prepared for it
    assert not machine.home.exists()
