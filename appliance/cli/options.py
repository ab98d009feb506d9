"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

File = Annotated[
    Path | None,
    typer.Option("-f", "--file", help="The configuration.", show_default="./model-runner.yaml"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Profile = Annotated[str | None, typer.Option(help="Merge this profile beneath the file: a name or a path.")]
Backend = Annotated[str | None, typer.Option(help="The default backend, instead of the file's.")]
ModelSource = Annotated[
    str | None, typer.Option("--model", help="Serve this source under the name `default`, with or without a file.")
]


def overrides(
    profile: str | None = None,
    backend: str | None = None,
    model: str | None = None,
    port: int | None = None,
    metrics: bool | None = None,
) -> dict[str, Any]:
    """Command-line flags by the key of the file that each stands for; None where a flag was not given."""
    return {
        "profile": profile,
        "backend": backend,
        "models.default.source": model,
        "server.port": port,
        "server.metrics": metrics,
    }
