"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path | None,
    typer.Option("-f", "--file", help="The configuration.  [default: ./model-runner.yaml]", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Profile = Annotated[str | None, typer.Option(help="Merge this profile beneath the file: a name or a path.")]
Backend = Annotated[str | None, typer.Option(help="The default backend, instead of the file's.")]
ModelSource = Annotated[
    str | None, typer.Option("--model", help="Serve this source under the name `default`, with or without a file.")
]
