"""`hf:` sources: the download process seen from the control process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.models.report import said
from appliance.models.sources import HubSource
from appliance.progress import Report

_SCRIPT = Path(__file__).with_name("hub.py")


async def fetch_repository(
    source: HubSource,
    partial: Path,
    report: Report,
    *,
    subject: str,
    environ: Mapping[str, str],
    token: str | None,
    keep: int,
) -> dict[str, Any]:
    """The repository's checkpoint in `partial/files`; returns its commit and files."""
    files = partial / "files"
    files.mkdir(exist_ok=True)
    argv = [sys.executable, "-P", str(_SCRIPT), "--repository", source.repository, "--out", str(files)]
    if source.revision:
        argv += ["--revision", source.revision]
    environ = {**environ, "HF_TOKEN": token} if token else environ
    return await said(argv, report, subject=subject, unit="bytes", environ=environ, keep=keep, what=source.text)
