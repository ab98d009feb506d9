"""Linux's process controls, absent elsewhere."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans among our descendants become our children instead of PID 1's."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int) -> None:
    """Have the kernel send us this signal when our parent dies. Not inherited by children, and kept across exec."""
    _prctl(_PR_SET_PDEATHSIG, number)


def name(text: str) -> None:
    """The name that `ps -o comm` and `top` show; at most 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(text.encode()))


def _prctl(option: int, value: int | ctypes.c_char_p) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
