"""`appliance chaos`."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.options import File, Json


def chaos(
    duration: Annotated[float, typer.Option(min=1, help="Seconds of it.")] = 60,
    clients: Annotated[int, typer.Option(min=1, help="Clients that stream all the time.")] = 16,
    seed: Annotated[
        int | None, typer.Option(help="Repeats the moves of an earlier run.", show_default="random")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="standin: engines without a model. file: the models of the file, for real.")
    ] = "standin",
    file: File = None,
    json: Json = False,
) -> None:
    """Prove on this machine that no request is dropped: stream, edit, save garbage, kill engines, and count.

    Runs an appliance of its own in a temporary directory; yours is not touched. Exits 1 if anything was lost but the
    answers of engines that were killed.
    """
    from appliance.cli.chaos import chaos

    if engine not in {"standin", "file"}:
        raise typer.BadParameter("is standin or file", param_hint="--engine")
    if not chaos(duration=duration, clients=clients, seed=seed, engine=engine, file=file, as_json=json):
        raise typer.Exit(1)
