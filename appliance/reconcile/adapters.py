"""LoRA adapters, loaded into running engines and taken out again without a restart.

What an engine has is asked of it each time, so that an engine that was taken over, or that lost an adapter, is brought
to what the file says like any other. The routes for this are on its private socket; the gateway has none of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from appliance.config.models import Adapter, Appliance
from appliance.engines.driver import Choice
from appliance.errors import ApplianceError, SourceError
from appliance.models.adapter import rank, smallest_rank
from appliance.models.sources import parse_source
from appliance.models.store import Store
from appliance.process.engine_process import EngineProcess
from appliance.process.probe import request
from appliance.progress import Report
from appliance.reconcile.engine import Engine
from appliance.reconcile.resolve import absolute_source

TIMEOUT = 120.0
"""Seconds for one adapter to be read from the disk into an engine."""


class Adapters:
    """Those of one configuration."""

    def __init__(self, store: Store, appliance: Appliance, base: Path, report: Report) -> None:
        self._store = store
        self._models = appliance.models
        self._base = base
        self._report = report
        self._log = structlog.get_logger("adapters")

    async def choices(self, model: str) -> tuple[Choice, ...]:
        """What an engine has to be started with to take this model's adapters, as far as they can be had."""
        found = await self._fetch(model)
        ranks = [rank(path) for path in found.values() if isinstance(path, Path)]
        if not ranks:
            return ()
        most = smallest_rank(ranks)
        return (
            Choice("max_lora_rank", most, f"the adapters' largest rank is {max(ranks)}"),
            Choice("max_loras", len(ranks), f"there are {len(ranks)} adapters"),
        )

    async def settle(
        self, engine: Engine, process: EngineProcess, published: Callable[[], None] = lambda: None
    ) -> None:
        """Have the engine hold exactly the adapters that the file gives its model; what could not be is told in it.

        `published` is called before one is taken out, so that requests for another of its name are held meanwhile.
        """
        declared = self._declared(engine.spec.model)
        if not declared and not engine.spec.arguments.get("enable_lora"):
            return
        wanted = await self._fetch(engine.spec.model)
        problems = {name: path for name, path in wanted.items() if isinstance(path, str)}
        paths = {name: str(path) for name, path in wanted.items() if isinstance(path, Path)}
        try:
            loaded = await _loaded(process)
            kept = {name for name, path in paths.items() if loaded.get(name) == path}
            engine.adapters = frozenset(kept)
            published()
            for name in loaded.keys() - kept:
                await _ask(process, "/v1/unload_lora_adapter", {"lora_name": name})
                self._log.info("adapter unloaded", model=engine.spec.model, adapter=name)
            held = await _loaded(process)
            for name in paths.keys() - held.keys():
                if problem := await _ask(
                    process, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": paths[name]}
                ):
                    problems[name] = problem
                else:
                    self._log.info("adapter loaded", model=engine.spec.model, adapter=name)
            engine.adapters = frozenset((await _loaded(process)).keys() & paths.keys())
        except (OSError, ValueError, TimeoutError) as error:
            problems |= dict.fromkeys(paths.keys() - engine.adapters, f"the engine did not answer: {error}")
        engine.adapter_problems = problems
        for name, problem in problems.items():
            self._log.error("adapter not loaded", model=engine.spec.model, adapter=name, message=problem)

    def _declared(self, model: str) -> tuple[Adapter, ...]:
        return self._models[model].adapters if model in self._models else ()

    async def _fetch(self, model: str) -> dict[str, Path | str]:
        """Each adapter's directory, or why there is none."""
        return dict(await asyncio.gather(*(self._one(each) for each in self._declared(model))))

    async def _one(self, adapter: Adapter) -> tuple[str, Path | str]:
        try:
            source = parse_source(absolute_source(adapter.source, self._base), base=Path("/"))
            checkpoint = await self._store.pull(source, self._report, subject=f"adapter {adapter.name}")
            if checkpoint.kind != "lora":
                raise SourceError(f"`{adapter.source}` is no LoRA adapter: it has no adapter_config.json")
            rank(checkpoint.path)
        except ApplianceError as error:
            return adapter.name, error.message
        return adapter.name, checkpoint.path


async def _loaded(process: EngineProcess) -> dict[str, str]:
    """The adapters that an engine has, with their directories: vLLM lists them as models that have a parent."""
    reply = await request(process.address, "GET", "/v1/models", timeout=TIMEOUT)
    if reply.status != 200:
        raise ValueError(str(reply))
    return {card["id"]: card["root"] for card in json.loads(reply.body)["data"] if card.get("parent")}


async def _ask(process: EngineProcess, path: str, body: Mapping[str, str]) -> str | None:
    """None where it is done, else what the engine says."""
    reply = await request(process.address, "POST", path, dict(body), timeout=TIMEOUT)
    return None if reply.status == 200 else str(reply)
