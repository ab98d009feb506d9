"""What happened to each key, and what to do now: as text, as Markdown, as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from appliance.migrate.document import described
from appliance.migrate.migration import Migration
from appliance.migrate.rows import HIDDEN, Row, printable
from appliance.migrate.rules import LEVELS, Level
from appliance.migrate.sizing import Size
from appliance.migrate.target import GIB

_HEADINGS: Mapping[Level, str] = {
    "manual": "Needs you",
    "mapped": "Said in another way",
    "kept": "Kept as it is",
    "dropped": "Left out",
}


def as_json(migration: Migration, *, written: bool) -> dict[str, Any]:
    document = {
            "origin": migration.origin,
            "target": migration.target.name if migration.target else None,
            "needs_a_person": migration.needs_a_person,
            "keys": [
                {
                    "place": row.place, "key": row.key, "value": row.value, "level": row.level,
                    "to": row.target or None, "why": row.why, "source": row.source or None,
                }
                for row in migration.rows
            ],
            "models": [_size_json(size) for size in migration.sizes],
            "clients": [{"what": it.what, "before": it.before, "after": it.after} for it in migration.notices],
            "files": [
                {"path": str(output.path), "fate": output.fate, "written": written and output.fate != "unchanged"}
                for output in migration.outputs
            ],
            "commands": migration.commands,
    }  # fmt: skip
    return dict(_hidden(document, migration))


def _size_json(size: Size) -> dict[str, Any]:
    return {
        "name": size.model.name, "source": size.model.source, "aliases": list(size.model.names),
        "max_model_len": size.context, "max_num_seqs": size.sequences, "load": size.load, "memory": size.memory,
        "measured": size.measured, "problem": size.problem, "would_fit": size.would_fit,
    }  # fmt: skip


def as_text(migration: Migration, *, width: int = 100, written: Mapping[str, str] | None = None) -> str:
    """`written`: what became of each file; None: nothing was written."""
    if migration.upgrades:
        return "\n".join(_upgrade_lines(migration))
    lines = [_headline(migration), ""]
    for level in ("manual", "mapped", "kept", "dropped"):
        rows = [row for row in migration.rows if row.level == level]
        if rows:
            lines += [f"{_HEADINGS[level]} ({len(rows)})", *_rows(rows, width), ""]
    if migration.sizes:
        lines += [f"Models, sized for {_target(migration)}", *_sizes(migration.sizes, width), ""]
    if migration.notices:
        lines += ["What a client will notice", *_notices(migration, width), ""]
    if migration.outputs:
        lines += ["Files", *_files(migration, written), ""]
    if migration.commands:
        lines += ["Try", *(f"  {command}" for command in migration.commands), ""]
    return str(_hidden("\n".join(lines).rstrip(), migration))


def _headline(migration: Migration) -> str:
    count, manual = len(migration.sizes), sum(row.level == "manual" for row in migration.rows)
    large = sum(size.problem is not None for size in migration.sizes)
    models = "no model" if not count else "1 model" if count == 1 else f"{count} models"
    needs = [f"{manual} of {len(migration.rows)} keys need you"] if manual else []
    needs += [f"{_plural(large, 'model')} {'does' if large == 1 else 'do'} not fit"] if large else []
    tail = " and ".join(needs) or "nothing needs you"
    counted = Counter(row.level for row in migration.rows)
    levels = ", ".join(f"{counted[level]} {level}" for level in LEVELS if counted[level])
    return f"{migration.origin}: {models} for {_target(migration)}; {tail} ({levels or 'no keys'})"


def _target(migration: Migration) -> str:
    return described(migration.target) if migration.target else ""


def _rows(rows: Sequence[Row], width: int) -> Iterable[str]:
    """One block a key: where it went on the first line, why beneath it."""
    for row in rows:
        value = f" = {row.value}" if row.value else ""
        yield f"  {row.key}{value}"
        if target := row.target:
            yield f"      → {target}"
        place = f"  [{row.place}]" if row.place else ""
        yield from _wrapped(f"{row.why}{place}", width)


def _sizes(sizes: Sequence[Size], width: int) -> Iterable[str]:
    for size in sizes:
        memory = f"{size.memory / GIB:.1f} GiB" if size.memory else "size not known"
        yield f"  {size.model.name}  {size.model.source}"
        yield (
            f"      {size.context:,} tokens of context, {_plural(size.sequences, 'request')} at once, "
            f"{'starts with the appliance' if size.load == 'startup' else 'starts at its first request'}, {memory}"
        )
        if size.problem:
            yield from _wrapped(f"Does not fit: {size.problem}. Would fit: {size.would_fit}.", width)


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _notices(migration: Migration, width: int) -> Iterable[str]:
    for notice in migration.notices:
        before = f"{notice.before} → " if notice.before else ""
        yield from _wrapped(f"{notice.what}: {before}{notice.after}", width, first="  ", rest="      ")


def _files(migration: Migration, written: Mapping[str, str] | None) -> Iterable[str]:
    for output in migration.outputs:
        fate = (written or {}).get(str(output.path)) or {
            "new": "would be written",
            "replaced": "would be replaced",
        }.get(output.fate, "there already, with other contents" if output.fate == "kept" else "unchanged")
        yield f"  {output.path}  {fate}"


def _wrapped(text: str, width: int, *, first: str = "      ", rest: str = "      ") -> list[str]:
    return textwrap.wrap(
        text,
        max(width, 40),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _upgrade_lines(migration: Migration) -> Iterable[str]:
    for done, output in zip(migration.upgrades, migration.outputs, strict=True):
        if not done.steps:
            yield f"{output.path} is at version {done.after} already; nothing to do"
        else:
            yield f"{output.path}: version {done.before} → {done.after}"
            yield from (f"  {step.name}: {step.summary}" for step in done.steps)


def as_markdown(migration: Migration) -> str:
    if migration.upgrades:
        return "".join(f"- {line}\n" for line in _upgrade_lines(migration))
    parts = [f"# Migration of {migration.origin}\n", f"{_headline(migration)}.\n"]
    for level in ("manual", "mapped", "kept", "dropped"):
        rows = [row for row in migration.rows if row.level == level]
        if rows:
            parts.append(f"## {_HEADINGS[level]}\n")
            cells = (
                (f"`{row.key}`", row.value and f"`{row.value}`", row.target and f"`{row.target}`", row.why, row.place)
                for row in rows
            )
            parts.append(_table(("Key", "Value", "Becomes", "Why", "Where"), cells))
    if migration.sizes:
        parts.append(f"## Models, sized for {_target(migration)}\n")
        parts.append(
            _table(("Model", "Source", "Context", "At once", "Starts", "Memory"), map(_size_cells, migration.sizes))
        )
    if migration.notices:
        parts.append("## What a client will notice\n")
        parts.append(_table(("What", "Before", "After"), ((it.what, it.before, it.after) for it in migration.notices)))
    if migration.commands:
        parts.append("## Try\n")
        parts.append("```console\n" + "".join(f"$ {command}\n" for command in migration.commands) + "```\n")
    return str(_hidden("\n".join(parts), migration))


def _size_cells(size: Size) -> tuple[str, ...]:
    memory = f"{size.memory / GIB:.1f} GiB" if size.memory else "not known"
    starts = "with the appliance" if size.load == "startup" else "at its first request"
    return (
        f"`{size.model.name}`", f"`{size.model.source}`", f"{size.context:,}", str(size.sequences), starts,
        f"{memory}: {size.problem}; would fit: {size.would_fit}" if size.problem else memory,
    )  # fmt: skip


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A table's cell: one line, its bars escaped, so that no input can add a column or a heading."""
    return printable(" ".join((text or "").split())).replace("\\|", "|").replace("|", "\\|").replace("<", "&lt;")


def _hidden(value: Any, migration: Migration) -> Any:
    """The same without any text that was found to be a secret, wherever it got into a sentence."""
    match value:
        case str():
            for secret in sorted(migration.secrets, key=len, reverse=True):
                if len(secret) >= 6 and secret in value:
                    value = value.replace(secret, HIDDEN)
            return value
        case dict():
            return {key: _hidden(inner, migration) for key, inner in value.items()}
        case list():
            return [_hidden(inner, migration) for inner in value]
    return value
