"""A program run once for each of its places, with something done to it exactly there.

The scenario is run undisturbed to number the places, then once for each; after each run everything that could have been
lost or leaked is checked.  What a place is and what is done there is a `Walker`'s business, what a run must not leave
is in `leaks`, what ends a run that does not end in `watchdog`.

It needs nothing of trioqt, and only trio's public hooks, apart from `determinism`.
"""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import TypeVar, TypeVarTuple

import attrs
import trio
import trio.testing

from trioqt.links.poller import POLLER_TASK
from trioqt.sockets.corks import CORKS_TASK
from trioqt.sockets.survived_bugs import SurvivedBugs
from trioqt.testing.cancelling.leaks import LeakCheck, open_descriptors
from trioqt.testing.cancelling.report import Failure, Problem, ProblemKind, Report, steady
from trioqt.testing.cancelling.walker import Walker, short_name, where_stands
from trioqt.testing.simulation.determinism import missing_private_names, pinned_scheduler
from trioqt.testing.simulation.places import place
from trioqt.testing.simulation.watchdog import Watchdog, is_machinery

__all__ = ["Probe", "Scenario", "walk_everywhere"]

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
    """Of this run."""
    cancelled: bool = attrs.field(default=False, init=False)
    """The call of `subject` that ended last was cancelled, or interrupted.  Look right after the call."""
    _walker: Walker
    _problems: list[Problem] = attrs.field(factory=list, init=False)
    _tracked: list[tuple[str, Callable[[], object]]] = attrs.field(factory=list, init=False)
    _subjects: int = attrs.field(default=0, init=False)
    _cancellations: int = attrs.field(default=0, init=False)

    @property
    def injected(self) -> bool:
        """The cancellation, or the Ctrl-C, of this run has been requested (there is one at most)."""
        return self._walker.hit is not None

    async def subject(self, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T | None:
        """Call ``fn(*args)``, the code under test; if it is cancelled, give None, and go on.

        It may be called any number of times, from several tasks at once, even within itself: the places of all calls
        are walked.

        A Ctrl-C that is to be survived is caught here too; one that comes while nothing can be interrupted any more
        is heard of behind the call, which has its result then.  Only the main task hears of a Ctrl-C.

        Cancelled: by the walk, that is caught here; by anything else, as any call.
        """
        if not callable(fn):
            if hasattr(fn, "close"):
                fn.close()  # a coroutine that nobody will await would warn later
            raise TypeError(f"subject() wants a function and its arguments, not {fn!r}")
        self._subjects += 1
        ended = False
        try:
            result, ended = await self._walker.call(fn, args)
            return result
        finally:
            self.cancelled = ended
            self._cancellations += ended

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
MakeWalker = Callable[[int | None, trio.testing.MockClock, float], Walker]
"""Of a target, a clock and a patience."""


@attrs.frozen
class _Run:
    """What one run came to."""

    walker: Walker
    problems: tuple[Problem, ...]
    subjects: int
    cancelled: bool

    def on_schedule(self, trace: int) -> bool:
        return self.walker.hit is not None and self.walker.traces[-1] == trace


def walk_everywhere(
    function: str,
    scenario: Scenario,
    make_walker: MakeWalker,
    *,
    points: str,
    seeds: Sequence[int],
    only: Collection[int] | None,
    sample: int | None,
    virtual_limit: float,
    real_limit: float,
    max_places: int,
    by_interrupt: bool,
) -> Report:
    """What the public ``function`` of that name does; see there."""
    if not seeds:
        raise ValueError("at least one seed is needed")
    if not callable(scenario):
        if hasattr(scenario, "close"):
            scenario.close()
        raise TypeError(f"scenario must be an async function that takes a probe, not {scenario!r}")
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(f"{function} starts its own trio.run for every place: call it from a plain function")
    began = time.perf_counter()
    with pinned_scheduler() as reseed, Watchdog() as watchdog, LeakCheck() as leaks:
        limits = (virtual_limit, real_limit, max_places)
        walk = _Walk(scenario, make_walker, only, sample, *limits, reseed, watchdog, leaks)
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
        by_interrupt=by_interrupt,
        descriptors_checked=open_descriptors() is not None,
        seconds=time.perf_counter() - began,
    )


@attrs.define(eq=False)
class _Walk:
    scenario: Scenario
    make_walker: MakeWalker
    only: Collection[int] | None
    sample: int | None
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
            raise ValueError(f"{self.name} never called probe.subject(...), so there is nothing to walk")
        traces, places = undisturbed.walker.traces, undisturbed.walker.chosen()
        if len(places) > self.max_places:
            raise ValueError(f"{self.name} has {len(places)} places, more than {self.max_places=}: make it shorter")
        self.places += len(places)
        wanted = set(_spread(places, self.sample))
        # A disturbed run may take longer, to clean up; ten times longer it is in a loop.
        max_steps = 10 * undisturbed.walker.steps + 2_000
        for index in places:
            left_out = index not in (wanted if self.only is None else self.only)
            if left_out or self.killed >= _MAX_KILLED:
                self.skipped += 1
            else:
                self._visit(seed, index, traces[index], max_steps)

    def _undisturbed(self, seed: int) -> _Run:
        """Run with nothing done to it until the same happens twice.

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
        """Go to one place, and count what came of it."""
        run = self._disturbed_at(seed, index, trace, max_steps)
        on_schedule = run.on_schedule(trace)
        if run.walker.hit is None:
            self.missed += 1
        else:
            self.diverged += not on_schedule
            self.cancelled += run.cancelled
            self.finished += not run.cancelled
        if run.problems:
            self.failures.append(Failure(seed, run.walker.hit, run.problems, diverged=not on_schedule))

    def _disturbed_at(self, seed: int, index: int, trace: int, max_steps: int) -> _Run:
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
        walker = self.make_walker(target, clock, patience)
        probe = Probe(seed, walker)
        self.reseed(seed)
        self.leaks.begin()
        self._trio_run(probe, clock, max_steps)
        probe._problems += walker.problems
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
            probe._walker.ended_normally()
        except BaseException as exc:
            # Everything, for it is the code under test that raises here, and Cancelled, Aborted and what wraps them are
            # no Exceptions.  Only the wish to stop the whole program goes through.
            if _wants_to_stop(exc) and not probe._walker.interrupted():
                raise
            if not (self.watchdog.bitten or probe._walker.may_end_with(exc)):
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
            if task not in before and task.name not in (POLLER_TASK, CORKS_TASK):
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


def _spread(places: list[int], sample: int | None) -> list[int]:
    """``sample`` of ``places``, at even distances, or all of them."""
    if sample is None or sample >= len(places):
        return places
    return [places[number * len(places) // sample] for number in range(sample)]


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
