"""What a source's files are now, byte by byte: what a lock is made of and compared with."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.models.checkpoint import Checkpoint
from appliance.models.local import files_of
from appliance.models.sources import LocalSource, Source
from appliance.models.store import Store
from appliance.progress import Report


async def digests(
    store: Store, source: Source, checkpoint: Checkpoint, report: Report, *, subject: str
) -> Mapping[str, str]:
    """Each file's SHA-256 by its name. Of a fetched checkpoint it is what arrived, unless somebody has written to the
    file since; those, and the files of a local one, are read."""
    if isinstance(source, LocalSource):
        return await store.digests.read(files_of(checkpoint), report, subject=subject)
    record = store.record(source)
    if record is None:
        return {}
    directory = store.checkpoints / record.directory
    touched = {name: directory / name for name in record.touched(store.checkpoints)}
    arrived = {name: file.sha256 for name, file in record.files.items()}
    return arrived | await store.digests.read(touched, report, subject=subject) if touched else arrived
