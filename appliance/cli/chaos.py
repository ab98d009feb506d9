"""`chaos`: the self-test, and what came of it."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

from appliance.chaos.trial import Options, Result, run
from appliance.cli import output
from appliance.cli.progress import shown
from appliance.config.load import DEFAULT_FILE


def chaos(*, duration: float, clients: int, seed: int | None, engine: str, file: Path | None, as_json: bool) -> bool:
    """True when nothing was lost that should not have been."""
    models = (file or DEFAULT_FILE) if engine == "file" else None
    options = Options(duration, clients, secrets.randbelow(10**6) if seed is None else seed, models)
    with shown() as report:
        result = asyncio.run(run(options, os.environ, report))
    if as_json:
        output.as_json(result.as_dict())
    else:
        _tell(result)
    return result.dropped == 0 and result.whole > 0


def _tell(result: Result) -> None:
    output.table(
        ("REQUESTS", "FAILED", "CUT", "WRONG MODEL", "INTERRUPTED", "SLOWEST GAP", "SLOWEST FIRST EVENT"),
        (
            (
                str(result.requests),
                str(result.failed),
                str(result.cut),
                str(result.wrong_model),
                str(result.interrupted),
                f"{result.slowest_gap_s:.2f}s",
                f"{result.slowest_first_s:.2f}s",
            ),
        ),
    )
    moves = ", ".join(f"{name} {count}" for name, count in result.moves.items())
    output.note(f"{result.generations} generations in {result.seconds:.0f} s, seed {result.seed}: {moves}")
    output.note("interrupted: their engine was killed under them, and each was told so with exactly one error")
    for loss in result.losses:
        output.note(loss)
    if result.log:
        output.note(f"the scratch appliance's log is kept at {result.log}")
