"""What a LoRA adapter's own files say of it: PEFT's directory, or a GGUF that may lie beside the model it is for."""

from __future__ import annotations

import json
from pathlib import Path

from appliance.errors import SourceError, UnsupportedModel
from appliance.models.architecture import Numbers
from appliance.models.checkpoint import Checkpoint
from appliance.models.convert.gguf_file import read_header
from appliance.models.convert.refused import Refused

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `max_lora_rank`."""

BESIDE = "adapter.gguf"
"""What the layer of an artifact that holds an adapter becomes."""


def adapter_file(checkpoint: Checkpoint, checkpoints: Path) -> Path | None:
    """The GGUF that holds a checkpoint's adapter; None where the adapter is a directory.

    (1) The checkpoint's own file, (2) one beside a model of the same artifact. Raises a SourceError where it has none.
    """
    if checkpoint.kind == "lora":
        return None
    if checkpoint.kind == "gguf" and _is_adapter(checkpoint.path):  # (1)
        return checkpoint.path
    root = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    if root.is_relative_to(checkpoints) and (root / BESIDE).is_file():  # (2)
        return root / BESIDE
    raise SourceError(
        f"`{checkpoint.source}` is no LoRA adapter",
        hint="it should be a directory with adapter_config.json, or a GGUF file that says that it is an adapter",
    )


def rank(checkpoint: Checkpoint, checkpoints: Path) -> int:
    """The largest rank of any of its matrices. Raises a SourceError where vLLM could not apply it."""
    file = adapter_file(checkpoint, checkpoints)
    ranks = _ranks_of_gguf(file) if file else _ranks(checkpoint.path)
    if not all(type(each) is int and 0 < each <= RANKS[-1] for each in ranks):
        raise UnsupportedModel(
            f"`{checkpoint.source}` has the rank `{str(ranks)[:60]}`", hint=f"vLLM takes up to {RANKS[-1]}"
        )
    largest: int = max(ranks)
    return largest


def smallest_rank(ranks: list[int]) -> int:
    """The least `max_lora_rank` that all of these fit into."""
    return next(each for each in RANKS if each >= max(ranks))


def heads_of(base: Path) -> tuple[int, int]:
    """Of the model in this directory: those of queries, and those of keys."""
    try:
        numbers = Numbers(json.loads((base / "config.json").read_bytes()))
    except (OSError, ValueError) as error:
        raise SourceError(f"`{base}` has no config.json that says what an adapter is for") from error
    queries = numbers.count("heads")
    if queries is None:
        raise SourceError(f"`{base / 'config.json'}` does not say how many heads the model has")
    return queries, numbers.count("kv_heads") or queries


def _ranks(path: Path) -> list[int]:
    file = path / "adapter_config.json"
    try:
        config = json.loads(file.read_bytes())
        ranks = [config["r"], *config.get("rank_pattern", {}).values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"`{file}` does not say what rank the adapter has", hint="PEFT writes such a file") from error
    if config.get("use_dora") or config.get("modules_to_save"):
        what = "DoRA" if config.get("use_dora") else "whole modules (`modules_to_save`)"
        raise UnsupportedModel(f"`{path}` holds {what}, which cannot be applied to a running model")
    return ranks


def _is_adapter(file: Path) -> bool:
    try:
        return read_header(file, vocabulary=False).metadata.get("general.type") == "adapter"
    except Refused as refused:
        raise SourceError(f"`{file}`: {refused.message}", hint=refused.hint) from refused


def _ranks_of_gguf(file: Path) -> list[int]:
    try:
        tensors = read_header(file, vocabulary=False).tensors
    except Refused as refused:
        raise SourceError(f"`{file}`: {refused.message}", hint=refused.hint) from refused
    found = [tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".lora_a")]
    if not found:
        raise SourceError(f"`{file}` is an adapter without matrices", hint="fetch it again")
    return found
