"""How what is on this machine differs from the lock, and from what engines have loaded. Reads no weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from appliance.config.models import Appliance
from appliance.errors import ConfigError
from appliance.models.local import files_of, state_of
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
    revisions: Mapping[str, str] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Each difference from the lock as plain data. Of local files those are compared that somebody has read as they are
    now; `revisions` are those that names were last seen to stand for where they come from."""
    found: list[Difference] = []
    try:
        lock = Lock.read(lock_path(file)) if file else None
    except ConfigError as error:
        return [asdict(Difference("model-runner.lock", "declared", error.message))]
    if lock is not None:
        now = {name: _now(name, entry, lock, base, store) for name, entry in declared(appliance).items()}
        found += differences(lock, now, environments)
        found += moved(lock, {name: each for name, each in revisions.items() if name in now})
        found += _touched(appliance, base, store)
    return [asdict(each) for each in found]


def moved(lock: Lock, revisions: Mapping[str, str]) -> Iterator[Difference]:
    """What names stand for where they come from, against what is locked."""
    for name, revision in sorted(revisions.items()):
        locked = lock.models.get(name)
        if locked is not None and locked.revision and locked.revision != revision:
            message = f"has moved to `{revision}` where it comes from; `appliance lock --update` takes it in"
            yield Difference(name, "revision", message)


def _now(name: str, entry: Entry, lock: Lock, base: Path, store: Store) -> Entry | None:
    source = parse_source(entry.source, base=base)
    locked = lock.models.get(name)
    if isinstance(source, LocalSource):
        return Entry(entry.source, None, _local(source, locked.files if locked else {}, store), entry.arguments)
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


def _local(source: LocalSource, locked: Mapping[str, str], store: Store) -> Mapping[str, str]:
    """The digests of its files as far as they are known, and the locked ones where they are not, or are not here."""
    checkpoint = store.find(source)
    if checkpoint is None:
        return locked
    files = files_of(checkpoint)
    return {name: locked.get(name, "") for name in files} | store.digests.known(files)


def since_started(engines: Collection[Engine], flaws: Mapping[str, str]) -> list[dict[str, Any]]:
    """Engines whose local files are not those that they have loaded any more. `flaws` says why a model's new files
    cannot be loaded."""
    found = []
    for engine in engines:
        model, content = engine.spec.model, engine.spec.content
        if content and state_of(Path(engine.spec.source)) != content:
            next_ = f"and are not loaded: {flaws[model]}" if model in flaws else "and are loaded once they are quiet"
            found.append(Difference(model, "files", f"have changed since the engine loaded them, {next_}"))
    return [asdict(each) for each in found]
