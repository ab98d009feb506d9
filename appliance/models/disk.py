"""The disk's limits as errors that say what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.errors import TransferFailed

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HINT = "free some space and try again; what has arrived is kept"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk (or quota) below `path` becomes TransferFailed; every other OSError stays what it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise TransferFailed(f"no room left in `{path}`: {error.strerror}", hint=_HINT) from error


def check_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path).free
    if needed > free:
        raise TransferFailed(f"`{path}` has {free} bytes left and {needed} are needed", hint=_HINT)


def sync_directory(path: Path) -> None:
    """Make the names in a directory as durable as the files they name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """The same for a directory and all below it."""
    for directory, _, _ in os.walk(path):
        sync_directory(Path(directory))


def link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no hard links, or `source` is on another."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    if path.is_file():
        return path.stat().st_size
    total, directories = 0, [str(path)]
    # Two environments have 110,000 files: a Path for each left the control process 48 MB larger.
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                elif entry.is_file():
                    total += entry.stat().st_size
    return total
