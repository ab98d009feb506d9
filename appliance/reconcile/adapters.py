"""LoRA adapters, loaded into running engines and taken out again without a restart.

What an engine has is asked of it each time, so that an engine that was taken over, or that lost an adapter, is brought
to what the file says like any other. The routes for this are on its private socket; the gateway has none of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from appliance.config.models import Adapter, Appliance
from appliance.engines.driver import Choice, Launch
from appliance.engines.footprint import LORA_RANK
from appliance.errors import ApplianceError, SourceError
from appliance.models.adapter import rank, smallest_rank
from appliance.models.checkpoint import Checkpoint
from appliance.models.local import UNREAD
from appliance.models.sources import Source, parse_source
from appliance.models.store import Store
from appliance.plan.desired import Desired, EngineSpec
from appliance.process.engine_process import EngineProcess
from appliance.process.probe import request
from appliance.progress import Report
from appliance.reconcile.engine import Engine
from appliance.reconcile.pulls import Pulls
from appliance.reconcile.resolve import absolute_source

TIMEOUT = 120.0
"""Seconds for one adapter to be read from the disk into an engine."""

_ROOM = "max_lora_rank"


@dataclass(frozen=True, slots=True)
class _Fetched:
    checkpoint: Checkpoint
    rank: int


class Adapters:
    """Those of one configuration."""

    def __init__(self, store: Store, pull: Pulls, appliance: Appliance, base: Path, report: Report) -> None:
        self._store = store
        self._pull = pull
        self._models = appliance.models
        self._base = base
        self._report = report
        self._log = structlog.get_logger("adapters")

    async def choices(self, model: str) -> tuple[Choice, ...]:
        """What an engine has to be started with to take this model's adapters, as far as they can be had."""
        found = await self._fetch(model)
        ranks = [each.rank for each in found.values() if isinstance(each, _Fetched)]
        if not ranks:
            return ()
        most = smallest_rank(ranks)
        return (
            Choice(_ROOM, most, f"the adapters' largest rank is {max(ranks)}"),
            Choice("max_loras", len(ranks), f"there are {len(ranks)} adapters"),
        )

    def ranks(self) -> dict[str, int]:
        """The largest rank of each model's adapters, of those that are on this machine."""
        found = {name: [*self._known(each.adapters)] for name, each in self._models.items()}
        return {name: max(ranks) for name, ranks in found.items() if ranks}

    def _known(self, adapters: Iterable[Adapter]) -> Iterable[int]:
        for adapter in adapters:
            checkpoint = self._store.find(self._source(adapter))
            if checkpoint is not None:
                try:
                    yield rank(checkpoint, self._store.checkpoints)
                except SourceError:
                    continue  # `settle` says why

    def state(self, model: str) -> dict[str, str]:
        """What changes whenever a local adapter of this model is written to, by its name."""
        found = {each.name: self._store.find(self._source(each)) for each in self._declared(model)}
        return {name: each.digest for name, each in found.items() if each and each.digest.startswith(UNREAD)}

    async def settle(
        self, engine: Engine, process: EngineProcess, published: Callable[[], None] = lambda: None
    ) -> None:
        """Have the engine hold exactly the adapters that the file gives its model; what could not be is told in it.

        One that cannot be had any more, or not yet, leaves what the engine has under its name. `published` is called
        before one is taken out, so that requests for another of its name are held meanwhile.
        """
        declared = self._declared(engine.spec.model)
        if not declared and not engine.spec.arguments.get("enable_lora"):
            return
        wanted = await self._fetch(engine.spec.model)
        problems = {name: each for name, each in wanted.items() if isinstance(each, str)}
        room = room_of(engine.spec, process.launch)
        paths = {}
        for name, each in wanted.items():
            if isinstance(each, _Fetched):
                if each.rank > room:
                    problems[name] = f"its rank is {each.rank}, and its engine was started for {room}"
                    continue
                try:
                    paths[name] = str(await self._path(name, each.checkpoint, process.launch))
                except ApplianceError as error:
                    problems[name] = error.message
        try:
            loaded = await _loaded(process)
            kept = {name for name in loaded if name in problems or loaded[name] == paths.get(name)}
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
            engine.adapters = frozenset((await _loaded(process)).keys() & wanted.keys())
        except (OSError, ValueError, TimeoutError) as error:
            problems |= dict.fromkeys(paths.keys() - engine.adapters, f"the engine did not answer: {error}")
        fresh = {name: problem for name, problem in problems.items() if engine.adapter_problems.get(name) != problem}
        engine.adapter_problems = problems
        for name, problem in fresh.items():
            self._log.error("adapter not loaded", model=engine.spec.model, adapter=name, message=problem)

    def _declared(self, model: str) -> tuple[Adapter, ...]:
        return self._models[model].adapters if model in self._models else ()

    async def _fetch(self, model: str) -> dict[str, _Fetched | str]:
        """Each adapter's checkpoint, or why there is none."""
        return dict(await asyncio.gather(*(self._one(model, each) for each in self._declared(model))))

    async def _one(self, model: str, adapter: Adapter) -> tuple[str, _Fetched | str]:
        try:
            checkpoint = await self._pull(
                f"{model}/{adapter.name}", adapter.source, self._source(adapter), self._report,
                subject=f"adapter {adapter.name}",
            )  # fmt: skip
            return adapter.name, _Fetched(checkpoint, rank(checkpoint, self._store.checkpoints))
        except ApplianceError as error:
            return adapter.name, error.message

    async def _path(self, name: str, checkpoint: Checkpoint, launch: Launch) -> Path:
        """Where the engine is to read it. A local one gets a name for its state, by which a newer one differs."""
        path = await self._store.prepare_adapter(
            checkpoint, launch.model, launch.python, self._report, subject=f"adapter {name}"
        )
        if path != checkpoint.path or not checkpoint.digest.startswith(UNREAD):
            return path  # a conversion, too, has its file's SHA-256 in its name
        alias = launch.directory / "adapters" / checkpoint.digest.removeprefix(UNREAD)[:16]
        alias.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not alias.is_symlink():
            alias.symlink_to(path)
        return alias

    def _source(self, adapter: Adapter) -> Source:
        return parse_source(absolute_source(adapter.source, self._base), base=Path("/"))


def room_of(spec: EngineSpec, launch: Launch) -> int:
    """The largest rank that an engine was started for."""
    chosen = {choice.argument: choice.value for choice in launch.chosen}
    return int(spec.arguments.get(_ROOM) or chosen.get(_ROOM) or LORA_RANK)


def with_room(desired: Desired, ranks: Mapping[str, int], running: Iterable[tuple[EngineSpec, Launch]]) -> Desired:
    """Desired state in which every running engine that its adapters have outgrown is to be replaced.

    (1) What the file says of the rank stands. (2) An engine with room enough stays, also one that was started like
    this. (3) One without has a successor that asks for the room. (4) Any other start takes what is needed by itself.
    """
    rooms: dict[str, list[tuple[EngineSpec, int]]] = {}
    for spec, launch in running:
        rooms.setdefault(spec.model, []).append((spec, room_of(spec, launch)))
    roomy = {}
    for name, want in desired.items():
        engines, needed = rooms.get(name, []), ranks.get(name, 0)
        given = want.spec.arguments
        roomy[name] = want
        if _ROOM in given or not given.get("enable_lora"):  # (1)
            continue
        asked = [room for spec, room in engines if room >= needed and spec == _asking(want.spec, room)]
        alike = [room for spec, room in engines if spec == want.spec]
        if asked or (alike and max(alike) < needed):  # (2), (3)
            roomy[name] = replace(want, spec=_asking(want.spec, min(asked, default=smallest_rank([needed]))))
    return roomy


def _asking(spec: EngineSpec, room: int) -> EngineSpec:
    return replace(spec, engine=tuple(sorted((*spec.engine, (_ROOM, json.dumps(room))))))


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
