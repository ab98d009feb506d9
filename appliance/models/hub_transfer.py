"""Files of the hub brought into a directory, from the last byte that is there.

huggingface_hub lists, authenticates and names errors. The transfer itself is here because its own (2.4) deletes what
has arrived when its process ends, and hf-xet, which it prefers, keeps no more.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.models.disk import link
from appliance.models.head import write_head
from appliance.models.hub_files import RemoteFile
from appliance.models.say import Failed, say

CHUNK = 1024 * 1024
FIRST_HEAD = 256 * 1024
LARGEST_DOCUMENT = 16 * 1024 * 1024
TRIES = 5
_REPORT_EVERY = 0.2


class Transfer:
    """Brings files into one directory, each as `NAME.DIGEST.part` until it is whole and its digest is right."""

    def __init__(self, repository: str, commit: str, out: Path, blobs: Path | None = None) -> None:
        self._repository = repository
        self._commit = commit
        self._out = out
        self._blobs = blobs
        self._before = 0  # bytes of the files that are whole
        self._total = 0
        self._reported = 0.0

    def run(self, files: Sequence[RemoteFile]) -> dict[str, dict[str, Any]]:
        self._total = sum(file.size for file in files)
        self._sweep(files)
        result = {}
        for file in files:
            result[file.name] = {"size": file.size, "sha256": self._bring(file)}
            self._before += file.size
            self._progress(0)
        return result

    def heads(self, files: Sequence[RemoteFile]) -> dict[str, dict[str, Any]]:
        """Everything but the weights whole; of those, files of their full length that hold nothing but their heads."""
        for file in files:
            target = self._out / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.name.endswith((".safetensors", ".gguf")):
                self._head(file, target)
            else:
                target.write_bytes(self._bytes(file, min(file.size, LARGEST_DOCUMENT)))
        return {file.name: {"size": file.size, "sha256": file.sha256} for file in files}

    def _head(self, file: RemoteFile, target: Path) -> None:
        size = FIRST_HEAD
        while True:
            needed = write_head(target, self._bytes(file, min(size, file.size)), file.size)
            if needed is None:
                return
            size = needed

    def _bytes(self, file: RemoteFile, size: int) -> bytes:
        """The first bytes of a file."""
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not re-exported

        headers = build_hf_headers() | {"Accept-Encoding": "identity", "Range": f"bytes=0-{max(size - 1, 0)}"}
        url = hf_hub_url(self._repository, file.path, revision=self._commit)
        data = b""
        try:
            with get_session().stream("GET", url, headers=headers, timeout=30) as response:
                hf_raise_for_status(response)
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) >= size:
                        break
        except connection_errors() as error:
            raise Failed(
                "transfer", f"`{file.path}` of `hf:{self._repository}` broke off: {error}", "try again"
            ) from error
        return data[:size]

    def _part(self, file: RemoteFile) -> Path:
        return self._out / f"{file.name}.{(file.sha256 or file.blob or '')[:40]}.part"

    def _sweep(self, files: Sequence[RemoteFile]) -> None:
        """Another commit's leftovers would be taken for this one's, or served beside it."""
        wanted = {file.name for file in files} | {str(self._part(file).relative_to(self._out)) for file in files}
        for path in self._out.rglob("*"):
            if path.is_file() and str(path.relative_to(self._out)) not in wanted:
                path.unlink()

    def _bring(self, file: RemoteFile) -> str:
        target, part = self._out / file.name, self._part(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() and file.sha256 and self._blobs and (blob := self._blobs / file.sha256).exists():
            link(blob, target)
        if target.exists() and (digest := self._verified(target, file)):
            return digest
        # Bytes that do not add up are worth one fresh try: a resumed part may have been torn by a power cut.
        for _ in range(2):
            self._fetch(file, part)
            if digest := self._verified(part, file):
                part.replace(target)
                return digest
            part.unlink()
        raise Failed("transfer", f"`{file.name}` of `hf:{self._repository}` arrived with the wrong digest", "try again")

    def _fetch(self, file: RemoteFile, part: Path) -> None:
        tries = TRIES
        while True:
            start = part.stat().st_size if part.exists() else 0
            try:
                return self._stream(file, part)
            except connection_errors() as error:
                moved = part.exists() and part.stat().st_size > start
                tries = TRIES if moved else tries - 1
                if tries <= 0 or _final(error):
                    raise Failed(
                        "transfer", f"`{file.name}` of `hf:{self._repository}` broke off: {error}",
                        "try again; what has arrived is kept",
                    ) from error  # fmt: skip
                time.sleep(0.5 * (TRIES - tries + 1))

    def _stream(self, file: RemoteFile, part: Path) -> None:
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not re-exported

        have = part.stat().st_size if part.exists() else 0
        if have == file.size and part.exists():
            return
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if 0 < have < file.size:
            headers["Range"] = f"bytes={have}-"
        url = hf_hub_url(self._repository, file.path, revision=self._commit)
        with get_session().stream("GET", url, headers=headers, timeout=30) as response:
            hf_raise_for_status(response)
            have = have if response.status_code == 206 else 0
            with part.open("r+b" if have else "wb") as stream:
                stream.seek(have)
                for chunk in response.iter_bytes():  # as they arrive: a chunk size would lose the last partial chunk
                    stream.write(chunk)
                    if stream.tell() > file.size:
                        break  # its digest cannot be right any more, and there may be no end to it
                    self._progress(stream.tell())
                stream.flush()
                os.fsync(stream.fileno())

    def _verified(self, path: Path, file: RemoteFile) -> str | None:
        """The SHA-256 of a whole and sound file, else None."""
        if path.stat().st_size != file.size:
            return None
        sha256 = hashlib.sha256()
        blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                sha256.update(chunk)
                if file.blob:
                    blob.update(chunk)
        digest = sha256.hexdigest()
        if file.sha256:
            return digest if digest == file.sha256 else None
        return digest if blob.hexdigest() == file.blob else None

    def _progress(self, at: int) -> None:
        now = time.monotonic()
        if at == 0 or now - self._reported > _REPORT_EVERY:
            self._reported = now
            say({"step": "downloading", "done": self._before + at, "total": self._total})


def _final(error: Exception) -> bool:
    """An answer that another try would not change."""
    response = getattr(error, "response", None)
    return response is not None and 400 <= response.status_code < 500 and response.status_code not in (408, 429)


def connection_errors() -> tuple[type[Exception], ...]:
    """Connection errors of whichever HTTP library this version of huggingface_hub is built on."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    library = next(each for each in HfHubHTTPError.__mro__ if each.__name__ == "HTTPError")
    return (library, OfflineModeIsEnabled, ConnectionError)
