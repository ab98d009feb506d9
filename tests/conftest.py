from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def engine_python() -> Path:
    """The interpreter of a ready engine environment."""
    path = os.environ.get("APPLIANCE_TEST_ENGINE_PYTHON")
    if not path:
        pytest.skip("APPLIANCE_TEST_ENGINE_PYTHON names no engine environment's interpreter")
    return Path(path)


@pytest.fixture(scope="session")
def engine_home() -> Path:
    """A state directory that outlives the session, so that the engine environment is installed once per machine."""
    default = Path(__file__).parent.parent / ".appliance-test"
    home = Path(os.environ.get("APPLIANCE_TEST_HOME") or default)
    home.mkdir(parents=True, exist_ok=True)
    return home
