"""`ENGINE_PYTHON …/zygote/__main__.py SOCKET [PREPARATION]`, a unix socket to the control process as standard input."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_NAME = "appliance_zygote"


def _name_this_directory() -> None:
    """The engine environment has no `appliance`, and the control environment must not leak onto its path."""
    here = Path(__file__).parent
    sys.path[:] = [entry for entry in sys.path if Path(entry) != here]
    spec = importlib.util.spec_from_file_location(_NAME, here / "__init__.py", submodule_search_locations=[str(here)])
    assert spec is not None  # noqa: S101 - always given for a .py file; narrows the type
    sys.modules[_NAME] = importlib.util.module_from_spec(spec)


# An engine that spawns a process runs the file of its main module again: that must not be another zygote.
if __name__ == "__main__":
    _name_this_directory()
    sys.exit(importlib.import_module(f"{_NAME}.server").main(*sys.argv[1:]))
