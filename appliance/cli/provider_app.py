"""`appliance compose …`: what Docker Compose runs for `provider: {type: appliance}`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

compose_app = typer.Typer(
    help="For Docker Compose, which runs these for a service with `provider: {type: appliance}`.", no_args_is_help=True
)

Service = Annotated[str, typer.Argument(help="The service's name in the Compose file.")]


@compose_app.callback()
def compose(
    context: typer.Context,
    project_name: Annotated[str, typer.Option("--project-name", help="The Compose project.")] = "default",
) -> None:
    context.obj = project_name


@compose_app.command("up")
def compose_up(
    context: typer.Context,
    service: Service,
    file: Annotated[Path | None, typer.Option(help="The configuration.", show_default="./model-runner.yaml")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model that the service needs. Repeatable.", show_default="all declared")
    ] = None,
    host: Annotated[str | None, typer.Option(help="What containers call this machine.")] = None,
) -> None:
    """Start the appliance where none runs, wait until its models are ready, and say where they are."""
    from appliance.cli.provider import up

    if not up(context.obj, service, file=file, models=tuple(model or ()), host=host):
        raise typer.Exit(1)


@compose_app.command("down")
def compose_down(context: typer.Context, service: Service) -> None:
    """Let go of it; the last service to do so stops what Compose had started."""
    from appliance.cli.provider import down

    if not down(context.obj, service):
        raise typer.Exit(1)


@compose_app.command("metadata")
def compose_metadata() -> None:
    """The options that a provider service may have, as JSON."""
    from appliance.cli.provider import metadata

    metadata()
