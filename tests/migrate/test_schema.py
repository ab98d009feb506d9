"""Migrations of the file's own format, proved with a directory of migrations that exists for this test alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config.problems import InvalidConfig
from appliance.config.validation import version_problem
from appliance.errors import ConfigError
from appliance.migrate.schema import current_version, steps, upgrade
from tests.migrate.golden import run

EXAMPLE = Path(__file__).parent / "schema"
OLD = """\
# mine
version: 1   # the first
engines:     # they were called so
  smollm2:
    from: ./weights   # where they are
"""
NEW = """\
# mine
version: 3   # the first
models:     # they were called so
  smollm2:
    source: ./weights   # where they are
"""


def test_there_is_one_version_and_no_invented_history() -> None:
    assert current_version() == 1
    assert steps() == ()


def test_an_old_file_goes_through_every_version_and_keeps_its_comments() -> None:
    done = upgrade(OLD, "model-runner.yaml", available=steps(EXAMPLE), current=3)
    assert done.text == NEW
    assert (done.before, done.after) == (1, 3)
    assert [step.summary for step in done.steps] == ["`engines` is called `models`.", "`from` is called `source`."]


def test_a_file_at_the_current_version_is_left_alone() -> None:
    done = upgrade(NEW, "model-runner.yaml", available=steps(EXAMPLE), current=3)
    assert done.text == NEW
    assert done.steps == ()


def test_a_second_upgrade_changes_nothing() -> None:
    once = upgrade(OLD, "f", available=steps(EXAMPLE), current=3)
    assert upgrade(once.text, "f", available=steps(EXAMPLE), current=3).text == once.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 4\nmodels: {}\n", "is at version 4; this appliance writes 3"),
        ("version: 0\nmodels: {}\n", "not a whole number above 0"),
        ("version: one\nmodels: {}\n", "not a whole number above 0"),
        ("version: true\nmodels: {}\n", "not a whole number above 0"),
    ],
)
def test_a_version_that_is_none_of_ours_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        upgrade(text, "f", available=steps(EXAMPLE), current=3)


def test_a_gap_between_versions_is_said() -> None:
    with pytest.raises(ConfigError, match="at version 3, and no migration starts from it"):
        upgrade(OLD, "f", available=steps(EXAMPLE), current=4)


def test_text_that_is_no_yaml_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidConfig, match="f:3:"):
        upgrade("version: 1\nmodels: [\n", "f", available=(), current=1)


def test_a_migration_that_does_not_do_its_work_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "m0001_lazy.py").write_text(
        '"""Does nothing."""\n\n\ndef migrate(text: str) -> str:\n    return text\n'
    )
    with pytest.raises(ConfigError, match="m0001_lazy did not bring `f` to version 2"):
        upgrade(OLD, "f", available=steps(tmp_path), current=2)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m0001_nothing.py", "x = 1\n"),
        ("m1_short.py", '"""Named wrongly."""\n\n\ndef migrate(text):\n    return text\n'),
    ],
)
def test_a_module_of_another_form_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        steps(tmp_path)


def test_the_loader_names_the_command_for_an_old_version_and_only_for_one() -> None:
    assert version_problem(2, current=3) == (
        "2 is an older form of the file, and this appliance reads version 3",
        "`appliance migrate FILE` rewrites it and keeps its comments",
    )
    assert version_problem(4, current=3)[1] == "upgrade the appliance"
    assert version_problem(0, current=3)[0] == "there is no version 0"


def test_the_command_leaves_a_current_file_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "model-runner.yaml"
    file.write_text("version: 1   # current\nmodels:\n  a: {source: ./weights}\n")
    before = file.read_text()
    code, printed = run(["migrate", "model-runner.yaml"], tmp_path, {})
    assert (code, file.read_text()) == (0, before)
    assert "at version 1 already" in printed
    assert not (tmp_path / "model-runner.yaml.bak").exists()
