"""`appliance doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.options import File, Json


def doctor(
    file: File = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what takes more than a second.")] = False,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Also write an archive for a bug report, with secrets taken out.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where --bundle writes.", show_default="here")
    ] = None,
    json: Json = False,
) -> None:
    """Find out what is wrong on this machine: each finding with its cause and what to do. Exits 1 if it must be mended.

    Looks at the machine, the file, the state directory, disk, port, proxies, certificates, the clock, memory, engine
    environments, failed engines, and requests that were refused. Nothing is changed, and no secret is shown.
    """
    from appliance.cli.doctor import default_archive, doctor

    archive = output or default_archive() if bundle or output else None
    if not doctor(file, quick=quick, as_json=json, archive=archive):
        raise typer.Exit(1)
