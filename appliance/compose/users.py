"""Which Compose services use the appliance, so that the last one to go takes down what the first one started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.errors import ApplianceError
from appliance.file_lock import alone
from appliance.state import write_atomic


@dataclass(frozen=True, slots=True, order=True)
class User:
    """One service of one project."""

    project: str
    service: str


@dataclass(frozen=True, slots=True)
class Users:
    """`started` is the pid of the appliance that the first of them started; None where it ran already."""

    path: Path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Compose runs the providers of one project side by side; here they come one after the other."""
        with alone(self.path.with_suffix(".lock")):
            yield

    def add(self, user: User, *, started: int | None) -> None:
        """`started` is remembered where this user started it, else it stays what it was."""
        users, before = self._read()
        self._write({*users, user}, started if started is not None else before)

    def remove(self, user: User) -> int | None:
        """The pid of the appliance that nobody needs any more, where a user had started it."""
        users, started = self._read()
        users.discard(user)
        self._write(users, started if users else None)
        return None if users else started

    def _read(self) -> tuple[set[User], int | None]:
        try:
            document: dict[str, Any] = json.loads(self.path.read_bytes())
            return {User(*each) for each in document["users"]}, document["started"]
        except FileNotFoundError:
            return set(), None
        except (ValueError, TypeError, KeyError) as error:
            raise ApplianceError(f"`{self.path}` cannot be read: {error}", hint="remove it") from error

    def _write(self, users: set[User], started: int | None) -> None:
        document = {"users": [[each.project, each.service] for each in sorted(users)], "started": started}
        write_atomic(self.path, json.dumps(document).encode())
