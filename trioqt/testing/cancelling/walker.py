"""What watches one run: its clock, its tasks, and the places of the code under test, at one of which it acts.

What a place is, and what is done there, say the two classes below it: ``boundaries`` and ``lines``.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from types import CodeType
from typing import Literal, TypeVar

import attrs
import trio
import trio.testing

from trioqt.testing.cancelling.report import Boundary, Line, Problem
from trioqt.testing.simulation.watchdog import is_machinery

__all__ = ["Points", "Subject", "Task", "Walker", "name_of", "short_name", "where_defined", "where_stands"]

T = TypeVar("T")

Points = Literal["any", "subject"]
Task = trio.lowlevel.Task

# Real seconds before the clock jumps while a worker thread is busy.  A look-up of a real name takes milliseconds, a
# slow one some hundred.  Not for ever: the thread may itself wait for a task that sleeps.
_THREAD_PATIENCE = 1.0

# The attributes of trio's I/O statistics that count tasks; which of them exist differs from system to system.
_WAITER_COUNTS = ("tasks_waiting_read", "tasks_waiting_write", "tasks_waiting_overlapped", "tasks_waiting")


@attrs.define(eq=False)
class Subject:
    """One call of the code under test, with the tasks that work for it."""

    task: Task
    fn: Callable[..., object]
    scope: trio.CancelScope | None = None
    """What to cancel, if it is to be cancelled."""
    family: set[Task] = attrs.field(init=False)
    _not_ours: list[trio.Nursery] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.family = {self.task}
        self._not_ours = self.task.child_nurseries

    def adopt(self, task: Task) -> None:
        """Take ``task`` in if it was born into a nursery that was opened within the subject."""
        nursery = task.parent_nursery
        if nursery is not None and nursery.parent_task in self.family and nursery not in self._not_ours:
            self.family.add(task)


@attrs.define(eq=False, slots=False)
class Walker(trio.abc.Instrument):
    """Numbers the places of one run, and acts at the one that is asked for.

    It also minds the clock: virtual time may jump at once while only memory is involved, but not while the kernel
    or a thread may be about to wake a task.
    """

    points: Points
    target: int | None
    """The place to act at; None: only number them."""
    clock: trio.testing.MockClock
    patience: float
    """Real seconds without an event before the clock jumps, when a task waits for a descriptor."""

    places: int = 0
    steps: int = 0
    traces: list[int] = attrs.Factory(list)
    """For each place, a digest of everything that ran before it."""
    hit: Boundary | None = None
    risky: bool = False
    """The clock jumped although the system might only have been slow."""
    finished: bool = False
    """The run came to its end with this instrument still in place."""
    alive: dict[Task, int] = attrs.Factory(dict)
    """The tasks, numbered by birth.  Addresses and names would differ from run to run, or be ambiguous."""
    problems: list[Problem] = attrs.Factory(list)
    """What was wrong with how a subject ended."""
    on_step: Callable[[], None] | None = None

    _trace: int = 0
    _born: int = 0
    _active: list[Subject] = attrs.Factory(list)
    _runnable: int = 0
    _number: int = 0
    _own_waiters: int | None = None

    @abstractmethod
    async def call(self, fn: Callable[..., Awaitable[T]], args: tuple[object, ...]) -> tuple[T | None, bool]:
        """Call the code under test; was it ended by what was done at the place?  Then its result is None."""

    def next_place(self) -> int:
        """One place more; its number."""
        self.places += 1
        return self.places - 1

    def strike(self, place: Boundary) -> None:
        """It is the place to act at."""
        self.hit = place

    def chosen(self) -> list[int]:
        """The places of this run that are worth a run of their own."""
        return list(range(len(self.traces)))

    def may_end_with(self, exc: BaseException) -> bool:
        """Is this what the whole run has to end with, after what was done?"""
        return False

    def interrupted(self) -> bool:
        """A KeyboardInterrupt is of its own making, and no wish to stop the walk."""
        return False

    def ended_normally(self) -> None:
        """The whole run has ended without an exception."""

    def begin(self) -> None:
        """From here on the clock minds descriptors.  Those waited for now are trio's own: threads wake it by one."""
        self._own_waiters = _count_waiters()

    def enter(self, subject: Subject) -> None:
        self._active.append(subject)

    def leave(self, subject: Subject) -> None:
        self._active.remove(subject)

    def let_go(self) -> None:
        """Hold no task any more: what they hold may have leaked, and would not be noticed."""
        self.alive.clear()
        self._active.clear()
        self.on_step = None

    # ---- what trio calls ---------------------------------------------------------------------------------------

    def task_spawned(self, task: Task) -> None:
        self._born += 1
        self.alive[task] = self._born
        for subject in self._active:
            subject.adopt(task)

    def task_scheduled(self, task: Task) -> None:
        self._runnable += 1

    def task_exited(self, task: Task) -> None:
        self.alive.pop(task, None)

    def after_io_wait(self, timeout: float) -> None:
        if not self._runnable and timeout and timeout == self.clock.autojump_threshold:
            self.risky = True

    def before_task_step(self, task: Task) -> None:
        self._runnable -= 1
        self._number = self.alive[task]

    def after_task_step(self, task: Task) -> None:
        self.steps += 1
        self._trace = hash((self._trace, self._number))
        self._stepped(task)
        if self.on_step is not None:
            self.on_step()
        if not self._runnable:
            self._mind_the_clock()

    def after_run(self) -> None:
        self.finished = True

    def _stepped(self, task: Task) -> None:
        """A step has ended, and is in the digest."""

    def _depth_of(self, subject: Subject) -> int:
        return [other for other in self._active if other.task is subject.task].index(subject) + 1

    # ---- the clock ---------------------------------------------------------------------------------------------

    def _mind_the_clock(self) -> None:
        # Every task waits now.  This costs 7 microseconds, and is needed once per idle moment only.
        if self._own_waiters is None:
            return
        patience = 0.0
        if _count_waiters() > self._own_waiters:
            patience = self.patience
        if trio.to_thread.current_default_thread_limiter().borrowed_tokens:
            patience = max(patience, _THREAD_PATIENCE)
        if self.clock.autojump_threshold != patience:
            self.clock.autojump_threshold = patience


def where_stands(task: Task, *, below: int = 0) -> tuple[Line, ...]:
    """The lines at which a waiting task stands, except trio's and this tool's, the innermost last.

    ``below``: only those below so many calls of `Probe.subject`, if there are any.
    """
    above: list[Line] = []
    lines: list[Line] = []
    for frame, number in task.iter_await_frames():
        code = frame.f_code
        if not is_machinery(code.co_filename):
            lines.append(Line(code.co_filename, number, code.co_name))
        elif below and code.co_qualname == "Probe.subject":
            below -= 1
            if not below:
                above, lines = lines, []
    # Nothing is below when the subject is trio's own function: then the line that called it.
    return tuple(lines or above[-1:])


def short_name(name: str) -> str:
    """A task's name without the path to its function."""
    return name if name.startswith("<") else name.rpartition(".")[2]


def name_of(fn: Callable[..., object]) -> str:
    fn = _unwrapped(fn)
    return str(getattr(fn, "__qualname__", type(fn).__qualname__)).rpartition("<locals>.")[2]


def where_defined(fn: Callable[..., object]) -> tuple[Line, ...]:
    code = getattr(_unwrapped(fn), "__code__", None)
    if not isinstance(code, CodeType):
        return (Line("?", 0, name_of(fn)),)
    return (Line(code.co_filename, code.co_firstlineno, code.co_name),)


def _unwrapped(fn: Callable[..., object]) -> Callable[..., object]:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def _count_waiters() -> int:
    statistics = trio.lowlevel.current_statistics().io_statistics
    return sum(getattr(statistics, name, 0) for name in _WAITER_COUNTS)
