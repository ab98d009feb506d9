"""docs/guides/from-docker-model-runner.md: every command in it, run in its order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.migrate.golden import contents, run

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guides" / "from-docker-model-runner.md"
TEXT = GUIDE.read_text()
FILES = re.findall(r"^```\w+ file=(\S+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line[2:]
    for block in re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path, dict[str, str]]]:
    """What each command printed, and the folder as it was after it."""
    folder = tmp_path_factory.mktemp("guide")
    for name, text in FILES:
        (folder / name).write_text(text)
    seen: dict[str, tuple[str, Path, dict[str, str]]] = {}
    for number, command in enumerate(COMMANDS):
        arguments = shlex.split(command)
        assert arguments[0] == "appliance"
        code, printed = run(arguments[1:], folder, {})
        assert code == 0, f"{command}: {printed}"
        seen[f"{number}: {command}"] = (printed, folder, contents(folder))
    return seen


def test_every_command_works_in_its_order(followed: dict[str, tuple[str, Path, dict[str, str]]]) -> None:
    assert len(followed) == len(COMMANDS) >= 9
    assert len(FILES) == 2


def test_looking_first_writes_nothing(followed: dict[str, tuple[str, Path, dict[str, str]]]) -> None:
    printed, _, after = next(iter(followed.values()))
    assert sorted(after) == ["compose.yaml", "configure.sh"]
    for heading in ("Said in another way", "Kept as it is", "Left out", "What a client will notice", "Try"):
        assert heading in printed


def test_the_four_files_are_those_of_the_guide_and_a_second_run_changes_none(
    followed: dict[str, tuple[str, Path, dict[str, str]]],
) -> None:
    states = [after for _, _, after in followed.values()]
    written = set(states[1]) - set(states[0])
    assert written == {"model-runner.yaml", "profiles/metal.yaml", "compose.appliance.yaml", "MIGRATION.md"}
    assert all(f"`{name}`" in TEXT for name in written)
    assert states[4] == states[1]


def test_the_consumer_is_told_in_the_same_variables(followed: dict[str, tuple[str, Path, dict[str, str]]]) -> None:
    after = list(followed.values())[1][2]
    told = yaml.safe_load(after["compose.appliance.yaml"])["services"]["chat"]["environment"]
    assert told == {"LLM_URL": "http://host.docker.internal:8000/v1/", "LLM_MODEL": "ai/smollm2:135M-Q4_0"}


def test_the_last_of_several_commands_counts(followed: dict[str, tuple[str, Path, dict[str, str]]]) -> None:
    after = list(followed.values())[-1][2]
    (model,) = yaml.safe_load(after["from-script/profiles/metal.yaml"])["models"].values()
    assert (model["engine"]["max_model_len"], model["idle_unload"]) == (2048, "30m")
