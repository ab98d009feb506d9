"""`appliance service …`."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.options import File, Json

service_app = typer.Typer(
    help="The appliance as a service of this machine: launchd's on macOS, systemd's on Linux.", no_args_is_help=True
)

System = Annotated[
    bool, typer.Option("--system", help="A service of the machine, which runs at boot, instead of your own session's.")
]


@service_app.command("install")
def service_install(
    file: File = None,
    system: System = False,
    user: Annotated[
        str | None,
        typer.Option(help="With --system: whom it runs as.", show_default="who called sudo"),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Give the service this variable of your shell, e.g. HTTPS_PROXY. Repeatable."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written and run; do nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Define the service, start it, and have it started from now on. Again: put in force what has changed.

    It serves the file where it is now, and its supervisor holds the port, so that clients wait while it restarts
    instead of being refused. It has none of your shell's variables: name those it needs with --env, which is no place
    for secrets (anybody on the machine can ask for them); write those as ${file:PATH} into the file.
    """
    from appliance.cli.service import install

    install(file, system=system, user=user, names=tuple(env or ()), dry_run=dry_run, as_json=json)


@service_app.command("uninstall")
def service_uninstall(system: System = False, json: Json = False) -> None:
    """Let requests in flight finish, stop the service and remove its definition. Models and keys stay."""
    from appliance.cli.service import uninstall

    uninstall(system=system, as_json=json)


@service_app.command("status")
def service_status(file: File = None, system: System = False, json: Json = False) -> None:
    """Whether it is installed, up to date and running. Exits 1 unless it runs."""
    from appliance.cli.service import status

    if not status(file, system=system, as_json=json):
        raise typer.Exit(1)


@service_app.command("logs")
def service_logs(
    system: System = False,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines arrive.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Begin this many lines before the end.")] = 50,
) -> None:
    """What the service has written: from systemd's journal, or launchd's log file. Engines: `appliance logs MODEL`."""
    from appliance.cli.service import logs

    logs(system=system, follow=follow, lines=lines)
