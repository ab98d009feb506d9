"""Scripts that run inside the Metal engine environment, and their answers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.engines.vllm_metal import plugin_environ

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def run(
    python: Path, script: str, *arguments: object, timeout: float = 600, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the script prints as its last line. Its log is shown when it fails. `environ` goes before our own."""
    argv = [str(python), "-P", str(HERE / script), *map(str, arguments)]
    plugin = plugin_environ()
    plugin["PYTHONPATH"] += f":{ROOT}"  # scripts share a few functions
    given = {**os.environ, **plugin, "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", **(environ or {})}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout, env=given)
    assert done.returncode == 0, done.stderr[-4000:]
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value
