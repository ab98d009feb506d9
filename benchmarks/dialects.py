"""What a translated dialect costs the gateway, beside OpenAI's bytes that pass unread, in one run.

    python -m benchmarks.dialects [--rounds N]

The same gateway, engine and loads as `benchmarks.gateway`, with a third of the requests: 64 clients that ask for
streams of 100 events, in a burst and paced at 10 ms. Compare figures within one run only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.gateway import LOADS, Load, appliance, ask, cpu, engine, running
from benchmarks.streams import DIALECTS
from tests.support import free_port, listening, wait_until


def one_load(kind: Load, rounds: int, directory: Path) -> dict[str, float]:
    """Median CPU of the gateway's process per request, in ms, by dialect."""
    port = free_port()
    taken: dict[str, list[float]] = {name: [] for name in DIALECTS}
    with (
        engine(directory, f"{kind.interval:g}", kind.interval) as found,
        running(appliance(found, port, directory)) as gateway,
    ):
        wait_until(lambda: listening(port), what="the gateway listens")
        for _ in range(rounds):
            for name in DIALECTS:
                ask(port, replace(kind, requests=kind.clients), name)
                before = cpu(gateway.pid)
                result = ask(port, kind, name)
                taken[name].append((cpu(gateway.pid) - before) / result["requests"] * 1000)
                print(f"  {kind.interval:g} {name:<10} {taken[name][-1]:7.3f} ms CPU", file=sys.stderr, flush=True)
    return {name: median(each) for name, each in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    loads = {name: replace(LOADS[name], requests=LOADS[name].requests // 3) for name in ("burst", "paced")}
    with tempfile.TemporaryDirectory(prefix="gwb-") as directory:
        rows = {name: one_load(kind, given.rounds, Path(directory)) for name, kind in loads.items()}
    print("| | CPU/request burst | paced | ratio to OpenAI's |\n| --- | --- | --- | --- |")
    for name in DIALECTS:
        ratios = " / ".join(f"{rows[load][name] / rows[load]['openai']:.2f}" for load in rows)
        print(f"| {name} | {rows['burst'][name]:.2f} ms | {rows['paced'][name]:.2f} ms | {ratios} |")


if __name__ == "__main__":
    main()
