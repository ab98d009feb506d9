"""What `ps` shows of a process: without this, the zygote's command for each of its forks."""

from __future__ import annotations

import importlib
from types import ModuleType


def show(text: str) -> None:
    if titles := _library():
        titles.setproctitle(text)


def _library() -> ModuleType | None:
    """Where the environment has it. Its first call has to come before any variable is set: it looks for the command
    beside the first environment, and cannot write titles, vLLM's neither, where that has moved."""
    try:
        return importlib.import_module("setproctitle")
    except ImportError:
        return None
