"""Who listens to a socket or a server, and what waits for them.

A subscription has one bounded channel.  Facts are kept in order; when too many wait, the subscription ends and says
so.  A nudge that waits unread absorbs the next of its kind.  Posting never waits, and costs nothing when nobody
listens: no event object is built.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, overload

import outcome
import trio

from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.events import Event, Nudge
from trioqt.core.hints import AsyncBlock
from trioqt.links.interrupts import protected
from trioqt.sockets.answers import ANSWERS, ANSWERS_PERIOD
from trioqt.sockets.arguments import check_size
from trioqt.sockets.own_run import OfOneRun

__all__ = ["FACT_LIMIT", "EventSource", "Subscription"]

E = TypeVar("E", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
E4 = TypeVar("E4", bound=Event)

FACT_LIMIT = 1000
"""How many facts a subscription may fall behind, if it is not told, before it ends with LIMIT_EXCEEDED."""


@protected
class Subscription(AsyncIterator[E], Generic[E]):
    """What one listener has not read yet.  An iterator object, so a cancelled step does not end it."""

    __slots__ = (
        "_answers",
        "_answers_until",
        "_exactly",
        "_facts",
        "_has_begun",
        "_is_waiting",
        "_kinds",
        "_nudges",
        "_receive",
        "_send",
        "_source",
    )

    def __init__(self, source: EventSource, kinds: tuple[type[Event], ...], facts: int | None = None) -> None:
        self._source = source
        self._kinds = kinds or (Event,)
        self._exactly = facts  # how many facts may wait; None: as many as the source says when it comes to it
        self._has_begun = False  # the listener has asked for an event
        self._is_waiting = False  # it has dealt with all that was told, and waits for more
        # The channel carries outcomes, so that its end can be an error.  A value is a fact, or the class of a nudge
        # whose present form is in _nudges.  post() keeps the bound: the facts, one of each kind of nudge, the error.
        self._send, self._receive = trio.open_memory_channel[outcome.Outcome[Event | type[Nudge]]](math.inf)
        self._nudges: dict[type[Nudge], Nudge] = {}
        self._facts = 0
        self._answers = 0  # how many more the queue may give before other tasks get their turn ...
        self._answers_until = 0.0  # ... and until when

    def wants(self, event: Event) -> bool:
        """Is it of the kinds that were asked for?"""
        return isinstance(event, self._kinds)

    def is_busy(self) -> bool:
        """Is the listener still at work on what was told?  One that has never asked for an event is none."""
        return self._has_begun and not self._is_waiting

    def post(self, event: Event) -> bool:
        """Keep ``event`` if it is wanted; False if the subscription has ended instead."""
        if not isinstance(event, self._kinds):
            return True
        self._is_waiting = False
        if isinstance(event, Nudge):
            kind = type(event)
            waiting = self._nudges.get(kind)
            self._nudges[kind] = event if waiting is None else waiting.merge(event)
            if waiting is None:
                self._send.send_nowait(outcome.Value(kind))
            return True
        if self._facts >= (self._source._fact_limit() if self._exactly is None else self._exactly):
            message = f"the subscription fell {self._facts} events behind"
            self._send.send_nowait(outcome.Error(SocketError(ErrorKind.LIMIT_EXCEEDED, message)))
            self._send.close()
            return False
        self._facts += 1
        self._send.send_nowait(outcome.Value(event))
        return True

    def end(self) -> None:
        """No more will be posted; what waits can still be read."""
        self._send.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        self._has_begun = True
        self._answers -= 1
        if self._answers > 0 and trio.current_time() < self._answers_until:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
            self._refill_answers()
        try:
            try:
                answer = self._receive.receive_nowait()
            except trio.WouldBlock:
                answer = await self._wait()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        return self._taken(answer)

    async def _wait(self) -> outcome.Outcome[Event | type[Nudge]]:
        self._is_waiting = True
        try:
            self._source._listener_waits(self)
            return await self._receive.receive()
        finally:
            self._is_waiting = False
            self._refill_answers()

    def _refill_answers(self) -> None:
        self._answers = ANSWERS
        self._answers_until = trio.current_time() + ANSWERS_PERIOD

    def _taken(self, answer: outcome.Outcome[Event | type[Nudge]]) -> E:
        item = answer.unwrap()
        if isinstance(item, type):
            return self._nudges.pop(item)  # type: ignore[return-value]  # post() let in only what is wanted
        self._facts -= 1
        return item  # type: ignore[return-value]


@protected
class EventSource(OfOneRun, AsyncBlock):
    """What can be listened to.  Base of sockets and servers."""

    __slots__ = ("_events_over", "_subscriptions")

    def __init__(self) -> None:
        super().__init__()
        # A tuple, replaced as a whole: posting may go on while a listener leaves.
        self._subscriptions: tuple[Subscription[Any], ...] = ()
        self._events_over = False

    # One for each number of kinds: of `*kinds: type[E]` mypy makes their common base, which says nothing, and of these
    # the union, which `match` can be exhaustive over.  From five kinds on a listener may as well ask for all.
    @overload
    def events(self, *, facts: int | None = None) -> AbstractAsyncContextManager[AsyncIterator[Event]]: ...
    @overload
    def events(self, a: type[E], /, *, facts: int | None = None) -> AbstractAsyncContextManager[AsyncIterator[E]]: ...
    @overload
    def events(
        self, a: type[E], b: type[E2], /, *, facts: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[E | E2]]: ...
    @overload
    def events(
        self, a: type[E], b: type[E2], c: type[E3], /, *, facts: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[E | E2 | E3]]: ...
    @overload
    def events(
        self, a: type[E], b: type[E2], c: type[E3], d: type[E4], /, *, facts: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[E | E2 | E3 | E4]]: ...
    @overload
    def events(self, *kinds: type[E], facts: int | None = None) -> AbstractAsyncContextManager[AsyncIterator[E]]: ...
    def events(self, *kinds: Any, facts: int | None = None) -> Any:
        """Subscribe to what happens from now on; ``kinds`` narrows it (none: everything).

        ``async with sock.events() as events: async for event in events: match event: ...``

        Each subscription has its own bounded channel, so a slow listener delays nobody.  Subscribe before you act and
        you miss nothing; entering it subscribes before it lets other tasks run.  It begins with what is so:
        ``ReadyRead`` comes first if bytes wait that nobody has seen.  For all else that was before ask ``state()``.
        The iteration ends when the block of the socket or server is left; ``Disconnected`` does
        not end it, because the socket may connect again: ``break`` there if that is your end.

        Args:
          facts: How many facts wait unread at most.  None: 1,000, and of a server twice the most connections that it
            has had at one time if that is more, because they may all end in one step.

        Raises:
          TypeError: Something in ``kinds`` is no event class, or ``facts`` no int.
          ValueError: ``facts`` is below 1.
          SocketError: From a step of the iteration, LIMIT_EXCEEDED when one fact more comes than may wait; what had
            been posted before comes first, and the iteration ends there.  The socket is not touched.
        Cancelled: entering has not subscribed; of a step, an event is either delivered or still queued, and the
          iterator can be used on.
        Qt: connect() to a signal.  There, slots run inside the emission; here events are seen after the fact, so use
          ``state()`` for now and events for history.
        """
        self._check_run()
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise TypeError(f"not an event class: {kind!r}")
        return _Subscribing(self, kinds, None if facts is None else check_size(facts, "facts", least=1))

    def _fact_limit(self) -> int:
        """How many facts may wait in a subscription that has not said so."""
        return FACT_LIMIT

    def _post(self, event: Event) -> None:
        """Give ``event`` to every listener.  Ask ``_subscriptions`` first, and build no event if there are none."""
        for subscription in self._subscriptions:
            if not subscription.post(event):
                self._unsubscribe(subscription)

    def _subscribe(self, subscription: Subscription[Any]) -> None:
        self._check_run()
        if self._events_over:
            subscription.end()
            return
        self._subscriptions = (*self._subscriptions, subscription)
        self._listeners_changed()
        if not self._events_over:
            self._tell_what_is_so(subscription)

    def _unsubscribe(self, subscription: Subscription[Any]) -> None:
        subscription.end()
        self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)
        self._listeners_changed()

    def _end_events(self) -> None:
        """The block is left: every iteration ends, and later ones end at once."""
        self._events_over = True
        for subscription in self._subscriptions:
            subscription.end()
        self._subscriptions = ()

    def _listeners_changed(self) -> None:
        """Called after somebody began or ceased to listen."""

    def _tell_what_is_so(self, subscription: Subscription[Any]) -> None:
        """Called when ``subscription`` begins."""

    def _listener_waits(self, subscription: Subscription[Any]) -> None:
        """Called when a listener has dealt with all that was told, and is about to wait for more."""


@protected
class _Subscribing(AbstractAsyncContextManager["AsyncIterator[Any]"], AsyncBlock):
    __slots__ = ("_facts", "_kinds", "_source", "_subscription")

    if not TYPE_CHECKING:  # to which it is none

        def __aiter__(self) -> NoReturn:
            raise TypeError("write `async with it.events(...) as events:`, and in it `async for event in events:`")

    def __init__(self, source: EventSource, kinds: tuple[type[Event], ...], facts: int | None) -> None:
        self._source = source
        self._kinds = kinds
        self._facts = facts
        self._subscription: Subscription[Any] | None = None

    async def __aenter__(self) -> Subscription[Any]:
        if self._subscription is not None:
            raise RuntimeError("this subscription is entered already: call events() for each")
        # Before others have their turn: what happens in it is told.
        self._subscription = subscription = Subscription[Any](self._source, self._kinds, self._facts)
        self._source._subscribe(subscription)
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:
            self._leave()
            raise
        return subscription

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._source._unsubscribe(subscription)
