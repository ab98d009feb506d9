"""How many connections there may be: a stream takes two descriptors, and systems give a process 1024, macOS 256."""

from __future__ import annotations

import resource
from contextlib import suppress

WANTED = (65_536, 10_240)
"""Tried in this order: macOS refuses more than its kernel gives any process, whatever the hard limit says."""


def allow() -> int:
    """Raise this process's own limit as far as it may; the limit then in force. Its children have it too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in WANTED:
        reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= reachable:
            break
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
            return reachable
    return soft
