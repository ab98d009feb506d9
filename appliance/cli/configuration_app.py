"""`appliance validate`, `config` and `explain`: the file."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.options import File, Json, Profile, overrides


def validate(file: File = None, profile: Profile = None) -> None:
    """Check the file and print every problem with its position."""
    from appliance.cli.configuration import validate

    validate(file, overrides(profile))


def config(
    file: File = None,
    profile: Profile = None,
    format: Annotated[str, typer.Option(help="yaml, json, or schema (the JSON Schema of the file).")] = "yaml",  # noqa: A002
) -> None:
    """The configuration in force: profile, file, environment and flags merged, defaults filled in, secrets masked."""
    from appliance.cli.configuration import show

    show(file, overrides(profile), format)


def explain(
    key: Annotated[str, typer.Argument(help="A key path such as models.smollm2.engine.max_model_len.")],
    file: File = None,
    json: Json = False,
) -> None:
    """The value of one key, who set it, whom that overrode, and what it means."""
    from appliance.cli.configuration import explain

    explain(file, key, as_json=json)
