"""`appliance models …`."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.options import File, Json

models_app = typer.Typer(help="The models' files on this machine: what is there, whether it is right, what it takes.")


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, file: File = None, json: Json = False) -> None:
    """Without a command, the same as `models list`."""
    if context.invoked_subcommand is None:
        models_list(file, json)


@models_app.command("list")
def models_list(file: File = None, json: Json = False) -> None:
    """The declared models and which of them are on this machine."""
    from appliance.cli.weights import show

    show(file, as_json=json)


@models_app.command("verify")
def models_verify(
    model: Annotated[str | None, typer.Argument(help="A model's name.", show_default="all")] = None,
    file: File = None,
    repair: Annotated[bool, typer.Option("--repair", help="Fetch again what is not right.")] = False,
    json: Json = False,
) -> None:
    """Read every byte and compare its SHA-256 with what arrived. Exits 1 where something is not right."""
    from appliance.cli.storage import verify

    if not verify(file, model, repair=repair, as_json=json):
        raise typer.Exit(1)


@models_app.command("rm")
def models_rm(
    model: Annotated[str, typer.Argument(metavar="MODEL|SOURCE", help="A declared model's name, or a source.")],
    file: File = None,
) -> None:
    """Delete a model's files. They are fetched again when they are needed; local paths are never touched."""
    from appliance.cli.storage import remove

    remove(file, model)


@models_app.command("gc")
def models_gc(
    file: File = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")] = False,
    json: Json = False,
) -> None:
    """Delete what neither the file declares nor a running engine has loaded."""
    from appliance.cli.storage import collect_garbage

    collect_garbage(file, dry_run=dry_run, as_json=json)


@models_app.command("df")
def models_df(file: File = None, json: Json = False) -> None:
    """What everything in the store takes on the disk; files that several models share count once."""
    from appliance.cli.storage import disk_usage

    disk_usage(file, as_json=json)
