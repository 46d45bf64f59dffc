"""What a run in virtual time must not do: stand still for ever, run for ever, outrun a thread, use the real network.

`Guards` watches one run of trio, whether or not `simulate` started it.  Of a simulated network it knows only that what
one has replaced is put back when the run is torn down.  It looks on when the clock is about to jump, and once in each
pass of the run loop, never in a task's step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import attrs
import trio
import trio.testing

from trioqt.testing.network.real_network import real_network_refused
from trioqt.testing.network.virtual_network import VirtualNetwork
from trioqt.testing.simulation.determinism import autojump_hook, throw_into
from trioqt.testing.simulation.task_tree import all_tasks, children_of, main_tasks, task_tree

__all__ = [
    "BudgetExceeded",
    "Deadlock",
    "Guards",
    "guards",
    "real_time",
]

# One task of a real program takes 1,000 steps a virtual second, or it polls.  Ten million are two minutes of a core.
STEPS = 10_000_000
VIRTUAL_TIME = 86_400.0

# Real seconds without a sign of life from what holds the clock.  A thread may itself wait for virtual time to pass, in
# a way that nobody can see.
PATIENCE = 30.0

# After the cancellation, how many steps a clean-up may take until it counts as one more failure, and how many failures
# there are until the run is torn down.  Three rounds of a busy loop take a second.
_CLEAN_UP_STEPS = 10_000
_ROUNDS = 3

# Passes between two looks at the time, for a program that never lets the clock jump.
_LOOK_EVERY = 5_000

# Trio never asks the system to wait longer, however far the next deadline.
_LONGEST_WAIT = 86_400.0

_DEADLOCK = "deadlock: every task waits, no deadline is set, and nothing real is under way"

# A worker thread's turn takes some 100 us, ten times what a pass takes.
_STEPS_OF_A_TURN = 10

# The attributes of trio's I/O statistics that count tasks; which of them exist differs from system to system.
_WAITER_COUNTS = ("tasks_waiting_read", "tasks_waiting_write", "tasks_waiting_overlapped", "tasks_waiting")
# Trio's own: the task of `run_sync_soon` waits for the socket that wakes it.
_OWN_WAITERS = 1

_THREADS = trio.to_thread.run_sync.__code__.co_filename


class Deadlock(AssertionError):
    """No task can ever run again: all of them wait, there is no deadline, and nothing real is under way."""


class BudgetExceeded(AssertionError):
    """The run took more virtual time or more steps than it was given, or what it waited for took too long really."""


class _Interrupt(BaseException):
    """Thrown into tasks that no cancellation ends; not an Exception, so that less of it is swallowed."""


_wrecks: list[trio.lowlevel.Task] = []
_current: trio.lowlevel.RunVar[Guards | None] = trio.lowlevel.RunVar("trioqt guards", None)


def guards(
    *,
    virtual_time: float | None = VIRTUAL_TIME,
    steps: float | None = STEPS,
    patience: float = PATIENCE,
    real_network: bool = False,
    describe: Callable[[], str] | None = None,
) -> Guards:
    """Guard the rest of this run: ``with guards(): ...`` in a task.

    The first failure cancels the block; when the block has come to its end, the failure is raised from there, with the
    tree of tasks as it was.  What a cancellation does not end, because it is shielded, swallows Cancelled, or is
    outside the block, is interrupted where it stands, and at last the whole run is torn down.

    Args:
      virtual_time: Seconds on the clock that the block may take; None: no limit.
      steps: Passes of the run loop that the block may take; in each, every task that is runnable makes one step.  A
        worker thread's turn, for which the run waits, counts as ten.
      patience: Real seconds that a thread, a process or a descriptor may hold the clock without a sign of life.
      real_network: Do not refuse real sockets and look-ups.
      describe: Called at a failure; what it returns goes into the message.

    Raises:
      Deadlock: see there; the clock must jump by itself, or not at all, for this to be noticed.
      BudgetExceeded: of time, steps or patience.
      RealNetworkUsed: from the call that would have used it, when it is made.
    """
    for name, limit in (("virtual_time", virtual_time), ("steps", steps), ("patience", patience)):
        if limit is not None and not limit > 0:
            raise ValueError(f"{name} is more than 0, not {limit}")
    return Guards(virtual_time, steps, patience, real_network, describe)


@contextlib.contextmanager
def real_time() -> Iterator[None]:
    """Within the block, in any task, the clock does not jump: for real things under way that trio cannot see.

    The threads of `trio.to_thread`, processes, and whatever waits for a descriptor are seen without it.  Without
    guards it does nothing.
    """
    watch = _current.get()
    if watch is None:
        yield
        return
    watch.real_things += 1
    try:
        yield
    finally:
        watch.real_things -= 1


@attrs.define(eq=False, slots=False)
class Guards(trio.abc.Instrument):
    """One guarded block; see `guards`."""

    virtual_time: float | None
    steps: float | None
    patience: float
    real_network: bool
    describe: Callable[[], str] | None

    failure: Deadlock | BudgetExceeded | None = attrs.field(default=None, init=False)
    """What the block will end with."""
    passes: int = attrs.field(default=0, init=False)
    """Passes of the run loop so far; a worker thread's turn counts as several."""
    real_things: int = attrs.field(default=0, init=False)
    """Blocks of `real_time` that are open."""
    waiting_threads: int = attrs.field(default=0, init=False)
    """Worker threads of which it is known that a task must end their wait."""

    _outer: Guards | None = attrs.field(default=None, init=False)
    _clock: trio.abc.Clock = attrs.field(init=False)
    _token: trio.lowlevel.TrioToken = attrs.field(init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _undo: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack, init=False)
    _rounds: int = attrs.field(default=0, init=False)
    _next_look: float = attrs.field(default=_LOOK_EVERY, init=False)
    _last_pass: float = attrs.field(default=math.inf, init=False)
    _last_moment: float = attrs.field(default=math.inf, init=False)
    _threshold: float | None = attrs.field(default=None, init=False)  # the clock's own, while it is held
    _waiter_counts: tuple[str, ...] = attrs.field(default=(), init=False)
    _waited: int = attrs.field(default=-1, init=False)  # the pass that waited for real things

    def __enter__(self) -> Self:
        self._clock = trio.lowlevel.current_clock()
        self._token = trio.lowlevel.current_trio_token()
        counts = trio.lowlevel.current_statistics().io_statistics
        self._waiter_counts = tuple(name for name in _WAITER_COUNTS if hasattr(counts, name))
        if self.steps is not None:
            self._last_pass = self.steps
            self._next_look = min(_LOOK_EVERY, self.steps)
        if self.virtual_time is not None:
            self._last_moment = trio.current_time() + self.virtual_time
        with contextlib.ExitStack() as undo:
            if not self.real_network:
                undo.enter_context(real_network_refused())
            if isinstance(self._clock, trio.testing.MockClock):
                undo.enter_context(autojump_hook(self._clock, self._before_jump))
            undo.callback(self._let_the_clock_go)
            trio.lowlevel.add_instrument(self)
            self._outer = _current.get()
            undo.callback(self._leave_the_run)
            _current.set(self)
            self._undo = undo.pop_all()
        self._scope.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = exc
        try:
            if self._scope.__exit__(exc_type, exc, traceback):
                left = None
        except BaseException as rest:
            left = rest
        try:
            self._undo.close()
        finally:
            if self.failure is not None and not isinstance(left, (KeyboardInterrupt, SystemExit)):
                raise self.failure from _without_interrupts(left)
            if left is not None and left is not exc:
                raise left

    def thread_waits(self, more: int) -> None:
        """So many more worker threads wait for a task, or fewer; called while trio's thread stands still, or is it."""
        self.waiting_threads += more

    def thread_runs(self) -> None:
        """A worker thread has a turn."""
        self.passes += _STEPS_OF_A_TURN

    def give_up(self, reason: str) -> None:
        """Fail, from trio's thread: the run cannot go on as it should."""
        self._fail(BudgetExceeded, reason)

    # ---- what trio calls ---------------------------------------------------------------------------------------

    def before_io_wait(self, timeout: float) -> None:
        self.passes += 1
        if self.passes >= self._next_look or timeout >= _LONGEST_WAIT:
            self._look(timeout)

    def _look(self, timeout: float) -> None:
        if self._threshold is not None:
            # The present wait is held, whatever is set now; whether the next one is will be seen when all is quiet.
            if timeout:
                self._waited = self.passes
            self._let_the_clock_go()
        if self.passes >= self._last_pass:
            self._fail(BudgetExceeded, f"not over after {self.passes:,} steps")
        elif trio.current_time() > self._last_moment:
            self._fail(BudgetExceeded, self._too_late())
        elif timeout >= _LONGEST_WAIT:
            # A clock that does not jump, so the system is about to be asked to wait for a day.
            statistics = trio.lowlevel.current_statistics()
            nothing_due = statistics.seconds_to_next_deadline == math.inf and not statistics.run_sync_soon_queue_size
            if nothing_due and not self._held_by(statistics):
                self._fail(Deadlock, _DEADLOCK)
                self._token.run_sync_soon(_nothing, idempotent=True)
        self._next_look = min(self.passes + _LOOK_EVERY, self._last_pass)

    def _before_jump(self, jump: Callable[[], None]) -> None:
        # Called for each jump, so it does without what it can; the clock would ask for the same statistics.
        statistics = trio.lowlevel.current_statistics()
        if statistics.run_sync_soon_queue_size:
            return  # a thread has left a callback since the system was asked; it runs in the next pass
        wait = statistics.seconds_to_next_deadline
        if held_by := self._held_by(statistics):
            if self._waited == self.passes:
                self._fail(
                    BudgetExceeded, f"nothing happened in {self.patience:g} real seconds of waiting for {held_by}"
                )
            else:
                self._hold_the_clock()
        elif wait == math.inf:
            self._fail(Deadlock, _DEADLOCK)
        elif self._clock.current_time() + wait > self._last_moment:
            self._fail(BudgetExceeded, self._too_late())
        elif self._outer is not None:
            jump()  # which asks the outer guards
        elif wait > 0:
            assert isinstance(self._clock, trio.testing.MockClock)
            self._clock.jump(wait)

    # ---- the clock ---------------------------------------------------------------------------------------------

    def _held_by(self, statistics: trio.lowlevel.RunStatistics) -> str:
        """What real things are under way, for a message; empty if none is."""
        if self.real_things:
            return "a block of real_time()"
        threads = trio.testing.active_thread_count() and _threads_that_run()
        # If no task has a deadline, perhaps it is no task that they wait for.
        if threads > (0 if statistics.seconds_to_next_deadline == math.inf else self._known_to_wait()):
            return "a thread"
        waiters = 0
        for name in self._waiter_counts:
            waiters += getattr(statistics.io_statistics, name)
        return "a descriptor or a process" if waiters > _OWN_WAITERS else ""

    def _known_to_wait(self) -> int:
        return self.waiting_threads if self._outer is None else self._outer._known_to_wait()

    def _hold_the_clock(self) -> None:
        # The clock's threshold is now how long the system may be silent, and the run loop sleeps instead of spinning.
        assert isinstance(self._clock, trio.testing.MockClock)
        self._threshold = self._clock.autojump_threshold
        self._clock.autojump_threshold = self.patience
        self._next_look = 0

    def _let_the_clock_go(self) -> None:
        if self._threshold is not None:
            assert isinstance(self._clock, trio.testing.MockClock)
            self._clock.autojump_threshold = self._threshold
            self._threshold = None

    # ---- the end -----------------------------------------------------------------------------------------------

    def _too_late(self) -> str:
        limit = VIRTUAL_TIME if self.virtual_time is None else self.virtual_time
        return f"not over after {limit:,g} virtual seconds"

    def _fail(self, kind: type[Deadlock | BudgetExceeded], reason: str) -> None:
        """One step further each time: cancel, then interrupt, then tear the run down."""
        self._rounds += 1
        self._last_pass = self.passes + _CLEAN_UP_STEPS
        self._last_moment = trio.current_time() + (self.virtual_time or VIRTUAL_TIME)
        if self.failure is None:
            parts = [f"{reason}; the tasks:", task_tree(), "" if self.describe is None else self.describe()]
            self.failure = kind("\n".join(filter(None, parts)))
            self._scope.cancel(reason=reason)
        elif self._rounds <= _ROUNDS:
            if self._rounds == 2:
                self.failure.add_note(f"It was cancelled, and then: {reason}; the tasks:\n{task_tree()}")
            for task in _leaves(main_tasks()):
                throw_into(task, _Interrupt())
        elif isinstance(self._clock, trio.testing.MockClock):
            self.failure.add_note("Nothing ended it, so the run was torn down.")
            # What is still alive would complain when it is thrown away, in the midst of some other test.
            _wrecks.extend(all_tasks())
            self._undo.close()
            if (net := VirtualNetwork.current()) is not None:
                net._put_back()
            # Trio asks the time in each pass, and nothing stops an exception from there.
            self._clock.current_time = self._raise_failure  # type: ignore[method-assign]

    def _raise_failure(self) -> float:
        assert self.failure is not None
        raise self.failure

    def _leave_the_run(self) -> None:
        _current.set(self._outer)
        try:
            trio.lowlevel.remove_instrument(self)
        except KeyError:
            raise RuntimeError("the guards' instrument failed; trio has logged why to trio.abc.Instrument") from None


def _nothing() -> None:
    pass


def _leaves(tasks: list[trio.lowlevel.Task]) -> list[trio.lowlevel.Task]:
    stack, found = list(tasks), []
    while stack:
        task = stack.pop()
        children = children_of(task)
        stack += children
        if not children:
            found.append(task)
    return found


def _threads_that_run() -> int:
    """The threads of `trio.to_thread` that are not themselves waiting for a task, by `trio.from_thread.run`.

    Such a call is made by the task that waits for the thread, or by a system task, so it is seen in that task's frames.
    """
    calls = 0
    for task in all_tasks():
        for frame, _ in task.iter_await_frames():
            code = frame.f_code
            calls += code.co_filename == _THREADS and code.co_qualname in ("Run.run", "Run.run_system")
    return trio.testing.active_thread_count() - calls


def _without_interrupts(exc: BaseException | None) -> BaseException | None:
    """What is left of ``exc`` when all that came of ending the block is taken out."""
    if isinstance(exc, BaseExceptionGroup):
        return exc.split((_Interrupt, trio.Cancelled))[1]
    return None if isinstance(exc, (_Interrupt, trio.Cancelled)) else exc
