"""One real appliance, on the example file, for every test that needs the real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support import wait_until

ROOT = Path(__file__).parent.parent.parent
START = 900.0
"""Seconds: on a new machine this is where vLLM is downloaded and installed."""


@dataclass(frozen=True)
class Served:
    """The running appliance: its base URL, its state directory, and the copy of the example that it serves."""

    base: str
    home: Path
    file: Path
    log: Path

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.base}/v1", api_key="unused", max_retries=0, timeout=120)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "appliance", *arguments],
            cwd=self.file.parent,
            env=environ(self.home),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.command("status", "--json").stdout)
        return answer


def environ(home: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("APPLIANCE_")}
    return clean | {"APPLIANCE_HOME": str(home), "PORT": "0", "PYTHONPATH": str(ROOT)}


@contextmanager
def serving(text: str, home: Path, directory: Path) -> Iterator[Served]:
    """`appliance up` on a file of this text, until the block ends."""
    file = directory / "model-runner.yaml"
    file.write_text(text)
    log = directory / "up.log"
    command = [sys.executable, "-m", "appliance", "up", "--metrics", "-f", str(file)]
    with log.open("w") as sink:
        process = subprocess.Popen(command, cwd=directory, env=environ(home), stderr=sink)
    try:
        wait_until(lambda: process.poll() is not None or "serving " in log.read_text(), within=START, what="the start")
        assert process.poll() is None, log.read_text()
        handle = Served("", home, file, log)
        status = handle.status()
        assert status["ready"], log.read_text()
        yield Served(f"http://{status['address']}", home, file, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="package")  # other packages' tests have appliances of their own on this state directory
def served(engine_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    text = (ROOT / "model-runner.yaml").read_text()
    with serving(text, engine_home, tmp_path_factory.mktemp("served")) as served:
        yield served
