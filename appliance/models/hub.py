"""The download process for `hf:` sources, `python -m appliance.models.hub`: it alone imports huggingface_hub.

Says at last `{"files": …, "commit": …}`. The token comes in HF_TOKEN, never in an argument.

huggingface_hub lists, authenticates and names errors. The transfer itself is here because its own (2.4) deletes what
has arrived when its process ends, and hf-xet, which it prefers, keeps no more; this one goes on from the last byte.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from appliance.models.disk import link
from appliance.models.head import write_head
from appliance.models.say import Failed, run, say

CHUNK = 1024 * 1024
FIRST_HEAD = 256 * 1024
LARGEST_DOCUMENT = 16 * 1024 * 1024
TRIES = 5
_REPORT_EVERY = 0.2
_KEPT = (".safetensors", ".json", ".txt", ".model", ".jinja")
_NAME = re.compile(r"[A-Za-z0-9_][\w.+@ -]{0,200}", re.ASCII)
_MODULE = re.compile(r"\d{1,2}_[A-Za-z]{1,40}/(config\.json|model\.safetensors)")  # sentence-transformers' own layout
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """One file: `path` in the repository, `name` in the checkpoint. Exactly one of `sha256` (LFS) and `blob` (git's own
    SHA-1) is its digest."""

    path: str
    name: str
    size: int
    sha256: str | None
    blob: str | None


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="hub")
    parser.add_argument("--repository", required=True)
    parser.add_argument("--revision")
    parser.add_argument(
        "--files", help="a directory of the repository, globs with commas between, or a GGUF's quantization"
    )
    parser.add_argument("--blobs", type=Path, help="files that are here already, by SHA-256")
    parser.add_argument("--heads", action="store_true", help="weights as sparse files that hold their headers alone")
    parser.add_argument("--resolve", action="store_true", help="say the commit and fetch nothing")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}

    def work() -> dict[str, Any]:
        commit, files = listing(options.repository, options.revision, options.files)
        if options.resolve:
            return {"commit": commit}
        transfer = Transfer(options.repository, commit, options.out, options.blobs)
        return {"commit": commit, "files": transfer.heads(files) if options.heads else transfer.run(files)}

    return run(work, options.out)


def listing(repository: str, revision: str | None, wanted: str | None) -> tuple[str, list[RemoteFile]]:
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
    files = _choose(where, info.siblings or [], wanted)
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


def _choose(where: str, siblings: Sequence[Any], wanted: str | None) -> list[RemoteFile]:
    """Files by suffix: no code, no pickles, no second copy of the weights.

    (1) Without a wish those of the top directory, (2) with a directory's name those of that, (3) with globs what they
    match, code where one of them ends in `.py`, (4) with a word the one GGUF whose name has it.
    """
    suffixes: tuple[str, ...] = (*_KEPT, ".gguf")
    paths = {each.rfilename: each for each in siblings if _sound(each.rfilename)}
    if wanted is None:  # (1)
        chosen, base = _beneath(paths, ""), ""
    elif any(path.startswith(f"{wanted.rstrip('/')}/") for path in paths):  # (2)
        base = f"{wanted.rstrip('/')}/"
        chosen = _beneath(paths, base)
    else:
        globs = wanted.split(",")
        suffixes += (".py",) if any(glob.endswith(".py") for glob in globs) else ()
        chosen = [path for path in paths if any(_matches(path, glob) for glob in globs)]  # (3)
        chosen = chosen or [path for path in paths if path.endswith(".gguf") and _has_word(path, wanted)]  # (4)
        if not chosen:
            raise Failed("missing", f"{where} has nothing that `{wanted}` means", f"it holds {_some(list(paths))}")
        weights = [path for path in chosen if path.endswith((".safetensors", ".gguf"))]
        base = next(iter(sorted({path[: path.rfind("/") + 1] for path in weights}, key=len)), "")
        chosen = [path for path in chosen if path.startswith(base)]
    kept = _one_model(where, [path for path in chosen if path.endswith(suffixes)], wanted)
    if kept:
        return [_remote(paths[path], path.removeprefix(base)) for path in kept]
    if any(each.rfilename.endswith((".bin", ".pt", ".pth", ".ckpt")) for each in siblings):
        raise Failed("unsupported", f"{where} holds its weights as pickles only", "use a repository with *.safetensors")
    place = f"`{wanted}`" if wanted else "its top directory"
    raise Failed("missing", f"{where} holds no weights (*.safetensors, *.gguf) in {place}")


def _sound(path: str) -> bool:
    return all(map(_NAME.fullmatch, path.split("/"))) and path.count("/") < 8


def _beneath(paths: Collection[str], base: str) -> list[str]:
    """The files of a directory itself, and the modules that sentence-transformers keeps beneath it."""
    inside = [path for path in paths if path.startswith(base)]
    return [each for each in inside if "/" not in each[len(base) :] or _MODULE.fullmatch(each[len(base) :])]


def _matches(path: str, glob: str) -> bool:
    """As in a shell: `*` ends at a slash."""
    parts, globs = path.split("/"), glob.split("/")
    return len(parts) == len(globs) and all(map(fnmatchcase, parts, globs))


def _has_word(path: str, word: str) -> bool:
    return re.search(rf"(?i)(?<![a-z0-9]){re.escape(word)}(?![a-z0-9_])", path) is not None


def _one_model(where: str, paths: list[str], wanted: str | None) -> list[str]:
    """Without the formats and copies that would be one too many; empty where there are no weights."""
    if any(path.endswith(".safetensors") and not _MODULE.search(path) for path in paths):
        names = {path: path.rpartition("/")[2] for path in paths}
        sharded = any(name.startswith("model") and name.endswith(".safetensors") for name in names.values())
        return [
            path
            for path, name in names.items()
            if not name.endswith(".gguf") and not (sharded and name.startswith("consolidated"))
        ]
    ggufs = sorted(path for path in paths if path.endswith(".gguf") and "mmproj" not in path)
    models = {match[1] if (match := _SHARD.fullmatch(path)) else path for path in ggufs}
    if len(models) > 1:
        choice = "say which" if wanted is None else "say more exactly which"
        raise Failed(
            "unsupported",
            f"{where} holds {len(models)} GGUF models: {_some(ggufs)}",
            f"{choice}: `hf:org/name#{ggufs[0]}`, or by quantization, `hf:org/name#Q4_K_M`",
        )
    return ggufs


def _some(paths: list[str]) -> str:
    return ", ".join(sorted(paths)[:6]) + (f" and {len(paths) - 6} more" if len(paths) > 6 else "")


def _remote(sibling: Any, name: str) -> RemoteFile:
    lfs = sibling.lfs
    digest, blob = (lfs.sha256, None) if lfs else (None, sibling.blob_id)
    return RemoteFile(sibling.rfilename, name, sibling.size or 0, digest, blob)


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
        except _connection_errors() as error:
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
