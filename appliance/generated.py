"""Files that are generated from the code, and the check that they are what it would write now."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Outputs = Callable[[], Mapping[str, str]]
"""What is generated: texts by their paths in a checkout."""


def stale(outputs: Mapping[str, str], root: Path) -> list[str]:
    """Those that are missing or differ from what would be written."""
    return [
        name
        for name, text in outputs.items()
        if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != text
    ]


def command(module: str, description: str | None, outputs: Outputs, arguments: Sequence[str] | None = None) -> int:
    """`python -m MODULE --write` or `--check`; the exit code, 1 where something is out of date."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true")
    mode.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    options = parser.parse_args(arguments)
    if options.write:
        for name, text in outputs().items():
            path: Path = options.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return 0
    for name in (names := stale(outputs(), options.root)):
        print(f"error: `{name}` is out of date\n  hint: run `python -m {module} --write`", file=sys.stderr)
    return 1 if names else 0
