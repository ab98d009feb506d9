from __future__ import annotations

import json

from tests.cli.conftest import Machine
from tests.support import wait_until


def test_the_plan_of_a_file_in_force_is_empty(machine: Machine) -> None:
    machine.write()
    machine.up()
    result = machine.run("plan", "--detailed-exitcode")
    assert result.returncode == 0, result.stderr
    assert "nothing to do" in result.stderr


def test_the_plan_names_each_change_its_cost_and_the_memory_and_does_nothing(machine: Machine) -> None:
    machine.write()
    machine.up("--no-watch")
    pids = machine.engine_pids()
    machine.write("--events", "3", models="  tiny: {source: ./weights, aliases: [new], env: {TOKEN: hunter2}}")
    result = machine.run("plan", "--json", "--detailed-exitcode")
    assert result.returncode == 2
    answer = json.loads(result.stdout)
    costs = {change["path"]: change["cost"] for change in answer["changes"]}
    assert costs == {"models.tiny.aliases": "live", "models.tiny.env": "restart", "backends.fake.command": "restart"}
    assert [action["action"] for action in answer["actions"]] == ["start"]
    assert answer["memory"]["now"] <= answer["memory"]["peak"] <= answer["memory"]["budget"]
    assert "hunter2" not in result.stdout
    assert machine.engine_pids() == pids
    assert machine.status()["generation"] == 1


def test_the_plan_of_a_removed_model_drains_it(machine: Machine) -> None:
    machine.write(models="  tiny: {source: ./weights}\n  other: {source: ./weights}")
    machine.up("--no-watch")
    machine.write(models="  tiny: {source: ./weights}")
    answer = json.loads(machine.run("plan", "--json").stdout)
    assert [(action["action"], action["model"]) for action in answer["actions"]] == [("drain", "other")]


def test_a_broken_file_has_no_plan(machine: Machine) -> None:
    machine.write()
    machine.up()
    machine.file.write_text("models: 3")
    wait_until(lambda: machine.run("plan").returncode == 1, what="the problem is told")
    assert "model-runner.yaml:1" in machine.run("plan").stderr


def test_without_an_appliance_the_plan_is_what_up_would_do(machine: Machine) -> None:
    machine.write()
    result = machine.run("plan", "--json")
    assert [action["model"] for action in json.loads(result.stdout)["actions"]] == ["tiny"]
