"""How often each engine has crashed of late, and how long its next start waits for that."""

from __future__ import annotations

import random
from collections import Counter

from appliance.plan.desired import EngineSpec
from appliance.plan.planner import backoff

CALM = 300.0
"""Seconds of readiness after which earlier crashes no longer count towards the backoff."""


class Crashes:
    def __init__(self) -> None:
        self._counted: Counter[EngineSpec] = Counter()
        self._dice = random.SystemRandom()

    def wait(self, spec: EngineSpec, *, calm: float = 0.0, tries: int | None = None) -> float | None:
        """Seconds until the next try, now that it has crashed again after so many seconds of readiness; None where it
        has done so more than `tries` times in a row."""
        if calm > CALM:
            del self._counted[spec]
        self._counted[spec] += 1
        crashes = self._counted[spec]
        return None if tries is not None and crashes > tries else backoff(crashes, chance=self._dice.random())
