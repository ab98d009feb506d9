"""Every profile that ships is valid beneath a file with one model, and says why each key is as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config.load import interpret
from appliance.config.profiles import profile_names, shipped_profiles
from appliance.engines import DRIVERS, driver_for
from appliance.migrate.target import GIB, named
from appliance.reconcile.resolve import backend_of

NAMES = (
    "agent",
    "apple-silicon-128gb",
    "apple-silicon-16gb",
    "apple-silicon-32gb",
    "apple-silicon-64gb",
    "apple-silicon-8gb",
    "demo",
    "linux-cpu",
    "linux-cuda",
)


def test_these_profiles_ship() -> None:
    assert profile_names() == tuple(sorted(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_valid_beneath_a_file(name: str) -> None:
    text = f"version: 1\nprofile: {name}\nmodels:\n  agent: {{source: ./weights}}\n"  # `agent` brings its own model
    loaded = interpret(text, Path("model-runner.yaml"), environ={}, backends=frozenset(DRIVERS))
    (model,) = loaded.appliance.models.values()
    driver = driver_for(backend_of(model, loaded.appliance), loaded.appliance)
    assert list(driver.check(model.engine)) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_a_profile_has_a_comment(name: str) -> None:
    lines = (shipped_profiles() / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    settings = [line for line in lines if ": " in line and not line.lstrip().startswith("#")]
    commented = [line for line in settings if " # " in line]
    assert len(settings) - len(commented) <= 1, [line for line in settings if line not in commented]
    assert all(len(line) <= 124 for line in lines)


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_the_profile_of_a_size_has_the_budget_that_migrations_for_it_have(size: int) -> None:
    target = named(f"m2-{size}gb")
    text = f"version: 1\nprofile: {target.profile}\nmodels:\n  a: {{source: ./weights}}\n"
    budget = interpret(text, Path("model-runner.yaml"), environ={}).appliance.memory.budget
    assert target.profile == f"apple-silicon-{size}gb"
    assert target.memory == size * GIB
    assert budget == pytest.approx(target.share)
