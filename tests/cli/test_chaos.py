"""The self-test as a person runs it."""

from __future__ import annotations

import json

from tests.cli.conftest import Machine


def test_the_self_test_prints_what_was_lost_and_needs_no_file(machine: Machine) -> None:
    result = machine.run("chaos", "--duration", "1", "--clients", "2", "--seed", "3")
    assert result.returncode == 0, result.stderr
    _, failed, cut, wrong_model, *_ = result.stdout.split("\t")
    assert (failed, cut, wrong_model) == ("0", "0", "0")
    assert "seed 3" in result.stderr
    assert not machine.home.exists()


def test_the_self_test_runs_the_models_of_the_file(machine: Machine) -> None:
    machine.write()
    text = machine.file.read_text()
    result = machine.run("chaos", "--engine", "file", "--duration", "4", "--clients", "2", "--seed", "3", "--json")
    assert result.returncode == 0, result.stderr
    counted = json.loads(result.stdout)
    assert counted["dropped"] == 0
    assert counted["whole"] > 0
    assert counted["moves"]
    assert machine.file.read_text() == text
    assert list((machine.home / "history").iterdir()) == []


def test_an_unknown_engine_is_a_usage_error(machine: Machine) -> None:
    assert machine.run("chaos", "--engine", "nonsense").returncode == 2
