"""Where it listens and where it keeps things: the port, the disk, the state directory, sockets left behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from appliance.doctor.finding import Finding
from appliance.doctor.scene import Scene
from appliance.errors import ApplianceError
from appliance.gateway.server import bind
from appliance.process.sweep import remains
from appliance.reconcile.history import History

LEAST_FREE = 2 * 2**30
"""Bytes below which logs, downloads and an engine's temporary files begin to fail."""


def check_port(scene: Scene) -> Iterator[Finding]:
    """Whether it could listen; one that runs does already."""
    if scene.loaded is None or scene.status is not None or scene.state.holder() is not None:
        return
    server = scene.loaded.appliance.server
    try:
        bind(server.host, server.port).close()
    except ApplianceError as error:
        yield Finding(
            "port",
            "problem",
            error.message,
            "the gateway needs the port to itself",
            error.hint or "change `server.port`",
        )


def check_disk(scene: Scene) -> Iterator[Finding]:
    place = next(path for path in (scene.state.root, *scene.state.root.parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    if free < LEAST_FREE:
        yield Finding(
            "disk",
            "problem",
            f"the disk of `{place}` has {free / 2**30:.1f} GiB left",
            "weights, engine environments and logs are written there",
            "`appliance env list` and `appliance models` show what takes room; APPLIANCE_HOME names another disk",
        )


def check_state(scene: Scene) -> Iterator[Finding]:
    """What `up` would refuse to guess about."""
    state = scene.state
    if not state.root.exists():
        return
    for path in (state.root, state.environments, state.models, state.history, state.logs, state.run):
        if path.exists() and not path.is_dir():
            yield _corrupt(f"`{path}` is not a directory", f"move `{path}` away")
        elif path.is_dir() and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            yield _corrupt(f"`{path}` may not be written by this user", "run as the user it belongs to, or `chown` it")
    if state.run.is_dir() and (state.run.stat().st_uid != os.getuid() or state.run.stat().st_mode & 0o077):
        yield _corrupt(f"`{state.run}` is open to others, or somebody else's", f"remove `{state.run}`")
    for path in sorted(state.history.glob("[0-9]*.json")) if state.history.is_dir() else ():
        try:
            History(state.history).get(int(path.stem))
        except (ApplianceError, ValueError) as error:
            yield _corrupt(str(error), f"move `{path}` away")
    for path in sorted(state.root.glob("*.json")):
        if not _is_json(path):
            yield _corrupt(f"`{path}` is not JSON", f"remove `{path}`")


def check_sockets(scene: Scene) -> Iterator[Finding]:
    """What an appliance that was killed has left."""
    state = scene.state
    if not state.run.is_dir() or state.holder() is not None:
        return
    left = [path for path in (state.control_socket, *remains(state.run)) if path.exists()]
    if left:
        yield Finding(
            "sockets",
            "warning",
            f"nothing runs, and there is {', '.join(f'`{path}`' for path in left)}",
            "the appliance was killed; engines end by themselves ten seconds later",
            "`appliance up` takes over what still answers, and clears up the rest",
        )


def _corrupt(finding: str, remedy: str) -> Finding:
    cause = "a disk that was full, a copy that broke off, or another user's process"
    return Finding("state", "problem", finding, cause, f"{remedy}; `appliance up` refuses until then")


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    except OSError:
        return True  # that it cannot be read is said of its directory
    return True
