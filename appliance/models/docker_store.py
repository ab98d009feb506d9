"""Docker Model Runner's own store on this machine: what is there need not be downloaded.

models.json names manifests by tag, manifests/sha256/HEX and blobs/sha256/HEX hold them and their layers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from appliance.errors import SourceError
from appliance.models.artifact import LARGEST_MANIFEST
from appliance.models.sources import RegistrySource, parse_source

_LARGEST_INDEX = 16 * 1024 * 1024


class DockerStore:
    """Reads only, and believes nothing that its digest does not vouch for."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`MODELS_PATH` is where Docker Model Runner's own variable of that name says; else it is below the home."""
        home = Path(environ.get("HOME") or "/nonexistent")
        self.root = Path(environ.get("MODELS_PATH") or home / ".docker" / "models")

    def manifest(self, source: RegistrySource) -> bytes | None:
        """The manifest that this store has under the source's name."""
        try:
            path = self.root / "models.json"
            if path.stat().st_size > _LARGEST_INDEX:
                return None
            entries = json.loads(path.read_bytes())["models"]
            found = [str(each["id"]) for each in entries if _names(each, source)]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        for digest in found:
            data = self._read(self.root / "manifests" / "sha256" / digest.removeprefix("sha256:"))
            if data is not None and f"sha256:{hashlib.sha256(data).hexdigest()}" == digest:
                return data
        return None

    def blob(self, sha256: str) -> Path:
        return self.root / "blobs" / "sha256" / sha256

    def small(self, sha256: str) -> bytes | None:
        """The bytes of a small blob, as they are there."""
        return self._read(self.blob(sha256))

    def _read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes() if path.stat().st_size <= LARGEST_MANIFEST else None
        except OSError:
            return None


def _names(entry: Mapping[str, object], source: RegistrySource) -> bool:
    if source.digest:
        return entry["id"] == source.digest
    tags = entry.get("tags")
    for tag in tags if isinstance(tags, list) else ():
        try:
            if parse_source(f"oci:{tag}", base=Path("/")) == source:
                return True
        except SourceError:
            continue
    return False
