"""The models on this machine.

sources/KEY.json        one record a source, written last: what is not recorded does not exist
checkpoints/NAME/       complete files; several sources may name the same
blobs/SHA256            every file once more by its content, as a hard link: equal files take their space once
converted/NAME/         conversions, by the GGUF's SHA-256, the format and the converter's version
partial/KEY/            what is arriving: `files/`, then `record.json`; never read by anybody but the next pull
arriving/SHA256         blobs that are arriving
digests/ locks/
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from appliance.engines.driver import Format
from appliance.errors import Conflict, SourceError, TransferFailed
from appliance.file_lock import held, shared, unused
from appliance.models.adapter import adapter_file, heads_of
from appliance.models.blobs import deposit
from appliance.models.checkpoint import Checkpoint, identify
from appliance.models.conversion import Conversions, required, target_of
from appliance.models.digest_cache import DigestCache
from appliance.models.disk import size_of, sync_directory, sync_tree, writing
from appliance.models.local import examine
from appliance.models.naming import directory_of, key_of
from appliance.models.package import fetch_package
from appliance.models.record import File, Record, describe
from appliance.models.repository import fetch_blobs, fetch_repository, fetch_revision
from appliance.models.sources import (
    HubSource,
    LocalSource,
    PackageSource,
    RegistrySource,
    RemoteSource,
    Source,
    at_revision,
)
from appliance.models.verification import corrupt
from appliance.models.work import run_thread
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
        self.root = root
        self._token = token
        self._environ = os.environ if environ is None else environ
        self._step = step
        self.checkpoints = root / "checkpoints"
        self.digests = DigestCache(root)
        self.conversions = Conversions(root, self.digests, self._environ, step)

    def find(self, source: Source) -> Checkpoint | None:
        """The source's checkpoint if all of it is on this machine."""
        if isinstance(source, LocalSource):
            try:
                return examine(source)
            except SourceError:
                return None  # `pull` says why
        record = self.record(source)
        return record.checkpoint(self.checkpoints) if record and record.holds(self.checkpoints) else None

    def record(self, source: Source) -> Record | None:
        """What is known of a fetched source, whether or not its files are still whole."""
        return Record.read(self._record(source))

    async def pull(self, source: Source, report: Report, *, subject: str) -> Checkpoint:
        """The source's checkpoint, fetched where it is not here yet; an interrupted fetch is taken up again.

        Files that somebody has written to since they arrived are hashed, and fetched again where they are not right.
        """
        if isinstance(source, LocalSource):
            return examine(source)
        if here := self._sound(source):
            return here
        waiting = Progress(subject, "waiting for another process that is fetching this model")
        with writing(self.root):
            self.prepare_directories()
            async with held(self.lock(key_of(source)), waiting=lambda: report(waiting)) as keep:
                if here := self._sound(source):
                    return here
                await self._mend(source, report, subject)
                return self._sound(source) or await self._fetch(source, report, subject, keep)

    async def prepare(
        self,
        checkpoint: Checkpoint,
        wanted: Format,
        python: Path | None,
        report: Report,
        *,
        subject: str,
        bits: int | None = None,
    ) -> Path:
        """A path that an engine of this format can load: the checkpoint's own, or a conversion of it.

        `bits` is what a GGUF is quantized to for MLX; None keeps as close to the file as MLX can.
        """
        target = target_of(checkpoint, wanted)
        if target is None:
            return checkpoint.path
        python = required(python, checkpoint.path)
        with writing(self.root):
            self.prepare_directories()
            return await self.conversions.convert(checkpoint, target, python, report, subject=subject, bits=bits)

    async def prepare_adapter(
        self, checkpoint: Checkpoint, base: Path, python: Path | None, report: Report, *, subject: str
    ) -> Path:
        """A LoRA adapter's directory as PEFT writes one. `base` is the directory of the model that it is for."""
        file = adapter_file(checkpoint, self.checkpoints)
        if file is None:
            return checkpoint.path
        python = required(python, file)
        with writing(self.root):
            self.prepare_directories()
            return await self.conversions.convert(
                replace(checkpoint, path=file), "lora", python, report, subject=subject, heads=heads_of(base)
            )

    async def skeleton(self, source: RemoteSource, into: Path, report: Report, *, subject: str) -> Path:
        """The checkpoint's path below the directory `into`, whole but for the weights: headers without tensors."""
        with writing(self.root):
            self.prepare_directories()
        async with held(into / "lock") as keep:
            if isinstance(source, HubSource):
                await fetch_repository(
                    source, into, report, subject=subject, environ=self._environ, token=self._token, keep=keep,
                    blobs=self.root / "blobs", heads=True,
                )  # fmt: skip
            elif isinstance(source, PackageSource):
                raise TransferFailed(
                    f"`{source.text}` cannot be looked at before it is fetched: a package arrives as one archive",
                    hint="fetch it with `appliance pull`",
                )
            else:
                await fetch_blobs(
                    source, into, report, subject=subject, environ=self._environ, keep=keep, root=self.root, heads=True
                )
        return identify(into / "files")[0]

    async def revision(self, source: Source, report: Report, *, subject: str) -> str | None:
        """What the source's name stands for now, where it comes from; None for a kind that cannot change."""
        if not isinstance(source, HubSource | RegistrySource):
            return None
        with writing(self.root):
            self.prepare_directories()
            async with held(self.lock(f"resolve-{key_of(source)}")) as keep:
                return await fetch_revision(
                    source, report, subject=subject, environ=self._environ, token=self._token, keep=keep
                )

    async def update(self, source: Source, report: Report, *, subject: str) -> Checkpoint:
        """The checkpoint that the source's name stands for now. Another one takes the old one's place once it is whole;
        engines keep what they have loaded."""
        known = self.record(source)
        revision = await self.revision(source, report, subject=subject) if known else None
        if isinstance(source, LocalSource) or revision is None or known is None or known.revision == revision:
            return await self.pull(source, report, subject=subject)
        exact = at_revision(source, revision)
        await self.pull(exact, report, subject=subject)
        async with held(self.lock(key_of(source))), held(self.lock("publish")):
            if record := self.record(exact):
                replace(record, source=source.text).write(self._record(source))
                self._record(exact).unlink()
            self.sweep()
        return await self.pull(source, report, subject=subject)

    async def verify(self, source: Source, report: Report, *, subject: str) -> tuple[str, ...]:
        """The names of the files that are not what they were, by their SHA-256; missing ones are among them."""
        record = self.record(source)
        if record is None:
            return ()
        return tuple(await run_thread(lambda tick: corrupt(record, self.checkpoints, tick, subject), report))

    async def repair(self, source: RemoteSource, names: Collection[str], report: Report, *, subject: str) -> Checkpoint:
        """Fetch these files of a checkpoint again, which `verify` has found to be wrong."""
        async with held(self.lock(key_of(source))):
            if record := self.record(source):
                self._throw_away(record, names)
        return await self.pull(source, report, subject=subject)

    def prepared(self, checkpoint: Checkpoint) -> Path | None:
        """A directory of this checkpoint that can be read now: its own, or a conversion that was made before."""
        if checkpoint.path.is_dir():
            return checkpoint.path
        return next((each for each in self.conversions.of(checkpoint) if "-lora-" not in each.name), None)

    def list(self) -> tuple[Checkpoint, ...]:
        """Every complete checkpoint that was fetched, by source."""
        records = (Record.read(path) for path in sorted((self.root / "sources").glob("*.json")))
        return tuple(each.checkpoint(self.checkpoints) for each in records if each and each.holds(self.checkpoints))

    def disk_size(self, checkpoint: Checkpoint) -> int:
        """Bytes that `remove` would free: the checkpoint, where it is the store's own, and its conversions."""
        own = checkpoint.size if checkpoint.path.is_relative_to(self.checkpoints) else 0
        return own + sum(size_of(path) for path in self.conversions.of(checkpoint))

    @contextmanager
    def use(self, path: Path) -> Iterator[None]:
        """Keep what an engine loads from being removed for as long as the block lasts."""
        name = self._owned(path)
        if name is None:
            yield
            return
        self.prepare_directories()
        with shared(self.use_lock(name)):
            yield

    async def remove(self, source: Source) -> None:
        """Forget a source, then delete what no other source needs; a local source's own files are never touched."""
        self.prepare_directories()
        key = key_of(source)
        async with held(self.lock(key)), held(self.lock("publish")):
            found, record = self.find(source), self.record(source)
            if record and self._others(record, source) == 0:
                with unused(self.use_lock(record.directory)) as free:
                    if not free:
                        raise Conflict(f"`{source.text}` is loaded by a running engine", hint="stop that model first")
            self._record(source).unlink(missing_ok=True)
            self._step("forgotten")
            shutil.rmtree(self.root / "partial" / key, ignore_errors=True)
            self.sweep()
            if found and found.digest not in {each.digest for each in self.list()}:
                await self.conversions.remove(found)

    def _others(self, record: Record, source: Source) -> int:
        """How many other sources stand for the same files."""
        return sum(each.directory == record.directory and each.source != source.text for each in self.records())

    def sweep(self) -> None:
        """Delete checkpoints that no record names and no engine has loaded, and their blobs: this removal's, those of
        one that was killed, and those that an update replaced."""
        records = list(self.records())
        directories = {record.directory for record in records}
        for directory in self.checkpoints.iterdir():
            if directory.name not in directories:
                with unused(self.use_lock(directory.name)) as free:
                    if free:
                        shutil.rmtree(directory, ignore_errors=True)
        kept = {file.sha256 for record in records for file in record.files.values()}
        for blob in (self.root / "blobs").iterdir():
            if blob.name not in kept:
                blob.unlink(missing_ok=True)

    def records(self) -> Iterator[Record]:
        """Of everything that is complete, or nearly so."""
        paths = [*(self.root / "sources").glob("*.json"), *(self.root / "partial").glob("*/record.json")]
        yield from filter(None, map(Record.read, paths))

    def _sound(self, source: RemoteSource) -> Checkpoint | None:
        """The source's checkpoint if it is whole and nobody has written to it."""
        record = self.record(source)
        if record is None or not record.holds(self.checkpoints) or record.touched(self.checkpoints):
            return None
        return record.checkpoint(self.checkpoints)

    async def _mend(self, source: RemoteSource, report: Report, subject: str) -> None:
        """Throw away what is corrupt; what was only touched is remembered as it is now."""
        record = self.record(source)
        if record is None:
            return
        if wrong := await self.verify(source, report, subject=subject):
            self._throw_away(record, wrong)
            report(Progress(subject, f"fetching again, as its bytes have changed: {', '.join(wrong)}"))
            return
        directory = self.checkpoints / record.directory
        seen = {name: File.at(directory / name, file.sha256) for name, file in record.files.items()}
        replace(record, files=seen).write(self._record(source))

    def _throw_away(self, record: Record, names: Collection[str]) -> None:
        for name in names:
            (self.checkpoints / record.directory / name).unlink(missing_ok=True)
            (self.root / "blobs" / record.files[name].sha256).unlink(missing_ok=True)

    async def _fetch(self, source: RemoteSource, report: Report, subject: str, keep: int) -> Checkpoint:
        partial = self.root / "partial" / key_of(source)
        partial.mkdir(exist_ok=True)
        record = Record.read(partial / "record.json")
        if record is None or not ((partial / "files").exists() or record.holds(self.checkpoints)):
            record = await self._transfer(source, partial, report, subject, keep)
            deposit(partial / "files", record.files, self.root / "blobs")
            sync_tree(partial / "files")
            self._step("transferred")
            record.write(partial / "record.json")
            self._step("recorded")
        async with held(self.lock("publish")):
            return self._publish(source, partial, record)

    async def _transfer(self, source: RemoteSource, partial: Path, report: Report, subject: str, keep: int) -> Record:
        if isinstance(source, PackageSource):
            extracted = await fetch_package(source, partial, report, subject=subject, environ=self._environ, keep=keep)
            digests = {name: each.sha256 for name, each in extracted.items()}
            return describe(source, partial / "files", digests, directory_of(source, None), None)
        known = self.record(source)
        exact = at_revision(source, known.revision if known else None)  # what is fetched again is what was before
        if isinstance(exact, HubSource):
            result = await fetch_repository(
                exact, partial, report, subject=subject, environ=self._environ, token=self._token, keep=keep,
                blobs=self.root / "blobs",
            )  # fmt: skip
        else:
            result = await fetch_blobs(
                exact, partial, report, subject=subject, environ=self._environ, keep=keep, root=self.root
            )
        digests = {name: str(each["sha256"]) for name, each in result["files"].items()}
        revision = result.get("commit") or result.get("digest")
        described = describe(source, partial / "files", digests, directory_of(source, revision), revision)
        return replace(described, context=result.get("context"))

    def _publish(self, source: RemoteSource, partial: Path, record: Record) -> Checkpoint:
        """Move the files, then the record, to their places; after a crash in between it starts here again."""
        target, files = self.checkpoints / record.directory, partial / "files"
        if files.exists() and (not record.holds(self.checkpoints) or record.touched(self.checkpoints)):
            shutil.rmtree(target, ignore_errors=True)  # torn by somebody's hand, or it would hold what it should
            files.rename(target)
            sync_directory(self.checkpoints)
            self._step("moved")
        (partial / "record.json").replace(self._record(source))
        sync_directory(self.root / "sources")
        self._step("published")
        shutil.rmtree(partial)
        return record.checkpoint(self.checkpoints)

    def _owned(self, path: Path) -> str | None:
        """The name of the store's own directory that a path is, or is in."""
        for owner in (self.checkpoints, self.root / "converted"):
            if path.is_relative_to(owner) and path != owner:
                return path.relative_to(owner).parts[0]
        return None

    def prepare_directories(self) -> None:
        for name in ("sources", "checkpoints", "blobs", "converted", "partial", "arriving", "digests", "locks"):
            (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def _record(self, source: Source) -> Path:
        return self.root / "sources" / f"{key_of(source)}.json"

    def lock(self, key: str) -> Path:
        return self.root / "locks" / f"{key}.lock"

    def use_lock(self, directory: str) -> Path:
        return self.lock(f"use-{directory}")
