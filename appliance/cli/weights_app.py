"""`appliance pull`, `lock` and `fit`: the models' bytes."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.options import File, Json


def pull(
    model: Annotated[str | None, typer.Argument(help="A model's name.", show_default="all")] = None,
    file: File = None,
) -> None:
    """Fetch weights before they are needed. A broken-off transfer goes on where it stopped."""
    from appliance.cli.weights import pull

    pull(file, model)


def lock(
    file: File = None,
    check: Annotated[bool, typer.Option("--check", help="Say how things differ from the lock; exit 1 if so.")] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="With --check: ask whether sources have moved where they come from.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Take in what branches and tags stand for now, where they have moved.")
    ] = False,
    json: Json = False,
) -> None:
    """Write model-runner.lock: every source's revision, every file's SHA-256, the engine's arguments and environment.

    Fetches what is not here yet. `appliance up --locked` then serves these bytes and no others.
    """
    from appliance.cli import lock as commands

    if remote and not check:
        raise typer.BadParameter("only with --check", param_hint="--remote")
    if update and check:
        raise typer.BadParameter("not with --check", param_hint="--update")
    if not check:
        commands.write(file, update=update)
    elif not commands.check(file, remote=remote, as_json=json):
        raise typer.Exit(1)


def fit(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL|SOURCE]", help="A model's name, or any source.", show_default="all"),
    ] = None,
    file: File = None,
    target: Annotated[
        str | None,
        typer.Option(help="Another machine, as chip and memory: m2-16gb, m3-max-64gb.", show_default="this one"),
    ] = None,
    json: Json = False,
) -> None:
    """Which context lengths, and how many sequences at once, fit into memory. Nothing is downloaded but headers.

    Each number is what an engine of that size would take in all; `-` is more than the memory budget. Put the lengths
    under `engine:` as max_model_len and max_num_seqs. Exits 1 where nothing fits.
    """
    from appliance.cli.fit import fit

    if not fit(file, model, target, as_json=json):
        raise typer.Exit(1)
