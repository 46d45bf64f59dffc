"""What a socket or server told while a test looked on, and whether that was what the test expects.

A spy records in the same synchronous step in which an event is told, so it is never late, and looking at it does not
change what it holds.  `expect` is a spy around a block, with a list to tick off.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar, cast, overload

import attrs
import trio

from trioqt.core.events import Event
from trioqt.links.interrupts import call_interruptible, protected
from trioqt.sockets.subscription import EventSource, Subscription

__all__ = ["SPY_LIMIT", "Expected", "Like", "SignalSpy", "expect", "like"]

E = TypeVar("E", bound=Event)
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
W = TypeVar("W", bound=Event)
E_co = TypeVar("E_co", bound=Event, covariant=True)

# A subscription holds 1,000 facts; here nudges are kept one by one too, a ReadyRead for each 64 KiB.  Ten thousand
# events are about a megabyte, and more than anybody reads in a failure message.
SPY_LIMIT = 10_000
"""How many events a spy holds unless told otherwise."""

# What comes in the instant in which the time is up shall be in time.  On a virtual clock that is the common case: a
# link of 1 s, ``within=1``.  But several tasks may have to run in that instant before the event is told, and deadlines
# that mean the same instant differ in their last bits.  So the time is up a microsecond later.
INSTANT = 1e-6

# How many of the last events a failure message shows.
LISTED = 40


# ---- what is looked for --------------------------------------------------------------------------


@attrs.frozen
class Like(Generic[E_co]):
    """What `like` makes."""

    kind: type[E_co]
    predicate: Callable[[Any], bool]  # of one E_co, as `like` demands

    def __str__(self) -> str:
        name = getattr(self.predicate, "__name__", None) or repr(self.predicate)
        code = getattr(self.predicate, "__code__", None)
        at = f" at {os.path.basename(code.co_filename)}:{code.co_firstlineno}" if code is not None else ""
        return f"like({self.kind.__name__}, {name}{at})"


Expected: TypeAlias = Event | type[Event] | Like[Any]
"""An event that must be equal, a class of events, or what `like` makes."""


def like(kind: type[E], predicate: Callable[[E], bool]) -> Like[E]:
    """An event of class ``kind`` of which ``predicate`` is true, for `expect` and `SignalSpy.wait_for`.

    ``like(ErrorOccurred, lambda event: event.kind is ErrorKind.CONNECTION_REFUSED)``

    ``predicate`` is called in the task that waits, never in the socket's; what it raises comes out there.

    Raises:
      TypeError: ``kind`` is no event class, or ``predicate`` cannot be called.
    """
    _check_kind(kind)
    if not callable(predicate):
        raise TypeError(f"the predicate must be a function of one event, not {predicate!r}")
    return Like(kind, predicate)


def _check_kind(kind: object) -> None:
    if not (isinstance(kind, type) and issubclass(kind, Event)):
        raise TypeError(f"not an event class: {kind!r}")


def _check_expected(expected: object) -> None:
    if not isinstance(expected, (Event, Like)) and not (isinstance(expected, type) and issubclass(expected, Event)):
        raise TypeError(f"not an event, an event class or like(...): {expected!r}")


def _matches(expected: Expected, event: Event) -> bool:
    if isinstance(expected, type):
        return isinstance(event, expected)
    if isinstance(expected, Like):
        return isinstance(event, expected.kind) and bool(call_interruptible(expected.predicate, event))
    return event == expected


def _text(expected: Expected) -> str:
    return expected.__name__ if isinstance(expected, type) else str(expected)


@attrs.define(eq=False)
class _Checklist:
    """Ticks off what is expected as events come; each event counts for one item at most."""

    expected: Sequence[Expected]
    ordered: bool = True
    looked: int = 0
    """So many events have been looked at."""
    found: list[int | None] = attrs.field(init=False)
    """For each item the index of its event."""

    def __attrs_post_init__(self) -> None:
        self.found = [None] * len(self.expected)

    def look(self, events: Sequence[Event]) -> bool:
        """Look at the events that are new; True if nothing is missing any more."""
        while None in self.found and self.looked < len(events):
            if not self.ordered:
                self._place(self.looked, events, set())
            elif _matches(self.expected[first := self.found.index(None)], events[self.looked]):
                self.found[first] = self.looked
            self.looked += 1
        return None not in self.found

    def _place(self, index: int, events: Sequence[Event], tried: set[int]) -> bool:
        """Find an item for this event, if need be by moving another event to another item.

        Without moving, ``expect(sock, StateChanged, StateChanged(CONNECTED), ordered=False)`` would fail if CONNECTED
        came first and were counted for the class.
        """
        for item, expected in enumerate(self.expected):
            if item not in tried and _matches(expected, events[index]):
                tried.add(item)
                holder = self.found[item]
                if holder is None or self._place(holder, events, tried):
                    self.found[item] = index
                    return True
        return False


# ---- the spy -------------------------------------------------------------------------------------


@protected
class _Recorder(Subscription[Event]):
    """A listener that keeps everything, each event by itself, and knows when it came."""

    __slots__ = ("changed", "entered", "events", "full", "limit", "over", "passed", "times", "waiting")

    def __init__(self, source: EventSource, kinds: tuple[type[Event], ...], limit: int) -> None:
        super().__init__(source, kinds)
        self.limit = limit
        self.entered = trio.current_time()
        self.events: list[Event] = []
        self.times: list[float] = []
        self.full = False
        self.over = False
        self.passed = 0  # by wait_for()
        self.waiting = False
        self.changed = trio.lowlevel.ParkingLot()

    def post(self, event: Event) -> bool:
        if not isinstance(event, self._kinds):
            return True
        if len(self.events) == self.limit:
            self.full = True
            return False
        self.events.append(event)
        self.times.append(trio.current_time() - self.entered)
        self.changed.unpark_all()
        return True

    def end(self) -> None:
        super().end()
        self.over = True
        self.changed.unpark_all()

    async def wait_until(self, done: Callable[[Sequence[Event]], bool]) -> bool:
        """Wait until ``done(events)``; False if the record is over before."""
        if self.waiting:
            raise trio.BusyResourceError("another task waits with this spy")
        self.waiting = True
        try:
            await trio.lowlevel.checkpoint()
            while not done(self.events):
                if self.over:
                    return False
                await self.changed.park()
            return True
        finally:
            self.waiting = False

    def why_over(self) -> str:
        if self.full:
            return (
                f"the spy is full: more came than the {self.limit} events it holds"
                " (name the kinds you need, clear() it now and then, or give it a higher limit)"
            )
        return "no more will come: the block of the spy or of its source was left"

    def listing(self) -> str:
        """The last events, one in a line."""
        first = max(0, len(self.events) - LISTED)
        lines = [f"  ... {first} before"] if first else []
        for index in range(first, len(self.events)):
            passed = "   <- an earlier wait_for() came to here" if index + 1 == self.passed else ""
            lines.append(f"  {self.times[index]:9.3f}  {self.events[index]}{passed}")
        return "\n".join(lines or ["  nothing"])


@protected
class SignalSpy(Sequence[E]):
    """Records what a socket or server tells while the block runs.  Qt: QSignalSpy.

    ``async with SignalSpy(sock, StateChanged) as spy, sock: ...``, then ``assert list(spy) == [...]``

    It is a sequence of the events so far: ``len(spy)``, ``spy[0]``, ``Connected() in spy``.  What happened is in it at
    once, in the same step: after ``sock.abort()`` no ``await`` is needed to see it.  It stays readable after its
    block, and after that of the socket.  Entered again, it starts anew, empty.  ``str(spy)`` lists the events with
    their times.

    Nudges (ReadyRead, BytesWritten) are recorded one by one, and not merged as in a subscription, so the record does
    not depend on when it was looked at.

    It is not quite invisible: a socket that somebody listens to reads ahead, and so hears of the peer's end by itself.

    Args:
      kinds: Record these only; none: everything.
      limit: So many events are held.  When one more comes, the spy is full and records no more.  No test shall pass on
        half a story, so from then on the sequence raises AssertionError, whatever is asked of it; ``wait_for`` still
        finds what is held, and ``str()`` shows it.  The source is not touched.

    Raises:
      TypeError: ``source`` tells no events, or something in ``kinds`` is no event class.
      ValueError: ``limit`` is below 1.
      RuntimeError: looked at before its block was entered, or entered while it is.
    """

    # As those of `EventSource.events`.
    @overload
    def __init__(self: SignalSpy[Event], source: EventSource, *, limit: int = SPY_LIMIT) -> None: ...
    @overload
    def __init__(self: SignalSpy[E1], source: EventSource, a: type[E1], /, *, limit: int = SPY_LIMIT) -> None: ...
    @overload
    def __init__(
        self: SignalSpy[E1 | E2], source: EventSource, a: type[E1], b: type[E2], /, *, limit: int = SPY_LIMIT
    ) -> None: ...
    @overload
    def __init__(
        self: SignalSpy[E1 | E2 | E3],
        source: EventSource,
        a: type[E1],
        b: type[E2],
        c: type[E3],
        /,
        *,
        limit: int = SPY_LIMIT,
    ) -> None: ...
    @overload
    def __init__(self, source: EventSource, *kinds: type[E], limit: int = SPY_LIMIT) -> None: ...
    def __init__(self, source: EventSource, *kinds: type[Event], limit: int = SPY_LIMIT) -> None:
        if not isinstance(source, EventSource):
            raise TypeError(f"not a socket or server: {source!r}")
        for kind in kinds:
            _check_kind(kind)
        if operator.index(limit) < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self._source = source
        self._kinds = kinds
        self._limit = limit
        self._recorder: _Recorder | None = None
        self._inside = False

    async def __aenter__(self) -> Self:
        """Record from now on, before other tasks run; it begins as a subscription does, see ``events()``.

        Cancelled: nothing is recorded; a record of an earlier block is still there.
        """
        if self._inside:
            raise RuntimeError("this spy is entered already: make one for each block")
        before, self._recorder, self._inside = self._recorder, _Recorder(self._source, self._kinds, self._limit), True
        self._source._subscribe(self._recorder)
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:
            self._leave()
            self._recorder = before
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Record no more.

        Cancelled: cannot be, it does not wait.
        """
        self._leave()

    def _leave(self) -> None:
        self._source._unsubscribe(self._entered())
        self._inside = False

    def _entered(self) -> _Recorder:
        if self._recorder is None:
            raise RuntimeError("the spy has not been entered: async with SignalSpy(...) as spy, then look at it")
        return self._recorder

    def _whole(self) -> _Recorder:
        recorder = self._entered()
        if recorder.full:
            raise AssertionError(recorder.why_over())
        return recorder

    # -- looking at it ----------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._whole().events)

    def __iter__(self) -> Iterator[E]:
        # Of a copy: a loop that waits sees what had come when it began.
        return cast("Iterator[E]", iter(self._whole().events[:]))

    @overload
    def __getitem__(self, index: int) -> E: ...
    @overload
    def __getitem__(self, index: slice) -> list[E]: ...
    def __getitem__(self, index: int | slice) -> E | list[E]:
        return cast("E | list[E]", self._whole().events[index])

    def __repr__(self) -> str:
        count = "not entered" if self._recorder is None else f"{len(self._recorder.events)} events"
        return f"<{type(self).__name__} of {type(self._source).__name__}: {count}>"

    def __str__(self) -> str:
        if self._recorder is None:
            return repr(self)
        full = f"\n{self._recorder.why_over()}" if self._recorder.full else ""
        return f"{self!r}, seconds since it was entered:\n{self._recorder.listing()}{full}"

    def clear(self) -> None:
        """Forget what was recorded, and record on.

        Raises:
          trio.BusyResourceError: A task waits for what may be among it.
          AssertionError: The spy was full.
        Qt: QSignalSpy is a list, this is its clear().
        """
        recorder = self._whole()
        if recorder.waiting:
            raise trio.BusyResourceError("a task waits for what may be among it")
        recorder.events.clear()
        recorder.times.clear()
        recorder.passed = 0

    # -- waiting ----------------------------------------------------------------------------

    async def wait_for(self, event: type[W] | Like[W] | W) -> W:
        """The next event that is equal to ``event``, of this class, or `like` it; wait unless it has come already.

        "Next" goes through the record once: the first call begins at its first event, every later one after the event
        that the call before it gave.  So nothing is missed between entering the spy and waiting, and no event
        answers two calls.  An event that came before the last one given is passed over; it is still in ``list(spy)``.

        The time limit is the caller's: ``with trio.fail_after(5): await spy.wait_for(Connected)``.

        Raises:
          AssertionError: It cannot come any more, because the block of the spy or of the source was left, or the spy
            is full.  The message lists what came.
          TypeError: ``event`` is none of the three.
          ValueError: This spy does not record such events.
          trio.BusyResourceError: Another task waits: each needs a spy of its own.
        Cancelled: nothing was passed; the next call begins where this one did.
        Qt: QSignalSpy::wait, which sees only what comes after the call.
        """
        expected = cast("Expected", event)
        _check_expected(expected)
        recorder = self._entered()
        kind = (
            expected if isinstance(expected, type) else expected.kind if isinstance(expected, Like) else type(expected)
        )
        if self._kinds and not any(issubclass(kind, own) or issubclass(own, kind) for own in self._kinds):
            raise ValueError(f"{kind.__name__} never comes: this spy records {' and '.join(map(_text, self._kinds))}")

        checklist = _Checklist([expected], looked=recorder.passed)
        if not await recorder.wait_until(checklist.look):
            listing = recorder.listing()
            raise AssertionError(
                f"{_text(expected)} did not come, and {recorder.why_over()}\n"
                f"told by the {type(self._source).__name__}, seconds since the spy was entered:\n{listing}"
            )
        recorder.passed = checklist.looked
        return cast("W", recorder.events[recorder.passed - 1])


# ---- a block and what must come of it ------------------------------------------------------------


def expect(
    source: EventSource, *events: Expected, ordered: bool = True, within: float = 5.0
) -> AbstractAsyncContextManager[SignalSpy[Event]]:
    """Run the block, then wait until ``source`` has told all of ``events``; the ``as`` value is a spy on everything.

    ``async with expect(sock, Connected, ReadyRead, like(ErrorOccurred, is_reset)): ...``

    Other events may come in between, and one event counts for one item, so ``expect(sock, ReadyRead, ReadyRead)``
    needs two.  To say that nothing else came, compare ``list(spy)``.

    Args:
      events: Event classes, events that must be equal, or what `like` makes.
      ordered: They must come in this order.  False: in any.
      within: How long after the end of the block to wait for what is missing, that instant included, in seconds of
        trio's clock, so they are virtual where that is.  What comes during the block has no limit but yours.  0: do
        not wait.  ``math.inf``: wait as long as something can come.

    Raises:
      TypeError: ``source`` tells no events, or something in ``events`` is none of the three.
      ValueError: Nothing is expected, or ``within`` is negative.
      AssertionError: On leaving the block, something is missing after ``within``, or at once if it cannot come any
        more.  The message says what came, when, and what is missing.  What the block raised goes through as it is.
    Cancelled: in the block or while waiting after it, nothing is asserted.
    Qt: QSignalSpy::wait; pytest-qt's waitSignals, whose time begins at the end of the block too.
    """
    if not events:
        raise ValueError("expect() needs at least one event")
    for event in events:
        _check_expected(event)
    if not within >= 0:
        raise ValueError(f"within must be 0 or more seconds, not {within}")
    return _Expecting(SignalSpy(source), events, ordered, within)


@protected
class _Expecting(AbstractAsyncContextManager["SignalSpy[Event]"]):
    __slots__ = ("_expected", "_ordered", "_spy", "_within")

    def __init__(self, spy: SignalSpy[Event], expected: Sequence[Expected], ordered: bool, within: float) -> None:
        self._spy = spy
        self._expected = expected
        self._ordered = ordered
        self._within = within

    async def __aenter__(self) -> SignalSpy[Event]:
        return await self._spy.__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True  # pytest then shows the test's line, and this message
        recorder = self._spy._entered()
        checklist = _Checklist(self._expected, self._ordered)
        try:
            if exc is not None:
                return
            with trio.move_on_after(self._within + INSTANT if self._within else 0):
                await recorder.wait_until(checklist.look)
            # Once more, for what came in the step in which the time was up.
            if not checklist.look(recorder.events):
                raise AssertionError(self._complaint(recorder, checklist))
        finally:
            self._spy._leave()

    def _complaint(self, recorder: _Recorder, checklist: _Checklist) -> str:
        name = type(self._spy._source).__name__
        order = "in this order" if self._ordered else "in any order"
        after = recorder.why_over() if recorder.over else f"{self._within:g} s after the block it has not all come"
        lines = [f"expected of the {name}, {order}; {after}"]
        for expected, index in zip(self._expected, checklist.found, strict=True):
            if index is not None:
                fate = f"came at {recorder.times[index]:.3f}"
            else:
                early = [i for i, event in enumerate(recorder.events) if _matches(expected, event)]
                early = [i for i in early if i not in checklist.found]
                fate = f"MISSING (came too early, at {recorder.times[early[-1]]:.3f})" if early else "MISSING"
            lines.append(f"  {_text(expected)}: {fate}")
        return "\n".join([*lines, "told, seconds since the block was entered:", recorder.listing()])
