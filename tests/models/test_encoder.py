"""BERT-like encoders out of GGUF files: their tensors, and what sentence-transformers wants to know of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.engines.driver import Format
from appliance.models.convert.command import convert
from appliance.models.convert.refused import Refused
from appliance.models.shape import shape
from appliance.models.task import choices
from tests.models.gguf_builder import HIDDEN, Gguf, tiny, tiny_encoder
from tests.models.test_conversion import document, floats, tensors


def converted(gguf: Gguf, tmp_path: Path, to: str = "hf", **options: Any) -> Path:
    out = tmp_path / to
    out.mkdir()
    convert(gguf.write(tmp_path / "m.gguf"), out, to, **options)
    return out


@pytest.mark.parametrize(("kind", "dtype"), [("F32", "F32"), ("F16", "F16"), ("BF16", "BF16"), ("Q8_0", "F16")])
@pytest.mark.parametrize("to", ["hf", "mlx"])
def test_encoder_keeps_every_bit_that_its_file_has(tmp_path: Path, kind: str, dtype: str, to: str) -> None:
    gguf = tiny_encoder(kind=kind)
    table = tensors(converted(gguf, tmp_path, to))
    assert len(table) == len(gguf.tensors)
    kept, shape_, data = table["encoder.layer.1.attention.self.key.weight"]
    assert (kept, shape_) == (dtype, [HIDDEN, HIDDEN])
    if kind != "BF16":
        expected = floats(gguf, "blk.1.attn_k.weight").astype("<f2" if dtype == "F16" else "<f4")
        assert data == expected.tobytes()
    bias = table["encoder.layer.0.output.LayerNorm.bias"]
    assert (bias[0], bias[2]) == ("F32", floats(gguf, "blk.0.layer_output_norm.bias").tobytes())


def test_vectors_are_pooled_as_the_file_says(tmp_path: Path) -> None:
    out = converted(tiny_encoder(), tmp_path)
    assert document(out, "1_Pooling/config.json")["pooling_mode_mean_tokens"] is True
    assert [module["path"] for module in document(out, "modules.json")] == ["", "1_Pooling", "2_Normalize"]  # type: ignore[index]
    assert {choice.argument: choice.value for choice in choices(out)} == {"runner": "pooling", "convert": "embed"}
    assert not (out / "generation_config.json").exists()


def test_generating_models_that_are_for_embeddings_say_so_too(tmp_path: Path) -> None:
    out = converted(tiny().with_metadata(llama__pooling_type=3), tmp_path)
    assert document(out, "1_Pooling/config.json")["pooling_mode_lasttoken"] is True
    assert not (converted(tiny().with_metadata(llama__pooling_type=0), tmp_path, "mlx") / "modules.json").exists()


def test_reranker_has_its_head_and_scores(tmp_path: Path) -> None:
    gguf = tiny_encoder(spm=True, scores=1)
    out = converted(gguf, tmp_path)
    config, table = document(out, "config.json"), tensors(out)
    assert (config["architectures"], len(config["id2label"])) == (["BertForSequenceClassification"], 1)
    assert table["bert.pooler.dense.weight"][1] == [HIDDEN, HIDDEN]
    assert table["classifier.weight"][2] == floats(gguf, "cls.output.weight").tobytes()
    assert [(choice.argument, choice.value) for choice in choices(out)] == [("runner", "pooling")]


def test_reranker_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    gguf = tiny_encoder(scores=1)
    without = {name: value for name, value in gguf.tensors.items() if name not in ("cls.weight", "cls.bias")}
    with pytest.raises(Refused, match="lacks the layer `cls`"):
        converted(Gguf(gguf.metadata, without), tmp_path)


def test_nomic_bert_has_both_spellings_of_its_numbers(tmp_path: Path) -> None:
    gguf = tiny_encoder(architecture="nomic-bert", kind="F32").with_metadata(**{"nomic-bert.rope.freq_base": 1000.0})
    out = converted(gguf, tmp_path)
    config, table = document(out, "config.json"), tensors(out)
    assert (config["n_inner"], config["activation_function"]) == (config["intermediate_size"], "swiglu")
    assert config["rope_parameters"]["rope_theta"] == 1000.0
    assert table["encoder.layers.1.mlp.fc12.weight"][2] == floats(gguf, "blk.1.ffn_gate.weight").tobytes()


def test_an_encoder_is_never_quantized_anew(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not quantized"):
        converted(tiny_encoder(), tmp_path, "mlx", bits=4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bert__attention__head_count": 7}, "heads"),
        ({"bert__pooling_type": 9}, "pooling type"),
        ({"bert__attention__layer_norm_epsilon": None}, "layer_norm_epsilon"),
        ({"tokenizer__ggml__token_type_count": 3}, "token_types"),
        ({"bert__block_count": 3}, "missing"),
    ],
)
def test_encoder_that_does_not_add_up_is_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused, match=named):
        converted(tiny_encoder().with_metadata(**changes), tmp_path)


def test_encoder_keeps_nothing_from_token_to_token(tmp_path: Path) -> None:
    gguf = tiny_encoder(kind="Q8_0")
    numbers = sum(int(np.prod(each)) for _, each in gguf.tensors.values())
    formats: tuple[Format, ...] = ("hf", "mlx")
    for wanted in formats:
        found = shape(gguf.write(tmp_path / "m.gguf"), wanted)
        assert found.cache == ()
        assert (found.floats, found.weights) == (numbers, 2 * numbers)
