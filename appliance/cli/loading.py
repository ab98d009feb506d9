"""Read the file the way every command does: same sources, same checks, same messages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from appliance.config.load import DEFAULT_FILE, Loaded, interpret, load
from appliance.config.models import Appliance, Model
from appliance.engines import DRIVERS, driver_for
from appliance.engines.command import PLACEHOLDERS, unknown_placeholders
from appliance.errors import ApplianceError
from appliance.models.sources import parse_source
from appliance.process.environ import OWNED_VARIABLES
from appliance.reconcile.resolve import backend_of


def read(file: Path | None, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """The validated configuration, or a ConfigError with every problem. A Compose file is migrated as it is read."""
    if file is not None and file.name != DEFAULT_FILE.name:
        from appliance.cli.compose import read_compose

        if (loaded := read_compose(file, overrides or {})) is not None:
            return loaded
    return load(
        file or DEFAULT_FILE,
        environ=os.environ,
        overrides=overrides or {},
        backends=frozenset(DRIVERS),
        check=engine_problems,
    )


def read_with(file: Path, environ: Mapping[str, str]) -> Loaded:
    """What a process with these variables, and no flags, would read."""
    return load(file, environ=environ, overrides={}, backends=frozenset(DRIVERS), check=engine_problems)


def interpreted(text: str, path: Path) -> Loaded:
    """What `read` would give if the file held this text."""
    return interpret(text, path, environ=os.environ, backends=frozenset(DRIVERS), check=engine_problems)


def base_of(loaded: Loaded) -> Path:
    """The directory that relative paths in the file start from."""
    return loaded.path.parent.absolute() if loaded.path else Path.cwd()


Problem = tuple[tuple[str | int, ...], str, str | None]


def engine_problems(appliance: Appliance) -> Iterator[Problem]:
    """What the drivers, and those who fetch weights, have to say about the file, as (path, message, hint)."""
    for name, backend in appliance.backends.items():
        for word in unknown_placeholders(backend.command):
            known = ", ".join(f"`{{{each}}}`" for each in PLACEHOLDERS)
            yield ("backends", name, "command"), f"nothing replaces `{{{word}}}`", f"it may hold {known}"
    for name, model in appliance.models.items():
        for variable in model.env.keys() & OWNED_VARIABLES:
            yield ("models", name, "env", variable), "set by the appliance", "leave it out"
        for path, message, hint in _source_problems(model):
            yield ("models", name, *path), message, hint
        driver = driver_for(backend_of(model, appliance), appliance)
        for problem in driver.check(model.engine):
            yield ("models", name, "engine", problem.key), problem.message, problem.hint


def _source_problems(model: Model) -> Iterator[Problem]:
    """Sources that no machine could fetch, by the form they are written in; their paths are the model's own."""
    adapters = ((("adapters", at, "source"), each.source) for at, each in enumerate(model.adapters))
    for path, source in ((("source",), model.source), *adapters):
        try:
            parse_source(source, base=Path())
        except ApplianceError as error:
            yield path, error.message, error.hint
