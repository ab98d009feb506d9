"""What the gateway may ask of the reconciler, and the snapshot it reads."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from appliance.config.models import Appliance, Key, Model
from appliance.engines.driver import Launch
from appliance.engines.parsers import capabilities
from appliance.errors import NotReady
from appliance.plan.desired import EngineSpec
from appliance.reconcile.engine import Engine
from appliance.reconcile.loop import Reconciler
from appliance.routing import Route, Routing

HELD = 1024
"""Requests that may wait for one model at once: each holds its body in memory."""
MAX_NUM_SEQS = 256
"""What an engine is taken to batch where the file does not say: vLLM's own default on most GPUs."""
SPARE = 1.25


class Port:
    """Satisfies the gateway's Port. `publish` swaps the snapshot; a request keeps the one that it began with."""

    def __init__(self, appliance: Appliance, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status
        self._reconciler: Reconciler | None = None
        self._routing = Routing()
        self._published = asyncio.Event()
        self._held: Counter[str] = Counter()
        self.configure(appliance)

    def configure(self, appliance: Appliance) -> None:
        """Put names, keys and defaults in force for every request from now on."""
        self._models = appliance.models
        self._media_domains = appliance.server.media_domains
        self._keys: tuple[Key, ...] = appliance.auth.keys
        self._aliases, self._globs = _aliases(appliance.models)
        self._bases = {each.name: name for name, model in appliance.models.items() for each in model.adapters}
        self.publish()

    def attach(self, reconciler: Reconciler) -> None:
        """Close the circle: the reconciler is built with this port's `publish`."""
        self._reconciler = reconciler

    def publish(self) -> None:
        serving = {name: self._reconciler.serving(name) if self._reconciler else None for name in self._models}
        routes = {name: self._route(engine) if engine else None for name, engine in serving.items()}
        routes |= {name: self._adapter(name, serving[base]) for name, base in self._bases.items()}
        self._routing = Routing(
            routes=routes,
            aliases=self._aliases,
            globs=self._globs,
            keys=self._keys,
        )
        self._published.set()
        self._published = asyncio.Event()

    def routing(self) -> Routing:
        return self._routing

    async def changed(self, seen: Routing) -> Routing:
        while self._routing is seen:
            await self._published.wait()
        return self._routing

    async def ready(self, model: str, *, within: float) -> Route:
        """A route to this model's engine, waiting for one that is on its way. Raises NotReady."""
        if self._reconciler is None:
            raise RuntimeError("the port was used before it was attached")
        if self._held[model] >= HELD:
            raise NotReady(f"{HELD} requests wait for model `{model}` already", retry_after=30.0)
        self._held[model] += 1
        try:
            if model in self._bases:
                return await self._adapter_ready(self._reconciler, model, within)
            return self._route(await self._reconciler.ready(model, timeout=within))
        finally:
            self._held[model] -= 1

    def status(self) -> Mapping[str, Any]:
        return self._status()

    async def _adapter_ready(self, reconciler: Reconciler, name: str, within: float) -> Route:
        """The route of an adapter, waiting for one that is on its way into its model's engine."""
        try:
            async with asyncio.timeout(within):
                while True:
                    seen = self._routing
                    engine = await reconciler.ready(self._bases[name], timeout=within)
                    if route := self._adapter(name, engine):
                        return route
                    if problem := engine.adapter_problems.get(name):
                        raise NotReady(f"adapter `{name}` cannot be loaded: {problem}", retry_after=30.0)
                    await self.changed(seen)
        except (TimeoutError, KeyError):
            raise NotReady(f"adapter `{name}` is not loaded", retry_after=5.0) from None

    def _adapter(self, name: str, engine: Engine | None) -> Route | None:
        """The route of the engine that has this adapter, under the adapter's name; it shares the engine's places."""
        if engine is None or name not in engine.adapters:
            return None
        return replace(self._route(engine), served=name)

    def _route(self, engine: Engine) -> Route:
        model = self._models[engine.spec.model]  # only declared models are ever routed to
        process = engine.process
        if process is None:
            raise RuntimeError(f"engine `{engine.id}` is ready without a process")
        return Route(
            model=engine.spec.model,
            served=engine.spec.model,
            key=process.launch.key,
            revision=engine.spec.revision,
            lease=engine.lease,
            socket=None if process.launch.port else str(process.launch.socket),
            port=process.launch.port,
            defaults=model.sampling.model_dump(exclude_none=True),
            context=process.context,
            capabilities=capabilities(engine.spec.arguments, process.launch.chosen),
            idle_unload=model.idle_unload.total_seconds() if model.idle_unload else None,
            media_domains=self._media_domains,
            places=model.queue.concurrent or _places(engine.spec.arguments.get("max_num_seqs")),
            room=model.queue.length,
            developer=process.launch.developer,
            reasons=_reasons(engine.spec, process.launch),
        )


def _reasons(spec: EngineSpec, launch: Launch) -> bool:
    """vLLM tells reasoning from text where it was given a parser for it; of a foreign server nobody knows."""
    chosen = {choice.argument: choice.value for choice in launch.chosen}
    return bool(spec.command or {**chosen, **spec.arguments}.get("reasoning_parser"))


def _places(max_num_seqs: object) -> int:
    """A quarter more than an engine batches: what ends is followed in its next step, not after a round trip.

    No more than that, since what waits inside an engine is served in its order, whoever asked.
    """
    return math.ceil(SPARE * (max_num_seqs if isinstance(max_num_seqs, int) else MAX_NUM_SEQS))


def _aliases(models: Mapping[str, Model]) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """Exact aliases as a table, and those with wildcards in the file's order."""
    pairs = [(alias, name) for name, model in models.items() for alias in model.aliases]
    exact = {alias: name for alias, name in pairs if not _is_glob(alias)}
    return exact, tuple((alias, name) for alias, name in pairs if _is_glob(alias))


def _is_glob(alias: str) -> bool:
    return any(character in alias for character in "*?[")
