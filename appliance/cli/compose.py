"""`-f compose.yaml`: a Compose file with models in it, read as the configuration that `migrate` would write."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.cli.loading import engine_problems
from appliance.cli.migrate import backend_for, choose_target, estimate_from_store, validated
from appliance.config.load import Loaded, interpret
from appliance.config.problems import InvalidConfig, Problem
from appliance.engines import DRIVERS
from appliance.migrate.detect import detect
from appliance.migrate.inputs import Input, read_input
from appliance.migrate.migration import Migration, Request, migrate


def read_compose(file: Path, overrides: Mapping[str, Any]) -> Loaded | None:
    """None for a file that is no Compose file, or none that can be read: the loader says what is wrong with that."""
    if (source := compose_input(file)) is None:
        return None
    target = choose_target("this-machine")
    request = Request(
        (source,),
        file.parent,
        target,
        backend=backend_for(target),
        environ=dict(os.environ),
        estimate=estimate_from_store,
    )
    result = migrate(request, validated)
    if not result.sizes:
        raise InvalidConfig(_nothing_to_serve(result, str(file)))
    loaded = interpret(
        result.text, file, environ=os.environ, overrides=overrides, backends=frozenset(DRIVERS), check=engine_problems
    )
    # The Compose file stays what is watched, kept in history, and written back by a rollback.
    return dataclasses.replace(loaded, text=source.text, warnings=(*loaded.warnings, *_warnings(result, str(file))))


def compose_input(file: Path) -> Input | None:
    """The file's text; None for a file that is no Compose file, or none that can be read."""
    if file.suffix not in (".yaml", ".yml"):
        return None
    try:
        source = read_input(file)
        return source if detect(source) == "compose" else None
    except InvalidConfig:
        return None


def _nothing_to_serve(result: Migration, name: str) -> list[Problem]:
    found = [_problem(row.place or name, row.key, row.why) for row in result.rows if row.level == "manual"]
    return found or [Problem(name, "no model in it", hint="add one under `models:`, or name another file with -f")]


def _warnings(result: Migration, name: str) -> list[Problem]:
    return [_problem(row.place or name, row.key, row.why) for row in result.rows if row.level == "manual"]


def _problem(place: str, key: str, why: str) -> Problem:
    source, _, line = place.rpartition(":")
    return Problem(source or place, why, path=key, line=int(line) if line.isdecimal() else None)
