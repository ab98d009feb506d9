"""Observe, plan, apply, wait: the one writer of what runs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, assert_never

import structlog

from appliance.errors import ApplianceError, EngineCrashed, FilesChanged, InsufficientMemory, NotReady
from appliance.plan.actions import Action, Admit, Drain, Forget, Refuse, Start, Stop
from appliance.plan.desired import Desired, DesiredModel, EngineSpec
from appliance.plan.observed import EngineState, Observed
from appliance.plan.planner import LONGEST_RETRY, next_look, plan
from appliance.process.engine_process import EngineProcess
from appliance.process.identity import HIDDEN
from appliance.process.memory import resident
from appliance.reconcile.bring_up import BringUp
from appliance.reconcile.crashes import Crashes
from appliance.reconcile.engine import Engine
from appliance.reconcile.liveness import hangs
from appliance.reconcile.outlook import hopeless

STOP_TIMEOUT = 10.0
"""Seconds from SIGTERM to SIGKILL. vLLM with nothing in flight is gone in half a second."""
KILLED_STARTS = 5
"""Starts in a row that somebody may end with a kill before it counts as a start-up failure. A person, or a kernel short
of memory once, deserves another try; a model that never fits would be loaded over and over."""
QUIET = 15.0
"""Seconds within which files that were just written to are usually found quiet, and asked for as they are now."""


class Tell(Protocol):
    """Hears what happens, as plain data."""

    def __call__(self, kind: str, **data: Any) -> None: ...


class Reconciler:
    """Moves the engines to the desired state and keeps them there.

    `published` is called after every change of what can be routed to; `bring_up` does the slow part of a start; `tell`
    hears of every action and of every engine that became ready or failed.
    """

    def __init__(
        self, desired: Desired, bring_up: BringUp, *, generation: int, published: Callable[[], None], tell: Tell
    ) -> None:
        self.desired = desired
        self.engines: dict[str, Engine] = {}
        self.generation = generation
        self.observed_generation = 0
        self.restarts: dict[str, int] = dict.fromkeys(desired, 0)
        self._bring_up = bring_up
        self._published = published
        self._tell = tell
        self._wanted: set[str] = set()
        self.budget: int | None = None
        """Bytes that all engines together may take."""
        self._crashes = Crashes()
        self._last_good: dict[str, EngineSpec] = {}
        self._ids = itertools.count(1)
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._stopping = False
        self._log = structlog.get_logger("reconcile")

    async def run(self) -> None:
        """Until `shut_down`: one pass per event or deadline."""
        while not self._stopping:
            self._wake.clear()
            now = self._now()
            observed = self._observe(now)
            for action in plan(self.desired, observed, now=now):
                self._apply(action, now)
            self.observed_generation = self.generation
            await self._announce()
            await self._wait(next_look(self.desired, self.snapshot()))

    def wake(self) -> None:
        self._wake.set()

    def desire(self, desired: Desired, *, generation: int) -> None:
        """Another desired state takes the old one's place; a rollout on its way is superseded, never queued."""
        self.desired = desired
        self.generation = generation
        for engine in self.engines.values():
            if engine.refused:
                engine.retry_at = self._now()  # another budget, or another neighbour
        self._published()
        self.wake()

    async def adopt(self, process: EngineProcess) -> None:
        """Take over a ready engine of an earlier control process. To be done before `run`, whose plan counts on it."""
        spec = process.spec
        # Its directory's name is unique, and unlike a number of ours.
        id_ = f"{spec.model}-{spec.revision[:6]}-{process.launch.directory.name.removeprefix('e-')}"
        engine = self.engines[id_] = Engine(id=id_, spec=spec, since=self._now(), wake=self.wake)
        await self._enlist(engine, process)
        if HIDDEN not in dict(spec.env).values():  # otherwise it could not be started again
            self._last_good[spec.model] = spec
        self._wanted.discard(spec.model)
        self._log.info("engine adopted", model=spec.model, revision=spec.revision, pid=process.pid)
        self._published()

    async def hand_over(self, *, grace: float) -> None:
        """Leave ready engines, for so many seconds, to the next control process; stop the others.

        Nothing may be in flight any more: the streams would end with this process.
        """
        self._stopping = True
        self.wake()
        await asyncio.gather(*(self._leave(engine, grace) for engine in self.engines.values()))
        await self._announce()

    async def _leave(self, engine: Engine, grace: float) -> None:
        if engine.process is None or not engine.takes_requests:
            await self._end(engine)
            return
        if engine.watch is not None:
            engine.watch.cancel()
        await engine.process.leave(grace=grace)

    async def shut_down(self) -> None:
        """Drain every engine within its own deadline, then stop it; nothing new is started."""
        self._stopping = True
        self.wake()
        await asyncio.gather(*(self._end(engine) for engine in self.engines.values()))
        await self._announce()

    async def ready(self, model: str, *, timeout: float) -> Engine:
        """An engine of this model that takes requests; waits while one is on its way, and asks for it where none is."""
        try:
            deadline = self._now() + timeout
            async with asyncio.timeout_at(deadline), self._changed:
                self._ask_for(model)
                while (engine := self.serving(model)) is None:
                    self._refuse_hopeless(model, deadline)
                    if model not in self._wanted:  # a start that failed has answered for all that asked
                        self._ask_for(model)
                    await self._changed.wait()
                return engine
        except TimeoutError:
            raise NotReady(f"model `{model}` is not ready yet", retry_after=5.0) from None

    def _ask_for(self, model: str) -> None:
        self._wanted.add(model)
        self.wake()

    def serving(self, model: str) -> Engine | None:
        """The engine that this model's requests go to now: one of the desired spec, else the one it will replace."""
        ready = [e for e in self.engines.values() if e.spec.model == model and e.takes_requests]
        want = self.desired.get(model)
        return min(ready, key=lambda e: (want is None or e.spec != want.spec, e.since), default=None)

    async def settled(self) -> int:
        """Until no engine is on its way up or down; the generation that has come to rest."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.observed_generation == self.generation and not self._busy())
            return self.generation

    async def moved(self, generation: int) -> None:
        """Until another generation than this is desired."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.generation != generation)

    @property
    def taken(self) -> int:
        """Bytes that engines hold or have been promised, and what keeps their starts warm."""
        engines = sum(e.memory or 0 for e in self.engines.values() if e.observe().alive and e.admitted)
        return engines + self.overhead

    @property
    def overhead(self) -> int:
        """Bytes that keep starts warm."""
        return self._bring_up.overhead

    @property
    def failures(self) -> tuple[str, ...]:
        """What went wrong with the desired engines, one sentence each."""
        wanted = {want.spec for want in self.desired.values()}
        failed = [e for e in self.engines.values() if e.state is EngineState.FAILED and e.spec in wanted]
        return tuple(f"{engine.spec.model}: {engine.message}" for engine in failed)

    def _busy(self) -> bool:
        settled = (EngineState.READY, EngineState.FAILED)
        return any(engine.state not in settled for engine in self.engines.values())

    def _refuse_hopeless(self, model: str, deadline: float) -> None:
        if self._stopping:
            raise NotReady("the appliance is stopping", retry_after=30.0)
        mine = [engine for engine in self.engines.values() if engine.spec.model == model]
        now = self._now()
        if (why := hopeless(model, mine, self.desired, self.snapshot(), now=now, deadline=deadline)) is not None:
            raise why

    # Observing

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _observe(self, now: float) -> Observed:
        for engine in self.engines.values():
            self._notice_exit(engine, now)
        return self.snapshot()

    def snapshot(self) -> Observed:
        engines = {engine.id: engine.observe() for engine in self.engines.values()}
        return Observed(
            engines=engines,
            wanted=frozenset(self._wanted),
            last_good=self._last_good,
            budget=self.budget,
            overhead=self.overhead,
        )

    def _notice_exit(self, engine: Engine, now: float) -> None:
        """Any exit of a ready engine that was not asked for is a crash, whatever its code."""
        if engine.process is None or not engine.process.exited.done() or engine.state is not EngineState.READY:
            return
        error = EngineCrashed(engine.hung or f"engine exited unasked: {engine.process.exited.result()}")
        self._crashed(engine, error, now, wait=self._crashes.wait(engine.spec, calm=now - engine.since))

    def _crashed(self, engine: Engine, error: EngineCrashed, now: float, *, wait: float | None) -> None:
        """Try again after so many seconds, or not at all."""
        engine.fail(error, now=now, retry_at=None if wait is None else now + wait)
        if wait is not None:
            self.restarts[engine.spec.model] = self.restarts.get(engine.spec.model, 0) + 1
        self._published()
        self._tell_state(engine)
        self._log.error("engine crashed", model=engine.spec.model, message=error.message, retry_in=wait)

    # Applying

    def _apply(self, action: Action, now: float) -> None:
        spec = action.spec if isinstance(action, Start) else self.engines[action.engine].spec
        kind = type(action).__name__.lower()
        self._tell("action", action=kind, model=spec.model, revision=spec.revision, reason=action.reason)
        match action:
            case Start(spec, reason):
                self._start(spec, reason, now)
            case Admit(id, _):
                self.engines[id].admit()
            case Refuse(id, reason, available):
                self.engines[id].refuse(reason, available=available)
            case Drain(id, reason):
                self._drain(self.engines[id], reason, now)
            case Stop(id, reason):
                self._log.info("stopping engine", engine=id, reason=reason)
                self._spawn(self.engines[id], partial(self._stop, self.engines[id], self._cancel(self.engines[id])))
            case Forget(id, _):
                del self.engines[id]
            case _:
                assert_never(action)

    def _start(self, spec: EngineSpec, reason: str, now: float) -> None:
        traces = [e.id for e in self.engines.values() if e.spec == spec and e.state is EngineState.FAILED]
        for trace in traces:
            del self.engines[trace]
        engine = Engine(id=f"{spec.model}-{spec.revision[:6]}-{next(self._ids)}", spec=spec, since=now, wake=self.wake)
        self.engines[engine.id] = engine
        self._log.info("starting engine", model=spec.model, revision=spec.revision, reason=reason)
        self._spawn(engine, partial(self._start_up, engine, self.desired[spec.model]))

    async def _start_up(self, engine: Engine, want: DesiredModel) -> None:
        model = engine.spec.model
        try:
            process = await self._bring_up(engine, want)
        except InsufficientMemory as error:
            # Others may leave; what alone is beyond the budget never fits.
            never = engine.memory is not None and self.budget is not None and engine.memory > self.budget
            engine.fail(error, now=self._now(), retry_at=None if never else self._now() + LONGEST_RETRY)
            self._tell_state(engine)
            self._log.error("engine refused", model=model, message=error.message, hint=error.hint)
        except FilesChanged as error:
            engine.fail(error, now=self._now(), retry_at=self._now() + QUIET)
            self._tell_state(engine)
            self._log.warning("engine not started", model=model, message=error.message)
        except EngineCrashed as error:
            self._crashed(engine, error, self._now(), wait=self._crashes.wait(engine.spec, tries=KILLED_STARTS))
        except ApplianceError as error:
            engine.fail(error, now=self._now())
            self._tell_state(engine)
            self._log.error("engine failed to start", model=model, reason=engine.reason, message=error.message)
        else:
            seconds = round(self._now() - engine.since, 1)
            await self._enlist(engine, process)
            self._last_good[model] = engine.spec
            self._tell_state(engine)
            self._log.info("engine ready", model=model, pid=process.pid, seconds=seconds)
        self._wanted.discard(model)
        self._published()

    def _tell_state(self, engine: Engine) -> None:
        spec, message = engine.spec, engine.message or None
        self._tell(
            "engine", engine=engine.id, model=spec.model, revision=spec.revision, state=engine.state, message=message
        )

    async def _enlist(self, engine: Engine, process: EngineProcess) -> None:
        engine.process = process
        engine.memory = await asyncio.to_thread(resident, process.pid) or engine.memory
        await self._bring_up.measure()  # of which it may share a part
        engine.enter(EngineState.READY, now=self._now())
        process.exited.add_done_callback(lambda _: self.wake())
        engine.watch = asyncio.create_task(self._guard(engine, partial(self._watch, engine, process)))

    async def _watch(self, engine: Engine, process: EngineProcess) -> None:
        """Until the engine is gone. One that hangs has crashed without knowing it, and is killed with what it holds."""
        if await hangs(process):
            engine.hung = "engine hung: it did not answer its health check"
            self._published()
            self._log.error("engine hangs; killing it", engine=engine.id, in_flight=engine.lease.in_flight)
            await process.stop(timeout=0)

    def _drain(self, engine: Engine, reason: str, now: float) -> None:
        engine.enter(EngineState.DRAINING, now=now)
        engine.drain_deadline = now + self._drain_timeout(engine)
        self._log.info("draining engine", engine=engine.id, reason=reason, in_flight=engine.lease.in_flight)
        self._published()
        self._spawn(engine, engine.lease.drained)

    def _drain_timeout(self, engine: Engine) -> float:
        want = self.desired.get(engine.spec.model)
        return want.drain_timeout if want else 300.0

    async def _stop(self, engine: Engine, busy: asyncio.Task[None] | None = None) -> None:
        """A start that was called off takes its process with it, and holds its memory until that is gone."""
        if busy is not None:
            await asyncio.wait((busy,))
        if engine.state is EngineState.FAILED:
            return
        engine.enter(EngineState.STOPPING, now=self._now())
        if engine.process is not None:
            engine.lease.cut = engine.lease.in_flight > 0
            await engine.process.stop(timeout=STOP_TIMEOUT)
        engine.enter(EngineState.STOPPED, now=self._now())

    async def _end(self, engine: Engine) -> None:
        """Shut one engine down in whatever state it is."""
        if engine.state is EngineState.READY:
            self._drain(engine, "shutting down", self._now())
        if engine.state is EngineState.DRAINING:
            try:
                async with asyncio.timeout_at(engine.drain_deadline):
                    await engine.lease.drained()
            except TimeoutError:
                self._log.warning("drain timed out", engine=engine.id, in_flight=engine.lease.in_flight)
        await self._stop(engine, self._cancel(engine))

    def _cancel(self, engine: Engine) -> asyncio.Task[None] | None:
        """Call off what this engine is busy with; a start-up that is called off takes its process with it."""
        task = engine.task
        if task is None or task.done():
            return None
        task.cancel()
        engine.enter(EngineState.STOPPING, now=self._now())
        return task

    def _spawn(self, engine: Engine, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run this engine's next piece of slow work; the loop looks again when it ends."""
        engine.task = asyncio.create_task(self._guard(engine, work), name=engine.id)

    async def _guard(self, engine: Engine, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A bug in one engine's task is that engine's failure, not the appliance's."""
        try:
            await work()
        except Exception as bug:  # noqa: BLE001 - the guard of a supervised task
            self._log.exception("bug while handling engine", engine=engine.id)
            engine.fail(ApplianceError(f"bug: {bug!r}"), now=self._now())
            self._published()
        finally:
            self.wake()

    # Waiting

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, deadline: float | None) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._wake.wait()
        except TimeoutError:
            return
