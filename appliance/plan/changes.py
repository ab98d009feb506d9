"""What differs between two configurations, and what each difference costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from appliance.config.models import Appliance

Path = tuple[str, ...]


class Cost(StrEnum):
    """What it takes to put a changed field in force."""

    LIVE = "live"
    """Nothing: the next request sees it, and no engine is touched."""
    RESTART = "restart"
    """Another engine process: a rollout."""
    ENVIRONMENT = "environment"
    """Another engine environment first, and then a rollout."""
    PROCESS = "process"
    """`appliance restart`: the control process itself reads it once."""


COSTS: Mapping[str, Cost] = {
    "version": Cost.LIVE,
    "profile": Cost.LIVE,
    "backend": Cost.ENVIRONMENT,
    "server.host": Cost.PROCESS,
    "server.port": Cost.PROCESS,
    "server.metrics": Cost.PROCESS,
    "server.max_body": Cost.PROCESS,
    "server.media_domains": Cost.RESTART,
    "server.log": Cost.PROCESS,
    "auth.keys": Cost.LIVE,
    "memory.budget": Cost.LIVE,
    "environment.python": Cost.ENVIRONMENT,
    "environment.accelerator": Cost.ENVIRONMENT,
    "environment.warm": Cost.LIVE,
    "models.*.source": Cost.RESTART,
    "models.*.backend": Cost.ENVIRONMENT,
    "models.*.aliases": Cost.LIVE,
    "models.*.task": Cost.RESTART,
    "models.*.quantize": Cost.RESTART,
    "models.*.load": Cost.LIVE,
    "models.*.idle_unload": Cost.LIVE,
    "models.*.engine": Cost.RESTART,
    "models.*.queue": Cost.LIVE,
    "models.*.sampling": Cost.LIVE,
    "models.*.adapters": Cost.RESTART,
    "models.*.env": Cost.RESTART,
    "models.*.rollout": Cost.LIVE,
    "metal.device": Cost.RESTART,
    "metal.plugin": Cost.ENVIRONMENT,
    "backends.*.command": Cost.RESTART,
    "backends.*.health": Cost.RESTART,
    "backends.*.env": Cost.RESTART,
    "huggingface.token": Cost.LIVE,
}
"""Every field of the file by its path, `*` standing for a name that the file gives. A path covers all beneath it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs. `before` or `after` is None where the field, or its whole entry, is absent there."""

    path: str
    cost: Cost
    before: Any
    after: Any


def changes(before: Appliance, after: Appliance) -> tuple[Change, ...]:
    """Every classed field whose value differs, in the order of the table; an added model or backend is one change."""
    return tuple(change for pattern, cost in COSTS.items() for change in _compare(pattern, cost, before, after))


def _compare(pattern: str, cost: Cost, before: Appliance, after: Appliance) -> Iterator[Change]:
    old, new = dict(_values(pattern, before)), dict(_values(pattern, after))
    for path in dict.fromkeys((*old, *new)):
        if old.get(path) != new.get(path):
            yield Change(path, _adapters_cost(cost, path, before, after), old.get(path), new.get(path))


def _adapters_cost(cost: Cost, path: str, before: Appliance, after: Appliance) -> Cost:
    """Adapters come and go in an engine that was started for some; the first needs another engine, the last too."""
    parts = path.split(".")
    if parts[-1] != "adapters":
        return cost
    name = ".".join(parts[1:-1])
    models = [appliance.models.get(name) for appliance in (before, after)]
    return Cost.LIVE if all(each and (each.adapters or each.engine.get("enable_lora")) for each in models) else cost


def _values(pattern: str, appliance: Appliance) -> Iterator[tuple[str, Any]]:
    """The values at a pattern, each with its real path."""
    found: list[tuple[str, Any]] = [("", appliance)]
    for part in pattern.split("."):
        found = [step for path, value in found for step in _step(path, value, part)]
    yield from found


def _step(path: str, value: Any, part: str) -> Iterator[tuple[str, Any]]:
    if part == "*":
        yield from ((f"{path}.{name}", each) for name, each in value.items())
    elif isinstance(value, BaseModel):
        yield f"{path}.{part}".lstrip("."), getattr(value, part)
