from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.config.models import Environment
from appliance.environments.provision import Environments, EnvironmentSpec
from appliance.progress import silent
from tests.environments.wheelhouse import LIST_NAME, pip_environ, requirement_list, standard_wheels

CPU = Environment(accelerator="cpu")


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    standard_wheels(tmp_path / "wheels")
    return tmp_path / "wheels"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Environments, EnvironmentSpec]:
    """One small environment, installed for real, for the tests that only look at it."""
    directory = tmp_path_factory.mktemp("installed")
    standard_wheels(directory / "wheels")
    environments = Environments(
        directory / "environments",
        environ=pip_environ(directory / "wheels", PYTHONDONTWRITEBYTECODE="1", PIP_NO_COMPILE="1"),
        lists={LIST_NAME: requirement_list()},
    )
    spec = environments.choose("vllm", CPU)
    asyncio.run(environments.ensure(spec, silent))
    return environments, spec
