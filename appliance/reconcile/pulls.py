"""Checkpoints by their name in the file; with a lock, those that are locked and no others."""

from __future__ import annotations

from appliance.models.checkpoint import Checkpoint
from appliance.models.digests import digests
from appliance.models.lockfile import Lock, require
from appliance.models.sources import Source, at_revision
from appliance.models.store import Store
from appliance.progress import Report


class Pulls:
    """Of one store."""

    def __init__(self, store: Store, lock: Lock | None) -> None:
        self._store = store
        self._lock = lock

    async def __call__(self, name: str, declared: str, source: Source, report: Report, *, subject: str) -> Checkpoint:
        """`name` is a model's, or `MODEL/ADAPTER`; `declared` is its source as the file has it.

        Raises a SourceError where it cannot be had, or is not what the lock has.
        """
        if self._lock is None:
            return await self._store.pull(source, report, subject=subject)
        entry, record = self._lock.models.get(name), self._store.record(source)
        if entry is not None and (record is None or record.revision != entry.revision):
            source = at_revision(source, entry.revision)
        checkpoint = await self._store.pull(source, report, subject=subject)
        files = await digests(self._store, source, checkpoint, report, subject=subject)
        require(self._lock, name, declared, files)
        return checkpoint
