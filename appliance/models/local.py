"""Local checkpoints, used where they lie."""

from __future__ import annotations

import glob
import hashlib
from pathlib import Path

from appliance.models.checkpoint import SHARD, Checkpoint, Kind, identify
from appliance.models.sources import LocalSource

UNREAD = "unread:"
"""Begins the digest of a file whose bytes nobody has hashed: hashing 40 GB to list models would be absurd."""


def examine(source: LocalSource) -> Checkpoint:
    """The checkpoint at a path. Raises a SourceError that says what is wrong with it."""
    path, kind = identify(source.path)
    files = _files(path, kind)
    size = sum(file.stat().st_size for file in files)
    return Checkpoint(source.text, path, kind, UNREAD + fingerprint(files), size)


def files_of(checkpoint: Checkpoint) -> list[Path]:
    """The files of a local checkpoint."""
    return _files(checkpoint.path, checkpoint.kind)


def _files(path: Path, kind: Kind) -> list[Path]:
    """Of a directory all of its own files; of a GGUF the file, or every shard of it."""
    if kind != "gguf":
        return sorted(each for each in path.iterdir() if each.is_file())
    shard = SHARD.fullmatch(path.name)
    return sorted(path.parent.glob(f"{glob.escape(shard[1])}-*-of-{shard[3]}.gguf")) if shard else [path]


def fingerprint(files: list[Path]) -> str:
    """What changes whenever a file is replaced or written: names, sizes, times and inodes."""
    state = hashlib.sha256()
    for file in files:
        found = file.stat()
        state.update(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ino}\n".encode())
    return state.hexdigest()
