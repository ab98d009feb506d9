"""Engine environments and engines: what cannot be imported, what fell back, what failed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

from appliance.doctor.commands import ask
from appliance.doctor.finding import Finding
from appliance.doctor.scene import Scene
from appliance.environments.provision import Environments, EnvironmentSpec
from appliance.errors import ProvisionError
from appliance.progress import silent
from appliance.reconcile.control import choose_environments

_METAL = "import mlx.core as mx; print(mx.metal.is_available())"


def check_environments(scene: Scene) -> Iterator[Finding]:
    """Each environment that the file needs is proved again, as at its installation: vLLM is imported in it."""
    if scene.loaded is None:
        return
    try:
        needed = choose_environments(scene.loaded.appliance, scene.state)
    except ProvisionError as error:
        yield _unusable(error)
        return
    environments = Environments(scene.state.environments, environ=scene.environ)
    for spec in needed.values():
        found = environments.find(spec)
        if found is None and spec.python is None:
            if (scene.state.environments / spec.name).exists():
                yield Finding(
                    "environment",
                    "problem",
                    f"the engine environment `{spec.name}` is incomplete",
                    "its installation broke off",
                    "`appliance env install` goes on with it",
                )
            continue
        if not scene.quick:
            yield from _proved(environments, spec)
            python = spec.python or (found.python if found else None)
            if python is not None and spec.backend == "vllm-metal" and sys.platform == "darwin":
                yield from judge_metal(ask(str(python), "-c", _METAL), python)


def _proved(environments: Environments, spec: EnvironmentSpec) -> Iterator[Finding]:
    try:
        asyncio.run(environments.verify(spec, silent))
    except ProvisionError as error:
        yield _unusable(error)


def _unusable(error: ProvisionError) -> Finding:
    return Finding(
        "environment",
        "problem",
        error.message,
        "an engine that started in it would fail, or fall back to another platform without saying so",
        error.hint or "`appliance env remove` and `appliance env install` make it anew",
    )


def judge_metal(answer: str | None, python: Path) -> Iterator[Finding]:
    """`answer` is what MLX says of Metal under that interpreter; None where it cannot be imported."""
    if answer == "True":
        return
    what = "MLX cannot be imported" if answer is None else "MLX finds no Metal device"
    yield Finding(
        "metal",
        "problem",
        f"{what} under `{python}`",
        "virtual machines have no Metal, and a Python that Rosetta translates reaches none",
        "run on the Mac itself with an arm64 Python, or set `metal.device: cpu`",
    )


def check_engines(scene: Scene) -> Iterator[Finding]:
    """Models of the running appliance that are degraded, in its own words."""
    for model in scene.status["models"] if scene.status else ():
        for condition in model["conditions"]:
            if condition["type"] == "Degraded":
                yield Finding(
                    "engine",
                    "problem",
                    f"model `{model['name']}`: {condition['message']}",
                    f"its engine failed ({condition['reason']}), and would fail in the same way again",
                    f"`appliance logs {model['name']}` has all it wrote; a change of its spec starts it again",
                )
