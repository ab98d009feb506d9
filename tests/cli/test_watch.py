"""`status --watch`, on a terminal and off one."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import openai
import pytest

from appliance.cli.watch import sparkline
from tests.cli.conftest import Machine
from tests.cli.test_reload import QUESTION
from tests.support import wait_until


class _Reading(list[str]):
    """A descriptor's text so far."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def text(self) -> str:
        with suppress(BlockingIOError):
            self.append(os.read(self._descriptor, 1 << 20).decode(errors="replace"))
        return "".join(self)


@contextmanager
def watching(machine: Machine, *arguments: str, terminal: bool) -> Iterator[_Reading]:
    """What the command has written so far, in one piece or more."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    environ = {**machine._env(), "COLUMNS": "160", "LINES": "50", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "appliance", "status", "--watch", *arguments]
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environ, cwd=machine.directory)
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        yield _Reading(ours)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        os.close(ours)


def test_on_a_terminal_it_shows_what_goes_through_and_what_moves(machine: Machine) -> None:
    machine.write()
    base = machine.up()
    with watching(machine, terminal=True) as reading:
        wait_until(lambda: "tokens/s" in reading.text() and "EngineReady" not in reading.text(), what="the picture")
        with openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0) as sdk:
            assert sdk.chat.completions.create(model="tiny", messages=QUESTION).choices
        wait_until(lambda: "█" in reading.text(), what="a bar for what was sent")
        machine.write("--exit-at-start", "--say", "RuntimeError: no such kernel")
        wait_until(lambda: "tiny: Degraded" in reading.text(), what="what is wrong, and why")
        assert "no such kernel" in reading.text()


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_elsewhere_it_is_a_line_for_each_change(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.write()
    machine.up()
    with watching(machine, *arguments, terminal=False) as reading:
        wait_until(lambda: reading.text().count("\n") == 1, what="how it is")
        machine.write("--load-seconds", "2")
        wait_until(lambda: reading.text().count("\n") >= 3, what="how it changes")
        lines = reading.text().splitlines()
    first = lines[0]
    assert (json.loads(first)["name"] if arguments else first.split("\t")[0]) == "tiny"


def test_a_line_of_bars_is_as_high_as_its_largest_value() -> None:
    assert sparkline([0, 4, 8, None, 8]) == "▁▅█ █"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""
