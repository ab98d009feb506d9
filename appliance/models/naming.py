"""What the store calls things: a source's record and lock, and the directory of a checkpoint."""

from __future__ import annotations

import hashlib
import re

from appliance.models.sources import HubSource, LinkSource, PackageSource, RemoteSource, Source


def key_of(source: Source) -> str:
    """A file name for a source: readable, and distinct even where the readable part is not."""
    readable = re.sub(r"[^A-Za-z0-9.=@-]+", "-", source.text).strip("-.")[-80:]
    return f"{readable}-{hashlib.sha256(source.text.encode()).hexdigest()[:8]}"


def directory_of(source: RemoteSource, revision: str | None) -> str:
    """A checkpoint's name: the same for every source that stands for the same files."""
    if isinstance(source, HubSource):
        part = f"-{hashlib.sha256(source.files.encode()).hexdigest()[:6]}" if source.files else ""
        return f"hf-{source.repository.replace('/', '--')}-{str(revision)[:12]}{part}"
    if isinstance(source, LinkSource):
        return f"url-{source.sha256[:24]}"
    if isinstance(source, PackageSource):
        return f"pypi-{source.name}-{source.version}"
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", f"oci-{source.host}-{source.path}")[:80]
    return f"{readable}-{str(revision).removeprefix('sha256:')[:12]}"
