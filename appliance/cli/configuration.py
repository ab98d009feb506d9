"""`validate`, `config`, `explain`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.cli import output
from appliance.cli.loading import read
from appliance.config.dump import to_plain, to_yaml
from appliance.errors import ApplianceError


def validate(file: Path | None, overrides: Mapping[str, Any]) -> None:
    loaded = read(file, overrides)
    count = len(loaded.appliance.models)
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

    answer = explain_key(read(file), key)
    if as_json:
        output.as_json(dataclasses.asdict(answer))
        return
    output.data(f"{answer.key} = {json.dumps(answer.value, ensure_ascii=False)}")
    output.data(f"  set by: {answer.origin}")
    for shadowed in answer.shadowed:
        output.data(f"  overrides: {json.dumps(shadowed.value, ensure_ascii=False)} from {shadowed.origin}")
    output.data(f"  type: {answer.type}")
    output.data(f"  default: {json.dumps(answer.default, ensure_ascii=False)}")
    if answer.meaning:
        output.data(f"  {answer.meaning}")
