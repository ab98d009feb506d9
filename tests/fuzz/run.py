"""Thousands of hostile inputs over real sockets, against a real appliance with a fake engine.

    python -m tests.fuzz.run --count 10000 [--seed N]

What is held: no 5xx, every whole request is answered, the engine is not restarted, nothing is left in flight or open,
and the control process does not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil

from tests.cli.conftest import Machine
from tests.fuzz.inputs import Input, make
from tests.support import wait_until

AT_ONCE = 32
ANSWER = 30.0
"""Seconds within which a whole request has to be answered."""
SILENCE = 0.5
"""Seconds without a byte after which nothing more is expected for what is no whole request."""
WARM_UP = 300
"""Inputs before the process is measured for the first time: what it imports and keeps, it has by then."""

_STATUS = re.compile(rb"(?:^|\n)HTTP/1\.1 (\d{3}) ")


@dataclass
class Outcome:
    seed: int
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    """Bytes, ten times in a run: first when the warm-up is over, last at the end."""
    seconds: float = 0.0

    @property
    def grown(self) -> int:
        """Bytes of resident memory in the second half of the run."""
        return self.resident[-1] - self.resident[len(self.resident) // 2]

    def describe(self) -> str:
        said = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        lines = [
            f"seed {self.seed}: {sum(self.kinds.values())} inputs in {self.seconds:.0f} s",
            f"answers {said}",
            "resident in MiB " + ", ".join(f"{size / 2**20:.1f}" for size in self.resident),
            *self.failures[:20],
        ]
        return "\n".join(lines)


def fuzz(machine: Machine, count: int, seed: int) -> Outcome:
    machine.write(server="port: 0, max_body: 4MiB, metrics: true")
    base = machine.up()
    before = _state(machine)
    process = psutil.Process(before["pid"])
    outcome = Outcome(seed)
    began = time.monotonic()
    asyncio.run(_all(outcome, base, process, count))
    outcome.seconds = time.monotonic() - began
    _check_afterwards(outcome, machine, base, before)
    return outcome


async def _all(outcome: Outcome, base: str, process: psutil.Process, count: int) -> None:
    random = Random(outcome.seed)
    host = urlsplit(base)
    step = max(1, (count - WARM_UP) // 10)
    for start in range(0, count, AT_ONCE):
        batch = [make(random) for _ in range(min(AT_ONCE, count - start))]
        tries = (_one(host.hostname or "", host.port or 0, each) for each in batch)
        for number, (each, answer) in enumerate(zip(batch, await asyncio.gather(*tries), strict=True), start):
            _judge(outcome, number, each, answer)
        if start >= WARM_UP and (start - WARM_UP) // step >= len(outcome.resident):
            outcome.resident.append(process.memory_info().rss)
    outcome.resident.append(process.memory_info().rss)


async def _one(host: str, port: int, sent: Input) -> bytes | None:
    """All that was answered; None where a whole request was not answered at all."""
    reader, writer = await asyncio.open_connection(host, port)
    received = b""
    try:
        writer.write(sent.data)
        while True:
            patience = ANSWER if sent.whole else SILENCE
            if not (data := await asyncio.wait_for(reader.read(65536), patience)):
                return received
            received += data
    except TimeoutError:
        return received if received or not sent.whole else None
    except ConnectionError:
        return received  # closed before all of it was read, as for what is too large
    finally:
        writer.transport.abort()


def _judge(outcome: Outcome, number: int, sent: Input, answer: bytes | None) -> None:
    outcome.kinds[sent.kind] += 1
    if answer is None:
        outcome.failures.append(f"{number} ({sent.kind}) was not answered: {sent.data[:300]!r}")
        return
    for status in map(int, _STATUS.findall(answer)):
        outcome.statuses[status] += 1
        if status >= 500:
            outcome.failures.append(f"{number} ({sent.kind}) is a {status}: {sent.data[:300]!r} -> {answer[-300:]!r}")


def _check_afterwards(outcome: Outcome, machine: Machine, base: str, before: dict[str, Any]) -> None:
    wait_until(lambda: _engine(machine)["in_flight"] == 0, what="nothing is in flight")
    after = _state(machine)
    if after != before:
        outcome.failures.append(f"not what it was: {before} before, {after} after")
    with urlopen(f"{base}/v1/models", timeout=10) as answer:  # noqa: S310 - our own address
        json.load(answer)
    outcome.failures += [f"logged: {line[:3000]}" for line in machine.log.splitlines() if "bug while" in line]


def _state(machine: Machine) -> dict[str, Any]:
    """What may not change: the processes."""
    (model,) = machine.status()["models"]
    return {"pid": machine.status()["pid"], "restarts": model["restarts"], "engine": _engine(machine)["pid"]}


def _engine(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = machine.status()["models"][0]["engines"][0]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None, help="default: another one every time")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else Random().randrange(2**32)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fz-") as directory:
        machine = Machine(Path(directory))
        try:
            outcome = fuzz(machine, options.count, seed)
        finally:
            machine.close()
    print(outcome.describe())
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
