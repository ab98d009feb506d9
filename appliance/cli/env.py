"""`env install|list|verify|remove`."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import Any

from appliance.cli import output
from appliance.cli.loading import read
from appliance.cli.progress import shown
from appliance.environments.provision import Environments, InstalledEnvironment
from appliance.reconcile.control import choose_environments
from appliance.state import StateDirectory


def _prepared() -> StateDirectory:
    state = StateDirectory.locate(os.environ)
    state.prepare()
    return state


def install(file: Path | None) -> None:
    state = _prepared()
    environments = Environments(state.environments)
    with shown() as report:
        for spec in choose_environments(read(file).appliance, state).values():
            installed = asyncio.run(environments.ensure(spec, report))
            output.data(f"{installed.name}\t{installed.python}")


def show(*, as_json: bool) -> None:
    installed = Environments(_prepared().environments).list()
    if as_json:
        output.as_json([_plain(each) for each in installed])
        return
    output.table(
        ("ENVIRONMENT", "PLATFORM", "VLLM", "SIZE"),
        ((e.name, e.platform, e.versions.get("vllm", "-"), output.size(e.size)) for e in installed),
    )


def _plain(environment: InstalledEnvironment) -> dict[str, Any]:
    at = environment.installed_at
    paths = {"path": str(environment.path), "python": str(environment.python)}
    return {**dataclasses.asdict(environment), **paths, "installed_at": at.isoformat() if at else None}


def verify(file: Path | None, *, as_json: bool) -> None:
    state = _prepared()
    environments = Environments(state.environments)
    results = {}
    with shown() as report:
        for backend, spec in choose_environments(read(file).appliance, state).items():
            results[backend] = dataclasses.asdict(asyncio.run(environments.verify(spec, report)))
    if as_json:
        output.as_json(results)
        return
    for backend, result in results.items():
        output.data(f"{backend}: {result['platform']}")


def remove(name: str) -> None:
    Environments(_prepared().environments).remove(name)
    output.note(f"removed {name}")
