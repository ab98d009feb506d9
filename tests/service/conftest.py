"""A real systemd user manager for tests, in namespaces of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.conftest import Machine, Result, machine
from tests.support import free_port

__all__ = ["machine"]

SCRIPT = Path(__file__).with_name("session.sh")
MANAGER = Path("/usr/lib/systemd/systemd")


@dataclass
class Session(Machine):
    """A machine whose commands run where a systemd user manager is, as a user who is not root."""

    process: subprocess.Popen[str] | None = None
    port: int = field(default_factory=free_port)

    def begin(self) -> None:
        self.environ |= {
            "SESSION_DIRECTORY": str(self.directory),
            "HOME": str(self.directory),
            "XDG_CONFIG_HOME": str(self.directory / "config"),
        }
        command = [str(SCRIPT), "bash", "-c", "echo $$; exec cat"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=self._env(), text=True, stdin=pipe, stdout=pipe)
        assert self.process.stdout is not None
        self.pid = self.process.stdout.readline().strip()
        assert self.pid, (self.directory / "manager.log").read_text()

    @property
    def units(self) -> Path:
        return self.directory / "config" / "systemd" / "user"

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inside(self, *command: str, timeout: float = 60) -> Result:
        enter = ["nsenter", "--target", self.pid, "--user", "--mount", "--preserve-credentials"]
        enter += [f"--wd={self.directory}", "--"]
        environ = {**self._env(), "XDG_RUNTIME_DIR": "/run/user/1000"}
        return subprocess.run(
            [*enter, *command],
            cwd=self.directory,
            env=environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run(self, *arguments: str, timeout: float = 60) -> Result:
        return self.inside(sys.executable, "-m", "appliance", *arguments, timeout=timeout)

    def service(self, *arguments: str) -> Result:
        return self.run("service", *arguments)

    def systemctl(self, *arguments: str) -> str:
        return self.inside("systemctl", "--user", *arguments).stdout.strip()

    def serve(self, *flags: str, more: str = "") -> None:
        """The file of a fake engine on this session's port."""
        self.write(*flags, server=f"port: {self.port}", more=more)

    @property
    def installed(self) -> list[Path]:
        return [path for path in self.units.rglob("*") if not path.is_dir()]

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    can = os.getuid() == 0 and MANAGER.exists() and all(map(shutil.which, ("unshare", "nsenter")))
    if not can and "CI" not in os.environ:
        pytest.skip("needs root, systemd and util-linux, for a user manager in namespaces of its own")
    session = Session(tmp_path_factory.mktemp("session"))
    session.begin()
    yield session
    session.close()


@pytest.fixture
def session(manager: Session) -> Iterator[Session]:
    """The manager with nothing installed, as each test found it and leaves it."""
    environ = dict(manager.environ)
    yield manager
    manager.environ = environ
    if manager.installed:
        manager.service("uninstall")
    shutil.rmtree(manager.home, ignore_errors=True)
