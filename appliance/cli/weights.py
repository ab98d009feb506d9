"""`pull` and `models`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.cli import output
from appliance.cli.loading import base_of, read
from appliance.cli.progress import shown
from appliance.config.load import Loaded
from appliance.config.models import Model
from appliance.errors import ApplianceError, SourceError
from appliance.models.checkpoint import Checkpoint
from appliance.models.sources import Source, parse_source
from appliance.models.store import Store
from appliance.progress import Report
from appliance.state import StateDirectory

AT_ONCE = 3
"""Models fetched at the same time: several hosts fill a line that one alone may not."""


def store_of(loaded: Loaded) -> Store:
    state = StateDirectory.locate(os.environ)
    state.prepare()
    token = loaded.appliance.huggingface.token
    return Store(state.models, token=token.get_secret_value() if token else None)


def sources_of(loaded: Loaded) -> dict[str, Source]:
    """Every source that the file declares, adapters' too, by the name that it is asked for."""
    base = base_of(loaded)
    sources = {}
    for name, model in loaded.appliance.models.items():
        sources[name] = parse_source(model.source, base=base)
        sources |= {each.name: parse_source(each.source, base=base) for each in model.adapters}
    return sources


def pull(file: Path | None, model: str | None) -> None:
    """Fetch every model and adapter, or those of one model."""
    loaded = read(file)
    models = loaded.appliance.models
    if model is not None and model not in models:
        raise ApplianceError(f"the file declares no model `{model}`", hint=f"it declares {', '.join(sorted(models))}")
    store = store_of(loaded)
    sources = sources_of(loaded)
    names = [model, *(each.name for each in models[model].adapters)] if model else sorted(sources)

    async def all_at_once(report: Report) -> list[Checkpoint | BaseException]:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> Checkpoint:
            async with room:
                kind = "model" if name in models else "adapter"
                return await store.pull(sources[name], report, subject=f"{kind} {name}")

        return await asyncio.gather(*map(one, names), return_exceptions=True)

    with shown() as report:
        results = asyncio.run(all_at_once(report))
    for name, result in zip(names, results, strict=True):
        if isinstance(result, Checkpoint):
            output.data(f"{name}\t{result.path}")
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures[:-1]:
        if isinstance(failure, ApplianceError):
            output.failure(failure)
    if failures:
        raise failures[-1]


def show(file: Path | None, *, as_json: bool) -> None:
    loaded = read(file)
    store = store_of(loaded)
    rows = [_row(name, model, store, base_of(loaded)) for name, model in sorted(loaded.appliance.models.items())]
    if as_json:
        output.as_json(rows)
        return
    output.table(
        ("MODEL", "SOURCE", "ON THIS MACHINE", "SIZE", "LOAD"),
        ((row["name"], row["source"], _presence(row), output.size(row["size"]), row["load"]) for row in rows),
    )


def _row(name: str, model: Model, store: Store, base: Path) -> dict[str, Any]:
    try:
        checkpoint, problem = store.find(parse_source(model.source, base=base)), None
    except SourceError as error:
        checkpoint, problem = None, error.message
    return {
        "name": name,
        "source": model.source,
        "aliases": list(model.aliases),
        "load": model.load,
        "present": checkpoint is not None,
        "problem": problem,
        "kind": checkpoint.kind if checkpoint else None,
        "size": checkpoint.size if checkpoint else None,
        "path": str(checkpoint.path) if checkpoint else None,
    }


def _presence(row: Mapping[str, Any]) -> str:
    return "yes" if row["present"] else row["problem"] or "no"
