"""A program cancelled at its first, second, ... and last place, each in a run of its own.

The scenario is run undisturbed to number the places (see `boundaries`), then once for each place with the code under
test cancelled exactly there; after each run everything that could have been lost or leaked is checked.  What a run must
not leave is in `leaks`, what ends a run that does not end in `watchdog`.

It needs nothing of trioqt, and only trio's public hooks, apart from `determinism`.
"""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import TypeVar, TypeVarTuple, get_args

import attrs
import trio
import trio.testing

from trioqt.sockets.survived_bugs import SurvivedBugs
from trioqt.testing.cancelling.boundaries import Points, Subject, Walker, short_name, where_stands
from trioqt.testing.cancelling.leaks import LeakCheck, open_descriptors
from trioqt.testing.cancelling.report import Boundary, Failure, Problem, ProblemKind, Report, steady
from trioqt.testing.simulation.determinism import missing_private_names, pinned_scheduler
from trioqt.testing.simulation.places import place
from trioqt.testing.simulation.watchdog import Watchdog, is_machinery

__all__ = ["Boundary", "Failure", "Probe", "Problem", "Report", "cancel_everywhere"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Real seconds without an event before virtual time jumps while a task waits for a descriptor: one value per attempt.
# On loopback Linux delivers within the sender's own call, so the shortest wait that epoll knows never cost an event
# here; other systems, and a loaded machine, may need the second or third attempt.
_PATIENCE = (0.001, 0.01, 0.05)

# A scenario that takes this many steps undisturbed is not meant for a walk: it would be walked for hours.
_MAX_STEPS = 100_000

# Runs that had to be killed on real time, each after `real_limit`, before the rest of the places is given up.
_MAX_KILLED = 3


@attrs.define(eq=False)
class Probe:
    """What a scenario is given: it marks the code under test, and says what must hold.

    A new one for each run.
    """

    seed: int
    cancelled: bool = attrs.field(default=False, init=False)
    """The call of `subject` that ended last was cancelled.  Look right after the call."""
    _walker: Walker
    _problems: list[Problem] = attrs.field(factory=list, init=False)
    _tracked: list[tuple[str, Callable[[], object]]] = attrs.field(factory=list, init=False)
    _subjects: int = attrs.field(default=0, init=False)
    _cancellations: int = attrs.field(default=0, init=False)

    @property
    def injected(self) -> bool:
        """The cancellation of this run has been requested (there is one at most)."""
        return self._walker.hit is not None

    async def subject(self, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T | None:
        """Call ``fn(*args)``, the code under test; if it is cancelled, give None, and go on.

        It may be called any number of times, from several tasks at once, even within itself: the places of all calls
        are walked.

        Cancelled: by the walk, that is caught here; by anything else, as any call.
        """
        if not callable(fn):
            if hasattr(fn, "close"):
                fn.close()  # a coroutine that nobody will await would warn later
            raise TypeError(f"subject() wants a function and its arguments, not {fn!r}")
        self._subjects += 1
        scope = trio.CancelScope()
        subject = Subject(scope, trio.lowlevel.current_task(), fn)
        try:
            with scope:
                self._walker.enter(subject)
                try:
                    return await fn(*args)
                finally:
                    self._walker.leave(subject)
        finally:
            self.cancelled = scope.cancelled_caught
            self._cancellations += scope.cancelled_caught
        return None

    def expect(self, condition: object, message: str) -> None:
        """Report ``message`` unless ``condition`` holds; the scenario goes on."""
        if not condition:
            self._problem("expect", message)

    def track(self, name: str, is_closed: Callable[[], object]) -> None:
        """Report ``name`` as leaked unless ``is_closed()`` holds when the scenario has ended."""
        self._tracked.append((name, is_closed))

    def _problem(self, kind: ProblemKind, text: str) -> None:
        self._problems.append(Problem(kind, text))


Scenario = Callable[[Probe], Awaitable[object]]


def cancel_everywhere(
    scenario: Scenario,
    *,
    points: Points = "any",
    seeds: Sequence[int] = (0, 1),
    only: Collection[int] | None = None,
    virtual_limit: float = 3600.0,
    real_limit: float = 10.0,
    max_places: int = 10_000,
) -> Report:
    """Run ``scenario(probe)`` once for each place at which `Probe.subject` can be cancelled, cancelled exactly there.

    Not async: every run is a ``trio.run`` of its own, on a clock that jumps, so a test of it is a plain function.

    Args:
      points: "any": after a step of any task, which is complete for one cancellation.  "subject": after the subject's
        own steps only; 2 to 6 times fewer, and blind to what other tasks do while the subject waits.
      seeds: One schedule is walked for each; they differ in which of several runnable tasks goes first.
      only: Indices of places, to see a failure again, or to share the places out.
      virtual_limit: Seconds on the jumping clock after which a run hangs.
      real_limit: Seconds after which a run is killed that neither ends nor lets the clock jump.
      max_places: More places than this in one schedule are refused.

    Raises:
      ValueError: wrong ``points``, no seed, too many places, or a scenario that never calls ``probe.subject``.
      TypeError: ``scenario`` is not an async function of one argument.
      RuntimeError: called within ``trio.run``.
    """
    if points not in get_args(Points):
        raise ValueError(f"points must be 'any' or 'subject', not {points!r}")
    if not seeds:
        raise ValueError("at least one seed is needed")
    if not callable(scenario):
        if hasattr(scenario, "close"):
            scenario.close()
        raise TypeError(f"scenario must be an async function that takes a probe, not {scenario!r}")
    if trio.lowlevel.in_trio_run():
        raise RuntimeError("cancel_everywhere starts its own trio.run for every place: call it from a plain function")
    began = time.perf_counter()
    with pinned_scheduler() as reseed, Watchdog() as watchdog, LeakCheck() as leaks:
        walk = _Walk(scenario, points, only, virtual_limit, real_limit, max_places, reseed, watchdog, leaks)
        for seed in seeds:
            walk.walk(seed)
    return Report(
        scenario=walk.name,
        points=points,
        seeds=tuple(seeds),
        places=walk.places,
        runs=walk.runs,
        cancelled=walk.cancelled,
        finished=walk.finished,
        diverged=walk.diverged,
        missed=walk.missed,
        skipped=walk.skipped,
        failures=tuple(walk.failures),
        scheduler_pinned=not missing_private_names(),
        descriptors_checked=open_descriptors() is not None,
        seconds=time.perf_counter() - began,
    )


@attrs.frozen
class _Run:
    """What one run came to."""

    walker: Walker
    problems: tuple[Problem, ...]
    subjects: int
    cancelled: bool

    def on_schedule(self, trace: int) -> bool:
        return self.walker.hit is not None and self.walker.traces[-1] == trace


@attrs.define(eq=False)
class _Walk:
    scenario: Scenario
    points: Points
    only: Collection[int] | None
    virtual_limit: float
    real_limit: float
    max_places: int
    reseed: Callable[[int], None]
    watchdog: Watchdog
    leaks: LeakCheck

    places: int = 0
    runs: int = 0
    cancelled: int = 0
    finished: int = 0
    diverged: int = 0
    missed: int = 0
    skipped: int = 0
    killed: int = 0
    failures: list[Failure] = attrs.Factory(list)

    @property
    def name(self) -> str:
        return str(getattr(self.scenario, "__name__", type(self.scenario).__name__))

    def walk(self, seed: int) -> None:
        """Number the places of one schedule, then go to each."""
        undisturbed = self._undisturbed(seed)
        if undisturbed.problems:
            self.failures.append(Failure(seed, None, undisturbed.problems))
            return
        if not undisturbed.subjects:
            raise ValueError(f"{self.name} never called probe.subject(...), so there is nothing to cancel")
        traces = undisturbed.walker.traces
        if len(traces) > self.max_places:
            raise ValueError(f"{self.name} has {len(traces)} places, more than {self.max_places=}: make it shorter")
        self.places += len(traces)
        # A cancelled run may take longer, to clean up; ten times longer it is in a loop.
        max_steps = 10 * undisturbed.walker.steps + 2_000
        for index, trace in enumerate(traces):
            if self.killed >= _MAX_KILLED or (self.only is not None and index not in self.only):
                self.skipped += 1
            else:
                self._visit(seed, index, trace, max_steps)

    def _undisturbed(self, seed: int) -> _Run:
        """Run without a cancellation until the same happens twice.

        Twice also because a first run fills caches and imports modules, which may look like leaks.
        """
        first, *rest = (functools.partial(self._run, seed, None, patience, _MAX_STEPS) for patience in _PATIENCE)
        last = first()
        for again in rest:
            if self.killed:
                break
            before, last = last, again()
            if last.walker.traces == before.walker.traces and not (last.problems and last.walker.risky):
                break
        return last

    def _visit(self, seed: int, index: int, trace: int, max_steps: int) -> None:
        """Cancel at one place, and count what came of it."""
        run = self._cancelled_at(seed, index, trace, max_steps)
        on_schedule = run.on_schedule(trace)
        if run.walker.hit is None:
            self.missed += 1
        else:
            self.diverged += not on_schedule
            self.cancelled += run.cancelled
            self.finished += not run.cancelled
        if run.problems:
            self.failures.append(Failure(seed, run.walker.hit, run.problems, diverged=not on_schedule))

    def _cancelled_at(self, seed: int, index: int, trace: int, max_steps: int) -> _Run:
        """Run; again, with more patience, if it went astray, or may have failed only because the system was slow."""
        for patience in _PATIENCE[:-1]:
            run = self._run(seed, index, patience, max_steps)
            if run.problems and not run.walker.risky:
                return run
            if not run.problems and run.on_schedule(trace):
                return run
        return self._run(seed, index, _PATIENCE[-1], max_steps)

    def _run(self, seed: int, target: int | None, patience: float, max_steps: int) -> _Run:
        self.runs += 1
        clock = trio.testing.MockClock(autojump_threshold=0)
        walker = Walker(self.points, target, clock, patience)
        probe = Probe(seed, walker)
        self.reseed(seed)
        self.leaks.begin()
        self._trio_run(probe, clock, max_steps)
        walker.let_go()
        left_behind = self.leaks.end(wreck=self.watchdog.bitten)
        if self.watchdog.bitten:
            if not any(problem.kind in ("hang", "runaway") for problem in probe._problems):
                self.killed += 1
                at = self.watchdog.where and f", at {self.watchdog.where}"
                probe._problem("hang", f"not over after {self.real_limit:g} real seconds{at}")
        elif not walker.finished:
            raise RuntimeError("the walker's instrument failed; trio has logged why to trio.abc.Instrument")
        else:
            probe._problems += left_behind
        return _Run(walker, tuple(probe._problems), probe._subjects, probe._cancellations > 0)

    def _trio_run(self, probe: Probe, clock: trio.testing.MockClock, max_steps: int) -> None:
        # In a function of its own, so that no local keeps a coroutine or an exception alive when leaks are looked for.
        main = functools.partial(self._main, probe, self._call_scenario(probe), max_steps)
        run = functools.partial(trio.run, main, clock=clock, instruments=[probe._walker])
        bugs = SurvivedBugs()
        try:
            with bugs.collecting():
                self.watchdog.call(self.real_limit, run)
        except BaseException as exc:
            # Everything, for it is the code under test that raises here, and Cancelled, Aborted and what wraps them are
            # no Exceptions.  Only the wish to stop the whole program goes through.
            if _wants_to_stop(exc):
                raise
            if not self.watchdog.bitten:
                probe._problems += _escaped(exc)
        for bug in bugs.take():
            probe._problems += _escaped(bug)

    def _call_scenario(self, probe: Probe) -> Awaitable[object]:
        awaitable = self.scenario(probe)
        if not isinstance(awaitable, Awaitable):
            raise TypeError(f"scenario must be an async function; {self.name} returned {awaitable!r}")
        return awaitable

    async def _main(self, probe: Probe, scenario: Awaitable[object], max_steps: int) -> None:
        walker = probe._walker
        before: set[trio.lowlevel.Task] = set()
        trio.lowlevel.current_task().name = self.name
        with trio.CancelScope() as stop:
            trio.lowlevel.spawn_system_task(self._limit_time, probe, stop)
            # After two steps trio's own tasks, and this one's, are where they wait.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            walker.begin()
            walker.on_step = functools.partial(self._limit_steps, probe, stop, max_steps)
            before.update(walker.alive)
            await scenario
        walker.on_step = None
        if stop.cancelled_caught:
            return
        for name, is_closed in probe._tracked:
            if not is_closed():
                probe._problem("leak", f"{name} left open")
        for task in walker.alive:
            if task not in before:
                probe._problem("leak", f"task {_stands(task)} still alive")

    async def _limit_time(self, probe: Probe, stop: trio.CancelScope) -> None:
        await trio.sleep(self.virtual_limit)
        standing = ", ".join(self._standing(probe._walker))
        probe._problem("hang", f"not over after {self.virtual_limit:g} virtual seconds: {standing}")
        stop.cancel()
        await trio.sleep(self.virtual_limit)
        probe._problem("hang", "and not over after a cancellation")
        self.watchdog.bite_soon()

    def _limit_steps(self, probe: Probe, stop: trio.CancelScope, max_steps: int) -> None:
        # One task in a loop over checkpoints keeps the clock from moving at all, so time cannot be the limit.
        if probe._walker.steps == max_steps:
            standing = ", ".join(self._standing(probe._walker))
            probe._problem("runaway", f"not over after {max_steps} steps: {standing}")
            stop.cancel()
        elif probe._walker.steps == 2 * max_steps:
            probe._problem("runaway", "and not over after a cancellation")
            self.watchdog.bite_soon()

    def _standing(self, walker: Walker) -> Iterator[str]:
        for task in walker.alive:
            if where_stands(task):  # not the tasks of trio and of this tool
                yield _stands(task)


def _stands(task: trio.lowlevel.Task) -> str:
    at = "".join(f" at {line}" for line in where_stands(task)[-1:])  # none if all of it is trio's
    return short_name(task.name) + at


def _wants_to_stop(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return any(_wants_to_stop(inner) for inner in exc.exceptions)
    return isinstance(exc, (KeyboardInterrupt, SystemExit))


def _escaped(exc: BaseException) -> list[Problem]:
    if isinstance(exc, BaseExceptionGroup):
        return [problem for inner in exc.exceptions for problem in _escaped(inner)]
    at = ""
    for frame in traceback.extract_tb(exc.__traceback__):
        if not is_machinery(frame.filename):
            at = f", at {place(frame.filename, frame.lineno or 0, frame.name)}"
    return [Problem("escaped", steady(f"{type(exc).__name__}({exc})") + at)]
