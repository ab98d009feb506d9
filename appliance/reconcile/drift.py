"""How what is on this machine differs from the lock, and from what engines have loaded. Reads no weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.config.models import Appliance
from appliance.errors import ConfigError, SourceError
from appliance.models.local import examine
from appliance.models.lockfile import Difference, Entry, Lock, differences, lock_path
from appliance.models.sources import LocalSource, parse_source
from appliance.models.store import Store
from appliance.reconcile.engine import Engine


def declared(appliance: Appliance) -> dict[str, Entry]:
    """Every model and adapter of the file, as far as the file alone tells."""
    entries = {}
    for name, model in appliance.models.items():
        entries[name] = Entry(model.source, None, {}, dict(model.engine))
        entries |= {f"{name}/{each.name}": Entry(each.source, None, {}) for each in model.adapters}
    return entries


def drift(
    appliance: Appliance,
    file: Path | None,
    base: Path,
    store: Store,
    environments: Mapping[str, str],
    engines: Collection[Engine],
) -> list[dict[str, Any]]:
    """Each difference as plain data. A local file's content is compared by its time and size alone."""
    found = [*_since_started(engines)]
    try:
        lock = Lock.read(lock_path(file)) if file else None
    except ConfigError as error:
        return [asdict(Difference("model-runner.lock", "declared", error.message))]
    if lock is not None:
        now = {name: _now(name, entry, lock, base, store) for name, entry in declared(appliance).items()}
        found += differences(lock, now, environments)
        found += _touched(appliance, base, store)
    return [asdict(each) for each in found]


def _now(name: str, entry: Entry, lock: Lock, base: Path, store: Store) -> Entry | None:
    source = parse_source(entry.source, base=base)
    locked = lock.models.get(name)
    if isinstance(source, LocalSource):
        return Entry(entry.source, None, locked.files if locked else {}, entry.arguments)
    record = store.record(source)
    if record is None:
        return None
    return Entry(
        entry.source, record.revision, {each: file.sha256 for each, file in record.files.items()}, entry.arguments
    )


def _touched(appliance: Appliance, base: Path, store: Store) -> list[Difference]:
    found = []
    for name, entry in declared(appliance).items():
        source = parse_source(entry.source, base=base)
        record = None if isinstance(source, LocalSource) else store.record(source)
        if record and record.holds(store.checkpoints) and (names := record.touched(store.checkpoints)):
            found.append(Difference(name, "files", f"have been written to since they arrived: {', '.join(names[:6])}"))
    return found


def _since_started(engines: Collection[Engine]) -> list[Difference]:
    """Engines whose local files are not those that they have loaded any more."""
    found = []
    for engine in engines:
        if engine.files:
            source = parse_source(engine.spec.source, base=Path("/"))
            try:
                same = isinstance(source, LocalSource) and examine(source).digest == engine.files
            except SourceError:
                same = False
            if not same:
                message = "have changed since the engine loaded them; `appliance down` and `up` load the new ones"
                found.append(Difference(engine.spec.model, "files", message))
    return found
