"""`appliance plan`, `apply`, `history`, `diff` and `rollback`: what the file has said, and would."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.options import File, Json


def plan(
    file: File = None,
    json: Json = False,
    detailed_exitcode: Annotated[
        bool,
        typer.Option("--detailed-exitcode", help="Exit 2 where something would change."),
    ] = False,
) -> None:
    """What saving the file as it is now would do, with the cost of each change. Nothing is done."""
    from appliance.cli.plan import plan

    if not plan(file, as_json=json) and detailed_exitcode:
        raise typer.Exit(2)


def apply(
    if_match: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="Only what `plan` showed under this tag; else nothing is done."),
    ] = None,
    json: Json = False,
) -> None:
    """Read the file again now, as saving it does, and say what that changed."""
    from appliance.cli.inspect import apply

    apply(tag=if_match, as_json=json)


def history(json: Json = False) -> None:
    """Every generation of the file that was put in force, and what came of it."""
    from appliance.cli.history import show

    show(as_json=json)


def diff(
    before: Annotated[int, typer.Argument(help="A generation from `history`.")],
    after: Annotated[int | None, typer.Argument(help="Another.", show_default="the last")] = None,
) -> None:
    """What the file said in two generations."""
    from appliance.cli.history import diff

    diff(before, after)


def rollback(
    generation: Annotated[
        int | None, typer.Argument(help="A generation.", show_default="the last that was ready")
    ] = None,
) -> None:
    """Write an earlier generation back to the file, and put it in force without dropping a request."""
    from appliance.cli.history import rollback

    rollback(generation)
