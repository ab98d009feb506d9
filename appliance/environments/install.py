"""One installation: make the venv, fetch and install the list, prove it, mark it. Every step may be repeated."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from appliance.environments import pip, source
from appliance.environments.command import install_environ, run
from appliance.environments.examine import Preflight, differences, examine
from appliance.environments.install_lock import InstallLock
from appliance.environments.installed import InstalledEnvironment, size_of, write_marker
from appliance.environments.requirements import RequirementList
from appliance.environments.spec import EnvironmentSpec
from appliance.errors import ProvisionError
from appliance.progress import Progress, Report
from appliance.state import write_atomic

_SCRATCH = "tmp"
_COUNT_EVERY = 1.0  # seconds between two looks at what pip, silent while it unpacks, has installed


@dataclass(frozen=True)
class Installation:
    spec: EnvironmentSpec
    pinned: RequirementList
    path: Path
    log: TextIO
    environ: Mapping[str, str]
    lock: InstallLock
    report: Report

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def subject(self) -> str:
        return f"environment {self.spec.name}"

    async def install(self) -> InstalledEnvironment:
        self._check_disk()
        await self._make_venv()
        await self._install_list()
        await self._compile()
        preflight = await self._prove()
        return self._mark(preflight)

    def _check_disk(self) -> None:
        there = size_of(self.path)
        free = shutil.disk_usage(self.path).free
        if free + there < self.pinned.disk:
            raise ProvisionError(
                f"{self.subject}: needs {_gib(self.pinned.disk - there)} on the disk of `{self.path}`, and it has"
                f" {_gib(free)}",
                hint="free some space, or set APPLIANCE_HOME to a directory on another disk",
            )

    async def _make_venv(self) -> None:
        if self.python.exists() and await self._quietly(self.python, "-I", "-m", "pip", "--version") == 0:
            return
        self._step("creating the virtual environment")
        for entry in self.path.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        lines: list[str] = []
        argv = (sys.executable, "-I", "-m", "venv", self.path)
        if await run(argv, environ=self._command_environ(), log=self.log, line=lines.append, lock=self.lock):
            raise ProvisionError(
                f"{self.subject}: `python -m venv` failed:\n  " + "\n  ".join(lines[-5:]),
                hint=f"on Debian and Ubuntu the package `python3-venv` brings it; the whole log is `{self.log.name}`",
            )

    async def _install_list(self) -> None:
        pip.forget_half_installed(self.site_packages)
        requirements = self.path / "requirements.txt"
        write_atomic(requirements, self.pinned.wheels.encode())
        with self._scratch():
            await self._pip(pip.install_argv(self.python, requirements), pip.InstallOutput(self._step))
            if self.pinned.completes:
                self._step(f"completing {self.pinned.completes}")
                extra = pip.InstallOutput(lambda text, _: self._step(text) if text.startswith("downloading") else None)
                await self._pip(pip.complete_argv(self.python, requirements, self.pinned), extra)
            if self.pinned.builds and not any(self.site_packages.glob(f"{self.pinned.builds}-*.dist-info")):
                await self._build()
        await self._check_fit()

    async def _build(self) -> None:
        """What no index has a build of for this machine, from its source distribution."""
        scratch = self.path / _SCRATCH
        requirement = scratch / "source.txt"
        write_atomic(requirement, self.pinned.source.encode())
        self._step(f"fetching {self.pinned.builds} as source")
        quiet = pip.InstallOutput(lambda *_: None)
        variables = source.variables(self.pinned.pins[self.pinned.builds])
        await self._pip(source.fetch_argv(self.python, requirement, scratch), quiet, **variables)
        tree = await asyncio.to_thread(source.unpack, scratch, self.pinned.builds)
        self._step(f"building {self.pinned.builds} without kernels")
        await self._pip(source.install_argv(self.python, tree), quiet, **variables)

    async def _check_fit(self) -> None:
        lines: list[str] = []
        argv = pip.check_argv(self.python)
        await run(argv, environ=self._command_environ(), log=self.log, line=lines.append, lock=self.lock)
        if broken := pip.unexpected(lines, self.pinned):
            raise ProvisionError(
                f"{self.subject}: what is installed does not fit together:\n  " + "\n  ".join(broken),
                hint=f"`appliance env remove {self.spec.name}` and install again; the whole log is `{self.log.name}`",
            )

    async def _pip(self, argv: Sequence[str | Path], output: pip.InstallOutput, **variables: str) -> None:
        counter = asyncio.create_task(self._count(output))
        environ = {**self._command_environ(), **variables}
        try:
            command = run(argv, environ=environ, log=self.log, line=output.line, lock=self.lock)
            if await command:
                raise pip.failure(self.subject, output.reasons, Path(self.log.name))
        finally:
            counter.cancel()
            with suppress(asyncio.CancelledError):
                await counter

    async def _count(self, output: pip.InstallOutput) -> None:
        while True:
            await asyncio.sleep(_COUNT_EVERY)
            if output.installing:
                self._step("installing", min(pip.count_installed(self.site_packages), len(self.pinned.pins)))

    async def _compile(self) -> None:
        """pip compiles what it installs; what somebody installed here by hand it may not have."""
        if any(self.site_packages.glob("vllm/__pycache__/__init__.*.pyc")):
            return
        self._step("compiling to bytecode")
        # Its status is 1 for every template that is no valid Python.
        await self._quietly(self.python, "-I", "-m", "compileall", "-q", "-j", "0", self.site_packages)

    async def _prove(self) -> Preflight:
        self._step("proving that vLLM starts on the expected platform")
        environ = {**install_environ(self.environ), **dict(self.spec.variables)}
        preflight = await examine(
            self.python, self.spec.expected_platform, environ=environ, log=self.log, lock=self.lock
        )
        if wrong := differences(preflight.installed, self.pinned):
            raise ProvisionError(
                f"{self.subject}: not what the list says: {'; '.join(wrong)}", hint=f"see `{self.log.name}`"
            )
        return preflight

    def _mark(self, preflight: Preflight) -> InstalledEnvironment:
        environment = InstalledEnvironment(
            name=self.spec.name,
            path=self.path,
            python=self.python,
            platform=preflight.platform,
            versions={**preflight.installed, "vllm": preflight.vllm, "python": preflight.python},
            installed_at=datetime.now(UTC).replace(microsecond=0),
            size=size_of(self.path),
        )
        write_marker(environment, self.pinned.digest)
        return environment

    @property
    def site_packages(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.path / "lib" / version / "site-packages"

    def _command_environ(self) -> dict[str, str]:
        # pip unpacks gigabytes into TMPDIR; /tmp is often small and in memory, and this disk has been checked.
        return {"TMPDIR": str(self.path / _SCRATCH), **install_environ(self.environ)}

    @contextmanager
    def _scratch(self) -> Iterator[None]:
        scratch = self.path / _SCRATCH
        scratch.mkdir(exist_ok=True)
        try:
            yield
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    async def _quietly(self, *argv: str | Path) -> int:
        return await run(argv, environ=self._command_environ(), log=self.log, line=lambda _: None, lock=self.lock)

    def _step(self, text: str, done: int | None = None) -> None:
        self.report(Progress(self.subject, text, done, len(self.pinned.pins) if done is not None else None))


def _gib(size: int) -> str:
    return f"{max(size, 0) / 2**30:.1f} GiB"
