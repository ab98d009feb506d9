"""`validate`, `config`, `explain`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.cli import output
from appliance.cli.loading import base_of, read
from appliance.config.dump import to_plain, to_yaml
from appliance.config.load import Loaded
from appliance.engines.driver import Choice
from appliance.errors import ApplianceError
from appliance.state import StateDirectory


def validate(file: Path | None, overrides: Mapping[str, Any]) -> None:
    loaded = read(file, overrides)
    count = len(loaded.appliance.models)
    for warning in loaded.warnings:
        output.note(f"warning: {warning.render().strip()}")
    output.note(f"{loaded.path or 'the environment'} is valid: {count} model{'' if count == 1 else 's'}")


def show(file: Path | None, overrides: Mapping[str, Any], form: str) -> None:
    match form:
        case "schema":
            from appliance.config.reference import schema

            output.as_json(schema())
        case "json":
            output.as_json(to_plain(read(file, overrides).appliance))
        case "yaml":
            output.data(to_yaml(read(file, overrides).appliance).rstrip())
        case _:
            raise ApplianceError(f"there is no format `{form}`", hint="yaml, json or schema")


def explain(file: Path | None, key: str, *, as_json: bool) -> None:
    from appliance.config.explain import explain as explain_key

    loaded = read(file)
    answer = explain_key(loaded, key)
    chosen = _chosen(loaded, key)
    if as_json:
        output.as_json({**dataclasses.asdict(answer), "chosen": dataclasses.asdict(chosen) if chosen else None})
        return
    output.data(f"{answer.key} = {json.dumps(answer.value, ensure_ascii=False)}")
    output.data(f"  set by: {answer.origin}")
    if chosen:
        output.data(f"  chosen: {json.dumps(chosen.value)}, since {chosen.reason}")
    for shadowed in answer.shadowed:
        output.data(f"  overrides: {json.dumps(shadowed.value, ensure_ascii=False)} from {shadowed.origin}")
    output.data(f"  type: {answer.type}")
    output.data(f"  default: {json.dumps(answer.default, ensure_ascii=False)}")
    if answer.meaning:
        output.data(f"  {answer.meaning}")


def _chosen(loaded: Loaded, key: str) -> Choice | None:
    """What the engine will be given for an argument that the file leaves open, where the weights are here to tell."""
    from appliance.config.explain import parse_key
    from appliance.engines import driver_for
    from appliance.models.sources import parse_source
    from appliance.models.store import Store
    from appliance.models.template import template
    from appliance.reconcile.resolve import backend_of, resolve

    match parse_key(key, to_plain(loaded.appliance)):
        case ("models", str(name), "engine", str(argument)):
            spec = resolve(loaded.appliance, environments={}, base=base_of(loaded))[name].spec
        case _:
            return None
    store = Store(StateDirectory.locate(os.environ).models)
    checkpoint = store.find(parse_source(spec.source, base=base_of(loaded)))
    path = store.prepared(checkpoint) if checkpoint else None
    if path is None:
        return None
    driver = driver_for(backend_of(loaded.appliance.models[name], loaded.appliance), loaded.appliance)
    choices = driver.choose(spec, template(path, spec.arguments.get("chat_template")))
    return next((each for each in choices if each.argument == argument), None)
