"""What a checkpoint is for, as far as its own files tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from appliance.engines.driver import Choice, Shape
from appliance.models.architecture import Numbers


def choices(path: Path) -> tuple[Choice, ...]:
    """Arguments for what is no generating model. Empty where nothing says that it is not one.

    (1) A classifier scores. (2) What sentence-transformers has written its modules beside, and (3) what reads a text
    all at once and can write none, embeds.
    """
    config = _json(path / "config.json")
    named = config.get("architectures") if isinstance(config, dict) else None
    names = [str(each) for each in named] if isinstance(named, list) else []
    if any(name.endswith("ForSequenceClassification") for name in names):  # (1)
        return (Choice("runner", "pooling", f"`{names[0]}` is a classifier"),)
    if (path / "modules.json").is_file() and isinstance(_json(path / "modules.json"), list):  # (2)
        why = "sentence-transformers' modules are beside it"
        return (Choice("runner", "pooling", why), Choice("convert", "embed", why))
    if isinstance(config, dict) and Numbers(config).encoder:  # (3)
        return (Choice("runner", "pooling", f"`{names[0]}` is an encoder"),)
    return ()


def length(packed: int | None, shape: Shape) -> tuple[Choice, ...]:
    """The length of text that an artifact was packed for, as far as its model reaches: llama.cpp would go beyond."""
    if packed is None:
        return ()
    return (Choice("max_model_len", min(packed, shape.context or packed), "its artifact's `context_size` says so"),)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
