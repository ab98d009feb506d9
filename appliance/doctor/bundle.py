"""An archive for a bug report: what a maintainer would ask for, and nothing that is a secret."""

from __future__ import annotations

import io
import json
import platform
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from appliance import __version__
from appliance.config import dump
from appliance.doctor.finding import Finding
from appliance.doctor.redaction import Redaction, secrets_of
from appliance.doctor.scene import Scene
from appliance.environments.installed import MARKER
from appliance.errors import ApplianceError
from appliance.process.logs import tail
from appliance.reconcile.history import History

LINES = 2000
"""Of each log, from its end."""

_WORTH_KNOWING = ("APPLIANCE_", "METAL_", "VLLM_", "HF_", "CUDA_", "PIP_", "OMP_")


def write(path: Path, scene: Scene, findings: Sequence[Finding]) -> None:
    """A gzipped tar, readable by its owner. The same scene gives the same members, whatever was in them redacted."""
    redaction = Redaction([*secrets_of(scene), str(Path.home())])
    path.touch(mode=0o600)
    with tarfile.open(path, "w:gz") as archive:
        for name, text in documents(scene, findings, redaction):
            data = text.encode(errors="replace")
            member = tarfile.TarInfo(f"appliance-report/{redaction.text(name)}")
            member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(data))


def documents(scene: Scene, findings: Sequence[Finding], redaction: Redaction) -> Iterator[tuple[str, str]]:
    """Every member's name and its text, redacted."""
    for name, value in _data(scene, findings):
        yield f"{name}.json", json.dumps(redaction.value(value), indent=1, ensure_ascii=False)
    if scene.loaded is not None:
        # Masked by its fields first; what remains is looked through like anything else.
        yield "configuration.yaml", redaction.text(dump.to_yaml(scene.loaded.appliance))
    if scene.log:
        yield "logs/recent.log", redaction.text("\n".join(scene.log))
    for log in sorted(scene.state.logs.glob("*.log")) if scene.state.logs.is_dir() else ():
        yield f"logs/{log.name}", redaction.text("\n".join(tail(log, LINES)))


def _data(scene: Scene, findings: Sequence[Finding]) -> Iterator[tuple[str, Any]]:
    yield "findings", [asdict(finding) for finding in findings]
    yield "machine", _machine(scene.environ)
    yield "packages", {each.metadata["Name"]: each.version for each in metadata.distributions()}
    yield "status", scene.status
    yield "history", _history(scene.state.history)
    yield "environments", _environments(scene.state.environments)


def _machine(environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        "appliance": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "variables": {name: environ[name] for name in sorted(environ) if name.startswith(_WORTH_KNOWING)},
        "also_set": sorted(name for name in environ if name.lower().endswith("_proxy")),
    }


def _history(directory: Path) -> Any:
    """What happened, without the texts: a file may have held a secret that it holds no more."""
    try:
        entries = History(directory).entries() if directory.is_dir() else ()
    except ApplianceError as error:
        return error.message
    kept = ("generation", "time", "changes", "revisions", "result", "message")
    return [{name: value for name, value in asdict(entry).items() if name in kept} for entry in entries]


def _environments(directory: Path) -> Any:
    markers = sorted(directory.glob(f"*/{MARKER}")) if directory.is_dir() else ()
    return {marker.parent.name: marker.read_text(errors="replace") for marker in markers}
