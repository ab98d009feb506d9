from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.config.load import Check, Loaded, interpret

FILE = Path("model-runner.yaml")
MODEL = "models: {smollm2: {source: ./smollm2}}\n"
HASH = "a" * 64


def loaded(
    text: str | None = MODEL,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    path: Path | None = FILE,
    check: Check = lambda _: (),
) -> Loaded:
    backends = frozenset({"vllm"})
    return interpret(text, path, environ=environ or {}, overrides=overrides, backends=backends, check=check)
