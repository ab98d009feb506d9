"""Real inputs, from Docker's documentation and from what people run, and exactly what becomes of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.migrate.golden import Case, all_cases, contents, run

CASES = all_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)
def test_the_command_prints_and_writes_exactly_this(case: Case, tmp_path: Path) -> None:
    assert case.outcome(tmp_path) == case.expected()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)
def test_what_is_written_is_valid_and_migrating_it_changes_nothing(case: Case, tmp_path: Path) -> None:
    for name, text in case.expected().items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "output.txt").unlink()
    written = contents(tmp_path)
    for name in written:
        folder = (tmp_path / name).parent
        if Path(name).name == "model-runner.yaml":
            assert run(["validate"], folder, {})[0] == 0
            assert run(["migrate", "model-runner.yaml"], folder, {})[0] == 0
        elif "appliance" in Path(name).name and not name.endswith(".bak"):
            code, printed = run(["migrate", Path(name).name, "--target", "m2-16gb", "--in-place"], folder, {})
            # An included file may have nothing left in it, and says so.
            assert code in (0, 4) or f"nothing in `{Path(name).name}` runs a model" in printed, printed
    assert contents(tmp_path) == written


@pytest.mark.parametrize("case", [case for case in CASES if case.writes], ids=lambda case: case.path.name)
def test_a_second_run_changes_nothing(case: Case, tmp_path: Path) -> None:
    shutil.copytree(case.path / "input", tmp_path, dirs_exist_ok=True)
    shutil.copytree(case.path / "expected", tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    stdin = before.get("stdin", "")
    run(case.arguments, tmp_path, case.environ, stdin)
    assert contents(tmp_path) == before


def test_there_are_cases_of_every_kind_of_outcome() -> None:
    assert len(CASES) >= 60
    codes = {re.findall(r"^exit (\d+)$", case.expected()["output.txt"], re.MULTILINE)[-1] for case in CASES}
    assert codes == {"0", "1", "4"}


def test_a_failed_migration_writes_nothing() -> None:
    failed = [case for case in CASES if case.expected()["output.txt"].endswith("exit 1\n")]
    assert failed
    for case in failed:
        assert list(case.expected()) == ["output.txt"], case.path.name
