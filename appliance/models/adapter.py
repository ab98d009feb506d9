"""What a LoRA adapter's own files say of it."""

from __future__ import annotations

import json
from pathlib import Path

from appliance.errors import SourceError, UnsupportedModel

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `max_lora_rank`."""


def rank(path: Path) -> int:
    """The largest rank of any of its matrices. Raises a SourceError where vLLM could not apply it."""
    file = path / "adapter_config.json"
    try:
        config = json.loads(file.read_bytes())
        ranks = [config["r"], *config.get("rank_pattern", {}).values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"`{file}` does not say what rank the adapter has", hint="PEFT writes such a file") from error
    if config.get("use_dora") or config.get("modules_to_save"):
        what = "DoRA" if config.get("use_dora") else "whole modules (`modules_to_save`)"
        raise UnsupportedModel(f"`{path}` holds {what}, which cannot be applied to a running model")
    if not all(type(each) is int and 0 < each <= RANKS[-1] for each in ranks):
        raise UnsupportedModel(f"`{file}` has the rank `{str(ranks)[:60]}`", hint=f"vLLM takes up to {RANKS[-1]}")
    largest: int = max(ranks)
    return largest


def smallest_rank(ranks: list[int]) -> int:
    """The least `max_lora_rank` that all of these fit into."""
    return next(each for each in RANKS if each >= max(ranks))
