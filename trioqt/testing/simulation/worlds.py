"""Which simulation the calling code is in, and what it reads there: the clock of its host, the chance of its host.

What is here is asked by functions that stand in for those of the standard library; so it must be quick, and right for
whoever asks: a task, a system task, a worker thread, or somebody in another thread whom no simulation concerns.
"""

from __future__ import annotations

import contextvars
import datetime
import functools
import math
import os
import random
import sys
import sysconfig
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Literal

import attrs
import trio

from trioqt.testing.network.virtual_network import VirtualNetwork
from trioqt.testing.simulation.guards import BudgetExceeded
from trioqt.testing.simulation.places import place

__all__ = [
    "BYSTANDERS",
    "EPOCH",
    "WAITERS",
    "Calls",
    "Epoch",
    "Threads",
    "World",
    "asker",
    "caller",
    "checked_epoch",
    "here",
    "is_bystander",
    "is_importing",
    "is_program",
    "life_in",
    "set_sleep",
    "set_waits_virtually",
    "sleep_here",
]

Epoch = datetime.datetime | float | None
Threads = Literal["inline", "real"]

# Of no meaning, but never another: a program must not see whether it is simulated today or tomorrow.
EPOCH: Final = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

# They are given the real thing.  They wait for the system or for threads, which do not know of virtual time; or they
# watch the program from outside, with clocks and random numbers of their own.
BYSTANDERS: Final = frozenset({
    "trio", "asyncio", "threading", "queue", "selectors", "subprocess", "concurrent", "multiprocessing",
    "pytest", "_pytest", "pluggy", "xdist", "execnet", "pytest_timeout", "hypothesis", "coverage",
    "cProfile", "profile", "pdb", "freezegun", "time_machine",
})  # fmt: skip

# Of them, what has a worker thread wait; where only a task can end that, it takes virtual time.
WAITERS: Final = frozenset({"threading", "queue", "concurrent"})

_OURS: Final = "trioqt.testing."

# Modules of packages that are none: trio's clocks, and what gives the kernel the time for a handshake.
_MODULES: Final = frozenset({"trio._core._run", "trio._core._mock_clock", "trioqt.links.newcomers"})

# One look takes 3 us, so this is some seconds of a core in which nothing else could run.
_LOOKS: Final = 1_000_000

# Places that have called something real; more are only counted.
_CALLS_KEPT: Final = 1_000

_STDLIB = sysconfig.get_path("stdlib") + os.sep
_OTHERS = tuple(os.path.join(_STDLIB, name) + os.sep for name in ("site-packages", "dist-packages"))


def checked_epoch(epoch: Epoch) -> float | None:
    """Seconds since 1970 of what a program gives; None if it wants the real clock.

    Raises:
      TypeError, ValueError: It is no time, or one without a zone.
    """
    if isinstance(epoch, datetime.datetime):
        if epoch.tzinfo is None:
            raise ValueError("an epoch needs a time zone: datetime(2026, 1, 1, tzinfo=datetime.UTC)")
        return epoch.timestamp()
    given: Any = epoch
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"an epoch is a datetime, seconds since 1970, or None, not {epoch!r}")
    if not math.isfinite(given):
        raise ValueError(f"an epoch is a time, not {epoch!r}")
    return float(given)


@attrs.define(eq=False)
class Calls:
    """What a run has called that is not simulated, and from where: the first thousand places."""

    found: dict[tuple[str, str], list[int]] = attrs.field(factory=dict)
    """| what, from where | how many events there were on the network at the first call, how many calls |"""
    left_out: int = 0

    def note(self, what: str, where: str, events: int) -> None:
        """It is called, from there."""
        known = self.found.get((what, where))
        if known is not None:
            known[1] += 1
        elif len(self.found) < _CALLS_KEPT:
            self.found[what, where] = [events, 1]
        else:
            self.left_out += 1


@attrs.define(eq=False)
class World:
    """One simulated run, as the code in it sees it."""

    net: VirtualNetwork
    seed: int
    clock: trio.abc.Clock
    epoch: float | None
    """What the wall clock shows at 0 of trio's, in seconds since 1970; None: it is the real one."""
    entropy: bool
    threads: Threads
    patience: float
    give_up: Callable[[str], None]
    """To be told why the run cannot go on."""
    passes: Callable[[], int]
    """How far the run loop has come."""
    thread_waits: Callable[[int], None]
    """To be told how many more worker threads wait for a task, or how many fewer."""
    thread_runs: Callable[[], None]
    """To be told that a worker thread has its turn."""
    calls: Calls | None = None
    let_woken_threads_run: Callable[[], None] = attrs.field(default=lambda: None, init=False)
    """In trio's thread, before it sleeps itself."""

    thread: int = attrs.field(factory=threading.get_ident, init=False)
    over: bool = attrs.field(default=True, init=False)
    _streams: dict[tuple[str, str], random.Random] = attrs.field(factory=dict, init=False)
    _last_look: tuple[float, int] = attrs.field(default=(-1.0, -1), init=False)
    _looks: int = attrs.field(default=0, init=False)
    _sleeps: tuple[int, int] = attrs.field(default=(-1, 0), init=False)

    def is_own_thread(self) -> bool:
        """Whether the calling thread is trio's."""
        return threading.get_ident() == self.thread

    # ---- the clock ---------------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        """Seconds, as the host's clock counts them."""
        return self.net.current_host().clock.elapsed(self._now())

    def wall(self) -> float:
        """Seconds since the epoch, as the host's clock shows them."""
        return self.net.current_host().clock.shown(self._now())

    def _now(self) -> float:
        now = self.clock.current_time()
        look = (now, self.passes())
        if look != self._last_look:
            self._last_look, self._looks = look, 0
        self._looks += 1
        if self._looks > _LOOKS:
            self._looks = 0
            raise BudgetExceeded(
                f"the clock was read {_LOOKS:,} times in one step; it stands still until every task waits, so who waits"
                " for it in a loop has to do so by trio.sleep"
            )
        return now

    def sleep_counts(self) -> None:
        """Somebody sleeps in a step.  Raises: BudgetExceeded if that happens for ever."""
        step = self.passes()
        self._sleeps = (step, self._sleeps[1] + 1 if self._sleeps[0] == step else 1)
        if self._sleeps[1] > _LOOKS:
            self._sleeps = (step, 0)
            raise BudgetExceeded(
                f"time.sleep was called {_LOOKS:,} times in one step, in which nothing else can happen; so who"
                " waits for that in a loop has to do so by trio.sleep"
            )

    # ---- chance ------------------------------------------------------------------------------------------------

    def chance(self) -> random.Random:
        """What the functions of `random` draw from on this host."""
        return self._stream("random")

    def system_chance(self) -> random.Random:
        """What stands for the system's entropy on this host; no `random.seed` reaches it."""
        # A module is imported once a process, and what it draws then must not move what comes later.
        return self._stream("imports" if is_importing() else "system")

    def node(self) -> int:
        """The address of the host's network card, for `uuid.uuid1`: one of those that nobody has bought."""
        return self._new_stream("node").getrandbits(48) | 1 << 40

    def _stream(self, purpose: str) -> random.Random:
        key = (self.net.current_host().name, purpose)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = self._new_stream(purpose)
        return stream

    def _new_stream(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed} {self.net.current_host().name} {purpose}")

    # ---- what is not simulated ---------------------------------------------------------------------------------

    def note(self, what: str, frame: FrameType | None) -> None:
        """Something real is called from there."""
        if self.calls is not None:
            self.calls.note(what, caller(frame), self.net.current_host().fabric.trace.total)


_thread = threading.local()
_inherited: contextvars.ContextVar[World | None] = contextvars.ContextVar("trioqt world", default=None)


def here() -> World | None:
    """The simulation that the calling code is in, if any."""
    # By thread, so that system tasks are in it; by context, so that worker threads are.
    world: World | None = getattr(_thread, "world", None)
    if world is None:
        world = _inherited.get()
    return None if world is None or world.over else world


def life_in(world: World) -> list[tuple[Callable[[Any], object], Any, Any]]:
    """What puts the calling thread into it, and what inherits its context: how, to what, and to what afterwards."""
    return [
        (functools.partial(setattr, world, "over"), False, True),
        (_inherited.set, world, _inherited.get()),
        (functools.partial(setattr, _thread, "world"), world, None),
    ]


def caller(frame: FrameType | None) -> str:
    """The nearest place that is neither the standard library's nor a bystander's."""
    while frame is not None:
        if is_program(frame):
            return place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
        frame = frame.f_back
    return "somewhere"


def asker(frame: FrameType | None) -> FrameType | None:
    """The nearest frame that is not the standard library's, for which that does what it does."""
    while frame is not None and _is_of_stdlib(frame):
        frame = frame.f_back
    return frame


def is_program(frame: FrameType) -> bool:
    """Whether the code is neither the standard library's nor a bystander's, nor ours."""
    if _is_of_stdlib(frame):
        return False
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.partition(".")[0] not in BYSTANDERS and not name.startswith(_OURS)


def _is_of_stdlib(frame: FrameType) -> bool:
    path = frame.f_code.co_filename
    return path.startswith("<") or (path.startswith(_STDLIB) and not path.startswith(_OTHERS))


def is_importing() -> bool:
    """Whether the caller is, in the end, an import."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def is_bystander(frame: FrameType) -> bool:
    """Whether the code of this frame is to have the real thing."""
    name = frame.f_globals.get("__name__")
    if not isinstance(name, str):
        return False
    package = name.partition(".")[0]
    # Trio itself calls what it is given, such as `to_thread.run_sync(time.time)`.
    if package in ("trio", "trioqt"):
        return name in _MODULES
    return package in BYSTANDERS and not (package in WAITERS and _waits_virtually())


def set_waits_virtually(asked: Callable[[], bool] | None) -> None:
    """From now on this says whether a wait of the calling thread takes virtual time; None: never."""
    _thread.waits_virtually = asked


def set_sleep(sleep: Callable[[float], object] | None) -> None:
    """How the calling thread sleeps in virtual time from now on, while the run goes on; None: it cannot."""
    _thread.sleep = sleep


def sleep_here() -> Callable[[float], object] | None:
    """How the calling thread sleeps while the run goes on, if it can."""
    if trio.lowlevel.in_trio_run():
        return None  # of its own, in a worker thread
    sleep: Callable[[float], object] | None = getattr(_thread, "sleep", None)
    return sleep


def _waits_virtually() -> bool:
    asked: Callable[[], bool] | None = getattr(_thread, "waits_virtually", None)
    return asked is not None and asked()
