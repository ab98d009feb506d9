"""A GGUF file's header, read as hostile input: every count and length is checked against the bytes that are there.

The `gguf` package is not used for it: it reads past ends, allocates what a count says and flattens nested arrays.
Layout: magic, version, tensor count, key count, key-value pairs, tensor infos, padding, data.
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from .refused import damaged, unsupported

LARGEST_HEADER = 256 * 1024 * 1024  # vocabularies are the bulk of a header; the largest known are 10 MB
LARGEST_ARRAY = 4 * 1024 * 1024  # elements; the largest known vocabulary has 262,144 tokens and 514,906 merges
LARGEST_KEY = 65_535  # the format's own bound
MOST_DIMENSIONS = 4  # the format's own bound
MOST_SHARDS = 1000
MANY = 4096  # elements; numbers of one layer each are fewer

_SHARD = re.compile(r"(.+)-00001-of-\d{5}\.gguf")

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9

# Number of each tensor type -> (name, elements in a block, bytes of a block); only those that can be converted.
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}
_OTHER_TYPES = {
    9: "Q8_1", 15: "Q8_K",
    16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor's bytes are. `shape` is in numpy's order, the fastest-varying dimension last."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    size: int
    file: Path


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says about itself."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


def read_header(path: Path, *, vocabulary: bool = True) -> Header:
    """The header of `path`, with the tensors of its further shards where it is the first of several.

    Without its vocabulary, arrays of text or of many numbers are passed over, and a `range` of their length stands for
    each: a process that only counts can afford that. Raises Refused for anything that is not a sound, supported GGUF
    file.
    """
    first = _read(path, vocabulary)
    count = _shards(first.metadata, str(path))
    if count == 1:
        return first
    if first.metadata.get("split.no") != 0 or not (match := _SHARD.fullmatch(path.name)):
        raise unsupported(
            f"`{path}` is not the first of its {count} shards", hint="give the one that ends in 00001-of-…"
        )
    tensors = dict(first.tensors)
    for number in range(1, count):
        shard = path.with_name(f"{match[1]}-{number + 1:05d}-of-{count:05d}.gguf")
        if not shard.is_file():
            raise damaged(f"`{shard}` is missing, one of {count} shards")
        header = _read(shard, vocabulary)
        if (header.metadata.get("split.no"), header.metadata.get("split.count")) != (number, count):
            raise damaged(f"`{shard}` is not shard {number + 1} of {count}, as its name says")
        if twice := tensors.keys() & header.tensors.keys():
            raise damaged(f"`{shard}` has the tensor `{min(twice)}` once more")
        tensors |= header.tensors
    return Header(first.metadata, tensors)


def _read(path: Path, vocabulary: bool) -> Header:
    size = path.stat().st_size
    if size < 24:
        raise damaged(f"`{path}` is {size} bytes long, too short for a GGUF file")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(data, path, vocabulary).header()


class _Reader:
    def __init__(self, data: mmap.mmap, path: Path, vocabulary: bool) -> None:
        self._data = data
        self._vocabulary = vocabulary
        self._path = path
        self._name = str(path)
        self._at = 0
        self._end = min(len(data), LARGEST_HEADER)

    def header(self) -> Header:
        self._magic()
        tensors, keys = self._scalar("<Q"), self._scalar("<Q")
        self._room("keys", keys, 8 + 4 + 1)
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string("a key", LARGEST_KEY)
            if key in metadata:
                raise damaged(f"`{self._name}` has the key `{key}` twice")
            metadata[key] = self._value(key, self._scalar("<I"))
        self._room("tensors", tensors, 8 + 4 + 8 + 4 + 8)
        infos = [self._info() for _ in range(tensors)]
        return Header(metadata, self._place(infos, _alignment(metadata, self._name)))

    def _magic(self) -> None:
        magic = bytes(self._data[:4])
        if magic != b"GGUF":
            raise damaged(f"`{self._name}` is not a GGUF file: it starts with `{magic!r}`")
        self._at = 4
        version = self._scalar("<I")
        if version not in (2, 3):
            big_endian = version & 0xFFFF == 0
            what = "is big-endian" if big_endian else f"has GGUF version {version}"
            raise unsupported(f"`{self._name}` {what}", hint="versions 2 and 3, little-endian, can be read")

    def _take(self, size: int, what: str) -> int:
        if size > self._end - self._at:
            if self._end == LARGEST_HEADER:
                raise damaged(f"`{self._name}` has a header of more than {LARGEST_HEADER} bytes")
            raise damaged(f"`{self._name}` ends inside {what}: the file is truncated or damaged")
        at = self._at
        self._at += size
        return at

    def _room(self, what: str, count: int, least: int) -> None:
        if count * least > self._end - self._at:
            raise damaged(f"`{self._name}` says it has {count} {what}, more than fit into it")

    def _scalar(self, code: str) -> Any:
        return struct.unpack_from(code, self._data, self._take(struct.calcsize(code), "its header"))[0]

    def _string(self, what: str, longest: int = LARGEST_HEADER) -> str:
        size = self._scalar("<Q")
        if size > longest:
            raise damaged(f"`{self._name}` has {what} of {size} bytes")
        at = self._take(size, what)
        try:
            return self._data[at : at + size].decode()
        except UnicodeDecodeError as error:
            raise damaged(f"`{self._name}` has {what} that is not UTF-8") from error

    def _value(self, key: str, kind: int) -> Any:
        if kind == _STRING:
            return self._string(f"the value of `{key}`")
        if kind == _ARRAY:
            return self._array(key)
        if code := _SCALARS.get(kind):
            return self._scalar(code)
        raise damaged(f"`{self._name}` has a value of unknown type {kind} for `{key}`")

    def _array(self, key: str) -> list[Any] | range:
        kind, count = self._scalar("<I"), self._scalar("<Q")
        if count > LARGEST_ARRAY:
            raise damaged(f"`{self._name}` has {count} elements in `{key}`; at most {LARGEST_ARRAY} are read")
        if kind == _STRING:
            self._room(f"strings in `{key}`", count, 8)
            if not self._vocabulary:
                for _ in range(count):
                    self._take(self._scalar("<Q"), f"the value of `{key}`")
                return range(count)
            return [self._string(f"the value of `{key}`") for _ in range(count)]
        if code := _SCALARS.get(kind):
            at = self._take(struct.calcsize(code) * count, f"the value of `{key}`")
            if not self._vocabulary and count > MANY:
                return range(count)
            return list(struct.unpack_from(f"<{count}{code[1]}", self._data, at))
        raise damaged(f"`{self._name}` has an array of unknown type {kind} for `{key}`")

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string("a tensor's name", LARGEST_KEY)
        dimensions = self._scalar("<I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise damaged(f"`{self._name}` gives tensor `{name}` {dimensions} dimensions")
        shape = tuple(reversed([int(self._scalar("<Q")) for _ in range(dimensions)]))
        return name, shape, self._scalar("<I"), self._scalar("<Q")

    def _place(self, infos: list[tuple[str, tuple[int, ...], int, int]], alignment: int) -> dict[str, Tensor]:
        start = -(-self._at // alignment) * alignment
        room = len(self._data) - start
        tensors: dict[str, Tensor] = {}
        total = 0
        for name, shape, kind, offset in infos:
            if name in tensors:
                raise damaged(f"`{self._name}` has the tensor `{name}` twice")
            size = _size(self._name, name, shape, kind)
            total += size
            # The sum as well: many infos naming the same bytes would multiply a small file into a full disk.
            if offset % alignment or offset + size > room or total > room:
                raise damaged(f"`{self._name}` ends inside tensor `{name}`: the file is truncated or damaged")
            tensors[name] = Tensor(name, TYPES[kind][0], shape, start + offset, size, self._path)
        return tensors


def _alignment(metadata: dict[str, Any], name: str) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= 65_536 or alignment & (alignment - 1):
        raise damaged(f"`{name}` has the alignment `{alignment}`, which is no power of two up to 65536")
    return alignment


def _shards(metadata: dict[str, Any], name: str) -> int:
    count = metadata.get("split.count", 1)
    if type(count) is not int or not 0 <= count <= MOST_SHARDS:
        raise damaged(f"`{name}` says that it is one of `{str(count)[:40]}` shards")
    return max(count, 1)


def _size(file: str, name: str, shape: tuple[int, ...], kind: int) -> int:
    if kind not in TYPES:
        known = _OTHER_TYPES.get(kind, f"number {kind}")
        raise unsupported(
            f"`{file}`: tensor `{name}` has the quantization type `{known}`, which is not supported",
            hint=f"supported are {', '.join(each for each, _, _ in TYPES.values())}",
        )
    _, block, block_size = TYPES[kind]
    if 0 in shape or shape[-1] % block:
        raise damaged(f"`{file}`: tensor `{name}` has the impossible shape {list(shape)}")
    return prod(shape) // block * block_size
