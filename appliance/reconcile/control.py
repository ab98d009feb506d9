"""What may be asked of a running appliance: its state, a plan, the file put in force, its past, and the way back."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import structlog

from appliance.config import models
from appliance.config.load import Loaded
from appliance.environments.provision import Environments, EnvironmentSpec
from appliance.errors import ApplianceError, ConfigError, SourceError, Stale
from appliance.models.lockfile import Lock
from appliance.plan.changes import Change
from appliance.plan.desired import Desired
from appliance.progress import Report
from appliance.reconcile.adapters import with_room
from appliance.reconcile.adoption import take_over
from appliance.reconcile.bring_up import BringUp
from appliance.reconcile.configuration import Configuration, Outcome
from appliance.reconcile.engine import Engine
from appliance.reconcile.estimate import Estimator
from appliance.reconcile.events import Events
from appliance.reconcile.generations import Generations
from appliance.reconcile.history import Entry, History, difference
from appliance.reconcile.lookout import Lookout
from appliance.reconcile.loop import Reconciler
from appliance.reconcile.port import Port
from appliance.reconcile.preview import preview
from appliance.reconcile.resolve import backend_of, resolve
from appliance.reconcile.rollback import write_back
from appliance.reconcile.status import essence, status
from appliance.reconcile.watch import saves
from appliance.state import StateDirectory

DRIFT_EVERY = 5.0
"""Seconds between two looks at files' times and sizes."""
REVISIONS_EVERY = 6 * 3600.0
"""Seconds between two questions to the hosts that models come from."""


class Control:
    """Owns the configuration, the history and the reconciler, and is the only one to put anything in force."""

    def __init__(
        self,
        configuration: Configuration,
        state: StateDirectory,
        *,
        report: Report,
        environ: Mapping[str, str],
        lock: Lock | None = None,
    ) -> None:
        """With `lock` only what is locked is served."""
        self.configuration = configuration
        self.events = Events()
        self._state = state
        self._history = History(state.history)
        self._log = structlog.get_logger("appliance")
        self._started = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._reading = asyncio.Lock()
        self._reloads = dict.fromkeys(("applied", "unchanged", "refused"), 0)
        self._generations = Generations(self._history, configuration)
        environments = choose_environments(configuration.appliance, state)
        self._bring_up = BringUp(
            configuration.appliance,
            state,
            environments,
            report=report,
            environ=environ,
            base=configuration.base,
            lock=lock,
        )
        self._lookout = Lookout(
            configuration,
            state,
            lock,
            engines=self._ready,
            environments=lambda appliance: choose_environments(appliance, state),
        )
        self._settling: asyncio.Task[None] | None = None
        self._one_settles = asyncio.Lock()
        self._settled: Mapping[str, Mapping[str, str]] = {}
        self.port = Port(configuration.appliance, self.status)
        desired = self._desired(configuration.appliance, environments, first=True)
        self.reconciler = Reconciler(
            desired,
            self._bring_up,
            generation=self._generations.begin(desired),
            published=self.port.publish,
            tell=self.events.tell,
        )
        self.port.attach(self.reconciler)
        self.reconciler.budget = budget(configuration.appliance.memory)
        self.address = ""

    def status(self) -> Mapping[str, Any]:
        now = asyncio.get_running_loop().time()
        state = status(self.reconciler, self.configuration, address=self.address, now=now)
        remarks = [*self._generations.remarks, *self._lookout.remarks]
        seen = {"drift": self._lookout.drift, "remarks": remarks}
        counts = {"reloads": self._reloads, "rollouts": self._generations.results}
        return {"started": self._started, **state, **seen, **counts}

    def essence(self) -> Any:
        return essence(self.status())

    async def adopt(self) -> None:
        """Take over what an earlier control process left. To be done before the reconciler runs."""
        await take_over(self._state, self.reconciler)
        await self._desire_again()
        await self._settle_adapters()

    async def watch(self, path: Path, stop: asyncio.Event) -> None:
        async for _ in saves(path, stop):
            await self.reload()

    async def watch_drift(self) -> None:
        """Look again and again whether files, the lock and what runs still agree, and roll out what has changed."""
        before: Mapping[str, Mapping[str, str]] = {}
        while True:
            try:
                appliance = self.configuration.appliance
                changed = await self._lookout.changed(appliance)
                if changed and appliance is self.configuration.appliance:
                    self._log.info("local files have changed", models=[*changed])
                    self.events.tell("files", message=f"local files have changed: {', '.join(changed)}")
                    await self._desire_again()
                await self._lookout.look(appliance)
                before = await self._look_at_adapters(before)
            except (OSError, SourceError) as error:  # gone while it was looked at: the next look sees what is left
                self._log.warning("files could not be looked at", problem=str(error))
            await asyncio.sleep(DRIFT_EVERY)

    async def watch_revisions(self) -> None:
        """Ask now and then, when nothing is on its way up or down, where models come from."""
        while True:
            await self.reconciler.settled()
            await self._lookout.ask(self.configuration.appliance)
            await asyncio.sleep(REVISIONS_EVERY)

    async def record(self, on_settled: Callable[[Mapping[str, Any]], None]) -> None:
        """Write into the history what came of each generation, and tell the first time."""
        told = False
        while True:
            generation = await self.reconciler.settled()
            result, message = self._generations.finish(generation, self.reconciler.failures)
            self.events.tell("generation", generation=generation, result=result, message=message)
            if not told:
                on_settled(self.status())
            told = True
            await self.reconciler.moved(generation)

    async def close(self) -> None:
        await self._bring_up.close()

    # Changing

    async def reload(self, *, expected: str | None = None) -> Outcome:
        """Put the file in force as it is now; one that is not valid changes nothing but the status.

        `expected` is the tag of a plan: Stale is raised where that plan is not what this would do.
        """
        async with self._reading:
            try:
                loaded = await asyncio.to_thread(self.configuration.read)
            except ConfigError as error:
                outcome = self.configuration.keep(error)
                self._log.warning("the file cannot be used; what runs stays as it is", problem=outcome.problem)
            else:
                self._require(expected, loaded)
                outcome = self.configuration.put(loaded)
                if outcome.changes:
                    self._put_in_force(outcome.changes)
        self._reloads["refused" if outcome.problem else "applied" if outcome.changes else "unchanged"] += 1
        if outcome.changes or outcome.problem:
            changes = {change.path: change.cost.value for change in outcome.changes}
            self.events.tell("reload", generation=self.reconciler.generation, changes=changes, problem=outcome.problem)
        return outcome

    async def rollback(self, generation: int | None, *, expected: str | None = None) -> tuple[Entry, Outcome]:
        """Write that generation, or the last good one, back to the file, and put it in force."""
        if expected is not None:
            self._require(expected, await asyncio.to_thread(self.configuration.read))
        entry = await asyncio.to_thread(write_back, self._history, generation)
        return entry, await self.reload()

    def _put_in_force(self, changes: Sequence[Change]) -> None:
        appliance = self.configuration.appliance
        environments = choose_environments(appliance, self._state)
        self._bring_up.configure(appliance, environments)
        self.port.configure(appliance)
        self._lookout.local_files.follow(appliance)
        self.reconciler.budget = budget(appliance.memory)
        desired = self._desired(appliance, environments)
        generation = self._generations.next(desired, changes, after=self.reconciler.generation)
        self.reconciler.desire(desired, generation=generation)
        self._settling = asyncio.create_task(self._settle_adapters())
        self._log.info("reloaded", changes={change.path: change.cost.value for change in changes})

    async def _settle_adapters(self) -> None:
        """Bring engines that run to the adapters that the file gives them; those that start come with theirs."""
        async with self._one_settles:
            self._settled = await asyncio.to_thread(self._adapter_states)
            for engine in self._ready():
                if engine.process is not None:
                    await self._bring_up.adapters.settle(engine, engine.process, self.port.publish)
                    self.port.publish()
        await self._desire_again()

    async def _look_at_adapters(self, before: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
        """Load local adapters again that somebody has written to, once two looks in a row have seen the same."""
        now = await asyncio.to_thread(self._adapter_states)
        if now == before and now != self._settled:
            await self._settle_adapters()
        elif any(model.adapters for model in self.configuration.appliance.models.values()):
            await self._desire_again()  # an adapter may have come while an engine was on its way
        return now

    def _adapter_states(self) -> Mapping[str, Mapping[str, str]]:
        adapters = self._bring_up.adapters
        return {name: state for name in self.configuration.appliance.models if (state := adapters.state(name))}

    async def _desire_again(self) -> None:
        """Replace engines that fall behind the disk, under a file that has not changed: local checkpoints have other
        bytes now, or adapters have outgrown them which were not on this machine when the file was put in force."""
        appliance = self.configuration.appliance
        desired = await asyncio.to_thread(self._desired, appliance, choose_environments(appliance, self._state))
        if desired != self.reconciler.desired and appliance is self.configuration.appliance:
            self.reconciler.desire(desired, generation=self.reconciler.generation)

    def _ready(self) -> list[Engine]:
        return [engine for engine in list(self.reconciler.engines.values()) if engine.takes_requests and engine.process]

    def _desired(
        self, appliance: models.Appliance, environments: Mapping[str, EnvironmentSpec], *, first: bool = False
    ) -> Desired:
        """`first`: nothing can run yet."""
        identities = {backend: spec.identity for backend, spec in environments.items()}
        contents = self._lookout.local_files.contents(appliance)
        desired = resolve(appliance, environments=identities, base=self.configuration.base, contents=contents)
        if first:
            return desired
        running = [(engine.spec, engine.process.launch) for engine in self._ready() if engine.process]
        return with_room(desired, self._bring_up.adapters_of(appliance).ranks(), running)

    # Looking

    async def preview(self) -> Mapping[str, Any]:
        """What `reload` would do, and the tag by which to ask for just that."""
        try:
            loaded = await asyncio.to_thread(self.configuration.read)
        except ConfigError as error:
            return {"problem": error.message, "tag": None, "changes": [], "actions": [], "memory": {}}
        tag, now = self._tag(loaded), asyncio.get_running_loop().time()
        observed = replace(self.reconciler.snapshot(), budget=budget(loaded.appliance.memory))
        environments = choose_environments(loaded.appliance, self._state)
        desired = self._desired(loaded.appliance, environments)
        estimator = Estimator(loaded.appliance, self._state, environments)

        def look() -> dict[str, Any]:
            estimates = {want.spec: estimator.memory(want.spec) for want in desired.values()}
            before, after = self.configuration.appliance, loaded.appliance
            plan = preview(before, after, desired, observed, estimates, estimator.what_fits, now=now)
            return {**plan, "drift": self._lookout.differences(after), "remarks": self._lookout.remarks_on(after)}

        return {"problem": None, "tag": tag} | await asyncio.to_thread(look)

    def entries(self) -> tuple[Entry, ...]:
        """Every generation, oldest first. Touches the disk."""
        return self._history.entries()

    def diff(self, before: int, after: int | None) -> str:
        """Unified, between two generations, or one and the last. Touches the disk."""
        old, new = self._history.get(before), self._history.get(after) if after is not None else self._history.last()
        return "\n".join(difference(old, new or old))

    def keys(self) -> list[dict[str, Any]]:
        """Every key's name and what it may do, without its hash."""
        return [key.model_dump(mode="json", exclude={"sha256"}) for key in self.configuration.appliance.auth.keys]

    def log(self, model: str | None) -> Path:
        """The log of a model's engines, or of the appliance itself where it runs in the background."""
        known = {path.stem: path for path in self._state.logs.glob("*.log")}
        path = known.get(model or "appliance")
        if path is None:
            names = ", ".join(f"`{name}`" for name in sorted(known)) or "none yet"
            raise ApplianceError(f"there is no log of `{model or 'appliance'}`", hint=f"logs there are: {names}")
        return path

    def _require(self, expected: str | None, loaded: Loaded) -> None:
        if expected is not None and expected != (tag := self._tag(loaded)):
            raise Stale(
                f"the plan was made for `{expected}`; the file and what runs are at `{tag}` now",
                hint="look at the new plan, and apply that one",
            )

    def _tag(self, loaded: Loaded) -> str:
        """Names a step from what is in force to what the file says: it changes with either."""
        return f"{self.reconciler.generation}-{hashlib.sha256(loaded.text.encode()).hexdigest()[:12]}"


def budget(memory: models.Memory) -> int:
    """Bytes that all engines together may take."""
    if isinstance(memory.budget, float):
        return int(memory.budget * psutil.virtual_memory().total)
    return int(memory.budget)


def choose_environments(appliance: models.Appliance, state: StateDirectory) -> dict[str, EnvironmentSpec]:
    """The engine environment of every backend that the file uses and that needs one."""
    used = {backend_of(model, appliance) for model in appliance.models.values()} - appliance.backends.keys()
    environments = Environments(state.environments)
    return {backend: environments.choose(backend, appliance.environment) for backend in sorted(used)}
