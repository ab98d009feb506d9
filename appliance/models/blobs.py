"""Files by their content, so that equal ones take their space once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from appliance.models.disk import link
from appliance.models.record import File


def deposit(directory: Path, files: Mapping[str, File], blobs: Path) -> None:
    """Give every file its name under `blobs`, or make it another name of the blob that is there. Safe to repeat."""
    for name, file in files.items():
        path, blob = directory / name, blobs / file.sha256
        if _is(blob, path, file.sha256):
            _share(blob, path)
        else:
            arriving = blob.with_suffix(f".{os.getpid()}")
            arriving.unlink(missing_ok=True)
            link(path, arriving)
            arriving.replace(blob)


def _is(blob: Path, path: Path, sha256: str) -> bool:
    """Whether there is such a blob and its bytes are right: nobody may be given a file that went bad meanwhile."""
    if not blob.exists():
        return False
    if blob.samefile(path):
        return True
    with blob.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == sha256


def _share(blob: Path, path: Path) -> None:
    if not blob.samefile(path):
        twin = path.with_name(f"{path.name}.twin")
        twin.unlink(missing_ok=True)
        link(blob, twin)
        twin.replace(path)
