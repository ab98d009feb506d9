"""What a directory or file of weights is, found out before an engine gets to mislead about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from appliance.errors import SourceError, SourceNotFound, UnsupportedModel
from appliance.models.safetensors_header import read_table

Kind = Literal["hf", "gguf", "mlx", "lora"]

KEPT = (".gguf", ".safetensors", ".json", ".txt", ".model", ".jinja")
"""Suffixes of the files a checkpoint needs. Code and pickles are not among them: loading one would execute it."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
"""A file's part in a GGUF model of several: the model's name, its number, and how many there are."""

MODULE = re.compile(r"\d{1,2}_[A-Za-z]{1,40}/(config\.json|model\.safetensors)")
"""A file of one of sentence-transformers' modules, in the layout that is its own."""

_COMPANION = re.compile(r"(?i)(^|[-_.])(mmproj|adapter)([-_.]|$)")
_TOKENIZER_STEMS = ("tokenizer", "vocab", "tekken", "spiece", "sentencepiece")


def is_projector(name: str) -> bool:
    """Whether a file is llama.cpp's projector of pictures or sounds, which goes with a model's GGUF."""
    match = _COMPANION.search(name)
    return name.endswith(".gguf") and match is not None and match[2].lower() == "mmproj"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's complete files on this machine. `path` is the directory, or the file where `kind` is `gguf`.

    `context` is the length of text that whoever packed it meant it to be served with, where they said so.
    """

    source: str
    path: Path
    kind: Kind
    digest: str
    size: int
    context: int | None = None


def identify(path: Path) -> tuple[Path, Kind]:
    """The path to load and what it is. Raises a SourceError that says what is missing."""
    if not path.exists():
        raise SourceNotFound(
            f"`{path}` does not exist",
            hint="correct the path; for a model on the Hugging Face hub write `hf:org/name`",
        )
    if path.is_dir():
        return _directory(path)
    if path.suffix.lower() == ".gguf":
        return _gguf(path)
    if path.suffix.lower() in PICKLES:
        raise _pickle(path)
    raise UnsupportedModel(f"`{path}` is no model", hint="give the checkpoint's directory, or a .gguf file")


def _directory(path: Path) -> tuple[Path, Kind]:
    files = {each.name: each for each in sorted(path.iterdir()) if each.is_file()}
    if not files:
        raise SourceNotFound(f"`{path}` holds no files", hint="give the directory that config.json is in")
    with_suffix = {
        suffix: [name for name in files if Path(name).suffix.lower() == suffix] for suffix in (*KEPT, *PICKLES)
    }
    if "adapter_config.json" in files:
        return _adapter(path, files)
    if with_suffix[".safetensors"]:
        return _safetensors(path, files)
    if with_suffix[".gguf"]:
        return _gguf(_only(path, with_suffix[".gguf"]))
    if pickles := [name for suffix in PICKLES for name in with_suffix[suffix]]:
        raise _pickle(files[pickles[0]])
    raise SourceNotFound(
        f"`{path}` holds no weights", hint="it should hold config.json and *.safetensors, or a .gguf file"
    )


def _adapter(path: Path, files: dict[str, Path]) -> tuple[Path, Kind]:
    weights = files.get("adapter_model.safetensors")
    if weights is None:
        if pickles := [name for name in files if Path(name).suffix.lower() in PICKLES]:
            raise _pickle(files[pickles[0]])
        raise SourceNotFound(f"`{path}` is an adapter without adapter_model.safetensors", hint="fetch it again")
    _json(files["adapter_config.json"])
    read_table(weights)
    return path, "lora"


def _safetensors(path: Path, files: dict[str, Path]) -> tuple[Path, Kind]:
    if "config.json" not in files:
        raise SourceNotFound(f"`{path}` has no config.json", hint="give the directory of a whole checkpoint")
    config = _json(files["config.json"])
    if "model_type" not in config and "architectures" not in config:
        raise SourceError(f"`{files['config.json']}` names neither `model_type` nor `architectures`")
    if not any(name.startswith(_TOKENIZER_STEMS) or name.endswith((".model", ".tiktoken")) for name in files):
        raise SourceNotFound(
            f"`{path}` has no tokenizer", hint="copy tokenizer.json and its companions beside config.json"
        )
    _whole(path, files)
    return path, "mlx" if "quantization" in config else "hf"


def _whole(path: Path, files: dict[str, Path]) -> None:
    """Every shard the index names is there, and every file is as long as its own header says."""
    if index := files.get("model.safetensors.index.json"):
        weight_map = _json(index).get("weight_map")
        shards = {str(shard) for shard in weight_map.values()} if isinstance(weight_map, dict) else set()
        if missing := sorted(shards - files.keys()):
            raise SourceNotFound(f"`{path}` lacks `{missing[0]}`, which its index names", hint="copy or fetch it again")
    for name, file in files.items():
        if name.endswith(".safetensors"):
            read_table(file)


def _gguf(path: Path) -> tuple[Path, Kind]:
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic != b"GGUF":
        raise SourceError(f"`{path}` is not a GGUF file: it starts with `{magic!r}`", hint="fetch it again")
    return path, "gguf"


def _only(path: Path, names: Iterable[str]) -> Path:
    """The one model among a directory's GGUF files; of one in shards the first shard."""
    every = sorted(names)
    files = [name for name in every if not _COMPANION.search(name)] or every
    shards = [match for match in map(SHARD.fullmatch, files) if match]
    if len(shards) == len(files) == int(shards[0][3] if shards else -1) and len({each[1] for each in shards}) == 1:
        return path / files[0]
    if len(files) > 1 or shards:
        raise UnsupportedModel(
            f"`{path}` holds {len(files)} GGUF files: {', '.join(files[:6])}",
            hint="name one of them by its own path"
            if not shards
            else f"`{shards[0][0]}` is one of {int(shards[0][3])} shards; put all of them, and nothing else, there",
        )
    return path / files[0]


def _pickle(path: Path) -> UnsupportedModel:
    return UnsupportedModel(
        f"`{path}` holds its weights as a pickle, which runs code when it is loaded",
        hint="use a checkpoint with *.safetensors, or convert this one",
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SourceError(f"`{path}` is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise SourceError(f"`{path}` holds no JSON object")
    return value
