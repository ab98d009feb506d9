"""The commands that need no running appliance."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import Machine


def test_version_is_one_line_on_stdout(machine: Machine) -> None:
    result = machine.run("--version")
    assert result.stdout.split() == ["appliance", "0.1.0"]


def test_the_version_imports_none_of_what_the_server_needs() -> None:
    show = (
        "import sys; sys.argv=['appliance','--version']; import appliance.__main__ as m; m.main(); print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "starlette", "aiohttp", "typer", "rich", "yaml"} & set(modules)


@pytest.mark.parametrize(
    "command", ["up", "down", "status", "logs", "validate", "config", "explain", "pull", "env", "key"]
)
def test_every_command_explains_itself(machine: Machine, command: str) -> None:
    result = machine.run(command, "--help")
    assert result.returncode == 0
    assert "Usage:" in result.stdout


def test_a_wrong_flag_is_a_usage_error(machine: Machine) -> None:
    assert machine.run("up", "--no-such-flag").returncode == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a device that is always full")
def test_a_full_disk_is_said_to_be_full_and_is_no_bug(machine: Machine) -> None:
    machine.write()
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        result = subprocess.run(
            [sys.executable, "-m", "appliance", "config"],
            cwd=machine.directory,
            env={**machine._env(), "PYTHONUNBUFFERED": "1"},  # so that the write fails where it is made
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 1
    assert "error: the disk is full" in result.stderr


def test_a_broken_file_is_refused_with_its_position(machine: Machine) -> None:
    machine.file.write_text("version: 1\nmodels:\n  tiny:\n    sorce: ./weights\n")
    result = machine.run("validate")
    assert result.returncode == 1
    assert "model-runner.yaml:4:5" in result.stderr
    assert "did you mean `source`" in result.stderr


def test_a_source_that_nothing_could_fetch_is_refused_where_it_stands(machine: Machine) -> None:
    machine.file.write_text(
        "models:\n  a: {source: 'docker:ai/smollm2'}\n  b:\n    source: ./weights\n"
        "    adapters: [{name: c, source: 'https://example.org/c.gguf'}]\n"
    )
    result = machine.run("validate")
    assert result.returncode == 1
    assert "model-runner.yaml:2:15: models.a.source" in result.stderr
    assert "write `oci:ai/smollm2`" in result.stderr
    assert "model-runner.yaml:5:34: models.b.adapters[0].source" in result.stderr


def test_an_argument_that_vllm_does_not_have_is_refused_before_anything_starts(machine: Machine) -> None:
    machine.file.write_text("models:\n  tiny:\n    source: ./weights\n    engine:\n      max_model_length: 5\n")
    result = machine.run("validate")
    assert result.returncode == 1
    assert "model-runner.yaml:5:" in result.stderr
    assert "did you mean `max_model_len`" in result.stderr


def test_config_prints_what_is_in_force_and_it_is_valid_again(machine: Machine) -> None:
    machine.write()
    shown = machine.run("config")
    assert shown.returncode == 0, shown.stderr
    machine.file.write_text(shown.stdout)
    assert machine.run("config").stdout == shown.stdout


def test_explain_names_who_set_a_value_and_whom_that_overrode(machine: Machine) -> None:
    machine.write(server="port: 8123")
    machine.environ["PORT"] = "9000"
    result = machine.run("explain", "server.port", "--json")
    answer = json.loads(result.stdout)
    assert answer["value"] == 9000
    assert "PORT" in answer["origin"]
    assert "model-runner.yaml:2" in json.dumps(answer["shadowed"])


def test_asking_an_appliance_that_is_not_running_says_how_to_start_one(machine: Machine) -> None:
    for command in ("status", "ps", "down"):
        result = machine.run(command)
        assert result.returncode == 1
        assert "appliance up -d" in result.stderr


def test_a_missing_file_says_which_and_what_to_do(machine: Machine) -> None:
    result = machine.run("up")
    assert result.returncode == 1
    assert "model-runner.yaml" in result.stderr


@pytest.mark.parametrize("command", [("create", "laptop"), ("revoke", "laptop")])
def test_a_key_for_a_compose_file_is_refused_with_what_to_do(machine: Machine, command: tuple[str, str]) -> None:
    text = "services: {app: {image: app, models: [llm]}}\nmodels: {llm: {model: ai/smollm2}}\n"
    (machine.directory / "compose.yaml").write_text(text)
    result = machine.run("key", *command, "-f", "compose.yaml")
    assert result.returncode == 1
    assert "`compose.yaml` is a Compose file, which has no place for keys" in result.stderr
    assert "`appliance migrate compose.yaml`" in result.stderr
    assert (machine.directory / "compose.yaml").read_text() == text


def test_revoking_a_key_keeps_the_rest_of_the_file_as_it_was(machine: Machine) -> None:
    machine.write(more="# a remark at the end\n")
    before = machine.file.read_text()
    machine.run("key", "create", "laptop")
    result = machine.run("key", "revoke", "laptop")
    assert result.returncode == 0, result.stderr
    assert "# a remark at the end" in machine.file.read_text()
    assert "laptop" not in machine.file.read_text()
    assert before.splitlines()[0] == machine.file.read_text().splitlines()[0]


def test_pull_and_models_show_what_is_on_this_machine(machine: Machine) -> None:
    machine.write()
    assert machine.run("pull").stdout.split() == ["tiny", str(machine.directory / "weights")]
    (row,) = json.loads(machine.run("models", "--json").stdout)
    assert row["present"] is True
