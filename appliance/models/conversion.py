"""GGUF files made loadable: converted once for each content, format and converter, inside an engine environment."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from appliance.engines.driver import Format
from appliance.errors import UnsupportedModel
from appliance.file_lock import held
from appliance.models.checkpoint import Checkpoint
from appliance.models.convert import VERSION
from appliance.models.digest_cache import DigestCache, content
from appliance.models.disk import sync_directory, sync_tree
from appliance.models.local import UNREAD, files_of
from appliance.models.report import said
from appliance.progress import Progress, Report

_SCRIPT = Path(__file__).with_name("convert") / "__main__.py"


class Conversions:
    """`converted/` of a store. A directory there is complete: it gets its name by rename, after all its files."""

    def __init__(
        self, root: Path, digests: DigestCache, environ: Mapping[str, str], step: Callable[[str], None]
    ) -> None:
        self._root = root
        self._digests = digests
        self._environ = environ
        self._step = step

    async def convert(
        self,
        checkpoint: Checkpoint,
        to: Literal["hf", "mlx", "lora"],
        python: Path,
        report: Report,
        *,
        subject: str,
        bits: int | None = None,
        heads: tuple[int, int] | None = None,
    ) -> Path:
        """The converted directory, made now or before.

        `bits` asks for another quantization of the MLX form; `heads` are those that a LoRA adapter's base model has, of
        queries and of keys.
        """
        digest = await self._digest(checkpoint, report, subject)
        if heads:
            options = ["--heads", *map(str, heads)]
        else:
            options = [*(("--bits", str(bits)) if bits and to == "mlx" else ()), *_template(checkpoint)]
        made_with = f"-{hashlib.sha256(_key(options)).hexdigest()[:6]}" if options else ""
        name = f"{digest[:24]}-{to}-v{VERSION}{made_with}"
        target = self._root / "converted" / name
        if target.exists():
            return target
        waiting = Progress(subject, "waiting for another process that is converting this model")
        async with held(self._lock(name), waiting=lambda: report(waiting)) as keep:
            if not target.exists():
                await self._make(checkpoint, [*options, "--to", to], python, report, subject, keep, target)
        return target

    async def _make(
        self,
        checkpoint: Checkpoint,
        options: list[str],
        python: Path,
        report: Report,
        subject: str,
        keep: int,
        target: Path,
    ) -> None:
        partial = self._root / "partial" / target.name
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        # -I: nothing of the caller's directory, user site or PYTHONPATH; -B: no bytecode beside our own sources.
        argv = [str(python), "-I", "-B", str(_SCRIPT), *options, "--out", str(partial), str(checkpoint.path)]
        try:
            await said(
                argv, report, subject=subject, unit="items", environ=self._environ, keep=keep, what=checkpoint.source
            )
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_tree(partial)
        self._step("converted")
        partial.rename(target)
        sync_directory(target.parent)
        self._step("kept")

    def of(self, checkpoint: Checkpoint) -> list[Path]:
        """The conversions of this checkpoint that are here."""
        digest = self._known(checkpoint)
        return sorted((self._root / "converted").glob(f"{digest[:24]}-*")) if digest else []

    async def remove(self, checkpoint: Checkpoint) -> None:
        for path in self.of(checkpoint):
            async with held(self._lock(path.name)):
                shutil.rmtree(path, ignore_errors=True)

    async def _digest(self, checkpoint: Checkpoint, report: Report, subject: str) -> str:
        """That of the file, or of all its shards, whose bytes are read once for each state of them."""
        if known := self._known(checkpoint):
            return known
        return content(await self._digests.read(files_of(checkpoint), report, subject=subject))

    def _known(self, checkpoint: Checkpoint) -> str | None:
        if not checkpoint.digest.startswith(UNREAD):
            return checkpoint.digest
        files = files_of(checkpoint)
        known = self._digests.known(files)
        return content(known) if known.keys() == files.keys() else None

    def _lock(self, name: str) -> Path:
        return self._root / "locks" / f"{name}.lock"


def target_of(checkpoint: Checkpoint, wanted: Format) -> Literal["hf", "mlx"] | None:
    """What a checkpoint has to be converted to for engines of this format; None where they load it as it is.

    Raises UnsupportedModel where no conversion would help.
    """
    if checkpoint.kind == "lora":
        raise UnsupportedModel(
            f"`{checkpoint.path}` is a LoRA adapter, not a model", hint="declare it under `adapters` of its model"
        )
    if wanted == "any" or checkpoint.kind == wanted or (wanted, checkpoint.kind) == ("mlx", "hf"):
        return None
    if checkpoint.kind == "mlx":
        raise UnsupportedModel(
            f"`{checkpoint.path}` is quantized for MLX, which this backend cannot load",
            hint="use a Hugging Face or GGUF checkpoint, or the backend `vllm-metal`",
        )
    return wanted


def required(python: Path | None, file: Path) -> Path:
    """The interpreter that converts. Raises UnsupportedModel where there is none."""
    if python is None:
        raise UnsupportedModel(f"`{file}` is a GGUF file, and there is no engine environment to convert it in")
    return python


def _template(checkpoint: Checkpoint) -> tuple[str, ...]:
    """A chat template that came beside the file, in an artifact's layer of its own, goes before the file's."""
    beside = checkpoint.path.with_name("chat_template.jinja")
    return ("--template", str(beside)) if beside.is_file() else ()


def _key(options: list[str]) -> bytes:
    """What makes one conversion differ from another: a template counts by its text, not by where it lies."""
    return b"\0".join(Path(each).read_bytes() if each.endswith(".jinja") else each.encode() for each in options)
