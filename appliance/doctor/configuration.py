"""The file, the keys in it, and whether what runs is what it says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from appliance.doctor.finding import Finding
from appliance.doctor.scene import Scene


def check(scene: Scene) -> Iterator[Finding]:
    if scene.problem is not None:
        yield Finding(
            "file",
            "problem",
            scene.problem,
            f"`{scene.file}` cannot be used as it is; an appliance that runs keeps the last valid one in force",
            "mend it; `appliance validate` checks it, `appliance rollback` writes the last good one back",
        )
    if scene.loaded is None:
        return
    today = datetime.now(UTC).date()
    for key in scene.loaded.appliance.auth.keys:
        if key.expires is not None and today > key.expires:
            yield Finding(
                "file",
                "warning",
                f"key `{key.name}` expired on {key.expires}",
                "whoever sends it is answered 401",
                f"`appliance key revoke {key.name}`, or set `expires` to a later day",
            )
    if scene.status and scene.status["waiting_for_restart"]:
        yield Finding(
            "file",
            "warning",
            f"{', '.join(scene.status['waiting_for_restart'])} has changed since the appliance started",
            "a listener is never re-bound while it serves",
            "`appliance restart`",
        )
