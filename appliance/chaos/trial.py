"""The self-test: clients stream, the file changes, engines die, and every answer is judged."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from appliance.chaos import document
from appliance.chaos.crowd import Crowd
from appliance.chaos.engine import WORDS, answer
from appliance.chaos.moves import Moves
from appliance.chaos.scratch import Scratch
from appliance.chaos.stream import Stream
from appliance.chaos.verdict import Verdict, describe, judge
from appliance.errors import ApplianceError
from appliance.gateway.keys import new_key
from appliance.progress import Progress, Report
from appliance.state import StateDirectory

PROMPTS = tuple(f"question {number}" for number in range(8))
LONGEST_PAUSE = 0.8
"""Seconds between two moves at most."""
ROOM_TO_HANG = 30.0
"""Seconds that must be left for an engine to be made to hang: it takes as long until it is found out."""
START = {"standin": 60.0, "file": 1800.0}
TOLD = 20
"""Losses that are described one by one."""


@dataclass(frozen=True, slots=True)
class Options:
    duration: float
    clients: int
    seed: int
    file: Path | None = None
    """The user's file, to run its own models; None for stand-in engines."""
    decks: int = 0
    """How often every move must have had its turn, however long that takes."""


@dataclass(slots=True)
class Result:
    seed: int
    seconds: float = 0.0
    requests: int = 0
    whole: int = 0
    interrupted: int = 0
    """Streams of engines that were killed, each ended by exactly one error."""
    failed: int = 0
    cut: int = 0
    wrong_model: int = 0
    slowest_gap_s: float = 0.0
    """The longest silence between two events of an answer that came whole."""
    slowest_first_s: float = 0.0
    """The longest wait for a first event."""
    generations: int = 0
    moves: dict[str, int] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    log: str = ""
    """Where the scratch appliance's log was kept, if anything was lost."""

    @property
    def dropped(self) -> int:
        return self.failed + self.cut + self.wrong_model

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"dropped": self.dropped}


async def run(options: Options, environ: Mapping[str, str], report: Report) -> Result:
    """Raises ApplianceError where the scratch appliance itself does not do what is waited for."""
    result = Result(options.seed)
    with _directory(result) as directory:
        key, digest = new_key()
        if options.file:
            contents = document.copy(options.file, digest)
            _share_downloads(directory, environ)
        else:
            contents = document.standin(directory, digest)
        scratch = Scratch(directory, contents)
        report(Progress("chaos", f"starting {', '.join(contents['models'])}"))
        async with scratch.running(environ, within=START["file" if options.file else "standin"]):
            await _trial(options, scratch, key, report, result)
    return result


async def _trial(options: Options, scratch: Scratch, key: str, report: Report, result: Result) -> None:
    menu = {name: name for name in scratch.document["models"]}
    began = time.monotonic()
    crowd = Crowd(scratch.base, key, menu, PROMPTS, clients=options.clients, max_tokens=WORDS, seed=options.seed)
    async with crowd:
        moves = Moves(scratch, crowd, options.seed, standin=options.file is None)
        await _make(moves, options, began, report, result)
        report(Progress("chaos", "waiting until all is well again"))
        await moves.finished()
    result.generations = (await scratch.status())["generation"]
    result.seconds = round(time.monotonic() - began, 1)
    for stream in crowd.streams:
        expected = "".join(answer(stream.model, stream.prompt)) if options.file is None else None
        _count(stream, judge(stream, expected, moves.deaths), result)


async def _make(moves: Moves, options: Options, began: float, report: Report, result: Result) -> None:
    """Deck after deck, until the time is over."""
    pauses = random.Random(options.seed)  # noqa: S311 - repeatable, not secret
    for number in itertools.count(1):
        required = number <= options.decks
        for move in moves.deck(hang=required or _left(options, began) > ROOM_TO_HANG):
            if _left(options, began) <= 0 and not required:
                return
            name = move.__name__.replace("_", " ")
            result.moves[name] = result.moves.get(name, 0) + 1
            report(Progress("chaos", name))
            await move()
            await asyncio.sleep(pauses.uniform(0, LONGEST_PAUSE))


def _left(options: Options, began: float) -> float:
    return began + options.duration - time.monotonic()


def _count(stream: Stream, verdict: Verdict, result: Result) -> None:
    result.requests += 1
    if verdict is Verdict.WHOLE:
        result.whole += 1
        result.slowest_gap_s = round(max(result.slowest_gap_s, stream.gap), 3)
        result.slowest_first_s = round(max(result.slowest_first_s, stream.first), 3)
        return
    result.interrupted += verdict is Verdict.INTERRUPTED
    result.failed += verdict is Verdict.FAILED
    result.cut += verdict is Verdict.CUT
    result.wrong_model += verdict is Verdict.WRONG_MODEL
    if verdict is not Verdict.INTERRUPTED and len(result.losses) < TOLD:
        result.losses.append(describe(stream, verdict))


def _share_downloads(directory: Path, environ: Mapping[str, str]) -> None:
    """Real engines run in the environments, and on the weights, that are on this machine already."""
    theirs, ours = StateDirectory.locate(environ), StateDirectory(directory / "home")
    theirs.prepare()
    ours.root.mkdir(mode=0o700)
    ours.environments.symlink_to(theirs.environments)
    ours.models.symlink_to(theirs.models)


@contextmanager
def _directory(result: Result) -> Iterator[Path]:
    """A temporary directory, kept where its log is evidence."""
    directory = Path(tempfile.mkdtemp(prefix="appliance-chaos-"))
    log = directory / "appliance.log"
    try:
        yield directory
        result.log = str(log) if result.dropped else ""
    except ApplianceError as error:
        result.log = error.hint = f"the scratch appliance's log is kept at {log}"
        raise
    finally:
        if not result.log:
            # Where paths are long, this one lies outside.
            shutil.rmtree(StateDirectory(directory / "home").run, ignore_errors=True)
            shutil.rmtree(directory)
