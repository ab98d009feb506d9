from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.config.models import Environment
from appliance.environments.provision import Environments
from appliance.progress import silent

pytestmark = pytest.mark.engine


def test_shipped_cpu_list_installs_and_is_proved(engine_home: Path) -> None:
    environments = Environments(engine_home / "environments")
    spec = environments.choose("vllm", Environment(accelerator="cpu"))
    installed = asyncio.run(environments.ensure(spec, silent))
    assert installed.platform == "CpuPlatform"
    assert list(installed.path.glob("lib/python*/site-packages/vllm/__pycache__/__init__.*.pyc"))
    preflight = asyncio.run(environments.verify(spec, silent))
    assert preflight.vllm == "0.32.0"
    assert not {"torchvision", "torchaudio", "torchcodec"} & set(preflight.installed)
