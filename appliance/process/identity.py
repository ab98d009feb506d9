"""`engine.json`: what a control process needs to adopt an engine that it did not start, and `sweep` to end one.

The shim writes it into the engine's directory. It is believed only where nobody but this user can have written it.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from appliance.engines.driver import Launch
from appliance.errors import EngineError
from appliance.plan.desired import EngineSpec
from appliance.process.shim import processes
from appliance.process.shim.processes import Process
from appliance.process.shim.supervise import IDENTITY

HIDDEN = "\0"
"""In place of a variable's value, which may be a secret. No real value can hold it, so no real spec is equal."""
LONGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    spec: EngineSpec
    revision: str
    launch: Launch
    log: Path
    pid: int
    shim: Process


def describe(spec: EngineSpec, launch: Launch, log: Path) -> dict[str, Any]:
    """The part that the control process knows; the shim adds the processes. It holds the engine's key."""
    hidden = replace(spec, env=tuple((name, HIDDEN) for name, _ in spec.env))
    return {
        "model": spec.model,
        "revision": spec.revision,
        "spec": asdict(hidden),
        "launch": TypeAdapter(Launch).dump_python(launch, mode="json"),
        "log": str(log),
    }


def load(directory: Path) -> Identity:
    """Whose engine this directory is. EngineError where it does not say so credibly, or its shim is gone."""
    document = read(directory)
    if not document:
        raise EngineError(f"`{directory / IDENTITY}` is missing, broken, not ours alone, or older than the last boot")
    try:
        found = TypeAdapter(Identity).validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise EngineError(f"`{directory / IDENTITY}` cannot be used: `{where}`: {first['msg']}") from error
    if not found.shim.same(processes.identify(found.shim.pid)):
        raise EngineError(f"the shim of `{directory}` is dead")
    # Its variables are hidden, so it would compute another.
    found.spec.__dict__["revision"] = found.revision
    return replace(found, launch=replace(found.launch, directory=directory))


def read(directory: Path) -> dict[str, Any]:
    """The document as it stands, or nothing where it is not to be trusted."""
    try:
        if not _private(directory.lstat()):
            return {}
        descriptor = os.open(directory / IDENTITY, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not _private(status) or not stat.S_ISREG(status.st_mode):
                return {}
            document = json.loads(file.read(LONGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) and document.get("boot") == processes.boot() else {}


def _private(status: os.stat_result) -> bool:
    return status.st_uid == os.getuid() and not status.st_mode & 0o077
