"""`hf:`, `oci:` and `url:` sources: the download processes seen from the control process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.models.report import said
from appliance.models.sources import HubSource, LinkSource, RegistrySource
from appliance.progress import Report


async def fetch_repository(
    source: HubSource,
    partial: Path,
    report: Report,
    *,
    subject: str,
    environ: Mapping[str, str],
    token: str | None,
    keep: int,
    blobs: Path,
    heads: bool = False,
) -> dict[str, Any]:
    """The repository's checkpoint in `partial/files`; returns its commit and files. `blobs` need not be fetched.

    With `heads`, of the weights there are only their headers, in files that are otherwise holes.
    """
    files = partial / "files"
    files.mkdir(exist_ok=True)
    argv = [sys.executable, "-P", "-m", "appliance.models.hub", "--repository", source.repository, "--out", str(files)]
    if source.revision:
        argv += ["--revision", source.revision]
    if source.files:
        argv += ["--files", source.files]
    argv += ["--heads"] if heads else ["--blobs", str(blobs)]
    environ = {**environ, "HF_TOKEN": token} if token else environ
    return await said(argv, report, subject=subject, unit="bytes", environ=environ, keep=keep, what=source.text)


async def fetch_blobs(
    source: RegistrySource | LinkSource,
    partial: Path,
    report: Report,
    *,
    subject: str,
    environ: Mapping[str, str],
    keep: int,
    root: Path,
    heads: bool = False,
) -> dict[str, Any]:
    """The same for sources whose digests are known beforehand: what arrives is shared by way of the store's blobs."""
    files = partial / "files"
    files.mkdir(exist_ok=True)
    module = "appliance.models.oci" if isinstance(source, RegistrySource) else "appliance.models.link"
    argv = [sys.executable, "-P", "-m", module, source.text, "--root", str(root), "--out", str(files)]
    argv += ["--heads"] if heads else []
    return await said(argv, report, subject=subject, unit="bytes", environ=environ, keep=keep, what=source.text)


async def fetch_revision(
    source: HubSource | RegistrySource,
    report: Report,
    *,
    subject: str,
    environ: Mapping[str, str],
    token: str | None,
    keep: int,
) -> str:
    """What the source's name stands for now, where it comes from: a commit, or a manifest's digest."""
    if isinstance(source, HubSource):
        argv = [sys.executable, "-P", "-m", "appliance.models.hub", "--repository", source.repository]
        argv += ["--revision", source.revision] if source.revision else []
        argv += ["--files", source.files] if source.files else []
    else:
        argv = [sys.executable, "-P", "-m", "appliance.models.oci", source.text, "--root", "."]
    environ = {**environ, "HF_TOKEN": token} if token else environ
    result = await said(
        [*argv, "--resolve", "--out", "."],
        report,
        subject=subject,
        unit="bytes",
        environ=environ,
        keep=keep,
        what=source.text,
    )
    return str(result.get("commit") or result["digest"])
