"""`appliance up`, `down` and `restart`: the control process."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.options import Backend, File, ModelSource, Profile, overrides


def up(
    file: File = None,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Return once the models are ready.")] = False,
    watch: Annotated[bool, typer.Option(help="Put every save of the file in force.")] = True,
    locked: Annotated[bool, typer.Option("--locked", help="Serve nothing but what model-runner.lock has.")] = False,
    profile: Profile = None,
    backend: Backend = None,
    model: ModelSource = None,
    port: Annotated[int | None, typer.Option(help="The gateway's port, instead of the file's.")] = None,
    metrics: Annotated[
        bool | None,
        typer.Option("--metrics/--no-metrics", help="Serve Prometheus metrics at /metrics.", show_default=False),
    ] = None,
) -> None:
    """Make it so: provision the engine, fetch the weights, start the models, serve them.

    Stays in the foreground and stops everything on Ctrl-C. With -d it goes on in the background, and exits 1 if a model
    is not ready: the appliance runs on, and `status` says why.
    """
    from appliance.cli import up as commands

    given = overrides(profile, backend, model, port, metrics)
    if not detach:
        commands.up(file, given, watch=watch, locked=locked)
        return
    from appliance.cli.loading import read

    loaded = read(file, given)  # what is wrong belongs on this terminal, not in the background's log
    if locked:
        from appliance.cli.lock import lock_of

        lock_of(loaded.path)
    flags = {"--file": file, "--profile": profile, "--backend": backend, "--model": model, "--port": port}
    arguments = [part for flag, value in flags.items() if value is not None for part in (flag, str(value))]
    arguments += [] if watch else ["--no-watch"]
    arguments += ["--locked"] if locked else []
    arguments += [] if metrics is None else ["--metrics" if metrics else "--no-metrics"]
    if not commands.up_detached(arguments):
        raise typer.Exit(1)


def down() -> None:
    """Let requests in flight finish, then stop every engine and the appliance."""
    from appliance.cli.up import down

    down()


def restart(file: File = None, profile: Profile = None, backend: Backend = None) -> None:
    """Replace the control process, in its place and with its own options; engines that still match run on.

    With options, or where none runs: `down`, leaving the engines, then `up -d`.
    """
    from appliance.cli import up as commands

    given = overrides(profile, backend)
    if not any(given.values()) and file is None and commands.restart():
        return
    from appliance.cli.loading import read

    read(file, given)  # before anything is stopped
    commands.down(missing_ok=True, keep_engines=True)
    up(file=file, detach=True, profile=profile, backend=backend)


def start(file: File = None) -> None:
    """The same as `up -d`."""
    up(file=file, detach=True)
