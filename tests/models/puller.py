"""One pull in a process of its own, for tests to kill: `puller.py ROOT SOURCE [--die-at STEP] [--limit BYTES]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

from appliance.errors import ApplianceError
from appliance.models.sources import parse_source
from appliance.models.store import Store
from appliance.progress import Progress


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("source")
    parser.add_argument("--die-at")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    if options.limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.limit, options.limit))

    def step(name: str) -> None:
        if name == options.die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def report(progress: Progress) -> None:
        sys.stdout.write(f"{progress.step}\n")
        sys.stdout.flush()

    store = Store(options.root, step=step)
    try:
        checkpoint = asyncio.run(store.pull(parse_source(options.source, base=Path.cwd()), report, subject="model m"))
    except ApplianceError as error:
        sys.stdout.write(f"{type(error).__name__}: {error.message}\n")
        return 1
    sys.stdout.write(f"at {checkpoint.path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
