"""What the store holds that nobody asks for any more, and what it all takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from appliance.file_lock import held, unused
from appliance.models.naming import key_of
from appliance.models.record import Record
from appliance.models.sources import Source
from appliance.models.store import Store

Kind = Literal["model", "conversion", "partial", "arriving"]


@dataclass(frozen=True, slots=True)
class Item:
    """Something in the store. `declared` is whether the file names it, `used` whether an engine has it loaded."""

    kind: Kind
    name: str
    size: int
    declared: bool
    used: bool
    path: Path

    @property
    def garbage(self) -> bool:
        return not self.declared and not self.used


def contents(store: Store, declared: Collection[Source]) -> tuple[Item, ...]:
    """Everything in the store, with the bytes that it alone takes on the disk: what is shared counts once."""
    store.prepare_directories()
    counted: set[tuple[int, int]] = set()
    return tuple(
        Item(kind, name, _bytes(paths, counted), wanted, used, at)
        for kind, name, at, paths, wanted, used in _found(store, declared)
    )


async def collect(store: Store, declared: Collection[Source], *, dry_run: bool = False) -> tuple[Item, ...]:
    """Delete what is neither declared nor loaded by an engine; with `dry_run` say what that would be.

    A fetch that was broken off is kept for as long as its model is declared. What another process is fetching now is
    left alone.
    """
    store.prepare_directories()
    async with held(store.lock("publish")):
        garbage = tuple(item for item in contents(store, declared) if item.garbage)
        if dry_run:
            return garbage
        removed = tuple(item for item in garbage if _remove(store, item))
        store.sweep()
    return removed


def _remove(store: Store, item: Item) -> bool:
    """Whether it could be had: between the look and the removal somebody may have begun to use or to fetch it."""
    with ExitStack() as stack:
        for lock in _guards(store, item):
            if not stack.enter_context(unused(lock)):
                return False
        if item.kind == "model":
            item.path.unlink(missing_ok=True)
        elif item.path.is_dir():
            shutil.rmtree(item.path, ignore_errors=True)
        else:
            item.path.unlink(missing_ok=True)
    return True


def _guards(store: Store, item: Item) -> Iterator[Path]:
    if item.kind == "model":
        yield store.lock(item.path.stem)
        if record := Record.read(item.path):
            yield store.use_lock(record.directory)
    elif item.kind == "conversion":
        yield store.lock(item.path.name)
        yield store.use_lock(item.path.name)
    elif item.kind == "partial":
        yield store.lock(item.path.name)
    else:
        yield store.lock(f"blob-{item.path.name[:32]}")


def _found(store: Store, declared: Collection[Source]) -> Iterator[tuple[Kind, str, Path, list[Path], bool, bool]]:
    keys = {key_of(source) for source in declared}
    for path in sorted((store.root / "sources").glob("*.json")):
        if record := Record.read(path):
            directory = store.checkpoints / record.directory
            yield "model", record.source, path, [directory], path.stem in keys, _used(store, record.directory)
    found = {key_of(source): store.find(source) for source in declared}
    here = [checkpoint for checkpoint in found.values() if checkpoint]
    wanted = {each for checkpoint in here for each in store.conversions.of(checkpoint)}
    for path in sorted((store.root / "converted").iterdir()):
        yield "conversion", path.name, path, [path], path in wanted, _used(store, path.name)
    for path in sorted((store.root / "partial").iterdir()):
        # Of a complete model it is what a process left that was killed while it tidied up.
        wanted_still = path.name in keys and found[path.name] is None
        yield "partial", path.name, path, [path], wanted_still, _locked(store.lock(path.name))
    complete = all(found.values())
    for path in sorted((store.root / "arriving").iterdir()):
        lock = store.lock(f"blob-{path.name[:32]}")
        yield "arriving", path.name, path, [path], not complete, _locked(lock)


def _used(store: Store, directory: str) -> bool:
    return _locked(store.use_lock(directory))


def _locked(path: Path) -> bool:
    if not path.exists():
        return False
    with unused(path) as free:
        return not free


def _bytes(paths: list[Path], counted: set[tuple[int, int]]) -> int:
    total = 0
    for root in paths:
        for path in [root] if root.is_file() else root.rglob("*"):
            found = os.lstat(path)
            if path.is_file() and (found.st_dev, found.st_ino) not in counted:
                counted.add((found.st_dev, found.st_ino))
                total += found.st_size
    return total
