"""What a running appliance puts in force, one generation after the other, and what comes of each.

A history that cannot be written, as on a full disk, stops nothing: a key that was revoked has to be gone. It is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from appliance.errors import ApplianceError
from appliance.plan.changes import Change
from appliance.plan.desired import Desired
from appliance.reconcile.configuration import Configuration
from appliance.reconcile.history import History


class Generations:
    def __init__(self, history: History, configuration: Configuration) -> None:
        self.results = dict.fromkeys(("ready", "degraded"), 0)
        """How many of this process's generations came to what."""
        self.remarks: list[dict[str, Any]] = []
        """Where the generation in force is not in the history, that it is not."""
        self._history = history
        self._configuration = configuration
        self._log = structlog.get_logger("appliance")

    def begin(self, desired: Desired, changes: Sequence[Change] = (), *, after: int = 0) -> int:
        """Record what is being put in force, which has changed so since the generation `after`; its own number."""
        return self._history.begin(
            self._configuration.text,
            self._configuration.path or Path(),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            changes={change.path: change.cost.value for change in changes},
            revisions={name: want.spec.revision for name, want in desired.items()},
            after=after,
        ).generation

    def next(self, desired: Desired, changes: Sequence[Change], *, after: int) -> int:
        """The same, whether or not it can be recorded."""
        try:
            generation = self.begin(desired, changes, after=after)
        except (OSError, ApplianceError) as error:
            generation = after + 1
            message = f"generation {generation} is in force, and `rollback` will not know of it: {error}"
            self.remarks = [{"name": "history", "message": message}]
            self._log.error("history not written", generation=generation, problem=str(error))
            return generation
        self.remarks = []
        return generation

    def finish(self, generation: int, failures: Sequence[str]) -> tuple[str, str]:
        """Record what came of it: the result, and a message where it is not good."""
        result, message = "degraded" if failures else "ready", "; ".join(failures)
        self.results[result] += 1
        try:
            self._history.finish(generation, result, message)
        except (OSError, ApplianceError) as error:
            self._log.error("history not written", generation=generation, result=result, problem=str(error))
        return result, message
