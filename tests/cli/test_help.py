"""What `--help` shows is what the commands say: nothing of it is taken for markup and lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from appliance.cli.app import app


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_word_of_a_help_text_is_shown(path: tuple[str, ...]) -> None:
    command = ALL[path]
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "400", "TERM": "dumb"})
    assert result.exit_code == 0
    shown = " ".join(result.output.replace("│", " ").split())
    for parameter in command.params:
        assert " ".join((parameter.help or "").split()) in shown, parameter.name
        if isinstance(default := getattr(parameter, "show_default", None), str):
            assert f"[default: ({default})]" in shown
    for paragraph in (command.help or "").split("\n\n"):
        assert " ".join(paragraph.split()) in shown


def test_defaults_that_are_no_values_are_in_words() -> None:
    defaults = [
        each.show_default for _, command in ALL.items() for each in command.params if hasattr(each, "show_default")
    ]
    assert "./model-runner.yaml" in defaults
    assert "the only one" in defaults
