"""The inputs' own files as they are to be now: in their place, or beside the originals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance.migrate.detect import Kind
from appliance.migrate.draft import Draft
from appliance.migrate.found import Reading
from appliance.migrate.inputs import Input, tree
from appliance.migrate.rows import Row
from appliance.migrate.writers import compose, dockerfile, dotenv
from appliance.migrate.writers.files import Output, beside

Given = Mapping[Path, tuple[Input, Kind]]
"""What the person named, by path; other files were found through these."""

_COMPOSE = (".yaml", ".yml")


def rewrites(draft: Draft, reading: Reading, given: Given, rows: Sequence[Row], *, in_place: bool) -> list[Output]:
    """Only files in which something changes."""
    found: list[Output] = []
    for path in dict.fromkeys(reading.read_files):
        source, kind = given[path] if path in given else _found_through_another(path)
        text = _rewritten(source, kind, draft, reading, given, rows, in_place=in_place)
        if text is not None and text != source.text:
            found.append(Output(path if in_place else beside(path), text, replaces=in_place))
    return found if in_place else _relinked(found, reading)


def _found_through_another(path: Path) -> tuple[Input, Kind]:
    source = Input(str(path), path.read_text(encoding="utf-8"), path.parent, path)
    return source, "compose" if path.suffix in _COMPOSE else "env"


def _relinked(found: list[Output], reading: Reading) -> list[Output]:
    """Compose files that name each other name what was written beside them."""
    written = {output.path for output in found}
    renamed = {path: beside(path) for path in reading.read_files if beside(path) in written}
    return [
        dataclasses.replace(output, text=compose.relinked(output.text, output.path.parent, renamed))
        if output.path.suffix in _COMPOSE
        else output
        for output in found
    ]


def _rewritten(
    source: Input, kind: Kind, draft: Draft, reading: Reading, given: Given, rows: Sequence[Row], *, in_place: bool
) -> str | None:
    if kind == "compose":
        text = compose.rewritten(source, draft, reading)
        if tree(Input(source.name, text, source.base)).data.get("services"):
            return text
        # Nothing is left to run; a file that others include has to stay all the same.
        return None if source.path in given else "services: {}\n"
    if kind == "dockerfile":
        return dockerfile.rewritten(source.text)
    if kind == "env" and source.path in given:
        if in_place:
            return dotenv.in_place(source.text)
        return dotenv.beside(source.text, _fates(source, rows), reading.secrets)
    return None


def _fates(source: Input, rows: Sequence[Row]) -> dict[str, str]:
    """Of each variable that is no longer read from this file, why."""
    return {
        name: "in model-runner.yaml now" if row.level in ("kept", "mapped") and row.to else row.why.rstrip(".")
        for row in rows
        if row.place.startswith(f"{source.name}:")
        and (row.level != "kept" or row.to)
        and (name := row.key.partition(" ")[0]) != "METAL_DEVICE"
    }
