"""The child's side of report.py: progress, a result or an error, as JSON objects, one a line, on stdout."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REPORT_EVERY = 0.2


class Failed(Exception):
    """The end of this process, in the words of its last line. `kind` is one that report.py knows."""

    def __init__(self, kind: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.line = {"error": {"kind": kind, "message": message, "hint": hint}}


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def run(work: Callable[[], dict[str, Any]], out: Path) -> int:
    """Do it and say what came of it; the exit code. A full disk below `out` is an expected end like any other."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = work()
    except Failed as failed:
        say(failed.line)
        return 1
    except OSError as error:
        if error.errno not in FULL:
            raise
        say(Failed("full", f"no room left in `{out}`: {error.strerror}").line)
        return 1
    say(result)
    return 0


def _end_with_parent() -> None:
    """Wait for stdin's end: an orphan stuck on a silent server would keep the lock that its successor waits for."""
    while os.read(0, 1):  # not sys.stdin, whose lock the interpreter wants at its own end
        pass
    os._exit(1)


class Tally:
    """Bytes of several transfers at once, said as one sum a few times a second."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done: dict[str, int] = {}
        self._said = 0.0

    def at(self, what: str, done: int) -> None:
        self._done[what] = done
        now = time.monotonic()
        sum_ = sum(self._done.values())
        if now - self._said > _REPORT_EVERY or sum_ == self._total:
            self._said = now
            say({"step": "downloading", "done": sum_, "total": self._total})
