"""The download process for `hf:` sources, started by path: the control process never imports huggingface_hub.

Prints JSON objects, one a line: `{"step", "done", "total"}` as it goes, at last `{"files": …, "commit": …}` or
`{"error": {"kind", "message", "hint"}}`. The token comes in HF_TOKEN, never in an argument.

huggingface_hub lists, authenticates and names errors. The transfer itself is here because its own (2.4) deletes what
has arrived when its process ends, and hf-xet, which it prefers, keeps no more; this one goes on from the last byte.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK = 1024 * 1024
TRIES = 5
_REPORT_EVERY = 0.2
_KEPT = (".safetensors", ".json", ".txt", ".model", ".jinja")
_NAME = re.compile(r"[A-Za-z0-9_][\w.+@ -]{0,200}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class RemoteFile:
    """One file of the repository. Exactly one of `sha256` (LFS) and `blob` (git's own SHA-1) is its digest."""

    name: str
    size: int
    sha256: str | None
    blob: str | None


class Failed(Exception):
    """The end of this process, in the words of its last line."""

    def __init__(self, kind: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.line = {"error": {"kind": kind, "message": message, "hint": hint}}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="hub")
    parser.add_argument("--repository", required=True)
    parser.add_argument("--revision")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    try:
        commit, files = listing(options.repository, options.revision)
        result = Transfer(options.repository, commit, options.out).run(files)
    except Failed as failed:
        _say(failed.line)
        return 1
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _say(Failed("full", f"no room left in `{options.out}`: {error.strerror}").line)
        return 1
    _say({"commit": commit, "files": result})
    return 0


def listing(repository: str, revision: str | None) -> tuple[str, list[RemoteFile]]:
    """The commit that `revision` stands for now, and the files of it that serving needs."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    where = f"`hf:{repository}`"
    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=30)
    except GatedRepoError as error:
        hint = f"accept its terms at {constants.ENDPOINT}/{repository} and set HF_TOKEN to a token of that account"
        raise Failed("missing", f"{where} is gated", hint) from error
    except RevisionNotFoundError as error:
        raise Failed(
            "missing", f"{where} has no revision `{revision}`", "a branch, a tag or a commit is needed"
        ) from error
    except RepositoryNotFoundError as error:
        hint = (
            "the token in HF_TOKEN may not see it" if os.environ.get("HF_TOKEN") else "if it is private, set HF_TOKEN"
        )
        raise Failed("missing", f"{where} does not exist on {constants.ENDPOINT}, or is private", hint) from error
    except HfHubHTTPError as error:
        raise _refused(where, error.response.status_code) from error
    except _connection_errors() as error:
        raise Failed(
            "transfer",
            f"{where}: {constants.ENDPOINT} cannot be reached: {error}",
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, then try again",
        ) from error
    files = _choose(where, info.siblings or [])
    # They become parts of paths here, so the hub's word that they are digests is not enough.
    if not all(
        _DIGEST.fullmatch(each) for each in [str(info.sha), *(file.sha256 or file.blob or "" for file in files)]
    ):
        raise Failed("transfer", f"{where}: the hub gave no usable digests of its files", "check HF_ENDPOINT")
    return str(info.sha), files


def _refused(where: str, status: int) -> Failed:
    if status in (401, 403):
        return Failed("missing", f"{where}: access was refused ({status})", "check the token in HF_TOKEN")
    return Failed("transfer", f"{where}: the hub answered {status}", "try again later")


def _connection_errors() -> tuple[type[Exception], ...]:
    """Connection errors of whichever HTTP library this version of huggingface_hub is built on."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    library = next(each for each in HfHubHTTPError.__mro__ if each.__name__ == "HTTPError")
    return (library, OfflineModeIsEnabled, ConnectionError)


def _choose(where: str, siblings: Sequence[Any]) -> list[RemoteFile]:
    """Files of the top directory by suffix: no code, no pickles, no second copy of the weights."""
    files = {
        each.rfilename: RemoteFile(
            each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else None, None if each.lfs else each.blob_id
        )
        for each in siblings
        if _NAME.fullmatch(each.rfilename)
    }
    kept = [file for name, file in files.items() if name.endswith(_KEPT)]
    if any(file.name.endswith(".safetensors") for file in kept):
        sharded = any(file.name.startswith("model") and file.name.endswith(".safetensors") for file in kept)
        return [file for file in kept if not (sharded and file.name.startswith("consolidated"))]
    ggufs = sorted(name for name in files if name.endswith(".gguf"))
    if len(ggufs) == 1:
        return [files[ggufs[0]]]
    if ggufs:
        raise Failed(
            "unsupported", f"{where} holds {len(ggufs)} GGUF files: {', '.join(ggufs[:6])}",
            "download one of them and give its path",
        )  # fmt: skip
    if any(each.rfilename.endswith((".bin", ".pt", ".pth", ".ckpt")) for each in siblings):
        raise Failed("unsupported", f"{where} holds its weights as pickles only", "use a repository with *.safetensors")
    raise Failed("missing", f"{where} holds no weights (*.safetensors, *.gguf) in its top directory")


class Transfer:
    """Brings files into one directory, each as `NAME.DIGEST.part` until it is whole and its digest is right."""

    def __init__(self, repository: str, commit: str, out: Path) -> None:
        self._repository = repository
        self._commit = commit
        self._out = out
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

    def _part(self, file: RemoteFile) -> Path:
        return self._out / f"{file.name}.{(file.sha256 or file.blob or '')[:40]}.part"

    def _sweep(self, files: Sequence[RemoteFile]) -> None:
        """Another commit's leftovers would be taken for this one's, or served beside it."""
        wanted = {file.name for file in files} | {self._part(file).name for file in files}
        for path in self._out.iterdir():
            if path.name not in wanted:
                path.unlink()

    def _bring(self, file: RemoteFile) -> str:
        target, part = self._out / file.name, self._part(file)
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
            except _connection_errors() as error:
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
        url = hf_hub_url(self._repository, file.name, revision=self._commit)
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
            _say({"step": "downloading", "done": self._before + at, "total": self._total})


def _final(error: Exception) -> bool:
    """An answer that another try would not change."""
    response = getattr(error, "response", None)
    return response is not None and 400 <= response.status_code < 500 and response.status_code not in (408, 429)


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _end_with_parent() -> None:
    """Wait for stdin's end: an orphan stuck on a silent server would keep the lock that its successor waits for."""
    while os.read(0, 1):  # not sys.stdin, whose lock the interpreter wants at its own end
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main(sys.argv[1:]))
