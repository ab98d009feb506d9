"""The same promises with vLLM itself, whose processes rewrite their titles and leave shared memory behind."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from pathlib import Path

import psutil
import pytest

from appliance.engines.driver import Launch
from appliance.engines.vllm import VLLM
from appliance.errors import StartupFailed
from appliance.plan.desired import EngineSpec
from appliance.process.engine_process import EngineProcess
from tests.process.rig import alive, marked

pytestmark = pytest.mark.engine


async def start(home: Path, python: Path, model: Path, **engine: object) -> EngineProcess:
    given = tuple(sorted((name, json.dumps(value)) for name, value in engine.items()))
    spec = EngineSpec(model="smol", backend="vllm", source=str(model), engine=given)
    directory = home / "run" / f"e-{secrets.token_hex(4)}"
    launch = Launch(python, model, directory, secrets.token_urlsafe(32), platform="CpuPlatform")
    log = home / "logs" / "smol.log"
    return await EngineProcess.start(spec, VLLM(), launch, run=home / "run", log=log, environ=os.environ)


@pytest.mark.parametrize("end", ["stop", "kill the API server", "kill the shim"])
def test_nothing_of_vllm_is_left(home: Path, engine_python: Path, smollm2: Path, end: str) -> None:
    async def main() -> None:
        process = await start(home, engine_python, smollm2, max_model_len=1024, kv_cache_memory_bytes="256M")
        await process.wait_ready(timeout=300, probe=True)
        directory = process.launch.directory
        identity = json.loads((directory / "engine.json").read_text())
        leader = psutil.Process(process.pid)
        family = [leader, *leader.children(recursive=True)]
        segments = [Path(path) for path in identity["trace"]["segments"]]
        assert any("EngineCore" in " ".join(member.cmdline()) for member in family)
        assert segments
        match end:
            case "stop":
                await process.stop(timeout=10)
            case "kill the API server":
                leader.kill()
            case "kill the shim":
                psutil.Process(identity["shim"][0]).kill()
        exit_ = await asyncio.wait_for(process.exited, 60)
        assert exit_.asked is (end == "stop")
        assert [member for member in family if alive(member)] == []
        assert marked(directory) == []
        assert [path for path in (directory, *segments) if path.exists()] == []

    asyncio.run(main())


def test_vllm_that_cannot_start_says_why_in_one_line(home: Path, engine_python: Path, smollm2: Path) -> None:
    async def main() -> None:
        process = await start(home, engine_python, smollm2, max_model_len=999_999)
        with pytest.raises(StartupFailed, match=r"exited while starting \(exit code 1: User-specified max_model_len"):
            await process.wait_ready(timeout=300, probe=True)

    asyncio.run(main())
