"""`appliance key …`."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.options import File, Json

key_app = typer.Typer(help="Client keys.", no_args_is_help=True)


@key_app.command("create")
def key_create(
    name: Annotated[str, typer.Argument(help="Who will hold the key.")],
    file: File = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="A glob of models it may use; repeatable.")
    ] = None,
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="inference, metrics or admin; repeatable.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Last day on which it is accepted, as 2027-06-30.")] = None,
) -> None:
    """Print a new key once, and write its hash into the file."""
    from appliance.cli.key import create

    create(file, name, models=models or [], scopes=scopes or [], expires=expires)


@key_app.command("list")
def key_list(file: File = None, json: Json = False) -> None:
    """The keys in the file: names, scopes and limits, never the keys."""
    from appliance.cli.key import show

    show(file, as_json=json)


@key_app.command("revoke")
def key_revoke(name: Annotated[str, typer.Argument(help="The key's name.")], file: File = None) -> None:
    """Remove a key from the file."""
    from appliance.cli.key import revoke

    revoke(file, name)
