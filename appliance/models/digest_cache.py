"""The SHA-256 of files that the store did not bring, read once for each state of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from appliance.models.local import fingerprint
from appliance.models.work import Tick, run_thread
from appliance.progress import Progress, Report
from appliance.state import write_atomic

_CHUNK = 4 * 1024 * 1024


class DigestCache:
    """`digests/` of a store: a file for each state of a file that somebody has read."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "digests"

    def known(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Of those files whose bytes have been read as they are now, the SHA-256 by name."""
        found = {}
        for name, file in files.items():
            cache = self._cache(file)
            if cache.exists():
                found[name] = cache.read_text()
        return found

    async def read(self, files: Mapping[str, Path], report: Report, *, subject: str) -> dict[str, str]:
        """Each file's SHA-256 by its name; those that are not known are read."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        total = sum(file.stat().st_size for file in files.values())

        def work(tick: Tick) -> dict[str, str]:
            found, done = self.known(files), 0
            for name, file in files.items():
                if name not in found:
                    found[name] = self._read(file, Progress(subject, "reading", done, total, "bytes"), tick)
                done += file.stat().st_size
            return found

        return await run_thread(work, report)

    def _read(self, file: Path, before: Progress, tick: Tick) -> str:
        cache, digest, done = self._cache(file), hashlib.sha256(), 0
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                done += len(chunk)
                tick(replace(before, done=(before.done or 0) + done))
        if self._cache(file) == cache:  # else it was written to meanwhile, and these are the bytes of no state
            write_atomic(cache, digest.hexdigest().encode())
        return digest.hexdigest()

    def _cache(self, file: Path) -> Path:
        return self._directory / fingerprint([file])


def content(digests: Mapping[str, str]) -> str:
    """One digest for a checkpoint: of its one file that file's own, of several one of their names and digests."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
