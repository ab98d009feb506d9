"""Models that several inputs declare, or one input several times."""

from __future__ import annotations

import dataclasses
from typing import Any

from appliance.migrate import catalogue
from appliance.migrate.draft import Draft, Model
from appliance.migrate.found import Reading


def only_the_last_command(reading: Reading, draft: Draft) -> None:
    """`docker model configure` replaces all that was set for a model before, so of several lines one counts."""
    last: dict[str, Model] = {}
    for model in reading.models:
        if model.configured:
            last[catalogue.normal(model.label).lower()] = model
    gone = [
        each for each in reading.models if each.configured and last[catalogue.normal(each.label).lower()] is not each
    ]
    why = "Replaced by a later command: Model Runner keeps only the last."
    reading.founds[:] = [
        dataclasses.replace(found, model=None, level="dropped", why=why) if found.model in gone else found
        for found in reading.founds
    ]
    draft.models[:] = [model for model in draft.models if model not in gone]


def merge_equal(draft: Draft) -> dict[int, Model]:
    """Models with one source and the same settings, or none, become one. Returns what each of the others became."""
    became: dict[int, Model] = {}
    kept: list[Model] = []
    for model in draft.models:
        twin = next((each for each in kept if model.source and _may_be_one(each, model)), None)
        if twin is None:
            kept.append(model)
            continue
        if _bare(twin) and not _bare(model):
            kept[kept.index(twin)] = model
            model, twin = twin, model
            became = {key: (twin if value is model else value) for key, value in became.items()}
        became[id(model)] = twin
        twin.names += [
            name
            for name in (*model.names, model.reference)
            if name and name not in twin.names and name != twin.reference
        ]
    draft.models[:] = kept
    return became


def _may_be_one(first: Model, second: Model) -> bool:
    if first.source != second.source:
        return False
    return _settings(first) == _settings(second) or _bare(first) or _bare(second)


def _settings(model: Model) -> tuple[Any, ...]:
    return (
        model.arguments, model.sampling, model.env, model.adapters, model.load, model.idle_unload, model.context,
        model.sequences, model.optional,
    )  # fmt: skip


def _bare(model: Model) -> bool:
    return not any((*_settings(model)[:4], model.load, model.idle_unload, model.context, model.sequences))
