from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from appliance.routing import Routing
from tests.gateway.served import ENGINE_KEY, FakePort, Served, route, serve
from tests.support import fake_engine


@pytest.fixture(scope="session")
def directory() -> Iterator[Path]:
    """A short path: a unix socket's may have 104 bytes on macOS."""
    path = Path(tempfile.mkdtemp(prefix="gw-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def engine(directory: Path) -> Iterator[Path]:
    """The socket of an engine that every test may use and none may break."""
    socket = directory / "tiny.sock"
    with fake_engine(name="tiny", key=ENGINE_KEY, uds=socket):
        yield socket


@pytest.fixture
def gateway(engine: Path) -> Iterator[Served]:
    """One ready model with aliases, one that is not ready, no keys."""
    table = Routing(
        routes={"tiny": route(engine), "other": None},
        aliases={"gpt-test": "tiny"},
        globs=(("claude-*", "tiny"),),
    )
    with serve(FakePort(table)) as served:
        yield served


@pytest.fixture
def sdk(gateway: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.base}/v1", api_key="none", max_retries=0) as client:
        yield client
