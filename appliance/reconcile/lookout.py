"""What lies on this machine, or has moved where it comes from, against the file, the lock and what engines have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import structlog

from appliance.config.models import Appliance
from appliance.environments.provision import EnvironmentSpec
from appliance.errors import SourceError
from appliance.models.digests import digests
from appliance.models.lockfile import Lock, lock_path
from appliance.models.sources import parse_source
from appliance.models.store import Store
from appliance.progress import silent
from appliance.reconcile.configuration import Configuration
from appliance.reconcile.drift import declared, drift, since_started
from appliance.reconcile.engine import Engine
from appliance.reconcile.local_files import LocalFiles
from appliance.reconcile.remarks import remarks
from appliance.state import StateDirectory


class Lookout:
    """`engines` gives those that run, `environments` what a configuration chooses for each backend."""

    def __init__(
        self,
        configuration: Configuration,
        state: StateDirectory,
        lock: Lock | None,
        *,
        engines: Callable[[], Collection[Engine]],
        environments: Callable[[Appliance], Mapping[str, EnvironmentSpec]],
    ) -> None:
        self.local_files = LocalFiles(configuration.base, lock)
        self.local_files.follow(configuration.appliance)
        self.drift: list[dict[str, Any]] = []
        """As it was last seen, and so the `remarks`."""
        self.remarks: list[dict[str, Any]] = []
        self._configuration = configuration
        self._state = state
        self._lock = lock
        self._engines = engines
        self._environments = environments
        self._revisions: Mapping[str, str] = {}
        self._log = structlog.get_logger("lookout")

    async def changed(self, appliance: Appliance) -> tuple[str, ...]:
        """The models whose files at a path are to be loaded anew; with a lock there are none."""
        changed = await asyncio.to_thread(self.local_files.look, appliance)
        return () if self._lock else changed

    async def look(self, appliance: Appliance) -> None:
        """Bring `drift` and `remarks` up to date. Raises an OSError or a SourceError for a file that goes meanwhile."""
        if self._locked:
            await self._read_local_files(appliance)
        self.drift = await asyncio.to_thread(self.differences, appliance)
        self.remarks = await asyncio.to_thread(self.remarks_on, appliance)

    async def ask(self, appliance: Appliance) -> None:
        """Whether branches and tags are still what the lock has, asked where they come from; nothing without a lock."""
        if not self._locked:
            return
        store, base = self._store(), self._configuration.base
        found: dict[str, str] = {}
        for name, entry in declared(appliance).items():
            try:
                revision = await store.revision(parse_source(entry.source, base=base), silent, subject=name)
            except SourceError as error:  # no network, most of all
                self._log.info("a source could not be asked for its revision", model=name, problem=error.message)
            else:
                found |= {name: revision} if revision else {}
        self._revisions = found

    def differences(self, appliance: Appliance) -> list[dict[str, Any]]:
        """Touches the disk, as `remarks_on` does."""
        environments = {name: spec.identity for name, spec in self._environments(appliance).items()}
        stale = [] if self._lock else since_started(self._engines(), self.local_files.flaws)
        path, base = self._configuration.path, self._configuration.base
        return [*stale, *drift(appliance, path, base, self._store(), environments, self._revisions)]

    def remarks_on(self, appliance: Appliance) -> list[dict[str, Any]]:
        return remarks(appliance, self._configuration.base, self._store())

    async def _read_local_files(self, appliance: Appliance) -> None:
        """Local files are compared with a lock byte by byte, once for each state of them."""
        store = self._store()
        for name, source in self.local_files.sources(appliance).items():
            if (checkpoint := await asyncio.to_thread(store.find, source)) is not None:
                await digests(store, source, checkpoint, silent, subject=name)

    @property
    def _locked(self) -> bool:
        path = self._configuration.path
        return self._lock is not None or (path is not None and lock_path(path).exists())

    def _store(self) -> Store:
        token = self._configuration.appliance.huggingface.token
        return Store(self._state.models, token=token.get_secret_value() if token else None)
