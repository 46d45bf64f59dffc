"""Who listens to a socket or a server, and what waits for them.

A subscription has one bounded channel.  Facts are kept in order; when too many wait, the subscription ends and says
so.  A nudge that waits unread absorbs the next of its kind.  Posting never waits, and costs nothing when nobody
listens: no event object is built.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

import outcome
import trio

from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.events import Event, Nudge
from trioqt.links.interrupts import protected

__all__ = ["FACT_LIMIT", "EventSource", "Subscription"]

E = TypeVar("E", bound=Event)

FACT_LIMIT = 1000
"""How many facts a subscription may fall behind before it ends with LIMIT_EXCEEDED."""

# Room for the facts, for one of each kind of nudge (there are four), and for the error that ends it.
CHANNEL_SIZE = FACT_LIMIT + 4 + 1


@protected
class Subscription(AsyncIterator[E], Generic[E]):
    """What one listener has not read yet.  An iterator object, so a cancelled step does not end it."""

    __slots__ = ("_facts", "_kinds", "_nudges", "_receive", "_send")

    def __init__(self, kinds: tuple[type[Event], ...]) -> None:
        self._kinds = kinds or (Event,)
        # The channel carries outcomes, so that its end can be an error.  A value is a fact, or the class of a nudge
        # whose present form is in _nudges.
        self._send, self._receive = trio.open_memory_channel[outcome.Outcome[Event | type[Nudge]]](CHANNEL_SIZE)
        self._nudges: dict[type[Nudge], Nudge] = {}
        self._facts = 0

    def post(self, event: Event) -> bool:
        """Keep ``event`` if it is wanted; False if the subscription has ended instead."""
        if not isinstance(event, self._kinds):
            return True
        if isinstance(event, Nudge):
            kind = type(event)
            waiting = self._nudges.get(kind)
            self._nudges[kind] = event if waiting is None else waiting.merge(event)
            if waiting is None:
                self._send.send_nowait(outcome.Value(kind))
            return True
        if self._facts == FACT_LIMIT:
            message = f"the subscription fell {FACT_LIMIT} events behind"
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
        try:
            item = (await self._receive.receive()).unwrap()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        if isinstance(item, type):
            return self._nudges.pop(item)  # type: ignore[return-value]  # post() let in only what is wanted
        self._facts -= 1
        return item  # type: ignore[return-value]


@protected
class EventSource:
    """What can be listened to.  Base of sockets and servers."""

    __slots__ = ("_events_over", "_subscriptions")

    def __init__(self) -> None:
        # A tuple, replaced as a whole: posting may go on while a listener leaves.
        self._subscriptions: tuple[Subscription[Any], ...] = ()
        self._events_over = False

    @overload
    def events(self) -> AbstractAsyncContextManager[AsyncIterator[Event]]: ...
    @overload
    def events(self, *kinds: type[E]) -> AbstractAsyncContextManager[AsyncIterator[E]]: ...
    def events(self, *kinds: Any) -> Any:
        """Subscribe to what happens from now on; ``kinds`` narrows it (none: everything).

        ``async with sock.events() as events: async for event in events: match event: ...``

        Each subscription has its own bounded channel, so a slow listener delays nobody.  Subscribe before you act and
        you miss nothing.  The iteration ends when the block of the socket or server is left; ``Disconnected`` does
        not end it, because the socket may connect again: ``break`` there if that is your end.

        Raises:
          TypeError: Something in ``kinds`` is no event class.
          SocketError: From a step of the iteration, LIMIT_EXCEEDED after 1,000 facts that nobody read; what had
            been posted before comes first, and the iteration ends there.  The socket is not touched.
        Cancelled: entering has not subscribed; of a step, an event is either delivered or still queued, and the
          iterator can be used on.
        Qt: connect() to a signal.  There, slots run inside the emission; here events are seen after the fact, so use
          ``state()`` for now and events for history.
        """
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise TypeError(f"not an event class: {kind!r}")
        return _Subscribing(self, kinds)

    def _post(self, event: Event) -> None:
        """Give ``event`` to every listener.  Ask ``_subscriptions`` first, and build no event if there are none."""
        for subscription in self._subscriptions:
            if not subscription.post(event):
                self._unsubscribe(subscription)

    def _subscribe(self, subscription: Subscription[Any]) -> None:
        if self._events_over:
            subscription.end()
            return
        self._subscriptions = (*self._subscriptions, subscription)
        self._listeners_changed()

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


@protected
class _Subscribing(AbstractAsyncContextManager["AsyncIterator[Any]"]):
    __slots__ = ("_kinds", "_source", "_subscription")

    def __init__(self, source: EventSource, kinds: tuple[type[Event], ...]) -> None:
        self._source = source
        self._kinds = kinds
        self._subscription: Subscription[Any] | None = None

    async def __aenter__(self) -> Subscription[Any]:
        if self._subscription is not None:
            raise RuntimeError("this subscription is entered already: call events() for each")
        await trio.lowlevel.checkpoint()
        self._subscription = Subscription(self._kinds)
        self._source._subscribe(self._subscription)
        return self._subscription

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._source._unsubscribe(subscription)
