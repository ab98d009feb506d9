"""The state directory: everything the appliance keeps, under one root, private to its user."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import Conflict
from appliance.file_lock import opened, take

# sun_path is 104 bytes on macOS and 108 on Linux, its NUL included; vLLM puts sockets named by a
# 36-character UUID beside ours.
_LONGEST_SOCKET_DIRECTORY = 103 - 40


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Paths only; nothing is created until `prepare`."""

    root: Path

    @classmethod
    def locate(cls, environ: Mapping[str, str]) -> StateDirectory:
        """`APPLIANCE_HOME`, else the platform's own place for a user's application state."""
        if home := environ.get("APPLIANCE_HOME"):
            return cls(Path(home).expanduser().absolute())
        import platformdirs  # 10 ms that `--version` and completion need not pay

        return cls(platformdirs.user_state_path("appliance", appauthor=False))

    @property
    def environments(self) -> Path:
        return self.root / "environments"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def kernels(self) -> Path:
        """What engines have compiled for this machine. Whoever can write here has engines run their code."""
        return self.root / "kernels"

    @property
    def history(self) -> Path:
        return self.root / "history"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Sockets and per-process directories, where a unix socket's path is short enough.

        (1) Inside. (2) Under the temporary directory. (3) Under /tmp: on macOS the temporary directory of a user is too
        long itself.
        """
        inside = self.root / "run"
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:8]
        own = f"appliance-{os.getuid()}-{digest}"
        candidates = (inside, Path(tempfile.gettempdir(), own))
        return next(filter(_short_enough, candidates), Path("/tmp", own))  # noqa: S108 - `prepare` refuses a foreign one

    @property
    def control_socket(self) -> Path:
        return self.run / "appliance.sock"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the only appliance on this state directory. The kernel lets go of the lock however the process ends."""
        with opened(self.lock) as descriptor:
            if not take(descriptor):
                raise Conflict(
                    f"an appliance is already running on `{self.root}` (pid {self.holder() or 'unknown'})",
                    hint="`appliance down` stops it; APPLIANCE_HOME gives a second one a directory of its own",
                )
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            yield

    def holder(self) -> int | None:
        """The pid of the appliance that runs on this state directory, or None where none does."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(descriptor, 32).decode()
            return int(text) if text.isdigit() else None
        else:
            return None
        finally:
            os.close(descriptor)

    def prepare(self) -> None:
        """Create what is missing, readable by this user alone."""
        for path in (self.root, self.environments, self.models, self.history, self.logs, self.run):
            try:
                path.mkdir(mode=0o700, parents=path == self.root, exist_ok=True)
            except OSError as error:
                # Whatever is in its place may be somebody's data; nothing is removed on a guess.
                what = "is not a directory" if path.exists() else f"cannot be made: {error.strerror}"
                raise Conflict(
                    f"the state directory is not usable: `{path}` {what}",
                    hint="`appliance doctor` explains; move it away, or set APPLIANCE_HOME to a directory of your own",
                ) from error
        owner = self.run.lstat()  # a link of somebody else counts as theirs
        if owner.st_uid != os.getuid() or owner.st_mode & 0o077:
            raise Conflict(
                f"`{self.run}` belongs to uid {owner.st_uid} with mode {owner.st_mode & 0o777:o}, not to you alone",
                hint="remove it, or set APPLIANCE_HOME to a directory of your own",
            )


def _short_enough(run: Path) -> bool:
    return len(os.fsencode(run)) + len("/e-12345678") <= _LONGEST_SOCKET_DIRECTORY


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `data`, so that a reader or a crash sees the old bytes or the new, never part of either."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)  # noqa: PTH101 - mkstemp gives a str
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
