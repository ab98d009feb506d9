"""Local checkpoints, used where they lie."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable
from pathlib import Path

from appliance.errors import SourceError
from appliance.models.checkpoint import MODULE, SHARD, Checkpoint, Kind, identify
from appliance.models.convert.gguf_file import read_header
from appliance.models.convert.refused import Refused
from appliance.models.sources import LocalSource

UNREAD = "unread:"
"""Begins the digest of a file whose bytes nobody has hashed: hashing 40 GB to list models would be absurd."""


def examine(source: LocalSource) -> Checkpoint:
    """The checkpoint at a path. Raises a SourceError that says what is wrong with it."""
    path, kind = identify(source.path)
    files = _files(path, kind)
    size = sum(file.stat().st_size for file in files)
    return Checkpoint(source.text, path, kind, UNREAD + fingerprint(files), size)


def files_of(checkpoint: Checkpoint) -> dict[str, Path]:
    """The files of a local checkpoint, by their names in it."""
    top = checkpoint.path.parent if checkpoint.kind == "gguf" else checkpoint.path
    return {file.relative_to(top).as_posix(): file for file in _files(checkpoint.path, checkpoint.kind)}


def state_of(path: Path) -> str:
    """What changes whenever a file of the checkpoint at this path is replaced or written; empty where there is none.

    No file is read, and whether they are a model at all is not asked.
    """
    try:
        if path.is_dir():
            return fingerprint(_of_directory(path))
        template = path.with_name("chat_template.jinja")
        return fingerprint([*_of_gguf(path), *([template] if template.is_file() else [])])
    except OSError:
        return ""


def flaw(source: LocalSource) -> str | None:
    """Why these files cannot be loaded, as far as their own headers and lengths tell: one that is still being copied is
    shorter than it says."""
    try:
        path, kind = identify(source.path)
        if kind == "gguf":
            read_header(path, vocabulary=False)
    except SourceError as error:
        return error.message
    except Refused as refused:
        return refused.message if refused.kind == "damaged" else None  # its conversion says why
    except OSError as error:
        return str(error)
    return None


def fingerprint(files: Iterable[Path]) -> str:
    """What changes whenever a file is replaced or written: names, sizes, times and inodes."""
    state = hashlib.sha256()
    for file in files:
        found = file.stat()
        state.update(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ino}\n".encode())
    return state.hexdigest()


def _files(path: Path, kind: Kind) -> list[Path]:
    return _of_gguf(path) if kind == "gguf" else _of_directory(path)


def _of_gguf(path: Path) -> list[Path]:
    """The file, or every shard of it."""
    shard = SHARD.fullmatch(path.name)
    return sorted(path.parent.glob(f"{glob.escape(shard[1])}-*-of-{shard[3]}.gguf")) if shard else [path]


def _of_directory(path: Path) -> list[Path]:
    """Its own files and those of sentence-transformers' modules: what an engine may read, not what a Finder or a reader
    leaves there."""
    every = [*path.iterdir(), *path.glob("[0-9]*_*/*")]
    inside = {each: each.relative_to(path).as_posix() for each in every if each.is_file()}
    kept = [each for each, name in inside.items() if "/" not in name or MODULE.fullmatch(name)]
    return sorted(each for each in kept if not each.name.startswith(".") and each.suffix.lower() != ".md")
