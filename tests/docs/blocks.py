"""The commands that documentation shows, in order, out of its ```console blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```console\n(?P<text>.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """`reason` is why its commands are not run here; None where they are."""

    page: Path
    line: int
    commands: tuple[str, ...]
    reason: str | None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text"))
        yield Block(page, line, tuple(_commands(match["text"])), match["reason"])


def _commands(text: str) -> Iterator[str]:
    """Each begins with `$ ` and goes on while it is unfinished; other lines are what it prints. Two spaces and a `#`
    begin a comment.
    """
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command = ""
        for line in part.rstrip("\n").splitlines():
            command += ("\n" if command else "") + re.sub(r"\s{2,}# .*$", "", line)
            if _finished(command):
                break
        yield command.strip()


def _finished(command: str) -> bool:
    if command.endswith("\\"):
        return False
    try:
        shlex.split(command)
    except ValueError:  # a quote is open
        return False
    return True
