"""The files of local checkpoints as part of what is desired: other bytes at the same path are another revision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from appliance.config.models import Appliance
from appliance.models.digest_cache import content
from appliance.models.local import flaw, state_of
from appliance.models.lockfile import Lock
from appliance.models.sources import LocalSource, parse_source


class LocalFiles:
    """What engines are to load of them: the state in which they were last seen quiet and whole.

    With a lock nothing is taken over as it lies: what is to be loaded is what the lock has, of whatever source.
    """

    def __init__(self, base: Path, lock: Lock | None) -> None:
        """`base` is the directory that relative paths in the file start from."""
        self._base = base
        self._lock = lock
        self._taken: dict[Path, str] = {}
        self._seen: dict[Path, str] = {}
        self.flaws: Mapping[str, str] = {}
        """Why the changed files of a model are not taken, though nobody seems to write to them."""

    def contents(self, appliance: Appliance) -> dict[str, str]:
        """Of each model with files that can change, what names their state. Stats files; reads none."""
        if self._lock is not None:
            return {name: content(entry.files) for name, entry in self._lock.models.items()}
        sources = self.sources(appliance)
        taken = {path: self._taken[path] if path in self._taken else state_of(path) for path in _paths(sources)}
        return {name: taken[each.path] for name, each in sources.items()}

    def follow(self, appliance: Appliance) -> None:
        """Watch the sources of this configuration. One that is new is taken as it lies: nothing has loaded it yet."""
        paths = _paths(self.sources(appliance))
        self._taken = {path: self._taken.get(path) or state_of(path) for path in paths}

    def look(self, appliance: Appliance) -> tuple[str, ...]:
        """Take what has changed, where two looks in a row have seen the same of it and it is whole; whose it is.

        Files that go on changing are never taken, and of those that are gone the last state is still what is wanted.
        """
        sources = self.sources(appliance)
        now = {each.path: state_of(each.path) for each in sources.values()}
        changed = {name: each for name, each in sources.items() if now[each.path] != self._taken.get(each.path)}
        quiet = {name: each for name, each in changed.items() if now[each.path] == self._seen.get(each.path)}
        self._seen = now
        found = {name: flaw(each) for name, each in quiet.items()}
        self.flaws = {name: problem for name, problem in found.items() if problem}
        whole = {name: each.path for name, each in quiet.items() if not found[name]}
        self._taken |= {path: now[path] for path in whole.values()}
        return tuple(whole)

    def sources(self, appliance: Appliance) -> dict[str, LocalSource]:
        """The models at paths of this machine."""
        found = {name: parse_source(model.source, base=self._base) for name, model in appliance.models.items()}
        return {name: each for name, each in found.items() if isinstance(each, LocalSource)}


def _paths(sources: Mapping[str, LocalSource]) -> set[Path]:
    return {each.path for each in sources.values()}
