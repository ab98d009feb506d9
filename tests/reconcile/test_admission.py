"""Where the budget holds an engine and not a zygote beside it, the engine is executed; a stand-in for vLLM shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Machine
from tests.environments.wheelhouse import fake_vllm
from tests.support import FAKE_ENGINE, wait_until

SERVER = f"""
import runpy, sys
given = dict(word.partition("=")[::2] for word in sys.argv if word.startswith("--uds="))
name = sys.argv[sys.argv.index("--served-model-name") + 1]
sys.argv = [{str(FAKE_ENGINE)!r}, "--uds", given["--uds"], "--name", name]
runpy.run_path({str(FAKE_ENGINE)!r}, run_name="__main__")
"""
MIB = 2**20


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of an environment whose vLLM is a fake engine on a CPU."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    files = {
        **fake_vllm(),
        "torch/__init__.py": '__version__ = "2.13.0+cpu"\n',
        "vllm/entrypoints/__init__.py": "",
        "vllm/entrypoints/openai/__init__.py": "",
        "vllm/entrypoints/openai/api_server.py": SERVER,
    }
    for name, text in files.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(text)
    return venv / "bin" / "python"


def write(machine: Machine, python: Path, budget: int) -> None:
    machine.write()  # its weights
    machine.file.write_text(
        "version: 1\nserver: {port: 0}\nbackend: vllm\n"
        f"environment: {{python: {python}}}\nmemory: {{budget: {budget // MIB}MiB}}\n"
        "models:\n  tiny: {source: ./weights, engine: {kv_cache_memory_bytes: 16M}}\n"
    )


def test_an_engine_starts_cold_where_there_is_no_memory_for_a_warm_start(machine: Machine, python: Path) -> None:
    write(machine, python, MIB)
    machine.up()
    (condition,) = [c for c in machine.status()["models"][0]["conditions"] if c["type"] == "Degraded"]
    needs = re.search(r"needs ([\d.]+) (MiB|GiB)", condition["message"])
    assert needs is not None
    engine = int(float(needs[1]) * (MIB if needs[2] == "MiB" else 1024 * MIB)) + 20 * MIB

    write(machine, python, engine)
    wait_until(lambda: machine.status()["ready"], what="it is started cold")
    assert "starting cold: no memory for a warm start" in machine.log
    assert not list((machine.home / "logs").glob("zygote-*"))
    assert machine.status()["memory"]["overhead"] == 0


def test_a_zygote_is_asked_for_where_there_is_memory_for_it(machine: Machine, python: Path) -> None:
    write(machine, python, 16 * 1024 * MIB)
    machine.up()
    assert machine.status()["ready"]
    assert "no memory for a warm start" not in machine.log
    assert list((machine.home / "logs").glob("zygote-*"))
