from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.models.checkpoint_builder import write_files
from tests.support import FAKE_ENGINE, wait_until

WEIGHTS = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"\x02\0\0\0\0\0\0\0{}",
}

Result = subprocess.CompletedProcess[str]


@dataclass
class Machine:
    """A machine of the test's own: a state directory, a file, and the command."""

    directory: Path
    environ: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.directory / "model-runner.yaml"

    @property
    def home(self) -> Path:
        return self.directory / "home"

    def write(self, *flags: str, models: str = "", server: str = "port: 0", more: str = "") -> None:
        """A file whose one model is a fake engine with these flags; `models` and `more` go in as they are."""
        if not (self.directory / "weights").exists():  # a second time would be a change of the model's files
            write_files(self.directory / "weights", WEIGHTS)
        command = [sys.executable, str(FAKE_ENGINE), "--uds", "{socket}", "--name", "{name}", *flags]
        self.file.write_text(
            f"version: 1\nserver: {{{server}}}\nbackend: fake\nbackends: {{fake: {{command: {json.dumps(command)}}}}}\n"
            f"models:\n{models or '  tiny: {source: ./weights, aliases: [gpt-test]}'}\n{more}"
        )

    def run(self, *arguments: str, timeout: float = 60) -> Result:
        return subprocess.run(
            [sys.executable, "-m", "appliance", *arguments],
            cwd=self.directory,
            env=self._env(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def spawn_up(self, *arguments: str) -> subprocess.Popen[str]:
        """`appliance up` in the foreground, as its own process."""
        with (self.directory / "up.log").open("w") as log:
            command = [sys.executable, "-m", "appliance", "up", *arguments]
            process = subprocess.Popen(command, cwd=self.directory, env=self._env(), stderr=log, text=True)
        self.started.append(process)
        return process

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """Any command, as its own process."""
        command = [sys.executable, "-m", "appliance", *arguments]
        process = subprocess.Popen(command, cwd=self.directory, env=self._env(), stderr=subprocess.DEVNULL, text=True)
        self.started.append(process)
        return process

    def up(self, *arguments: str) -> str:
        """The same; returns its base URL once its start has settled."""
        process = self.spawn_up(*arguments)
        wait_until(lambda: process.poll() is not None or "serving " in self.log, what="the start settles")
        assert process.poll() is None, self.log
        return f"http://{self.status()['address']}"

    @property
    def log(self) -> str:
        return (self.directory / "up.log").read_text()

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return answer

    def engine_pids(self) -> list[int]:
        return [engine["pid"] for model in self.status()["models"] for engine in model["engines"] if engine["pid"]]

    def _env(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("APPLIANCE_") and k not in ("API_KEY", "PORT")}
        return clean | {"APPLIANCE_HOME": str(self.home), "PYTHONPATH": os.pathsep.join(sys.path)} | self.environ

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(30)
        self.run("down")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.close()
