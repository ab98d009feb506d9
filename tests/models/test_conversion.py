"""The converter as a process, and what it writes, without any library that would read it back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import appliance.models.convert
from appliance.models.convert.blocks import bfloat16, dequantize
from appliance.models.convert.command import convert
from appliance.models.convert.rope import llama3_factors, read_scaling
from tests.models.gguf_builder import HEAD_DIM, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, Gguf, tiny

SCRIPT = Path(appliance.models.convert.__file__).with_name("__main__.py")
Table = dict[str, tuple[str, list[int], bytes]]


def run(gguf: Gguf, tmp_path: Path, to: str) -> tuple[Path, list[dict[str, Any]], int]:
    out = tmp_path / to
    out.mkdir()
    argv = [sys.executable, "-I", str(SCRIPT), "--to", to, "--out", str(out), str(gguf.write(tmp_path / "m.gguf"))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60)
    assert done.stderr == ""
    return out, [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def converted(gguf: Gguf, tmp_path: Path, to: str) -> Path:
    out, _, code = run(gguf, tmp_path, to)
    assert code == 0
    return out


def refused(gguf: Gguf, tmp_path: Path, to: str = "hf") -> dict[str, str]:
    _, lines, code = run(gguf, tmp_path, to)
    assert code == 1
    error: dict[str, str] = lines[-1]["error"]
    return error


def tensors(directory: Path) -> Table:
    return table_of(directory / "model.safetensors")


def table_of(file: Path) -> Table:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length :]
    ends = [entry["data_offsets"] for entry in header.values()]
    assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]
    assert ends[-1][1] == len(body)
    return {name: (e["dtype"], e["shape"], body[slice(*e["data_offsets"])]) for name, e in header.items()}


def document(directory: Path, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((directory / name).read_bytes())
    return value


def floats(gguf: Gguf, name: str) -> npt.NDArray[np.float32]:
    kind, shape = gguf.tensors[name]
    raw = np.frombuffer(gguf.data_of(name), dtype=np.uint8)
    return dequantize(raw.reshape(shape[0] if len(shape) > 1 else 1, -1), kind).reshape(shape)


def as_transformers(rows: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """The inverse of llama.cpp's permutation, row by row: the second half of a head lies at its odd rows."""
    size = len(rows) // heads
    order = [head * size + at for head in range(heads) for at in (*range(0, size, 2), *range(1, size, 2))]
    return rows[order]


def test_hf_directory_has_every_tensor_in_bfloat16(tmp_path: Path) -> None:
    gguf = tiny()
    table = tensors(converted(gguf, tmp_path, "hf"))
    assert len(table) == len(gguf.tensors)
    assert {dtype for dtype, _, _ in table.values()} == {"BF16"}
    plain = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    plain |= {"model.layers.1.mlp.down_proj.weight": "blk.1.ffn_down.weight"}
    for name, source in plain.items():
        assert table[name][2] == bfloat16(floats(gguf, source)).tobytes()
    for part, name, heads in (("q", "blk.0.attn_q.weight", HEADS), ("k", "blk.0.attn_k.weight", KV_HEADS)):
        expected = bfloat16(as_transformers(floats(gguf, name), heads)).tobytes()
        assert table[f"model.layers.0.self_attn.{part}_proj.weight"][2] == expected


def test_configuration_says_what_the_file_says(tmp_path: Path) -> None:
    config = document(converted(tiny(), tmp_path, "hf"), "config.json")
    expected = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "head_dim": HEAD_DIM,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    assert {name: config[name] for name in expected} == expected


def test_untied_embeddings_keep_their_output_matrix(tmp_path: Path) -> None:
    out = converted(tiny(tied=False), tmp_path, "hf")
    assert document(out, "config.json")["tie_word_embeddings"] is False
    assert "lm_head.weight" in tensors(out)


def test_generation_ends_at_every_token_that_ends_a_turn(tmp_path: Path) -> None:
    out = converted(tiny().with_metadata(tokenizer__ggml__eot_token_id=0), tmp_path, "hf")
    assert document(out, "generation_config.json") == {"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 2}


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_mlx_directory_is_lossless_and_names_the_odd_modules(tmp_path: Path, kind: str) -> None:
    gguf = tiny(kind=kind)
    out = converted(gguf, tmp_path, "mlx")
    table = tensors(out)
    bits = 8 if kind == "Q8_0" else 4
    quantization = document(out, "config.json")["quantization"]
    assert (quantization["bits"], quantization["group_size"], quantization["mode"]) == (bits, 32, "affine")
    odd = {} if bits == 8 else {"model.embed_tokens": {"group_size": 32, "bits": 8, "mode": "affine"}}
    assert {name: each for name, each in quantization.items() if isinstance(each, dict)} == odd
    rebuilt = unpacked(table, "model.layers.0.self_attn.q_proj", bits)
    expected = as_transformers(floats(gguf, "blk.0.attn_q.weight"), HEADS)
    assert np.array_equal(rebuilt + np.float32(0), expected + np.float32(0))
    assert np.array_equal(unpacked(table, "model.embed_tokens", 8), floats(gguf, "token_embd.weight"))
    assert table["model.norm.weight"][0] == "F16"


def unpacked(table: Table, module: str, bits: int) -> npt.NDArray[np.float32]:
    dtype, shape, data = table[f"{module}.weight"]
    assert dtype == "U32"
    words = np.frombuffer(data, dtype="<u4").reshape(shape)
    values = (words[..., None] >> np.arange(0, 32, bits, dtype=np.uint32)) & np.uint32(2**bits - 1)
    scale, bias = (
        np.frombuffer(table[f"{module}.{part}"][2], dtype="<f2").astype(np.float32).reshape(shape[0], -1, 1)
        for part in ("scales", "biases")
    )
    weights: npt.NDArray[np.float32] = values.reshape(shape[0], -1, 32).astype(np.float32) * scale + bias
    return weights.reshape(shape[0], -1)


@pytest.mark.parametrize(("kind", "dtype"), [("F16", "F16"), ("BF16", "BF16"), ("F32", "F32")])
def test_unquantized_files_stay_unquantized_for_mlx(tmp_path: Path, kind: str, dtype: str) -> None:
    out = converted(tiny(kind=kind, embeddings=kind), tmp_path, "mlx")
    assert "quantization" not in document(out, "config.json")
    assert {each for each, _, _ in tensors(out).values()} == {dtype}


@pytest.mark.parametrize(("architecture", "part"), [("qwen2", "q_proj.bias"), ("qwen3", "q_norm.weight")])
def test_qwen_tensors_keep_their_order_of_rows(tmp_path: Path, architecture: str, part: str) -> None:
    gguf = tiny(architecture=architecture).with_metadata(
        **{f"{architecture}__attention__key_length": HEAD_DIM, "tokenizer__ggml__pre": "qwen2"}
    )
    table = tensors(converted(gguf, tmp_path, "hf"))
    expected = bfloat16(floats(gguf, "blk.0.attn_q.weight")).tobytes()
    assert table["model.layers.0.self_attn.q_proj.weight"][2] == expected
    assert f"model.layers.0.self_attn.{part}" in table


def test_llama3_scaling_is_recovered_from_its_factors(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 8192
    factors = [float(np.float32(each)) for each in llama3_factors(scaling, 64, 500_000.0)]
    assert (factors[0], factors[-1]) == (1.0, 32.0)
    metadata = {"general.architecture": "llama"}
    assert read_scaling(metadata, factors, head_dim=64, base=500_000.0) == scaling


def test_progress_counts_tensors(tmp_path: Path) -> None:
    _, lines, _ = run(tiny(), tmp_path, "hf")
    assert [each["step"] for each in lines[:2]] == ["reading header", "converting"]
    assert (lines[-1]["done"], lines[-1]["total"]) == (len(tiny().tensors),) * 2


@pytest.mark.parametrize(
    ("changes", "kind", "named"),
    [
        ({"general__architecture": "mamba"}, "unsupported", "`mamba`"),
        ({"general__architecture": ["llama"]}, "unsupported", "llama"),
        ({"tokenizer__ggml__model": "llama"}, "damaged", "tokenizer.ggml.scores"),
        ({"tokenizer__ggml__model": "rwkv"}, "unsupported", "tokenizer `rwkv`"),
        ({"tokenizer__ggml__pre": "viking"}, "unsupported", "`viking`"),
        ({"tokenizer__ggml__tokens": None}, "damaged", "tokenizer.ggml.tokens"),
        ({"tokenizer__ggml__tokens": ["a"] * 265}, "damaged", "twice"),
        ({"tokenizer__ggml__merges": ["a b c"]}, "damaged", "a b c"),
        ({"tokenizer__ggml__token_type": [1]}, "damaged", "token_type"),
        ({"tokenizer__ggml__eos_token_id": 9999}, "damaged", "9999"),
        ({"llama__block_count": 3}, "damaged", "blk.2."),
        ({"llama__block_count": 2**31 - 1}, "damaged", "block_count"),
        ({"llama__block_count": "2"}, "damaged", "llama.block_count"),
        ({"llama__attention__head_count": 5}, "damaged", "5 heads"),
        ({"llama__attention__head_count_kv": 4}, "damaged", "blk.0.attn_k.weight"),
        ({"llama__embedding_length": 65}, "damaged", "shape"),
        ({"llama__rope__scaling__type": "yarn"}, "unsupported", "`yarn`"),
        ({"llama__rope__dimension_count": 8}, "unsupported", "rotary"),
        ({"llama__attention__layer_norm_rms_epsilon": float("nan")}, "damaged", "nan"),
    ],
)
def test_what_cannot_be_converted_is_named(tmp_path: Path, changes: dict[str, Any], kind: str, named: str) -> None:
    error = refused(tiny().with_metadata(**changes), tmp_path)
    assert error["kind"] == kind
    assert named in error["message"]


def test_experts_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    gguf = tiny()
    experts = Gguf(gguf.metadata, {**gguf.tensors, "blk.0.ffn_gate_exps.weight": ("F32", (4, 4))})
    assert "mixtures of experts" in refused(experts, tmp_path)["message"]


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    class Broken(Gguf):
        def data_of(self, name: str) -> bytes:
            data = super().data_of(name)
            return b"\x00\x7e" + data[2:] if name == "blk.1.ffn_up.weight" else data

    gguf = tiny()
    for to in ("hf", "mlx"):
        error = refused(Broken(gguf.metadata, gguf.tensors), tmp_path, to)
        assert error["kind"] == "damaged"
        assert "blk.1.ffn_up.weight" in error["message"]


def test_scales_beyond_float16_are_refused_for_mlx_alone(tmp_path: Path) -> None:
    class Large(Gguf):
        def data_of(self, name: str) -> bytes:
            data = super().data_of(name)
            return b"\xff\x7b" + data[2:] if name == "token_embd.weight" else data

    gguf = Large(tiny().metadata, tiny().tensors)
    assert "too large" in refused(gguf, tmp_path, "mlx")["message"]
    assert run(gguf, tmp_path, "hf")[2] == 0


def test_phi3_keeps_its_fused_matrices_and_its_long_rope(tmp_path: Path) -> None:
    gguf = tiny(architecture="phi3", spm=True).with_metadata(
        phi3__rope__dimension_count=HEAD_DIM,
        phi3__rope__scaling__original_context_length=64,
        phi3__attention__sliding_window=128,
    )
    factors = dict.fromkeys(("rope_factors_long.weight", "rope_factors_short.weight"), ("F32", (HEAD_DIM // 2,)))

    class Positive(Gguf):
        def data_of(self, name: str) -> bytes:
            data = np.frombuffer(super().data_of(name), np.uint8)
            return np.abs(data.view("<f4")).tobytes() if name.startswith("rope_factors") else data.tobytes()

    out = converted(Positive(gguf.metadata, {**gguf.tensors, **factors}), tmp_path, "hf")
    table, config = tensors(out), document(out, "config.json")
    assert table["model.layers.0.self_attn.qkv_proj.weight"][1] == [(HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN]
    assert table["model.layers.1.mlp.gate_up_proj.weight"][1][0] == 2 * INTERMEDIATE
    assert (config["architectures"], config["original_max_position_embeddings"]) == (["Phi3ForCausalLM"], 64)
    assert (config["sliding_window"], config["partial_rotary_factor"]) == (128, 1.0)
    assert len(config["rope_scaling"]["long_factor"]) == HEAD_DIM // 2


def test_gemma3_loses_what_llama_cpp_added_to_its_norms(tmp_path: Path) -> None:
    gguf = tiny(architecture="gemma3", spm=True).with_metadata(
        gemma3__attention__key_length=HEAD_DIM,
        gemma3__attention__value_length=HEAD_DIM,
        gemma3__attention__sliding_window=64,
    )
    out = converted(gguf, tmp_path, "hf")
    table, config = tensors(out), document(out, "config.json")
    for name, source in (
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight"),
        ("model.layers.1.pre_feedforward_layernorm.weight", "blk.1.ffn_norm.weight"),
        ("model.layers.1.post_feedforward_layernorm.weight", "blk.1.post_ffw_norm.weight"),
    ):
        assert table[name][2] == bfloat16(floats(gguf, source).reshape(-1) - np.float32(1)).tobytes()
    assert config["layer_types"] == ["sliding_attention"] * 2
    assert (config["sliding_window"], config["query_pre_attn_scalar"]) == (64, HEAD_DIM)


@pytest.mark.parametrize(("kind", "bits"), [("Q5_0", 6), ("Q5_1", 6), ("F16", None)])
@pytest.mark.parametrize("wanted", [None, 4, 6, 8])
def test_other_types_are_quantized_anew_for_mlx(
    tmp_path: Path, kind: str, bits: int | None, wanted: int | None
) -> None:
    gguf = tiny(kind=kind, embeddings=kind)
    path, out = gguf.write(tmp_path / "m.gguf"), tmp_path / "out"
    out.mkdir()
    convert(path, out, "mlx", bits=wanted)
    expected_bits = wanted or bits
    quantization = document(out, "config.json").get("quantization", {})
    assert quantization.get("bits") == expected_bits
    if expected_bits is None:
        return
    table = tensors(out)
    rebuilt = stream_unpacked(table, "model.layers.0.mlp.down_proj", expected_bits)
    values = floats(gguf, "blk.0.ffn_down.weight")
    groups = values.reshape(len(values), -1, 32)
    step = (groups.max(-1) - groups.min(-1)) / (2**expected_bits - 1)
    error = np.abs(rebuilt - values).reshape(groups.shape).max(-1)
    assert (error <= 0.51 * step + 2e-3 * np.abs(groups).max(-1)).all()


def stream_unpacked(table: Table, module: str, bits: int) -> npt.NDArray[np.float32]:
    """MLX's packed weight read bit by bit."""
    _, shape, data = table[f"{module}.weight"]
    stream = np.unpackbits(np.frombuffer(data, np.uint8).reshape(shape[0], -1), axis=-1, bitorder="little")
    values = (stream.reshape(shape[0], -1, bits) << np.arange(bits)).sum(-1).reshape(shape[0], -1, 32)
    scale, bias = (
        np.frombuffer(table[f"{module}.{part}"][2], dtype="<f2").astype(np.float32).reshape(shape[0], -1, 1)
        for part in ("scales", "biases")
    )
    weights: npt.NDArray[np.float32] = (values * scale + bias).astype(np.float32).reshape(shape[0], -1)
    return weights


def test_template_beside_the_file_goes_before_the_files_own(tmp_path: Path) -> None:
    template, out = tmp_path / "t.jinja", tmp_path / "out"
    template.write_text("{{ other }}")
    out.mkdir()
    convert(tiny().write(tmp_path / "m.gguf"), out, "hf", template=template)
    assert (out / "chat_template.jinja").read_text() == "{{ other }}"
