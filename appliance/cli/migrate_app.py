"""`appliance migrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.options import Json


def migrate(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="Files, or - for standard input.",
            show_default="this directory's Compose files, .env, the environment",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Where model-runner.yaml and profiles/ go.", show_default="."),
    ] = None,
    name: Annotated[str, typer.Option(help="The profile's name: profiles/NAME.yaml.")] = "metal",
    target: Annotated[
        str, typer.Option(help="The machine to size for: m1-8gb, m2-pro-16gb, m4-max-128gb, …, or this-machine.")
    ] = "this-machine",
    from_runner: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask a running Docker Model Runner, too.", show_default=False)
    ] = None,
    environment: Annotated[bool, typer.Option("--environment", help="Read this shell's variables, too.")] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF=SOURCE", help="Where the weights of a model are: ai/qwen3=hf:Qwen/Qwen3-8B. May be repeated."
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--as", help="What the files are, where that is not plain.", show_default=False)
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Rewrite the files themselves; each is kept as .bak.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    json: Json = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as Markdown.", show_default=False)
    ] = None,
) -> None:
    """Turn what runs on Linux today into a profile for Metal, and account for every key.

    Reads Compose files (`models:`, providers, engine services), .env files, Dockerfiles, `docker run`, `docker model`,
    `vllm serve` and `llama-server` command lines, scripts, crontabs and histories, systemd units, `docker inspect` and
    Model Runner's own answers as JSON, docker-agent, Helm values, vLLM's --config, llama-swap, Modelfiles, and LiteLLM.
    Given a model-runner.yaml of an older version, brings that up to date.

    Exits 0 where nothing needs you, and 4 where something does.
    """
    from appliance.cli.migrate import run

    done = run(
        sources or [],
        folder=output,
        name=name,
        target=target,
        kind=kind,
        runner=from_runner,
        process=environment,
        answers=source or [],
        in_place=in_place,
        dry_run=dry_run,
        as_json=json,
        report_file=report,
    )
    if not done:
        raise typer.Exit(4)
