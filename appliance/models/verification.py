"""Whether a checkpoint's bytes are what they were when they arrived."""

from __future__ import annotations

import hashlib
from pathlib import Path

from appliance.models.record import Record
from appliance.models.work import Tick
from appliance.progress import Progress

_CHUNK = 4 * 1024 * 1024


def corrupt(record: Record, checkpoints: Path, tick: Tick, subject: str) -> list[str]:
    """The names of the record's files that are missing or have another SHA-256."""
    total = sum(file.size for file in record.files.values())
    done, wrong = 0, []
    for name, file in record.files.items():
        digest = hashlib.sha256()
        try:
            with (checkpoints / record.directory / name).open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    done += len(chunk)
                    tick(Progress(subject, "verifying", done, total, "bytes"))
        except FileNotFoundError:
            wrong.append(name)
            continue
        if file.sha256 and digest.hexdigest() != file.sha256:
            wrong.append(name)
    return wrong
