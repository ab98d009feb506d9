from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import pytest

from appliance.models.convert.command import convert
from appliance.models.convert.gguf_file import read_header
from appliance.models.convert.refused import Refused
from tests.models.gguf_builder import Gguf, text, tiny


def refusal(path: Path, data: bytes) -> Refused:
    path.write_bytes(data)
    with pytest.raises(Refused) as caught:
        read_header(path)
    return caught.value


def test_header_gives_back_what_was_written(tmp_path: Path) -> None:
    gguf = tiny()
    header = read_header(gguf.write(tmp_path / "m.gguf"))
    assert header.metadata["tokenizer.ggml.tokens"] == gguf.metadata["tokenizer.ggml.tokens"]
    assert header.metadata["llama.block_count"] == 2
    tensor = header.tensors["blk.1.ffn_down.weight"]
    assert (tensor.type, tensor.shape) == ("Q4_1", (64, 96))
    data = (tmp_path / "m.gguf").read_bytes()
    assert data[tensor.offset : tensor.offset + tensor.size] == gguf.data_of("blk.1.ffn_down.weight")


def test_wrong_magic_is_named(tmp_path: Path) -> None:
    refused = refusal(tmp_path / "m.gguf", b"PK\3\4" + bytes(100))
    assert refused.kind == "damaged"
    assert "not a GGUF file" in refused.message


def test_empty_file_is_refused(tmp_path: Path) -> None:
    assert "too short" in refusal(tmp_path / "m.gguf", b"").message


@pytest.mark.parametrize("version", [1, 4, 0x03000000])
def test_other_versions_and_byte_orders_are_refused(tmp_path: Path, version: int) -> None:
    data = Gguf({"a": 1}, version=version).encode()
    assert refusal(tmp_path / "m.gguf", data).kind == "unsupported"


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    data = tiny().encode()
    random = Random(1)  # noqa: S311
    for end in [0, 3, 23, 24, len(data) - 1, *(random.randrange(len(data)) for _ in range(60))]:
        assert refusal(tmp_path / "m.gguf", data[:end]).kind == "damaged"


@pytest.mark.parametrize("count", [2**31, 2**40, 2**63, 2**64 - 1])
def test_counts_beyond_the_file_are_refused_before_anything_is_allocated(tmp_path: Path, count: int) -> None:
    head = struct.pack("<4sI", b"GGUF", 3)
    array = text("x") + struct.pack("<IIQ", 9, 4, count)
    strings = text("x") + struct.pack("<IIQ", 9, 8, count)
    long = text("x") + struct.pack("<IQ", 8, count)
    for body in (
        struct.pack("<QQ", count, 0),
        struct.pack("<QQ", 0, count),
        struct.pack("<QQ", 0, 1) + array,
        struct.pack("<QQ", 0, 1) + strings,
        struct.pack("<QQ", 0, 1) + long,
        struct.pack("<QQQ", 0, 1, count),
    ):
        assert refusal(tmp_path / "m.gguf", head + body + bytes(64)).kind == "damaged"


def test_nested_arrays_are_refused(tmp_path: Path) -> None:
    nested = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text("x") + struct.pack("<IIQ", 9, 9, 1) + bytes(64)
    assert "unknown type 9" in refusal(tmp_path / "m.gguf", nested).message


def test_tensors_that_share_their_bytes_cannot_multiply_the_file(tmp_path: Path) -> None:
    info = b"".join(text(f"t{index}") + struct.pack("<IQQIQ", 2, 64, 64, 0, 0) for index in range(50))
    data = struct.pack("<4sIQQ", b"GGUF", 3, 50, 0) + info
    data += bytes(-len(data) % 32) + bytes(64 * 64 * 4)
    assert "t1" in refusal(tmp_path / "m.gguf", data).message


def test_duplicate_keys_and_tensors_are_refused(tmp_path: Path) -> None:
    key = text("a") + struct.pack("<II", 4, 1)
    assert "twice" in refusal(tmp_path / "m.gguf", struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + key + key).message
    info = text("t") + struct.pack("<IQIQ", 1, 1, 0, 0)
    data = struct.pack("<4sIQQ", b"GGUF", 3, 2, 0) + info + info + bytes(128)
    assert "twice" in refusal(tmp_path / "m.gguf", data).message


def test_unsupported_quantization_names_the_type_and_the_tensor(tmp_path: Path) -> None:
    gguf = Gguf({"general.architecture": "llama"}, {"blk.0.attn_v.weight": ("IQ4_NL", (2, 256))})
    refused = refusal(tmp_path / "m.gguf", gguf.encode())
    assert refused.kind == "unsupported"
    assert "IQ4_NL" in refused.message
    assert "blk.0.attn_v.weight" in refused.message
    assert "Q4_1" in str(refused.hint)


def test_shards_are_read_as_one_file(tmp_path: Path) -> None:
    whole = tiny()
    header = read_header(whole.shards(tmp_path, 3))
    assert header.tensors.keys() == whole.tensors.keys()
    assert len({tensor.file for tensor in header.tensors.values()}) == 3
    one, other = tmp_path / "one", tmp_path / "other"
    for out, path in ((one, tmp_path / "m-00001-of-00003.gguf"), (other, whole.write(tmp_path / "whole.gguf"))):
        out.mkdir()
        convert(path, out, "hf")
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_vocabulary_is_counted_where_only_numbers_matter(tmp_path: Path) -> None:
    path = tiny().write(tmp_path / "m.gguf")
    whole, counted = read_header(path), read_header(path, vocabulary=False)
    assert counted.tensors == whole.tensors
    tokens = whole.metadata["tokenizer.ggml.tokens"]
    assert counted.metadata["tokenizer.ggml.tokens"] == range(len(tokens))
    assert counted.metadata["llama.block_count"] == whole.metadata["llama.block_count"]


def test_missing_and_mixed_up_shards_are_named(tmp_path: Path) -> None:
    first = tiny().shards(tmp_path, 3)
    second, third = (tmp_path / f"m-0000{number}-of-00003.gguf" for number in (2, 3))
    with pytest.raises(Refused, match="not the first"):
        read_header(second)
    data = third.read_bytes()
    third.unlink()
    with pytest.raises(Refused, match="00003-of-00003"):
        read_header(first)
    third.write_bytes(second.read_bytes())
    with pytest.raises(Refused, match="not shard 3"):
        read_header(first)
    third.write_bytes(data)
    first.rename(tmp_path / "m.gguf")
    with pytest.raises(Refused, match="not the first"):
        read_header(tmp_path / "m.gguf")


@pytest.mark.parametrize("count", [-1, 100_000, "3", 1.5, [1]])
def test_senseless_numbers_of_shards_are_refused(tmp_path: Path, count: object) -> None:
    gguf = tiny().with_metadata(split__count=count) if count != -1 else tiny().with_metadata(split__count=2**31)
    assert refusal(tmp_path / "m.gguf", gguf.encode()).kind == "damaged"


@pytest.mark.parametrize("alignment", [0, 3, 2**31, "x"])
def test_senseless_alignment_is_refused(tmp_path: Path, alignment: object) -> None:
    gguf = tiny().with_metadata(general__alignment=alignment)
    assert "alignment" in refusal(tmp_path / "m.gguf", gguf.encode()).message


def test_mutated_files_convert_or_are_refused_and_nothing_else(tmp_path: Path) -> None:
    """Four hundred seeded mutations of a sound file: any other exception would be a traceback for the user."""
    data = tiny().encode()
    random = Random(20)  # noqa: S311
    header_end = data.index(b"output_norm.weight") + 60
    refused = 0
    for index in range(400):
        mutated = bytearray(data)
        for _ in range(random.choice([1, 1, 2, 8])):
            at = random.randrange(header_end)
            mutated[at : at + random.choice([1, 1, 4, 8])] = random.choice(
                [random.randbytes(1), b"\xff" * 8, bytes(8), random.randbytes(4), b""]
            )
        path, out = tmp_path / "m.gguf", tmp_path / str(index)
        path.write_bytes(mutated)
        out.mkdir()
        try:
            convert(path, out, random.choice(["hf", "mlx"]))
        except Refused:
            refused += 1
    assert 100 < refused < 400
