"""`models verify|rm|gc|df`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from appliance.cli import output
from appliance.cli.loading import base_of, read
from appliance.cli.progress import shown
from appliance.cli.weights import sources_of, store_of
from appliance.errors import ApplianceError, ConfigError
from appliance.models.garbage import Item, collect, contents
from appliance.models.sources import LocalSource, parse_source
from appliance.progress import Report


def verify(file: Path | None, model: str | None, *, repair: bool, as_json: bool) -> bool:
    """Print what is not right; True where nothing is, or nothing is any more."""
    loaded = read(file)
    store, declared = store_of(loaded), sources_of(loaded)
    if model is not None and model not in declared:
        raise ApplianceError(f"the file declares no model `{model}`", hint=f"it declares {', '.join(sorted(declared))}")

    async def one(name: str, report: Report) -> dict[str, Any]:
        source = declared[name]
        if isinstance(source, LocalSource):
            return {"model": name, "state": "local", "files": [], "repaired": False}
        if store.record(source) is None:
            return {"model": name, "state": "absent", "files": [], "repaired": False}
        wrong = await store.verify(source, report, subject=f"model {name}")
        if wrong and repair:
            await store.repair(source, wrong, report, subject=f"model {name}")
        return {
            "model": name,
            "state": "corrupt" if wrong else "sound",
            "files": wrong,
            "repaired": bool(wrong and repair),
        }

    async def every(report: Report) -> list[dict[str, Any]]:
        return [await one(name, report) for name in ([model] if model else sorted(declared))]

    with shown() as report:
        results = asyncio.run(every(report))
    if as_json:
        output.as_json(results)
    else:
        output.table(
            ("MODEL", "STATE", "FILES"),
            (
                (r["model"], r["state"] + (", fetched again" if r["repaired"] else ""), ", ".join(r["files"]))
                for r in results
            ),
        )
    return all(result["state"] != "corrupt" or result["repaired"] for result in results)


def remove(file: Path | None, wanted: str) -> None:
    try:
        loaded = read(file)
    except ConfigError:
        if ":" not in wanted:
            raise
        loaded = read(None, {"models.default.source": wanted})
    declared = sources_of(loaded)
    if wanted not in declared and ":" not in wanted and not Path(wanted).exists():
        raise ApplianceError(
            f"`{wanted}` is neither a declared model nor a source", hint="`appliance models df` lists what is here"
        )
    source = declared[wanted] if wanted in declared else parse_source(wanted, base=base_of(loaded))
    store = store_of(loaded)
    if isinstance(source, LocalSource):
        raise ApplianceError(f"`{source.text}` is no file of the appliance's", hint="delete it yourself if you mean to")
    if store.record(source) is None:
        raise ApplianceError(f"`{source.text}` is not on this machine", hint="`appliance models df` lists what is")
    found = store.find(source)
    freed = store.disk_size(found) if found else 0
    asyncio.run(store.remove(source))
    output.note(f"removed {source.text}, {output.size(freed)}")


def collect_garbage(file: Path | None, *, dry_run: bool, as_json: bool) -> None:
    loaded = read(file)
    removed = asyncio.run(collect(store_of(loaded), list(sources_of(loaded).values()), dry_run=dry_run))
    if as_json:
        output.as_json([_plain(item) for item in removed])
        return
    output.table(("KIND", "NAME", "SIZE"), ((item.kind, item.name, output.size(item.size)) for item in removed))
    total = output.size(sum(item.size for item in removed))
    output.note(f"{'would free' if dry_run else 'freed'} {total}" if removed else "nothing to delete")


def disk_usage(file: Path | None, *, as_json: bool) -> None:
    loaded = read(file)
    items = contents(store_of(loaded), list(sources_of(loaded).values()))
    if as_json:
        output.as_json([_plain(item) for item in items])
        return
    output.table(
        ("KIND", "NAME", "SIZE", "NEEDED"), ((i.kind, i.name, output.size(i.size), _why_kept(i)) for i in items)
    )
    output.note(f"{output.size(sum(item.size for item in items))} in all")


def _plain(item: Item) -> dict[str, Any]:
    return {"kind": item.kind, "name": item.name, "size": item.size, "declared": item.declared, "used": item.used}


def _why_kept(item: Item) -> str:
    if item.used:
        return "running"
    return "declared" if item.declared else "no"
