"""A checkpoint out of a tar that is treated as hostile: plain files with plain names, and no more than is due."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from appliance.models.artifact import is_plain
from appliance.models.checkpoint import KEPT
from appliance.models.say import Failed

CHUNK = 1024 * 1024
LARGEST_EXPANSION = 100  # gzip reaches 1032; text reaches 20 and weights not 2
SMALL = 16 * 1024 * 1024
MOST_MEMBERS = 10_000


@dataclass(frozen=True, slots=True)
class Extracted:
    """One extracted file."""

    size: int
    sha256: str


def extract(archive: Path, into: Path, where: str) -> dict[str, Extracted]:
    """What a checkpoint needs of the archive, below `into`, without a directory that everything lies in."""
    if not archive.stat().st_size > 0:
        raise _hostile(where, "it is empty")
    try:
        members = _members(archive, where)
        base = _common(list(members))
        files = {}
        with tarfile.open(archive, "r|*") as tar:
            for info in tar:
                name = _name(info)
                if name in members and members[name] == info.size:
                    files[name.removeprefix(base)] = _write(tar, info, into / name.removeprefix(base), where)
                    del members[name]
        if members:
            raise _hostile(where, "it says something else the second time")
        return files
    except (tarfile.TarError, zlib.error, EOFError, UnicodeError, ValueError) as error:
        raise _hostile(where, f"it cannot be read: {error}") from error


def _members(archive: Path, where: str) -> dict[str, int]:
    """Wanted files and their sizes, after a look at everything that is there."""
    members: dict[str, int] = {}
    allowed = max(SMALL, LARGEST_EXPANSION * archive.stat().st_size)
    with tarfile.open(archive, "r|*") as tar:
        for index, info in enumerate(tar):
            name = _name(info)
            if index >= MOST_MEMBERS:
                raise _hostile(where, f"it has more than {MOST_MEMBERS} entries")
            if info.isdir():
                continue
            if not info.isreg():
                raise _hostile(where, f"`{name[:80]}` is a link or a device")
            if info.name.startswith("/") or ".." in info.name.split("/"):
                raise _hostile(where, f"it has the path `{info.name[:80]!r}`")
            allowed -= info.size
            if allowed < 0:
                raise _hostile(where, f"it would expand more than {LARGEST_EXPANSION} times")
            if not is_plain(name) or not name.endswith(KEPT):
                continue
            if name in members:
                raise _hostile(where, f"it has `{name}` twice")
            members[name] = info.size
    needed, free = sum(members.values()), shutil.disk_usage(archive.parent).free
    if needed > free:
        raise Failed("full", f"{where} needs {needed} bytes and `{archive.parent}` has {free} left")
    return members


def _name(info: tarfile.TarInfo) -> str:
    return info.name.removeprefix("./").rstrip("/")


def _common(names: list[str]) -> str:
    """The one directory that everything lies in, or nothing."""
    tops = {name.partition("/")[0] for name in names}
    if len(tops) == 1 and all("/" in name for name in names):
        return f"{tops.pop()}/"
    return ""


def _write(tar: tarfile.TarFile, info: tarfile.TarInfo, target: Path, where: str) -> Extracted:
    source = tar.extractfile(info)
    if source is None:
        raise _hostile(where, f"`{info.name[:80]}` has no content")
    digest, size = hashlib.sha256(), 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while chunk := source.read(CHUNK):
                size += len(chunk)
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except (FileExistsError, NotADirectoryError) as error:
        raise _hostile(where, f"`{info.name[:80]}` is there twice") from error
    return Extracted(size, digest.hexdigest())


def _hostile(where: str, why: str) -> Failed:
    return Failed(
        "damaged", f"the archive of {where} is damaged or not what it claims to be: {why}", "nothing of it was kept"
    )
