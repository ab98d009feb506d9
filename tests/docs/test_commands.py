"""Every command shown in the README and the guides runs, against an appliance with a stand-in for its engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Machine
from tests.docs.blocks import Block, blocks
from tests.support import free_port, listening, wait_until

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"from-docker-model-runner": "tests/migrate/test_guide.py"}
"""Pages with inputs of their own, and the test that types what they show."""
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
    if page.stem not in ELSEWHERE and [*blocks(page)]
]

NOT_RUN = {
    "make up": "provisions vLLM for real; tests/end_to_end does",
    "make test": "this is it",
}
SHORTER = {
    "appliance chaos": "appliance chaos --duration 1 --clients 2",
    "appliance bench": "appliance bench --concurrency 1 --requests 2 --input-len 8 --output-len 4",
}
"""Commands that take a minute, and what is run for them."""
NEVER_ENDING = ("logs -f", "--watch", "service logs -f")
"""They follow something until they are interrupted."""
EXPECTED = {"doctor": (0, 1)}
"""Exit codes that say something about this machine."""


class Reader:
    """Someone who types what a page shows, in a shell, in order."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.port = free_port()
        binaries = machine.directory / "bin"
        binaries.mkdir()
        (binaries / "appliance").symlink_to(Path(sys.executable).with_name("appliance"))
        (machine.directory / ".venv" / "bin").mkdir(parents=True)
        (machine.directory / ".venv" / "bin" / "appliance").symlink_to(binaries / "appliance")
        machine.environ["PATH"] = f"{binaries}{os.pathsep}{os.environ['PATH']}"
        self.write(aliases="[ai/smollm2, gpt-4o-mini, 'claude-*']")

    def write(self, *, aliases: str) -> None:
        models = f"  smollm2: {{source: ./weights, aliases: {aliases}}}"
        self._machine.write(models=models, server=f"port: {self.port}")

    def ready_for(self, block: Block) -> None:
        """What a reader has by then: something running, or nothing; and something to roll back to."""
        starts = any(f"appliance {word}" in command for command in block.commands for word in ("up", "compose"))
        running = listening(self.port)
        if starts and running:
            self._machine.run("down")
        elif not starts and not running:
            assert self._machine.run("up", "-d").returncode == 0
        if any("rollback" in command for command in block.commands):
            self.write(aliases="[ai/smollm2, gpt-4o-mini, 'claude-*', another]")
            history = self._machine.home / "history"
            wait_until(lambda: len([*history.glob("*.json")]) > 1, what="a second generation")

    def type(self, command: str) -> None:
        command = SHORTER.get(command.replace(".venv/bin/", ""), command)
        for address in ("localhost:8000", "127.0.0.1:8000"):
            command = command.replace(address, f"127.0.0.1:{self.port}")
        follows = any(word in command for word in NEVER_ENDING)
        limit = ["timeout", "--signal=INT", "3"] if follows else ["timeout", "90"]
        result = subprocess.run(
            [*limit, "bash", "-c", command],
            cwd=self._machine.directory,
            env=self._machine._env(),
            capture_output=True,
            text=True,
            check=False,
        )
        allowed = {0, 124, 130} if follows else {0}
        allowed |= {code for word, codes in EXPECTED.items() if word in command for code in codes}
        assert result.returncode in allowed, f"$ {command}\n{result.stdout}{result.stderr}"
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_shown_runs(machine: Machine, page: Path) -> None:
    shown = [block for block in blocks(page) if block.reason is None]
    reader = Reader(machine)
    for block in shown:
        commands = [command for command in block.commands if command not in NOT_RUN]
        if commands:
            reader.ready_for(block)
        for command in commands:
            reader.type(command)


def test_commands_that_are_not_run_are_shown_somewhere_and_say_why() -> None:
    every = [block for page in PAGES for block in blocks(page)]
    commands = {command.replace(".venv/bin/", "") for block in every for command in block.commands}
    assert {*NOT_RUN, *SHORTER} <= commands
    assert all(block.reason is None or len(block.reason) > 8 for block in every)


def test_pages_that_are_left_to_another_test_are_in_it() -> None:
    for page, test in ELSEWHERE.items():
        assert f"{page}.md" in (ROOT / test).read_text()


def test_a_block_gives_its_commands_without_comments_and_with_their_continuations(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    shown = "$ one   # why\n$ curl -d '{\"a\":\n    1}'\nanswer\n"
    page.write_text(f"<!-- not run: no network -->\n```console\n{shown}```\n")
    (block,) = blocks(page)
    assert block.commands == ("one", "curl -d '{\"a\":\n    1}'")
    assert block.reason == "no network"


def test_curl_and_bash_are_here() -> None:
    assert all(map(shutil.which, ("bash", "curl", "timeout")))
