"""`PYTHON -I …/convert/__main__.py --to hf --out DIRECTORY FILE.gguf`, one JSON object a line on stdout."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_NAME = "appliance_convert"


def _name_this_directory() -> None:
    """The engine environment has no `appliance`, and the control environment must not leak onto its path."""
    here = Path(__file__).parent
    spec = importlib.util.spec_from_file_location(_NAME, here / "__init__.py", submodule_search_locations=[str(here)])
    assert spec is not None  # noqa: S101 - always given for a .py file; narrows the type
    sys.modules[_NAME] = importlib.util.module_from_spec(spec)


if __name__ == "__main__":
    _name_this_directory()
    sys.exit(importlib.import_module(f"{_NAME}.command").main(sys.argv[1:]))
