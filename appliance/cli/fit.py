"""`fit`: which contexts, and how many at once, a machine's memory holds."""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.cli import output
from appliance.cli.loading import base_of, read
from appliance.cli.progress import shown
from appliance.config.load import Loaded
from appliance.config.models import Memory, Model
from appliance.engines import driver_for
from appliance.engines.driver import Driver, Shape
from appliance.engines.vllm_metal import VLLMMetal
from appliance.errors import ApplianceError, ConfigError, SourceError
from appliance.models.convert.gguf_file import read_header
from appliance.models.convert.refused import Refused
from appliance.models.fit import SEQUENCES, Fit, Target, fits, parse_target
from appliance.models.report import source_error
from appliance.models.shape import shape
from appliance.models.sources import LocalSource, parse_source
from appliance.models.store import Store
from appliance.reconcile.control import budget, choose_environments
from appliance.reconcile.resolve import backend_of
from appliance.state import StateDirectory

_CPU = "CpuPlatform"


def fit(file: Path | None, wanted: str | None, target: str | None, *, as_json: bool) -> bool:
    """Print a table for each model; True where each fits somehow."""
    loaded = _loaded(file, wanted)
    machine = parse_target(target) if target else None
    results = [_result(name, model, loaded, machine) for name, model in _models(loaded, wanted).items()]
    if as_json:
        output.as_json(results)
    else:
        for result in results:
            _show(result)
    return all(any(each["fits"] for each in result["table"]) for result in results)


def _loaded(file: Path | None, wanted: str | None) -> Loaded:
    """The file's configuration; a source can be asked about where there is no file."""
    try:
        return read(file)
    except ConfigError:
        if file is not None or wanted is None or Path("model-runner.yaml").exists():
            raise
        return read(None, {"models.default.source": wanted})


def _models(loaded: Loaded, wanted: str | None) -> dict[str, Model]:
    declared = dict(loaded.appliance.models)
    if wanted is None:
        return declared
    if wanted in declared:
        return {wanted: declared[wanted]}
    if ":" not in wanted and not Path(wanted).exists():
        names = ", ".join(sorted(declared))
        named = f"declared are {names}" if loaded.path else "there is no file here that declares any"
        raise ApplianceError(
            f"`{wanted}` is neither a declared model nor a source",
            hint=f"{named}; a source is a path that exists, or has its kind before it, such as `hf:org/name`",
        )
    return {wanted: Model(source=wanted)}


def _result(name: str, model: Model, loaded: Loaded, machine: Target | None) -> dict[str, Any]:
    driver, platform = _engine(model, loaded, machine)
    found = asyncio.run(_shape(name, model, driver, loaded))
    room = _budget(loaded.appliance.memory, machine)
    table = fits(driver, model.engine, found, room, platform=platform)
    if not table:
        raise ApplianceError(
            f"model {name}: what an engine of `{driver.name}` takes on this machine cannot be told beforehand",
            hint="on a GPU vLLM fills what `gpu_memory_utilization` says; `--target m2-16gb` asks about a Mac",
        )
    return {
        "model": name,
        "source": model.source,
        "backend": driver.name,
        "target": machine.name if machine else None,
        "budget": room,
        "weights": found.weights,
        "cache_per_token": found.cache_per_token,
        "state_per_sequence": found.state_bytes,
        "context": found.context,
        "table": [asdict(each) for each in table],
    }


def _engine(model: Model, loaded: Loaded, machine: Target | None) -> tuple[Driver, str]:
    """The driver and the vLLM platform to reckon with: a target is a Mac."""
    if machine is not None:
        return VLLMMetal(mac=True), "MetalPlatform"
    backend = backend_of(model, loaded.appliance)
    driver = driver_for(backend, loaded.appliance)
    if backend in loaded.appliance.backends:
        return driver, ""
    specs = choose_environments(loaded.appliance, StateDirectory.locate(os.environ))
    expected = specs[backend].expected_platform if backend in specs else ""
    return driver, expected or _CPU


def _budget(memory: Memory, machine: Target | None) -> int:
    if machine is None:
        return budget(memory)
    share = int(memory.budget * machine.memory) if isinstance(memory.budget, float) else int(memory.budget)
    return min(share, machine.limit)


async def _shape(name: str, model: Model, driver: Driver, loaded: Loaded) -> Shape:
    """From the checkpoint where it is here, else from no more of it than its configuration and its headers."""
    state = StateDirectory.locate(os.environ)
    state.prepare()
    token = loaded.appliance.huggingface.token
    store = Store(state.models, token=token.get_secret_value() if token else None)
    source, bits = parse_source(model.source, base=base_of(loaded)), model.quantize
    with shown() as report:
        if isinstance(source, LocalSource):
            return _sound((await store.pull(source, report, subject=f"model {name}")).path, driver, bits)
        if here := store.find(source):
            return _sound(here.path, driver, bits)
        with tempfile.TemporaryDirectory() as directory:
            path = await store.skeleton(source, Path(directory), report, subject=f"model {name}")
            return _sound(path, driver, bits)


def _sound(path: Path, driver: Driver, bits: int | None) -> Shape:
    """Raises a SourceError for a GGUF file that could not be converted, and for what has no weights."""
    if path.is_file() and driver.format != "any":
        try:
            read_header(path, vocabulary=False)
        except Refused as refused:
            raise source_error(refused.kind, refused.message, hint=refused.hint) from refused
    found = shape(path, driver.format, bits=bits)
    if not found.weights:
        raise SourceError(f"`{path}` has no weights in it", hint="fetch or copy it again")
    return found


def _show(result: dict[str, Any]) -> None:
    where = result["target"] or "this machine"
    cache = result["cache_per_token"]
    keeps = f"{output.size(cache)} of cache a token" if cache else "no cache"
    if cache is None:
        keeps = "a cache that its config.json does not tell and this table does not count"
    if state := result["state_per_sequence"]:
        keeps += f", {output.size(state)} of recurrent states a sequence"
    output.note(
        f"{result['model']}: {output.size(result['weights'])} of weights, {keeps}; "
        f"{output.size(result['budget'])} on {where} for {result['backend']}"
    )
    table = [Fit(**each) for each in result["table"]]
    rows: dict[int, list[Fit]] = {}
    for each in table:
        rows.setdefault(each.max_model_len, []).append(each)
    output.table(
        ("MAX_MODEL_LEN", *(f"MAX_NUM_SEQS {count}" for count in SEQUENCES)),
        (
            (str(length), *(output.size(each.memory) if each.fits else "-" for each in row))
            for length, row in rows.items()
        ),
    )
    if not any(each.fits for each in table):
        output.note(f"nothing fits: at least {output.size(min(each.memory for each in table))} is needed")
