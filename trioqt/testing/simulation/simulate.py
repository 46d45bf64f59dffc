"""A program run in virtual time, on a simulated network, from a seed.

`simulate` puts the parts together: the clock that jumps, the scheduler that is held still, the network, the guards.
When a run fails, everything that one wants to know is in a note of the exception.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import math
import os
import re
import shlex
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, Self, TypeVar, get_args

import attrs
import trio
import trio.testing

from trioqt.testing.network.fabric import Conditions
from trioqt.testing.network.fault_plan import FaultPlan
from trioqt.testing.network.real_network import real_network_allowed
from trioqt.testing.network.trace import TraceEvent
from trioqt.testing.network.virtual_network import VirtualNetwork
from trioqt.testing.simulation.determinism import nursery_hook, pinned_scheduler
from trioqt.testing.simulation.guards import PATIENCE, STEPS, VIRTUAL_TIME, Guards, guards
from trioqt.testing.simulation.handler_failures import failing_if_bugs_survive
from trioqt.testing.simulation.living import life
from trioqt.testing.simulation.replacing import Replacing
from trioqt.testing.simulation.targets import Target
from trioqt.testing.simulation.task_tree import task_tree
from trioqt.testing.simulation.worlds import EPOCH, Calls, Epoch, Threads, World, checked_epoch

__all__ = ["Finished", "Settings", "Simulation", "repeat_command", "simulate"]

T = TypeVar("T")

# A seed that a test has not fixed itself can be given from outside; `pytest --trioqt-seed` does.
SEED_VARIABLE = "TRIOQT_SEED"

_EVENTS_SHOWN = 40
_LINES_OF_NETSTAT = 100
# So many failing nurseries are looked at: a program in which failures are routine is not to be slowed down for ever.
_MOMENTS = 100


class _Turn:
    """One at a time: the schedule comes from a generator that trio has once a process, and so does what is replaced."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Raises: RuntimeError if another thread has it."""
        with self._lock:
            if self._thread is not None and self._thread is not threading.current_thread() and self._thread.is_alive():
                raise RuntimeError(
                    "another thread of this process runs a simulation; trio has one scheduler's coin for all"
                )
            # Of a thread that has it still, a Ctrl-C has ended the last run in its last step.
            self._thread = threading.current_thread()

    def leave(self) -> None:
        """Whoever comes next may have it; nothing if another thread has it."""
        if self._thread is threading.current_thread():
            self._thread = None


_turn = _Turn()


@attrs.frozen
class Settings:
    """All of `simulate` but the seed; the defaults are its."""

    latency: float = 0.0
    network: Callable[[int], VirtualNetwork] | None = None
    faults: FaultPlan | None = None
    virtual_time: float | None = VIRTUAL_TIME
    steps: float | None = STEPS
    patience: float = PATIENCE
    real_network: bool = False
    epoch: Epoch = EPOCH
    entropy: bool = True
    threads: Threads = "inline"
    loss: float = 0.0
    jitter: float = 0.0
    bandwidth: float = math.inf

    def __attrs_post_init__(self) -> None:
        if self.network is not None and self._conditions() != Conditions():
            raise ValueError(
                "latency, loss, jitter and bandwidth are for the network that simulate makes; yours has its own"
            )
        checked_epoch(self.epoch)
        if self.threads not in get_args(Threads):
            raise ValueError(f"threads are {' or '.join(map(repr, get_args(Threads)))}, not {self.threads!r}")

    def make_network(self, seed: int) -> VirtualNetwork:
        return VirtualNetwork(conditions=self._conditions(), seed=seed) if self.network is None else self.network(seed)

    def _conditions(self) -> Conditions:
        return Conditions(latency=self.latency, loss=self.loss, jitter=self.jitter, bandwidth=self.bandwidth)


@attrs.frozen
class Finished(Generic[T]):
    """What a run came to."""

    result: T
    events: tuple[TraceEvent, ...]
    digest: str
    time: float
    """Seconds on the clock."""


def simulate(
    main: Callable[..., Awaitable[T]],
    *args: object,
    seed: int | None = None,
    seeds: Iterable[int] | None = None,
    latency: float = 0.0,
    loss: float = 0.0,
    jitter: float = 0.0,
    bandwidth: float = math.inf,
    network: Callable[[int], VirtualNetwork] | None = None,
    faults: FaultPlan | None = None,
    virtual_time: float | None = VIRTUAL_TIME,
    steps: int | None = STEPS,
    patience: float = PATIENCE,
    real_network: bool = False,
    epoch: Epoch = EPOCH,
    entropy: bool = True,
    threads: Threads = "inline",
) -> T:
    """Run ``main(net, *args)`` in virtual time, on a simulated network ``net``, and return what it returns.

    Not async: it is a ``trio.run`` of its own, with a clock that jumps when every task waits, guarded by `guards`, and
    the same step by step whenever the seed is the same.  :doc:`/topics/determinism` says what that asks of ``main``.

    An exception comes out as it is, with a note that has the seed, the faults, the last events of the network, its
    sockets, the tasks, and the command that repeats the run.

    Args:
      seed: Of the scheduler and of the network.  Left out: that of the environment variable TRIOQT_SEED, or else 0.
      seeds: Run once for each, up to the first that fails, and return the last result.  TRIOQT_SEED picks one.
      latency, loss, jitter, bandwidth: Of every link, as in `Conditions`, if the network is not your own.
      network: Called with the seed, makes the network, for one with other conditions.
      faults: Its times count from the beginning of ``main``, and what still lasts is over when ``main`` is.
      virtual_time, steps, patience, real_network: See `guards`.
      epoch: What `time.time` and `datetime.now` show at the beginning, a datetime with a zone or seconds since 1970;
        from there they follow trio's clock, as `time.monotonic` does.  None: all of them are real.
      entropy: `random`, `os.urandom`, `secrets` and `uuid` draw from the seed, on each host for itself.
      threads: "inline": trio's thread waits for each worker thread, so they run one at a time and in order.  "real":
        beside each other, and only virtual time waits.

    Raises:
      ExceptionGroup: servers have survived bugs of their handlers, and nobody took them (``net.handler_failures()``).
      Deadlock: ``main`` can never end.
      BudgetExceeded: it took too long.
      RealNetworkUsed: it was about to use the real network.
      TypeError: ``main`` is not an async function.
      ValueError: ``seed`` and ``seeds``, no seed at all, a condition that no link can have, or one of these beside a
        network of your own, an epoch without a zone, or there is no such ``threads``.
      RuntimeError: called within ``trio.run``, or while another thread simulates.
    """
    if not callable(main):
        if hasattr(main, "close"):
            main.close()
        raise TypeError(f"simulate() wants an async function and its arguments, not {main!r}")
    if seed is not None and seeds is not None:
        raise ValueError("give either seed or seeds")
    if faults is not None and not isinstance(faults, FaultPlan):
        raise TypeError(f"faults is a FaultPlan, not {faults!r}")
    if trio.lowlevel.in_trio_run():
        raise RuntimeError("simulate starts a trio.run of its own: call it from a plain function")
    chosen = _chosen_seeds(seed, seeds)
    if not chosen:
        raise ValueError("at least one seed is needed")
    settings = Settings(
        latency,
        network,
        faults,
        virtual_time,
        steps,
        patience,
        real_network,
        epoch,
        entropy,
        threads,
        loss,
        jitter,
        bandwidth,
    )
    for index, each in enumerate(chosen):
        which = f", number {index + 1} of {len(chosen)}" if len(chosen) > 1 else ""
        again = repeat_command(main, args, each, settings, fixed=seed is not None)
        finished = Simulation(main, args, each, settings, f"seed {each}{which}", again).run()
    return finished.result


@attrs.define(eq=False)
class Simulation(Generic[T]):
    """One run, of one seed."""

    main: Callable[..., Awaitable[T]]
    args: tuple[object, ...]
    seed: int
    settings: Settings
    which: str
    """How the note names this run."""
    again: str
    """How to repeat it."""

    calls: Calls | None = None
    """Where to note what is called that is not simulated; None: nowhere."""

    _moment: _Moment | None = attrs.field(default=None, init=False)
    _raised: deque[tuple[BaseException, _Moment]] = attrs.field(factory=lambda: deque(maxlen=8), init=False)
    _raised_count: int = attrs.field(default=0, init=False)
    _thread: int = attrs.field(factory=threading.get_ident, init=False)

    def run(self, clock: trio.abc.Clock | None = None, instruments: Sequence[trio.abc.Instrument] = ()) -> Finished[T]:
        """Run it, on a new clock that jumps unless one is given."""
        net = self.settings.make_network(self.seed)
        guard = guards(
            virtual_time=self.settings.virtual_time,
            steps=self.settings.steps,
            patience=self.settings.patience,
            real_network=self.settings.real_network,
            describe=functools.partial(self._failing, net),
        )
        clock = clock or trio.testing.MockClock(autojump_threshold=0)
        living: Replacing | None = None
        try:
            _turn.take()
            living = life(self._world(net, guard, clock))
            return self._run(net, guard, clock, instruments, living)
        finally:
            try:
                # Once more, for a Ctrl-C where its block ends.
                if living is not None:
                    living.put_back()
            finally:
                _turn.leave()

    def _run(
        self,
        net: VirtualNetwork,
        guard: Guards,
        clock: trio.abc.Clock,
        instruments: Sequence[trio.abc.Instrument],
        living: Replacing,
    ) -> Finished[T]:
        with pinned_scheduler() as reseed, nursery_hook(functools.partial(self._nursery_fails, net)), living:
            reseed(self.seed)
            try:
                with failing_if_bugs_survive():
                    result, time = trio.run(self._main, net, guard, clock=clock, instruments=instruments)
            except BaseException as exc:
                # Whatever it is, it goes on; a run that had to be torn down says only that trio has failed.
                failed = guard.failure if isinstance(exc, trio.TrioInternalError) and guard.failure else exc
                failed.add_note(self._note(failed))
                if failed is exc:
                    raise
                raise failed from None
            finally:
                self._raised.clear()
        return Finished(result, tuple(net.trace()), net.digest(), time)

    def _world(self, net: VirtualNetwork, guard: Guards, clock: trio.abc.Clock) -> World:
        return World(
            net,
            self.seed,
            clock,
            checked_epoch(self.settings.epoch),
            self.settings.entropy,
            self.settings.threads,
            patience=self.settings.patience,
            give_up=guard.give_up,
            passes=lambda: guard.passes,
            thread_waits=guard.thread_waits,
            thread_runs=guard.thread_runs,
            calls=self.calls,
        )

    async def _main(self, net: VirtualNetwork, guard: Guards) -> tuple[T, float]:
        trio.lowlevel.current_task().name = _as_trio_names(self.main)
        allowed = real_network_allowed() if self.settings.real_network else contextlib.nullcontext()
        with guard, allowed:
            async with net:
                try:
                    return await self._call(net), trio.current_time()
                except BaseException:
                    # Here, because the network's end ends its sockets.
                    self._remember(net)
                    raise

    async def _call(self, net: VirtualNetwork) -> T:
        plan = self.settings.faults
        with contextlib.nullcontext() if plan is None else net.begin(plan):
            awaitable = self.main(net, *self.args)
            if not isinstance(awaitable, Awaitable):
                raise TypeError(f"simulate() wants an async function; {self.main!r} returned {awaitable!r}")
            return await awaitable

    # ---- what a failure leaves behind --------------------------------------------------------------------------

    def _remember(self, net: VirtualNetwork) -> None:
        if self._moment is None:
            self._moment = _Moment.of(net, "")

    def _failing(self, net: VirtualNetwork) -> str:
        self._remember(net)
        return ""

    def _nursery_fails(self, net: VirtualNetwork, exc: BaseException) -> None:
        # The same exception may pass through several nurseries; everything is still there at the first.
        if threading.get_ident() != self._thread or isinstance(exc, (trio.Cancelled, BaseExceptionGroup)):
            return
        if self._raised_count < _MOMENTS and not any(seen is exc for seen, _ in self._raised):
            self._raised_count += 1
            self._raised.append((exc, _Moment.of(net, task_tree(raised=exc))))

    def _note(self, failed: BaseException) -> str:
        moment = self._moment
        for exc in _leaves(failed):
            moment = next((then for seen, then in self._raised if seen is exc), moment)
        at = "" if moment is None else f" at {moment.time:g} virtual seconds"
        parts = [f"simulate: {self.which} failed{at}"]
        if self.settings.faults is not None:
            parts.append(_titled("faults", str(self.settings.faults).splitlines()))
        if moment is not None:
            parts += moment.sections()
        return "\n".join([*parts, f"again: {self.again}"])


@attrs.frozen
class _Moment:
    """How things stood when something went wrong."""

    time: float
    total: int
    events: list[str]
    netstat: list[str]
    tasks: list[str]

    @classmethod
    def of(cls, net: VirtualNetwork, tasks: str) -> Self:
        events = net.trace()
        last = [str(event) for event in events[-_EVENTS_SHOWN:]]
        return cls(trio.current_time(), len(events), last, net.netstat().splitlines(), tasks.splitlines())

    def sections(self) -> list[str]:
        shown = len(self.events)
        count = f"the last {shown} of {self.total:,} events" if shown < self.total else "all events"
        found = [_titled(f"{count} on the network", self.events), _titled("sockets", _cut(self.netstat))]
        return [*found, _titled("tasks", self.tasks)] if self.tasks else found


def _as_trio_names(main: Callable[..., object]) -> str:
    """The name that trio gives to a task, for the task that is ours and runs it."""
    function = main.func if isinstance(main, functools.partial) else main
    try:
        return f"{function.__module__}.{function.__qualname__}"
    except AttributeError:
        return repr(function)


def _titled(title: str, lines: Sequence[str]) -> str:
    return "\n  ".join([f"{title}:", *lines]) if lines else f"{title}: none"


def _cut(lines: list[str]) -> list[str]:
    rest = len(lines) - _LINES_OF_NETSTAT
    return [*lines[:_LINES_OF_NETSTAT], f"and {rest:,} lines more"] if rest > 0 else lines


def _leaves(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in _leaves(inner)]
    return [exc]


def _chosen_seeds(seed: int | None, seeds: Iterable[int] | None) -> list[int]:
    if seed is not None:
        return [seed]
    given = os.environ.get(SEED_VARIABLE)
    if given is not None:
        try:
            return [int(given)]
        except ValueError:
            raise ValueError(f"{SEED_VARIABLE} is an int, not {given!r}") from None
    return [0] if seeds is None else list(seeds)


def repeat_command(
    main: object, args: tuple[object, ...], seed: int, settings: Settings, *, fixed: bool = False
) -> str:
    """One line that repeats the run: the test if there is one, or else this function by its name."""
    test = os.environ.get("PYTEST_CURRENT_TEST")
    if test is not None:
        # The plug-in's --trioqt-seeds puts seeds into the names of tests; with --trioqt-seed they are not there.
        node = shlex.quote(re.sub(r"\[seed\d+\]|(?<=\w)-seed\d+(?=\])", "", test.rpartition(" (")[0]))
        return f"pytest {node}" if fixed else f"pytest {node} --trioqt-seed={seed}"
    words = ["python", "-m", "trioqt.testing", "replay"]
    try:
        words += [str(Target.of(main)), "--seed", str(seed)]  # type: ignore[arg-type]
        words += _options(args, settings)
    except (ValueError, SyntaxError):
        return f"the same call with seed={seed}"
    return shlex.join(words)


def _options(args: tuple[object, ...], settings: Settings) -> list[str]:
    """What the command line of a replay must have besides; ValueError if that cannot be typed."""
    words: list[str] = []
    if args:
        if ast.literal_eval(repr(args)) != args:
            raise ValueError("these arguments cannot be typed")
        words += ["--args", repr(args)]
    if settings.faults is not None:
        words += ["--faults", _plan_as_json(settings.faults)]
    if settings.network is not None:
        words += ["--network", str(Target.of(settings.network))]
    plain: Settings = Settings()
    for name in ("latency", "loss", "jitter", "bandwidth", "virtual_time", "steps", "patience"):
        value = getattr(settings, name)
        if value != getattr(plain, name):
            words += [f"--{name.replace('_', '-')}", repr(math.inf if value is None else value)]
    if settings.epoch != plain.epoch:
        epoch = checked_epoch(settings.epoch)
        words += ["--epoch", "real" if epoch is None else repr(epoch)]
    if not settings.entropy:
        words.append("--real-entropy")
    if settings.threads != plain.threads:
        words += ["--threads", settings.threads]
    return [*words, "--real-network"] if settings.real_network else words


def _plan_as_json(plan: FaultPlan) -> str:
    text = " ".join(plan.to_json().split("\n"))
    if FaultPlan.from_json(text) != plan:
        raise ValueError("this plan has faults of a kind of one's own")
    return text
