"""Whether a request that waits for a model waits for something."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.errors import NotReady
from appliance.plan.actions import Start
from appliance.plan.desired import Desired
from appliance.plan.observed import EngineState, Observed
from appliance.plan.planner import plan
from appliance.reconcile.engine import Engine


def hopeless(
    model: str, mine: Sequence[Engine], desired: Desired, observed: Observed, *, now: float, deadline: float
) -> NotReady | None:
    """Why nobody should wait for this model until the deadline; None while it may be served by then.

    `mine` are the model's engines. Times are those of `observed`.
    """
    if model not in desired:
        return NotReady(f"model `{model}` is not served any more")
    failed = [engine for engine in mine if engine.state is EngineState.FAILED]
    if not failed or _coming(model, mine, desired, observed, now=now, deadline=deadline):
        return None
    retry_at = failed[-1].retry_at
    wait = None if retry_at is None else max(1.0, retry_at - now)
    return NotReady(f"model `{model}` failed: {failed[-1].message}", retry_after=wait)


def _coming(
    model: str, mine: Sequence[Engine], desired: Desired, observed: Observed, *, now: float, deadline: float
) -> bool:
    """(1) An engine of it is on its way up, or on its way out and making room. (2) The next pass will start one. (3) A
    crash will be tried again in time."""
    if any(engine.observe().alive for engine in mine):  # (1)
        return True
    steps = plan(desired, observed, now=now)
    if any(isinstance(step, Start) and step.spec.model == model for step in steps):  # (2)
        return True
    return any(engine.retry_at is not None and engine.retry_at < deadline for engine in mine)  # (3)
