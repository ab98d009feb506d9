"""The engine environments of one state directory: choose, install, verify, list, use, remove."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from appliance.config.models import Environment
from appliance.environments import spec as specs
from appliance.environments.command import install_environ
from appliance.environments.examine import Preflight, check_interpreter, differences, examine
from appliance.environments.host import Host
from appliance.environments.install import Installation
from appliance.environments.install_lock import install_lock
from appliance.environments.installed import InstalledEnvironment, read_installed
from appliance.environments.requirements import RequirementList, shipped_lists
from appliance.environments.spec import EnvironmentSpec
from appliance.errors import Conflict, ProvisionError
from appliance.file_lock import shared, unused
from appliance.progress import Progress, Report

__all__ = ["EnvironmentSpec", "Environments", "InstalledEnvironment", "Preflight"]

_ASIDE = ".removed-"


class Environments:
    """`root` is the state directory's `environments/`; logs go to `logs/` beside it. `environ` is what pip and the
    preflight run with: the user's own settings of pip apply."""

    def __init__(
        self,
        root: Path,
        *,
        environ: Mapping[str, str] | None = None,
        lists: Mapping[str, RequirementList] | None = None,
    ) -> None:
        self._root = root
        self._environ = os.environ if environ is None else environ
        self._lists = lists

    def choose(self, backend: str, environment: Environment) -> EnvironmentSpec:
        lists = shipped_lists() if self._lists is None else self._lists
        return specs.choose(backend, environment, Host.detect(), lists)

    def find(self, spec: EnvironmentSpec) -> InstalledEnvironment | None:
        """The complete one, or None; None also for a given interpreter, which only `ensure` can vouch for."""
        if spec.python is not None:
            return None
        found = read_installed(self._root / spec.name)
        return found if found.complete else None

    async def ensure(self, spec: EnvironmentSpec, report: Report) -> InstalledEnvironment:
        if spec.python is not None:
            preflight = await self.verify(spec, report)
            versions = {**preflight.installed, "vllm": preflight.vllm, "python": preflight.python}
            path = spec.python.parent.parent
            return InstalledEnvironment("given", path, spec.python, preflight.platform, versions, None, 0)
        return self.find(spec) or await self._install(spec, report)

    async def verify(self, spec: EnvironmentSpec, report: Report) -> Preflight:
        """The preflight again, and the installed versions against the list."""
        subject = f"environment {spec.name}"
        if spec.python is not None:
            python, pinned = spec.python, None
            check_interpreter(python)
        else:
            found = self.find(spec)
            if found is None:
                raise ProvisionError(f"{subject} is not installed", hint="`appliance env install` installs it")
            python, pinned = found.python, spec.requirements
        report(Progress(subject, f"proving `{python}`"))
        with self._log(spec.name) as log:
            environ = dict(self._environ) if pinned is None else install_environ(self._environ)
            environ.update(spec.variables)
            preflight = await examine(python, spec.expected_platform, environ=environ, log=log)
        if pinned is not None and (wrong := differences(preflight.installed, pinned)):
            raise ProvisionError(
                f"{subject} is not what its list says: {'; '.join(wrong)}",
                hint=f"`appliance env remove {spec.name}`, then `appliance env install`",
            )
        return preflight

    def list(self) -> tuple[InstalledEnvironment, ...]:
        if not self._root.is_dir():
            return ()
        directories = (path for path in self._root.iterdir() if path.is_dir() and not path.name.startswith("."))
        return tuple(read_installed(path) for path in sorted(directories))

    @contextmanager
    def use(self, environment: InstalledEnvironment) -> Iterator[int]:
        """Keep it from being removed for as long as the block, or a child that inherits the descriptor, lives."""
        with shared(self._lock(environment.name, "use")) as descriptor:
            if not environment.python.exists():
                raise ProvisionError(f"the environment `{environment.name}` is gone", hint="`appliance env install`")
            yield descriptor

    def remove(self, name: str) -> None:
        path = self._root / name
        if not path.is_dir() or name.startswith(".") or path.parent != self._root:
            known = ", ".join(f"`{each.name}`" for each in self.list()) or "none"
            raise ProvisionError(f"there is no environment `{name}` (there are: {known})", hint="`appliance env list`")
        with unused(self._lock(name, "use")) as idle, unused(self._lock(name, "install")) as settled:
            if not idle:
                raise Conflict(f"the environment `{name}` is in use by a running engine", hint="`appliance down` first")
            if not settled:
                raise Conflict(f"the environment `{name}` is being installed", hint="wait for it, or end that process")
            path.rename(self._root / f"{_ASIDE}{name}-{os.getpid()}")
        self._sweep()

    async def _install(self, spec: EnvironmentSpec, report: Report) -> InstalledEnvironment:
        if spec.requirements is None:
            raise ValueError("only a spec with a list can be installed")
        self._sweep()
        path = self._root / spec.name
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

        def waiting(pid: int | None) -> None:
            report(Progress(f"environment {spec.name}", f"waiting for pid {pid or 'unknown'}, which is installing it"))

        async with install_lock(self._lock(spec.name, "install"), path, waiting) as lock:
            if found := self.find(spec):
                return found
            path.mkdir(mode=0o700, exist_ok=True)
            with self._log(spec.name) as log:
                return await Installation(spec, spec.requirements, path, log, self._environ, lock, report).install()

    def _log(self, name: str) -> TextIO:
        directory = self._root.parent / "logs"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return (directory / f"environment-{name}.log").open("a", encoding="utf-8")

    def _lock(self, name: str, purpose: str) -> Path:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._root / f".{name}.{purpose}.lock"

    def _sweep(self) -> None:
        """What a removal that was killed left behind."""
        if self._root.is_dir():
            for leftover in self._root.glob(f"{_ASIDE}*"):
                shutil.rmtree(leftover, ignore_errors=True)
