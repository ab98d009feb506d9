"""The Homebrew formula, evaluated by Ruby with stand-ins for the words that Homebrew documents."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import homebrew, lock
from tools.lock import ROOT

FORMULA = ROOT / "HomebrewFormula" / "appliance.rb"
RUBY = shutil.which("ruby")

pytestmark = pytest.mark.skipif(RUBY is None and "CI" not in os.environ, reason="needs Debian's ruby")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("homebrew")
    (prefix / "bin").mkdir()
    (prefix / "bin" / "appliance").symlink_to(Path(sys.executable).parent / "appliance")
    return prefix


@pytest.fixture(scope="module")
def said(prefix: Path) -> dict[str, Any]:
    """What the formula says; its own test block has passed by then."""
    script = Path(__file__).with_name("formula.rb")
    environ = {**os.environ, "PREFIX": str(prefix), "CHECKOUT": str(ROOT), "APPLIANCE_HOME": str(prefix / "home")}
    result = subprocess.run(
        [str(RUBY), str(script), str(FORMULA), str(ROOT / "Brewfile")],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.mark.parametrize("path", [FORMULA, ROOT / "Brewfile"])
def test_ruby_accepts_it(path: Path) -> None:
    result = subprocess.run([str(RUBY), "-wc", str(path)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_formula_is_what_the_template_and_the_lock_give() -> None:
    assert FORMULA.read_text() == homebrew.render()


def test_a_release_takes_its_place_in_it() -> None:
    text = homebrew.render('  url "https://example.org/a.tar.gz"\n  sha256 "00"\n')
    assert text.index('url "https://example.org/a.tar.gz"') < text.index("license")


def test_its_resources_are_the_locks_source_distributions(said: dict[str, Any]) -> None:
    needed = {pin.name: pin for pin in lock.read() if lock.applies(pin, python=homebrew.PYTHON, platform="darwin")}
    assert said["resources"].keys() == needed.keys()
    for name, resource in said["resources"].items():
        assert resource == {"url": needed[name].sdist, "sha256": needed[name].hashes[0]}
        assert re.fullmatch(r"https://files\.pythonhosted\.org/packages/.*\.(tar\.gz|zip)", resource["url"])
        assert re.fullmatch(r"[0-9a-f]{64}", resource["sha256"])


def test_the_service_runs_a_command_that_exists_on_a_file_that_is_installed(said: dict[str, Any]) -> None:
    service = said["service"]
    program, command, flag, file = service["run"]
    assert file in said["installed"]
    assert Path(service["working_dir"]) == Path(file).parent
    assert service["keep_alive"] == {"successful_exit": False}
    assert service["process_type"] == "interactive"
    assert service["environment_variables"].keys() == {"PATH"}
    usage = subprocess.run([program, command, "--help"], capture_output=True, text=True, check=True).stdout
    assert flag in usage


def test_its_test_block_ran_the_installed_command(said: dict[str, Any], prefix: Path) -> None:
    assert len(said["ran"]) == 6  # three of them for completions
    assert all(command.startswith(f"{prefix}/bin/appliance ") for command in said["ran"])


def test_it_installs_the_completions_of_three_shells(said: dict[str, Any]) -> None:
    assert said["completions"].keys() == {"bash", "zsh", "fish"}
    assert all("_APPLIANCE_COMPLETE" in script for script in said["completions"].values())


def test_it_builds_what_was_tapped(said: dict[str, Any]) -> None:
    assert said["head"]["url"] == f"file://{ROOT}"
    assert said["using"] in said["depends_on"]


def test_the_brewfile_taps_the_checkout_and_starts_the_service(said: dict[str, Any]) -> None:
    tap, brew = said["brewfile"]
    assert tap == ["tap", "appliance/local", str(ROOT)]
    assert brew == ["brew", "appliance/local/appliance", {"args": ["HEAD"], "restart_service": "changed"}]


def test_the_lock_holds_what_the_project_asks_for() -> None:
    assert [*lock.problems(lock.read(), lock.TESTED.read_text())] == [], "run `make lock`"


def test_the_lock_reads_as_it_was_written() -> None:
    assert lock.render(lock.read()) == lock.LOCK.read_text()
