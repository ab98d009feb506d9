"""Adapters against the part of vLLM's API that loads them, over a real socket."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.config.models import Appliance
from appliance.engines.driver import Choice, Launch
from appliance.models.lockfile import Entry, Lock
from appliance.models.store import Store
from appliance.plan.desired import EngineSpec
from appliance.process.engine_process import EngineProcess
from appliance.process.probe import Address
from appliance.progress import silent
from appliance.reconcile.adapters import Adapters, with_room
from appliance.reconcile.engine import Engine
from appliance.reconcile.pulls import Pulls
from appliance.reconcile.resolve import resolve
from tests.models.checkpoint_builder import safetensors, write_files


def started(room: int, directory: Path = Path()) -> Launch:
    chosen = (Choice("max_lora_rank", room, ""),)
    return Launch(python=None, model=Path(), directory=directory, key="", chosen=chosen)


@dataclass
class Loader:
    """What stands for a running engine: the adapters that it has, and what it was asked to do."""

    address: Address = field(default_factory=lambda: Address(None, 0))
    loaded: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    refuses: str | None = None
    launch: Launch = field(default_factory=lambda: started(64))

    def answer(self, method: str, path: str, body: dict[str, str]) -> tuple[int, object]:
        if method == "GET":
            cards: list[dict[str, Any]] = [{"id": "m", "root": "/m", "parent": None}]
            return 200, {"data": cards + [{"id": name, "root": at, "parent": "m"} for name, at in self.loaded.items()]}
        name = body["lora_name"]
        self.asked.append((path.rpartition("/")[2].partition("_")[0], name))
        if self.refuses == name:
            return 400, {"error": {"message": "rank 64 is greater than max_lora_rank 8"}}
        if "unload" in path:
            del self.loaded[name]
        else:
            self.loaded[name] = body["lora_path"]
        return 200, "done"


@pytest.fixture
def loader() -> Iterator[Loader]:
    it = Loader()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            length = int(self.headers["Content-Length"] or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            status, answer = it.answer(self.command, self.path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 - the name that the server looks for

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    it.address = Address(None, server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield it
    server.shutdown()
    server.server_close()
    thread.join()


def adapter(path: Path, *, rank: int = 8) -> Path:
    config = json.dumps({"peft_type": "LORA", "r": rank}).encode()
    return write_files(path, {"adapter_config.json": config, "adapter_model.safetensors": safetensors()})


def settled(
    tmp_path: Path, loader: Loader, *names: str, engine: Engine | None = None, lock: Lock | None = None
) -> Engine:
    spec = EngineSpec(model="m", backend="vllm", source="x", engine=(("enable_lora", "true"),))
    engine = engine or Engine(id="m-1", spec=spec, since=0.0, wake=lambda: None)
    seen: list[frozenset[str]] = []
    held = engine
    loader.launch = replace(loader.launch, directory=tmp_path / "e-1")
    adapters = adapters_of(tmp_path, *names, lock=lock)
    asyncio.run(adapters.settle(held, cast("EngineProcess", loader), lambda: seen.append(held.adapters)))
    # Nobody is routed to an adapter while it is taken out.
    assert all(not before & {name for what, name in loader.asked if what == "unload"} for before in seen)
    return engine


def adapters_of(tmp_path: Path, *names: str, lock: Lock | None = None) -> Adapters:
    store = Store(tmp_path / "store")
    return Adapters(store, Pulls(store, lock), declared(*names), tmp_path, silent)


def declared(*names: str) -> Appliance:
    each = [{"name": name, "source": f"./{name}"} for name in names]
    return Appliance.model_validate({"models": {"m": {"source": "./x", "adapters": each}}})


def test_engine_is_brought_to_what_the_file_says_whatever_it_has(tmp_path: Path, loader: Loader) -> None:
    for name in ("one", "two"):
        adapter(tmp_path / name)
    loader.loaded = {"one": "/an/older/place", "gone": "/gone"}
    engine = settled(tmp_path, loader, "one", "two")
    assert {name: Path(at).resolve() for name, at in loader.loaded.items()} == {
        "one": tmp_path / "one", "two": tmp_path / "two"
    }  # fmt: skip
    assert engine.adapters == {"one", "two"}
    assert sorted(loader.asked) == [("load", "one"), ("load", "two"), ("unload", "gone"), ("unload", "one")]
    loader.asked.clear()
    settled(tmp_path, loader, "one", "two", engine=engine)
    assert loader.asked == []
    settled(tmp_path, loader, engine=engine)
    assert (loader.loaded, engine.adapters) == ({}, frozenset())


def test_adapter_that_cannot_be_loaded_is_told_and_the_others_serve(tmp_path: Path, loader: Loader) -> None:
    for name in ("one", "two"):
        adapter(tmp_path / name)
    loader.refuses = "two"
    engine = settled(tmp_path, loader, "one", "two", "missing")
    assert engine.adapters == {"one"}
    assert "max_lora_rank" in engine.adapter_problems["two"]
    assert "does not exist" in engine.adapter_problems["missing"]


def test_engine_that_does_not_answer_loses_no_engine(tmp_path: Path) -> None:
    adapter(tmp_path / "one")
    engine = settled(tmp_path, Loader(Address(None, 9)), "one")
    assert "did not answer" in engine.adapter_problems["one"]


def test_engine_is_started_for_the_largest_rank(tmp_path: Path) -> None:
    adapter(tmp_path / "one", rank=8)
    adapter(tmp_path / "two", rank=24)
    adapters = adapters_of(tmp_path, "one", "two", "missing")
    choices = {choice.argument: choice.value for choice in asyncio.run(adapters.choices("m"))}
    assert choices == {"max_lora_rank": 32, "max_loras": 2}
    assert asyncio.run(adapters.choices("other")) == ()


def test_local_adapter_that_was_written_to_is_loaded_again(tmp_path: Path, loader: Loader) -> None:
    path = adapter(tmp_path / "one")
    engine = settled(tmp_path, loader, "one")
    loader.asked.clear()
    (path / "adapter_model.safetensors").write_bytes(safetensors(8))
    settled(tmp_path, loader, "one", engine=engine)
    assert loader.asked == [("unload", "one"), ("load", "one")]
    assert engine.adapters == {"one"}


def test_adapter_that_cannot_be_had_any_more_leaves_what_is_loaded(tmp_path: Path, loader: Loader) -> None:
    path = adapter(tmp_path / "one")
    engine = settled(tmp_path, loader, "one")
    loader.asked.clear()
    (path / "adapter_model.safetensors").write_bytes(safetensors()[:-1])  # somebody is still writing
    settled(tmp_path, loader, "one", engine=engine)
    assert loader.asked == []
    assert engine.adapters == {"one"}
    assert "bytes long" in engine.adapter_problems["one"]


def test_locked_adapter_is_loaded_and_another_is_not(tmp_path: Path, loader: Loader) -> None:
    locked, other = adapter(tmp_path / "locked"), adapter(tmp_path / "other")
    files = {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in locked.iterdir()}
    lock = Lock({f"m/{name}": Entry(f"./{name}", None, files) for name in ("locked", "other")})
    (other / "adapter_model.safetensors").write_bytes(safetensors(8))
    engine = settled(tmp_path, loader, "locked", "other", "unknown", lock=lock)
    assert engine.adapters == {"locked"}
    assert "are not the files in the lock" in engine.adapter_problems["other"]
    assert "unknown" in engine.adapter_problems


def test_adapter_beyond_its_engine_is_left_out_until_there_is_another_engine(tmp_path: Path, loader: Loader) -> None:
    adapter(tmp_path / "small", rank=8)
    adapter(tmp_path / "large", rank=24)
    loader.launch = started(8)
    engine = settled(tmp_path, loader, "small", "large")
    assert engine.adapters == {"small"}
    assert engine.adapter_problems == {"large": "its rank is 24, and its engine was started for 8"}


def test_engine_that_its_adapters_have_outgrown_is_replaced(tmp_path: Path) -> None:
    desired = resolve(declared("one"), environments={}, base=tmp_path)
    plain = desired["m"].spec

    def asked(needed: int, *running: tuple[EngineSpec, int]) -> object:
        ranks = {"m": needed} if needed else {}
        roomy = with_room(desired, ranks, [(spec, started(room)) for spec, room in running])
        return roomy["m"].spec.arguments.get("max_lora_rank")

    assert asked(64) is None
    assert asked(8, (plain, 16)) is None
    assert asked(24, (plain, 16)) == 32
    grown = replace(plain, engine=(*plain.engine, ("max_lora_rank", "32")))
    assert asked(24, (plain, 16), (grown, 32)) == 32
    assert asked(0, (grown, 32)) == 32
    assert asked(40, (grown, 32)) is None  # the start takes what is needed
    other = replace(plain, source="/elsewhere")
    assert asked(24, (other, 16)) is None


def test_what_the_file_says_of_the_rank_stands(tmp_path: Path) -> None:
    appliance = declared("one")
    model = appliance.models["m"].model_copy(update={"engine": {"max_lora_rank": 8}})
    appliance = appliance.model_copy(update={"models": {"m": model}})
    desired = resolve(appliance, environments={}, base=tmp_path)
    spec = desired["m"].spec
    assert with_room(desired, {"m": 64}, [(spec, started(8))]) == desired


def test_ranks_are_those_of_adapters_that_are_here(tmp_path: Path) -> None:
    adapter(tmp_path / "one", rank=8)
    adapter(tmp_path / "two", rank=24)
    adapters = adapters_of(tmp_path, "one", "two", "missing")
    assert adapters.ranks() == {"m": 24}
    before = adapters.state("m")
    assert set(before) == {"one", "two"}
    (tmp_path / "one" / "adapter_model.safetensors").write_bytes(safetensors(8))
    assert adapters.state("m")["two"] == before["two"]
    assert adapters.state("m")["one"] != before["one"]
