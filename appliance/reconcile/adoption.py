"""What an earlier control process left running: taken over where it can be, ended where not."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import structlog

from appliance.environments.provision import Environments
from appliance.errors import EngineError
from appliance.models.store import Store
from appliance.process.adopt import adopt
from appliance.process.engine_process import EngineProcess
from appliance.process.sweep import end, remains
from appliance.reconcile.loop import Reconciler
from appliance.state import StateDirectory


async def take_over(state: StateDirectory, reconciler: Reconciler) -> None:
    """Before the reconciler's first plan, which then finds what runs. Hold the state directory.

    Engines of an outdated spec are taken over too: they serve until their successors are ready.
    """
    environments = Environments(state.environments)
    await asyncio.gather(*(_one(directory, state, environments, reconciler) for directory in remains(state.run)))


async def _one(directory: Path, state: StateDirectory, environments: Environments, reconciler: Reconciler) -> None:
    log = structlog.get_logger("adoption")
    wanted = [want.spec for want in reconciler.desired.values()]
    unprobed = [name for name, want in reconciler.desired.items() if not want.probe]
    try:
        process = await adopt(directory, wanted, unprobed=unprobed)
    except EngineError as error:
        ended = await asyncio.to_thread(end, directory)
        log.warning("engine of an earlier run not taken over", reason=error.message, outcome=ended)
    else:
        _keep_environment(process, environments)
        _keep_model(process, Store(state.models))
        await reconciler.adopt(process)


def _keep_model(process: EngineProcess, store: Store) -> None:
    """Nor is what it has loaded."""
    held = ExitStack()
    held.enter_context(store.use(process.launch.model))
    process.exited.add_done_callback(lambda _: held.close())


def _keep_environment(process: EngineProcess, environments: Environments) -> None:
    """Its environment is not removed while it runs."""
    used = [each for each in environments.list() if each.complete and each.python == process.launch.python]
    held = ExitStack()
    for environment in used:
        held.enter_context(environments.use(environment))
    process.exited.add_done_callback(lambda _: held.close())
