"""Whether the declared models fit, and how the machine is doing."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from appliance.doctor.commands import ask
from appliance.doctor.finding import Finding
from appliance.doctor.scene import Scene
from appliance.environments.provision import EnvironmentSpec
from appliance.errors import ApplianceError
from appliance.reconcile.control import budget, choose_environments
from appliance.reconcile.estimate import Estimator
from appliance.reconcile.resolve import resolve

STALLED = 10.0
"""Percent of the last ten seconds in which something waited for memory: beyond it everything is slow."""
SCARCE = 0.05
SWAPPED = 0.25
"""Shares of physical memory."""

_PRESSURE = Path("/proc/pressure/memory")


@dataclass(frozen=True, slots=True)
class Memory:
    """Sizes in bytes; `stalled` as in Linux's pressure information, `level` is macOS' own: 1, 2 or 4."""

    total: int
    available: int
    swapped: int
    stalled: float | None = None
    level: int | None = None


def check(scene: Scene) -> Iterator[Finding]:
    yield from judge(probe())
    yield from _too_big(scene)


def probe(pressure: Path = _PRESSURE) -> Memory:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    level = ask("sysctl", "-n", "kern.memorystatus_vm_pressure_level") if sys.platform == "darwin" else None
    return Memory(
        memory.total, memory.available, swap.used, _stalled(pressure), int(level) if level and level.isdigit() else None
    )


def judge(memory: Memory) -> Iterator[Finding]:
    free = memory.available / memory.total
    if free < SCARCE or (memory.level or 0) >= 4 or (memory.stalled or 0) > STALLED:
        yield Finding(
            "memory",
            "problem",
            f"memory is short: {_gib(memory.available)} of {_gib(memory.total)} are available",
            "programs wait for memory, and the system may end the largest: an engine",
            "close other programs, lower `memory.budget`, or set `idle_unload` and `load: on_demand` for some models",
        )
    if memory.swapped > SWAPPED * memory.total:
        yield Finding(
            "memory",
            "warning",
            f"{_gib(memory.swapped)} are swapped out",
            "weights that are swapped out are read back from disk at every token, a hundred times slower",
            "lower `memory.budget` or `max_model_len`, or use a smaller quantization",
        )


def _too_big(scene: Scene) -> Iterator[Finding]:
    damaged = any(path.exists() and not path.is_dir() for path in (scene.state.root, scene.state.models))
    if scene.loaded is None or damaged:  # `state` reports it
        return
    appliance = scene.loaded.appliance
    allowed = budget(appliance.memory)
    environments = _environments(scene)
    estimator = Estimator(appliance, scene.state, environments)
    base = scene.file.parent.absolute()
    identities = {backend: spec.identity for backend, spec in environments.items()}
    for name, want in resolve(appliance, environments=identities, base=base).items():
        try:
            need = estimator.memory(want.spec)
        except ApplianceError:
            continue  # weights that cannot be read are the model's own finding, at `appliance models`
        if need is None or need <= allowed:
            continue
        fits = estimator.what_fits(want.spec, allowed)
        remedy = f"under `models.{name}`: {fits}" if fits else f"a `memory.budget` of {_gib(need)}, or a smaller model"
        yield Finding(
            "memory",
            "problem",
            f"model `{name}` needs {_gib(need)}, and `memory.budget` is {_gib(allowed)}",
            "an engine that does not fit is refused before it starts",
            remedy,
        )


def _environments(scene: Scene) -> dict[str, EnvironmentSpec]:
    try:
        return choose_environments(scene.loaded.appliance, scene.state) if scene.loaded else {}
    except ApplianceError:
        return {}  # `environment` reports it


def _stalled(pressure: Path) -> float | None:
    try:
        match = re.search(r"some avg10=([\d.]+)", pressure.read_text())
    except OSError:
        return None
    return float(match[1]) if match else None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
