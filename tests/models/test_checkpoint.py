from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.errors import SourceError, SourceNotFound, UnsupportedModel
from appliance.models.checkpoint import identify
from tests.models.checkpoint_builder import hf_files, safetensors, write_files
from tests.models.gguf_builder import tiny


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    hf = write_files(tmp_path / "hf", hf_files())
    mlx = write_files(tmp_path / "mlx", hf_files(quantization={"bits": 4, "group_size": 32}))
    (tmp_path / "one").mkdir()
    gguf = tiny().write(tmp_path / "one" / "m.gguf")
    assert identify(hf) == (hf, "hf")
    assert identify(mlx) == (mlx, "mlx")
    assert identify(gguf) == (gguf, "gguf")
    assert identify(gguf.parent) == (gguf, "gguf")


def refused(path: Path, kind: type[SourceError]) -> str:
    with pytest.raises(kind) as caught:
        identify(path)
    assert type(caught.value) is kind
    return caught.value.message


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    whole = hf_files()
    assert "does not exist" in refused(tmp_path / "none", SourceNotFound)
    assert "no files" in refused(write_files(tmp_path / "a", {}), SourceNotFound)
    without = {name: whole[name] for name in whole if name != "config.json"}
    assert "config.json" in refused(write_files(tmp_path / "b", without), SourceNotFound)
    without = {name: whole[name] for name in whole if name != "model.safetensors"}
    assert "no weights" in refused(write_files(tmp_path / "c", without), SourceNotFound)
    without = {name: whole[name] for name in whole if name != "tokenizer.json"}
    assert "no tokenizer" in refused(write_files(tmp_path / "d", without), SourceNotFound)


def test_pickles_are_refused(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04"}
    assert "runs code" in refused(write_files(tmp_path / "a", files), UnsupportedModel)
    assert "runs code" in refused(tmp_path / "a" / "pytorch_model.bin", UnsupportedModel)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    files = hf_files()
    files["model-00001-of-00002.safetensors"] = files.pop("model.safetensors")
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    assert "model-00002-of-00002.safetensors" in refused(write_files(tmp_path, files), SourceNotFound)


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 8 + b"{}", safetensors()[:-1], safetensors() + b"x"])
def test_weights_shorter_or_longer_than_they_say_are_refused(tmp_path: Path, data: bytes) -> None:
    refused(write_files(tmp_path, {**hf_files(), "model.safetensors": data}), SourceError)


LARGER = b'{"w":{"dtype":"F32","shape":[99999999999,99999999999],"data_offsets":[0,0]}}'


@pytest.mark.parametrize("header", [b"[]", b"{", b'{"w":1}', b'{"w":{"data_offsets":["a","b"]}}', b"[" * 9000, LARGER])
def test_damaged_weight_header_is_refused(tmp_path: Path, header: bytes) -> None:
    data = len(header).to_bytes(8, "little") + header
    refused(write_files(tmp_path, {**hf_files(), "model.safetensors": data}), SourceError)


@pytest.mark.parametrize("config", [b"", b"[]", b"{}", b'{"model_type"', b"\xff\xfe"])
def test_damaged_config_is_refused(tmp_path: Path, config: bytes) -> None:
    refused(write_files(tmp_path, {**hf_files(), "config.json": config}), SourceError)


def test_file_that_is_no_gguf_is_refused_by_what_it_starts_with(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"<!DOCTYPE html>")
    assert "<!DO" in refused(tmp_path / "m.gguf", SourceError)
    (tmp_path / "m.onnx").write_bytes(b"x")
    assert "is no model" in refused(tmp_path / "m.onnx", UnsupportedModel)


def test_several_gguf_files_are_listed(tmp_path: Path) -> None:
    write_files(tmp_path, {"a-Q4_0.gguf": b"GGUF", "a-Q8_0.gguf": b"GGUF"})
    assert "a-Q4_0.gguf, a-Q8_0.gguf" in refused(tmp_path, UnsupportedModel)
