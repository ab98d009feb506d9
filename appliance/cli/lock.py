"""`lock`: agree on what every source stands for, and see what has drifted since."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from pathlib import Path

from appliance.cli import output
from appliance.cli.loading import base_of, read
from appliance.cli.progress import shown
from appliance.cli.weights import store_of
from appliance.config.load import Loaded
from appliance.errors import ApplianceError
from appliance.models.digests import digests
from appliance.models.lockfile import Difference, Entry, Lock, differences, lock_path
from appliance.models.sources import Source, parse_source
from appliance.models.store import Store
from appliance.progress import Report
from appliance.reconcile.control import choose_environments
from appliance.reconcile.drift import declared, moved
from appliance.state import StateDirectory


def write(file: Path | None, *, update: bool) -> None:
    """Resolve every source, fetching what is not here, and write the lock beside the file.

    With `update` branches and tags are followed to where they stand now.
    """
    loaded = read(file)
    path = _path(loaded)
    with shown() as report:
        entries = asyncio.run(_entries(loaded, report, fetch=True, update=update))
    Lock({name: entry for name, entry in entries.items() if entry}, identities(loaded)).write(path)
    for name, entry in sorted(entries.items()):
        if entry:
            output.data(f"{name}\t{entry.revision or '-'}\t{len(entry.files)} files")
    output.note(f"wrote {path}")


def check(file: Path | None, *, remote: bool, as_json: bool) -> bool:
    """Print how things differ from the lock; True where they do not."""
    loaded = read(file)
    lock = lock_of(loaded.path)
    with shown() as report:
        now = asyncio.run(_entries(loaded, report, fetch=False))
        found = [*differences(lock, now, identities(loaded))]
        found += [Difference(name, "files", "are not on this machine") for name, entry in now.items() if entry is None]
        if remote:
            found += asyncio.run(_moved(loaded, lock, report))
    if as_json:
        output.as_json([asdict(each) for each in found])
    else:
        output.table(("NAME", "DRIFT", "HOW"), ((each.name, each.kind, each.message) for each in found))
    return not found


def lock_of(file: Path | None) -> Lock:
    """The lock beside the file. Raises where there is none."""
    path = lock_path(file) if file else Path("model-runner.lock")
    lock = Lock.read(path)
    if lock is None:
        raise ApplianceError(f"there is no lock `{path}`", hint="`appliance lock` writes it")
    return lock


def _path(loaded: Loaded) -> Path:
    if loaded.path is None:
        raise ApplianceError("there is no file to lock", hint="write a model-runner.yaml, or name one with -f")
    return lock_path(loaded.path)


def identities(loaded: Loaded) -> dict[str, str]:
    state = StateDirectory.locate(os.environ)
    return {backend: spec.identity for backend, spec in choose_environments(loaded.appliance, state).items()}


async def _entries(loaded: Loaded, report: Report, *, fetch: bool, update: bool = False) -> dict[str, Entry | None]:
    store, base, found = store_of(loaded), base_of(loaded), {}
    for name, entry in declared(loaded.appliance).items():
        source, subject = parse_source(entry.source, base=base), f"model {name}"
        if update:
            await store.update(source, report, subject=subject)
        found[name] = await _entry(source, entry, store, report, subject=subject, fetch=fetch)
    return found


async def _entry(
    source: Source, entry: Entry, store: Store, report: Report, *, subject: str, fetch: bool
) -> Entry | None:
    checkpoint = await store.pull(source, report, subject=subject) if fetch else store.find(source)
    if checkpoint is None:
        return None
    record = store.record(source)
    files = await digests(store, source, checkpoint, report, subject=subject)
    return Entry(entry.source, record.revision if record else None, files, entry.arguments)


async def _moved(loaded: Loaded, lock: Lock, report: Report) -> list[Difference]:
    store, base, revisions = store_of(loaded), base_of(loaded), {}
    for name, entry in declared(loaded.appliance).items():
        source = parse_source(entry.source, base=base)
        if revision := await store.revision(source, report, subject=f"model {name}"):
            revisions[name] = revision
    return [*moved(lock, revisions)]
