"""Run as a directory, in which case nothing has said yet what package this is."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

directory = Path(__file__).parent
sys.path[0] = str(directory.parent)
code = importlib.import_module(f"{directory.name}.server").main(sys.argv[1:])
sys.stdout.flush()
os._exit(code)  # like an engine: nothing waits for connections or children
