"""How things look: data on stdout, everything else on stderr, and nothing that needs colour to be understood."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from appliance.errors import ApplianceError

if TYPE_CHECKING:
    from rich.table import Table


def data(text: str) -> None:
    """The command's result, on stdout, at once: somebody may be following it through a pipe."""
    print(text, flush=True)


def as_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def note(text: str) -> None:
    """A remark for the person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """A remark that must not be overlooked: red on a terminal, unless NO_COLOR (no-color.org) is set."""
    note(f"\x1b[31m{text}\x1b[0m" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else text)


def failure(error: ApplianceError) -> None:
    note(f"error: {error.message}")
    if error.hint:
        note(f"  hint: {error.hint}")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rich on a terminal; tab-separated otherwise, for `cut` and `awk`."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    from rich.console import Console

    Console().print(grid(columns, rows), markup=False)


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """The same table as a Rich renderable."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def size(value: int | None) -> str:
    """Bytes for people, in binary units."""
    if value is None:
        return "-"
    scaled = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if scaled < 1024:
            return f"{scaled:.0f} {unit}" if unit == "B" else f"{scaled:.1f} {unit}"
        scaled /= 1024
    return f"{scaled:.1f} TiB"


def duration(seconds: float) -> str:
    """`42s`, `3m10s`, `5h02m`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
