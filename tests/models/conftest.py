from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.hub_double import Hub, hub_double

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_double() as double:
        yield double


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine whose only package index is `wheels/`, and whose hub is nowhere yet."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    outside = ("PIP_", "HF_", "HUGGING")
    return {name: value for name, value in os.environ.items() if not name.startswith(outside)} | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_FIND_LINKS": str(wheels),
        "HF_HOME": str(tmp_path / "hf-home"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PYTHONPATH": str(REPOSITORY),
        "PATH": os.environ["PATH"] + os.pathsep + str(Path(sys.executable).parent),
    }
