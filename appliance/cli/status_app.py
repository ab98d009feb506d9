"""`appliance status`, `ps` and `logs`: what runs."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.options import Json


def status(
    json: Json = False,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on until Ctrl-C, showing each change.")] = False,
) -> None:
    """How every model is, and why. Exits 1 unless all declared models are ready."""
    if watch:
        from appliance.cli.watch import watch_status

        watch_status(as_json=json)
        return
    from appliance.cli.inspect import show_status

    if not show_status(as_json=json):
        raise typer.Exit(1)


def ps(json: Json = False) -> None:
    """The engine processes."""
    from appliance.cli.inspect import show_engines

    show_engines(as_json=json)


def logs(
    model: Annotated[str | None, typer.Argument(help="A model's name.", show_default="the appliance itself")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines arrive.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", help="Begin this many lines before the end.")] = 50,
) -> None:
    """What an engine, or the appliance in the background, has written."""
    from appliance.cli.inspect import show_logs

    show_logs(model, follow=follow, lines=lines)
