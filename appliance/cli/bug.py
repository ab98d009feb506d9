"""What to print, and keep, when the program itself is wrong."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from pathlib import Path

from appliance import __version__
from appliance.cli.output import note


def report(bug: Exception, arguments: list[str]) -> None:
    """One line for the person, and a file with all that a maintainer would ask for."""
    text = "\n".join(
        (
            f"appliance {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"command: appliance {' '.join(arguments)}",
            "",
            "".join(traceback.format_exception(bug)),
        )
    )
    with tempfile.NamedTemporaryFile("w", prefix="appliance-bug-", suffix=".txt", delete=False) as file:
        file.write(text)
    note(f"bug: {type(bug).__name__}: {bug}")
    note(f"  This is a fault of the appliance, not of your file. A report is in {Path(file.name)}; please send it.")
    if sys.stderr.isatty():
        note("".join(traceback.format_exception(bug)[-2:]).rstrip())
