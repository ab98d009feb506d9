"""From a fork to an engine: everything as if the interpreter had just been executed with this command."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import runpy
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import kernel, title
from .base import Base


def become(document: dict[str, Any], output: int, keeper: int, base: Base, prepared: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    kernel.die_with_parent(signal.SIGKILL)
    if os.getppid() != keeper:
        os._exit(1)
    os.chdir(document["cwd"])
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    base.apply(document["env"])
    _forget()
    if prepared:
        prepared.settle()
    kernel.name(Path(document["argv"][0]).name)
    title.show(" ".join(document["argv"]))
    gc.enable()


def run(argv: Sequence[str]) -> int:
    """`python -m MODULE …` or `python SCRIPT …`, in this process."""
    module = argv[1] == "-m"
    program = argv[2] if module else argv[1]
    sys.argv = list(argv[2:] if module else argv[1:])
    if not sys.flags.safe_path:
        sys.path.insert(0, str(Path.cwd() if module else Path(program).absolute().parent))
    if module:
        sys.modules.pop(program, None)  # runs it again, as `-m` does, without a warning that it was there
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")
    return 0


def _forget() -> None:
    """What a process draws or looks up once and keeps: engines must not share it."""
    tempfile.tempdir = None
    random.seed()
    process = multiprocessing.current_process()
    process.authkey = os.urandom(32)
    process._config.pop("tempdir", None)  # type: ignore[attr-defined]  # noqa: SLF001 - nothing public forgets it
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
