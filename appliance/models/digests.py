"""The SHA-256 of files that the store did not bring, read once for each state of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from appliance.models.checkpoint import Checkpoint
from appliance.models.local import files_of, fingerprint
from appliance.models.sources import LocalSource, Source
from appliance.models.store import Store
from appliance.models.work import Tick, run_thread
from appliance.progress import Progress, Report
from appliance.state import write_atomic

_CHUNK = 4 * 1024 * 1024


async def digests(
    store: Store, source: Source, checkpoint: Checkpoint, report: Report, *, subject: str
) -> Mapping[str, str]:
    """Each file's SHA-256 by its name. Of a fetched checkpoint it is what arrived, unless somebody has written to the
    file since; those, and the files of a local one, are read."""
    known: dict[str, str] = {}
    if isinstance(source, LocalSource):
        files = files_of(checkpoint)
        names = {file: file.name for file in files}
    else:
        record = store.record(source)
        if record is None:
            return {}
        known = {name: file.sha256 for name, file in record.files.items()}
        directory = store.checkpoints / record.directory
        names = {directory / name: name for name in record.touched(store.checkpoints)}
        files = [*names]
        if not files:
            return known
    total = sum(file.stat().st_size for file in files)

    def read(tick: Tick) -> dict[str, str]:
        done = 0
        found = dict(known)
        for file in files:
            found[names[file]], done = _digest(store.root, file, done, total, tick, subject)
        return found

    store.prepare_directories()
    return await run_thread(read, report)


def _digest(root: Path, file: Path, done: int, total: int, tick: Tick, subject: str) -> tuple[str, int]:
    cache = root / "digests" / fingerprint([file])
    if cache.exists():
        return cache.read_text(), done + file.stat().st_size
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            tick(Progress(subject, "reading", done, total, "bytes"))
    write_atomic(cache, digest.hexdigest().encode())
    return digest.hexdigest(), done
