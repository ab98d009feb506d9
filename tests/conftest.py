"""What the tests with a real engine share: one environment and one converted model per machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.config.models import Environment
from appliance.environments.provision import Environments
from appliance.progress import silent
from appliance.state import StateDirectory
from tests.demo_model import demo_model

ROOT = Path(__file__).parent.parent

# A job that a shell runs in the background ignores the interrupt key, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def engine_home() -> Path:
    """A state directory that outlives the session, so that the engine environment is installed once per machine."""
    home = Path(os.environ.get("APPLIANCE_TEST_HOME") or ROOT / ".appliance-test").absolute()
    StateDirectory(home).prepare()
    return home


@pytest.fixture(scope="session")
def engine_python(engine_home: Path) -> Path:
    """The interpreter of the shipped CPU environment."""
    environments = Environments(StateDirectory(engine_home).environments)
    spec = environments.choose("vllm", Environment(accelerator="cpu"))
    return asyncio.run(environments.ensure(spec, silent)).python


@pytest.fixture(scope="session")
def smollm2(engine_home: Path, engine_python: Path) -> Path:
    """The demo model as a Hugging Face directory."""
    return demo_model(engine_home, "hf", engine_python)


@pytest.fixture(scope="session")
def metal_python(engine_home: Path) -> Path:
    """The interpreter of the shipped Metal environment: vLLM over MLX on this machine's CPU."""
    environments = Environments(StateDirectory(engine_home).environments)
    return asyncio.run(environments.ensure(environments.choose("vllm-metal", Environment()), silent)).python


@pytest.fixture(scope="session")
def smollm2_mlx(engine_home: Path, metal_python: Path) -> Path:
    """The demo model as an MLX directory: four bits, the embeddings eight."""
    return demo_model(engine_home, "mlx", metal_python)


@pytest.fixture(scope="session")
def mlx_python(engine_home: Path) -> Path:
    """An interpreter with MLX's CPU back end and mlx-lm, the reference for MLX checkpoints."""
    pins = ("mlx==0.32.4", "mlx-cpu==0.32.4", "mlx-lm==0.32.2", "transformers==5.19.0")
    venv = engine_home / "mlx"
    done = venv / "installed"
    if not done.exists() or done.read_text() != " ".join(pins):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run([str(venv / "bin" / "pip"), "install", "--quiet", *pins], check=True)
        done.write_text(" ".join(pins))
    return venv / "bin" / "python"
