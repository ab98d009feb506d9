"""Which files of a repository on the hub are meant by a source."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from appliance.models.checkpoint import KEPT, MODULE, PICKLES, SHARD, is_projector
from appliance.models.say import Failed

_NAME = re.compile(r"[A-Za-z0-9_][\w.+@ -]{0,200}", re.ASCII)


@dataclass(frozen=True)
class RemoteFile:
    """One file: `path` in the repository, `name` in the checkpoint. Exactly one of `sha256` (LFS) and `blob` (git's own
    SHA-1) is its digest."""

    path: str
    name: str
    size: int
    sha256: str | None
    blob: str | None


def choose(where: str, siblings: Sequence[Any], wanted: str | None) -> list[RemoteFile]:
    """Files by suffix: no code, no pickles, no second copy of the weights.

    (1) Without a wish those of the top directory, (2) with a directory's name those of that, (3) with globs what they
    match, code where one of them ends in `.py`, (4) with a word the one GGUF whose name has it.
    """
    suffixes: tuple[str, ...] = KEPT
    paths = {each.rfilename: each for each in siblings if _sound(each.rfilename)}
    if wanted is None:  # (1)
        chosen, base = _beneath(paths, ""), ""
    elif any(path.startswith(f"{wanted.rstrip('/')}/") for path in paths):  # (2)
        base = f"{wanted.rstrip('/')}/"
        chosen = _beneath(paths, base)
    else:
        globs = wanted.split(",")
        suffixes = (*KEPT, ".py") if any(glob.endswith(".py") for glob in globs) else KEPT
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
    if any(each.rfilename.endswith(PICKLES) for each in siblings):
        raise Failed("unsupported", f"{where} holds its weights as pickles only", "use a repository with *.safetensors")
    place = f"`{wanted}`" if wanted else "its top directory"
    raise Failed("missing", f"{where} holds no weights (*.safetensors, *.gguf) in {place}")


def _sound(path: str) -> bool:
    return all(map(_NAME.fullmatch, path.split("/"))) and path.count("/") < 8


def _beneath(paths: Collection[str], base: str) -> list[str]:
    """The files of a directory itself, and the modules that sentence-transformers keeps beneath it."""
    inside = [path for path in paths if path.startswith(base)]
    return [each for each in inside if "/" not in each[len(base) :] or MODULE.fullmatch(each[len(base) :])]


def _matches(path: str, glob: str) -> bool:
    """As in a shell: `*` ends at a slash."""
    parts, globs = path.split("/"), glob.split("/")
    return len(parts) == len(globs) and all(map(fnmatchcase, parts, globs))


def _has_word(path: str, word: str) -> bool:
    return re.search(rf"(?i)(?<![a-z0-9]){re.escape(word)}(?![a-z0-9_])", path) is not None


def _one_model(where: str, paths: list[str], wanted: str | None) -> list[str]:
    """Without the formats and copies that would be one too many; empty where there are no weights."""
    if any(path.endswith(".safetensors") and not MODULE.search(path) for path in paths):
        names = {path: path.rpartition("/")[2] for path in paths}
        sharded = any(name.startswith("model") and name.endswith(".safetensors") for name in names.values())
        return [
            path
            for path, name in names.items()
            if not name.endswith(".gguf") and not (sharded and name.startswith("consolidated"))
        ]
    ggufs = sorted(path for path in paths if path.endswith(".gguf") and not is_projector(path.rpartition("/")[2]))
    models = {match[1] if (match := SHARD.fullmatch(path)) else path for path in ggufs}
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
