"""`appliance doctor` beside a real appliance."""

from __future__ import annotations

import json
import tarfile
from typing import Any

import httpx
import pytest

from tests.cli.conftest import Machine

MINE = {"machine", "memory", "disk", "clock"}
"""Checks whose outcome is this machine's own."""


def findings(machine: Machine, *flags: str) -> list[dict[str, Any]]:
    result = machine.run("doctor", "--json", "--quick", *flags)
    answer: list[dict[str, Any]] = json.loads(result.stdout)
    expected = 1 if any(finding["level"] == "problem" for finding in answer) else 0
    assert result.returncode == expected
    return [finding for finding in answer if finding["check"] not in MINE]


def test_a_401_is_explained_from_the_log(machine: Machine) -> None:
    machine.write()
    machine.run("key", "create", "laptop")
    assert machine.run("up", "-d").returncode == 0
    base = f"http://{machine.status()['address']}/v1/models"
    for headers in ({}, {"authorization": "Bearer wrong-key"}, {"authorization": "Basic d3Jvbmc6a2V5"}):
        assert httpx.get(base, headers=headers).status_code == 401
    causes = {finding["cause"] for finding in findings(machine) if finding["check"] == "access"}
    assert len(causes) == 3
    shown = machine.run("doctor", "--quick").stdout
    assert "ANTHROPIC_API_KEY" in shown
    assert "key list" in shown
    assert "Bearer" in shown
    assert "wrong-key" not in shown


def test_an_engine_that_failed_is_told_with_its_reason_and_without_its_secrets(machine: Machine) -> None:
    flags = ("--exit-at-start", "--exit-code", "3", "--say", "RuntimeError: no such kernel for hunter2hunter2")
    machine.write(*flags, models="  tiny: {source: ./weights, env: {PASSPHRASE: hunter2hunter2}}")
    machine.up()
    (finding,) = findings(machine)
    assert finding["check"] == "engine"
    assert "no such kernel for [redacted]" in finding["finding"]


def test_a_sound_machine_exits_zero_and_says_how_much_it_looked_at(machine: Machine) -> None:
    machine.write()
    assert findings(machine) == []
    assert "13 checks" in machine.run("doctor", "--quick").stderr


def test_a_file_with_a_problem_is_a_finding(machine: Machine) -> None:
    machine.file.write_text("models: {tiny: {sauce: ./weights}}\n")
    (finding,) = findings(machine)
    assert "sauce" in finding["finding"]


@pytest.mark.parametrize("broken", ["home", "home/history/000001.json", "home/models"])
def test_up_refuses_a_corrupt_state_directory_and_doctor_explains(machine: Machine, broken: str) -> None:
    machine.write()
    place = machine.directory / broken
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("?")
    refused = machine.run("up")
    assert refused.returncode == 1
    assert broken in refused.stderr
    assert "appliance doctor" in refused.stderr
    assert place.read_text() == "?", "nothing is repaired on a guess"
    (finding,) = findings(machine)
    assert broken in finding["finding"]


def test_the_bundle_is_written_where_it_is_asked_for(machine: Machine) -> None:
    machine.write()
    target = machine.directory / "report.tar.gz"
    result = machine.run("doctor", "--quick", "--bundle", "-o", str(target))
    assert str(target) in result.stderr
    assert target.stat().st_mode & 0o077 == 0
    with tarfile.open(target) as archive:
        names = archive.getnames()
    assert {"appliance-report/findings.json", "appliance-report/configuration.yaml"} <= {*names}
    nowhere = machine.run("doctor", "--quick", "-o", str(machine.directory / "missing" / "report.tar.gz"))
    assert nowhere.returncode == 1
    assert "cannot write" in nowhere.stderr
