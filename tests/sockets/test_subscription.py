"""Subscriptions: facts kept, nudges merged, and what they never do to the socket they watch."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Network, Virtual
from tests.sockets.telling import of_tcp
from tests.sockets.turns import counted_steps
from tests.sources import Source, fact
from trioqt import (
    AcceptError,
    BytesWritten,
    Connected,
    ConnectionFinished,
    Disconnected,
    ErrorKind,
    ErrorOccurred,
    Event,
    HostFound,
    NewConnection,
    ReadChannelFinished,
    ReadyRead,
    SocketError,
    SocketState,
    StateChanged,
    TcpServer,
    TcpSocket,
)
from trioqt.core.events import Nudge
from trioqt.sockets.subscription import FACT_LIMIT
from trioqt.testing import VirtualNetwork

OVER_TLS = True


async def rest(events: AsyncIterator[Event]) -> list[Event | ErrorKind]:
    """Everything up to the end, which may be an error."""
    seen: list[Event | ErrorKind] = []
    while True:
        try:
            seen.append(await anext(events))
        except StopAsyncIteration:
            return seen
        except SocketError as exc:
            seen.append(exc.kind)


# ---- Facts and nudges ----------------------------------------------------------------------------


async def test_facts_come_all_and_in_order() -> None:
    """Two equal facts are two facts."""
    source = Source()
    told = [Connected(), Disconnected(), Connected(), Disconnected(), Disconnected()]
    async with source.events() as events:
        source.tell(*told)
        source.end()

        assert await rest(events) == told


async def test_a_nudge_stays_where_the_first_of_its_kind_was() -> None:
    """Later ones merge into it; BytesWritten adds up; each kind for itself; facts in between do not part them."""
    source = Source()
    async with source.events() as events:
        source.tell(ReadyRead(), Connected(), BytesWritten(1), ReadyRead(), BytesWritten(10), Disconnected())
        source.tell(BytesWritten(100), ReadyRead(), AcceptError(ErrorKind.UNKNOWN, "first"), NewConnection())
        source.tell(AcceptError(ErrorKind.SOCKET_RESOURCE, "last"))
        source.end()

        assert await rest(events) == [
            ReadyRead(),
            Connected(),
            BytesWritten(111),
            Disconnected(),
            AcceptError(ErrorKind.SOCKET_RESOURCE, "last"),  # the later one says what is now
            NewConnection(),
        ]


async def test_a_nudge_that_was_read_does_not_take_in_later_ones() -> None:
    """Only one that waits unread absorbs; the next is a new one, behind what came before it."""
    source = Source()
    async with source.events() as events:
        source.tell(BytesWritten(1), BytesWritten(2))
        first = await anext(events)
        source.tell(Connected(), BytesWritten(4), BytesWritten(8))
        source.end()

        assert first == BytesWritten(3)
        assert await rest(events) == [Connected(), BytesWritten(12)]


async def test_a_nudge_on_its_way_to_a_waiting_listener_absorbs_what_comes_meanwhile() -> None:
    """Posted in one step, before the woken task runs: nothing is lost and nothing is counted twice."""
    source = Source()
    seen: list[Event] = []

    async def listen(events: AsyncIterator[Event]) -> None:
        async for event in events:
            seen.append(event)

    async with source.events() as events, trio.open_nursery() as nursery:
        nursery.start_soon(listen, events)
        await trio.testing.wait_all_tasks_blocked()
        source.tell(BytesWritten(1), BytesWritten(2), Connected(), BytesWritten(4))
        await trio.testing.wait_all_tasks_blocked()
        source.tell(BytesWritten(8))
        source.end()

    written = [event.count for event in seen if isinstance(event, BytesWritten)]
    assert sum(written) == 15
    assert [event for event in seen if not isinstance(event, BytesWritten)] == [Connected()]
    assert seen[0] == BytesWritten(7)


async def test_kinds_narrow_what_is_heard() -> None:
    """One, several, a base class, none: none is everything."""
    source = Source()
    told = [Connected(), ReadyRead(), StateChanged(SocketState.CLOSING), BytesWritten(1), Disconnected()]
    async with (
        source.events(Disconnected) as one,
        source.events(StateChanged, ReadyRead) as two,
        source.events(Nudge) as nudges,
        source.events(Event) as every,
        source.events() as everything,
        source.events(HostFound) as nothing,
    ):
        source.tell(*told)
        source.end()

        assert await rest(one) == [Disconnected()]
        assert await rest(two) == [ReadyRead(), StateChanged(SocketState.CLOSING)]
        assert await rest(nudges) == [ReadyRead(), BytesWritten(1)]
        assert await rest(every) == await rest(everything) == told
        assert await rest(nothing) == []


@pytest.mark.parametrize("kind", ["ReadyRead", 5, None, int, ReadyRead(), (ReadyRead,), SocketState])
async def test_what_is_no_event_class_is_refused_at_the_call(kind: Any) -> None:
    """Before anything is entered, so nobody waits for what never comes."""
    source = Source()
    with pytest.raises(TypeError, match="not an event class"):
        source.events(ReadyRead, kind)

    assert source.listeners() == 0


# ---- Who falls behind ----------------------------------------------------------------------------


async def test_a_thousand_facts_are_kept_and_one_more_ends_the_subscription() -> None:
    """What it holds comes first, then LIMIT_EXCEEDED once, then the end; and later facts are for others."""
    source = Source()
    async with source.events() as slow, source.events() as quick:
        for number in range(FACT_LIMIT):
            source.tell(fact(number))
            assert await anext(quick) == fact(number)
        still = source.listeners()
        source.tell(fact(FACT_LIMIT))
        over = source.listeners()
        source.tell(fact(FACT_LIMIT + 1), ReadyRead())
        held = []
        with pytest.raises(SocketError, match="1000") as caught:
            async for event in slow:
                held.append(event)
        after = await rest(slow)
        source.end()

        assert (FACT_LIMIT, still, over) == (1000, 2, 1)
        assert held == [fact(number) for number in range(FACT_LIMIT)]
        assert caught.value.kind is ErrorKind.LIMIT_EXCEEDED
        assert after == []
        assert await rest(quick) == [fact(FACT_LIMIT), fact(FACT_LIMIT + 1), ReadyRead()]


async def test_what_a_subscription_holds_when_it_ends_is_whole() -> None:
    """The thousand facts in their order, the nudges at their places, then the error."""
    source = Source()
    facts = [fact(number) for number in range(FACT_LIMIT)]
    async with source.events() as events:
        source.tell(ReadyRead(), BytesWritten(1), NewConnection(), AcceptError(ErrorKind.UNKNOWN, ""))
        source.tell(*facts)
        source.tell(ReadyRead(), BytesWritten(1), Connected())
        held = await rest(events)

    assert held == [
        ReadyRead(),
        BytesWritten(2),
        NewConnection(),
        AcceptError(ErrorKind.UNKNOWN, ""),
        *facts,
        ErrorKind.LIMIT_EXCEEDED,
    ]


async def test_reading_makes_room_for_facts() -> None:
    """Behind means now: who reads one in time may listen for ever."""
    source = Source()
    async with source.events() as events:
        source.tell(*(fact(number) for number in range(FACT_LIMIT)))
        for number in range(3 * FACT_LIMIT):
            assert await anext(events) == fact(number)
            source.tell(fact(number + FACT_LIMIT))
        source.end()

        assert len(await rest(events)) == FACT_LIMIT


@pytest.mark.parametrize("facts", [1, 999, 1001, 22_000])
async def test_a_subscription_holds_as_many_facts_as_it_asks_for(facts: int) -> None:
    """Exactly: one more ends it, and says how many there were.  It is each subscription's own number."""
    source = Source()
    async with source.events(facts=facts) as events, source.events(ErrorOccurred, facts=2 * facts) as other:
        source.tell(*(fact(number) for number in range(facts)), ReadyRead())
        still = source.listeners()
        source.tell(fact(facts))
        over = source.listeners()
        held = []
        with pytest.raises(SocketError, match=f"fell {facts} events behind") as caught:
            async for event in events:
                held.append(event)
        source.end()

        assert (still, over, caught.value.kind) == (2, 1, ErrorKind.LIMIT_EXCEEDED)
        assert held == [*(fact(number) for number in range(facts)), ReadyRead()]
        assert len(await rest(other)) == facts + 1


@pytest.mark.parametrize(("facts", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("9", TypeError)])
@pytest.mark.parametrize("make", [TcpSocket, TcpServer])
async def test_a_number_of_facts_is_a_positive_int(make: Any, facts: Any, error: type[Exception]) -> None:
    """Refused at the call, before anything is entered."""
    with pytest.raises(error):
        make().events(ReadyRead, facts=facts)


async def test_nudges_never_put_anybody_behind() -> None:
    """A million bytes written one by one are one event."""
    source = Source()
    async with source.events() as events:
        for _ in range(5 * FACT_LIMIT):
            source.tell(ReadyRead(), BytesWritten(1))
        source.end()

        assert await rest(events) == [ReadyRead(), BytesWritten(5 * FACT_LIMIT)]


async def test_facts_that_are_not_wanted_put_nobody_behind() -> None:
    """The bound is on what waits in this subscription."""
    source = Source()
    async with source.events(Disconnected) as events:
        source.tell(*(fact(number) for number in range(2 * FACT_LIMIT)), Disconnected())
        source.end()

        assert await rest(events) == [Disconnected()]


async def test_a_subscription_that_fell_behind_leaves_its_socket_alone(network: Network, nursery: trio.Nursery) -> None:
    """The socket works on, with bytes in both directions; and so does who listens to it as well."""
    sock, peer = await network.connected(nursery)
    with peer:
        async with sock.events(StateChanged) as slow, sock.events(Disconnected) as other:
            with await network.raw_listener() as listener:
                for _ in range(FACT_LIMIT // 5 + 1):  # each round: five changes of state
                    await sock.disconnect_from_host()
                    await sock.connect_to_host(network.host, listener.port)
                    with await listener.accept() as theirs:
                        await sock.send_all(b"ping")
                        got = await theirs.receive(4)
                        await theirs.send(b"pong")
                        answer = await sock.receive_exactly(4)
                    assert await anext(other) == Disconnected()
                    assert (got, answer) == (b"ping", b"pong")
            held = await rest(slow)
            await sock.aclose()

            assert len(held) == FACT_LIMIT + 1
            assert held[-1] is ErrorKind.LIMIT_EXCEEDED
            assert await rest(other) == [Disconnected()]
        assert sock.error() is None


# ---- How soon it answers -------------------------------------------------------------------------


async def test_what_waits_is_handed_out_at_once(mock_clock: trio.testing.MockClock) -> None:
    """A thousand events take sixteen turns of the scheduler and not a thousand; others get theirs at every 64th."""
    source = Source()
    turns = []
    async with source.events() as events:
        source.tell(*(fact(number) for number in range(FACT_LIMIT)))
        with counted_steps() as steps:
            for number in range(FACT_LIMIT):
                assert await anext(events) == fact(number)
                turns.append(steps[0])

    assert [turns.count(turn) for turn in range(1, turns[-1] + 1)] == [64] * 15 + [40]


async def test_who_is_slow_between_events_gives_others_their_turn(mock_clock: trio.testing.MockClock) -> None:
    """After a millisecond it does not matter how few they were."""
    source = Source()
    turns = []
    async with source.events() as events:
        source.tell(*(fact(number) for number in range(6)))
        await anext(events)
        with counted_steps() as steps:
            for slowness in (0, 0.0009, 0.0002, 0, 1):
                mock_clock.jump(slowness)
                await anext(events)
                turns.append(steps[0])

    assert turns == [0, 0, 1, 1, 2]


async def test_every_step_looks_for_cancellation() -> None:
    """Also those that do not let others run; what waits stays."""
    source = Source()
    async with source.events() as events:
        source.tell(*(fact(number) for number in range(100)))
        await anext(events)
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(events)
        source.end()

        assert scope.cancelled_caught
        assert await rest(events) == [fact(number) for number in range(1, 100)]


# ---- When it begins and ends ---------------------------------------------------------------------


async def test_a_subscription_hears_what_happens_after_it_was_entered() -> None:
    """Neither what was before, nor what came between the call and the entry."""
    source = Source()
    source.tell(Connected())
    subscribing = source.events()
    source.tell(HostFound())
    async with subscribing as events:
        source.tell(Disconnected())
        source.end()

        assert await rest(events) == [Disconnected()]


async def test_a_cancelled_entry_has_not_subscribed() -> None:
    """So nothing fills up unread."""
    source = Source()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with source.events():
            raise AssertionError("never entered")

    assert scope.cancelled_caught
    assert source.listeners() == 0


async def test_a_cancelled_step_loses_nothing_and_the_iterator_goes_on() -> None:
    """Law 6, whether an event waits already or comes in the same step as the cancellation."""
    source = Source()
    async with source.events() as events:
        source.tell(Connected(), BytesWritten(1))
        for _ in range(3):
            with trio.CancelScope() as scope:
                scope.cancel()
                await anext(events)
            assert scope.cancelled_caught
        first = await anext(events)

        got: list[Event] = []

        async def step() -> None:
            got.append(await anext(events))

        for told_first in (True, False):
            assert await anext(events) == BytesWritten(1)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(step)
                    await trio.testing.wait_all_tasks_blocked()
                    if told_first:
                        source.tell(BytesWritten(2))
                        scope.cancel()
                    else:
                        scope.cancel()
                        source.tell(BytesWritten(2))
            if not got:
                got.append(await anext(events))
            assert got == [BytesWritten(2)]
            got.clear()
            source.tell(BytesWritten(1))
        source.end()

        assert first == Connected()
        assert await rest(events) == [BytesWritten(1)]


async def test_the_iteration_ends_with_the_sockets_block_not_at_disconnected(network: Network) -> None:
    """The socket may connect again, and the same listener hears of that too."""
    with await network.raw_listener() as listener:
        sock = TcpSocket()
        async with sock.events() as events:
            async with sock:
                for _ in range(2):
                    await sock.connect_to_host(network.host, listener.port)
                    peer = await listener.accept()
                    await peer.ready()
                    peer.close()
                    await sock.disconnect_from_host()
            seen = of_tcp(await rest(events))

    once = [
        StateChanged(SocketState.HOST_LOOKUP),
        StateChanged(SocketState.CONNECTING),
        HostFound(),
        StateChanged(SocketState.CONNECTED),
        Connected(),
        StateChanged(SocketState.CLOSING),
        StateChanged(SocketState.UNCONNECTED),
        ReadChannelFinished(),
        Disconnected(),
    ]
    # Whether the peer's end was seen before ours is the kernel's affair; it moves that one event, and adds none.
    assert [event for event in seen if event != ReadChannelFinished()] == [
        event for event in once * 2 if event != ReadChannelFinished()
    ]
    assert seen.count(ReadChannelFinished()) == 2


@pytest.mark.parametrize("make", [TcpSocket, TcpServer])
async def test_subscribing_before_the_block_and_after_it(make: Any) -> None:
    """Before: one misses nothing.  After: the iteration ends at once, and nobody waits."""
    source = make()
    async with source.events() as before:
        async with source:
            pass
        async with source.events() as after:
            seen = (await rest(before), await rest(after))

    assert seen == ([], [])


async def test_the_iteration_ends_when_its_own_block_is_left() -> None:
    """What was posted before can still be read; after that, the end."""
    source = Source()
    async with source.events() as events:
        source.tell(Connected())
    source.tell(Disconnected())

    assert source.listeners() == 0
    assert await rest(events) == [Connected()]
    assert await rest(events) == []


async def test_a_waiting_listener_is_woken_by_the_end() -> None:
    """By the socket's, by its own, and by falling behind: it never waits for what cannot come."""
    outcomes: list[list[Event | ErrorKind]] = []

    async def listen(events: AsyncIterator[Event]) -> None:
        outcomes.append(await rest(events))

    for how in ("source", "subscription", "behind"):
        source = Source()
        async with trio.open_nursery() as nursery:
            async with source.events(ErrorOccurred) as events:
                nursery.start_soon(listen, events)
                await trio.testing.wait_all_tasks_blocked()
                if how == "source":
                    source.end()
                elif how == "behind":
                    source.tell(*(fact(number) for number in range(FACT_LIMIT + 1)))

    facts = [fact(number) for number in range(FACT_LIMIT)]
    assert outcomes == [[], [], [*facts, ErrorKind.LIMIT_EXCEEDED]]


async def test_each_subscription_has_its_own() -> None:
    """Two listeners hear the same, each at its pace; that one leaves while events come is nothing to the other."""
    source = Source()
    async with source.events() as first:
        async with source.events() as second:
            source.tell(Connected(), BytesWritten(1))
            early = [await anext(second), await anext(second)]
            source.tell(BytesWritten(2))
        source.tell(Disconnected())
        source.end()

        assert early == [Connected(), BytesWritten(1)]
        assert await rest(second) == [BytesWritten(2)]
        assert await rest(first) == [Connected(), BytesWritten(3), Disconnected()]


async def test_listeners_may_leave_and_come_while_events_are_posted(network: Network, nursery: trio.Nursery) -> None:
    """Over a real connection: ten listeners come and go at each chunk, one stays and hears of everything."""
    sock, peer = await network.connected(nursery)
    with peer:
        async with sock.events() as events:
            for number in range(10):
                async with sock.events(ReadyRead) as passing, sock.events() as other:
                    await peer.send(b"x" * 100)
                    assert await anext(passing) == ReadyRead()
                    assert await anext(other) == ReadyRead()
                    assert await anext(events) == ReadyRead()
                    while sock.bytes_available() < 100 * (number + 1):
                        await trio.lowlevel.checkpoint()
            sock.read_all()
            await sock.aclose()
            left = await rest(events)

    assert [event for event in left if event != ReadyRead()] == [
        StateChanged(SocketState.CLOSING),
        StateChanged(SocketState.UNCONNECTED),
        ReadChannelFinished(),
        Disconnected(),
    ]


async def test_a_subscription_can_be_entered_again_and_is_a_new_one() -> None:
    """One ``events()`` kept and used twice.

    The second entry used to put an ended channel among the listeners: the next event then raised ClosedResourceError
    inside the socket.
    """
    source = Source()
    subscribing = source.events()
    async with subscribing as first:
        with pytest.raises(RuntimeError):
            await subscribing.__aenter__()
        source.tell(Connected())
    async with subscribing as second:
        source.tell(Disconnected())
        source.end()

        assert (await rest(first), await rest(second)) == ([Connected()], [Disconnected()])
    assert source.listeners() == 0


async def test_an_interrupt_cannot_part_a_nudge_from_its_place() -> None:
    """Ctrl-C between taking the place and taking the nudge would silence that nudge for good."""
    protected: list[bool] = []

    class Watched(dict[Any, Any]):
        def pop(self, *args: Any) -> Any:
            protected.append(trio.lowlevel.currently_ki_protected())
            return super().pop(*args)

    source = Source()
    async with source.events() as events:
        events._nudges = Watched()  # type: ignore[attr-defined]
        source.tell(ReadyRead())

        assert await anext(events) == ReadyRead()
    assert protected == [True]


# ---- What a server tells -------------------------------------------------------------------------


async def test_a_server_tells_of_its_connections(network: Network, nursery: trio.Nursery) -> None:
    """NewConnection when one comes, ConnectionFinished when its handler has ended; kinds narrow it as for a socket."""

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_some()

    server = TcpServer()
    async with server.events() as every, server.events(ConnectionFinished) as finished:
        async with server.events(StateChanged, AcceptError) as nothing:
            async with server:
                await server.listen(network.host)
                await nursery.start(server.serve, handler)
                ports = []
                for _ in range(2):
                    with await network.raw_connect(server.server_port()) as client:
                        ports.append(client.sock.getsockname()[1])
                        assert await anext(every) == NewConnection()
                        await client.ready()
                        client.finish()
                        assert await client.receive_to_end() == b""
                    ended = await anext(every)
                    assert isinstance(ended, ConnectionFinished)
                    assert (ended.peer_port, ended.error) == (ports[-1], None)
            seen = [event async for event in finished]

            assert await rest(nothing) == []
    assert [event.peer_port for event in seen] == ports
    assert [str(event.peer) for event in seen] == [network.host] * 2


async def echo(sock: TcpSocket) -> None:
    """A handler that takes its time until the client leaves."""
    async for chunk in sock:
        await sock.send_all(chunk)


async def hang_up_at_once(network: Network, count: int) -> list[Event | ErrorKind]:
    """What a monitor hears that only reads, when so many clients of a server leave in one step."""
    heard: list[Event | ErrorKind] = []
    async with TcpServer() as server, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            async with server.events(ConnectionFinished) as endings:
                heard.extend(await rest(endings))

        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        clients = [await network.raw_connect(server.server_port()) for _ in range(count)]
        while server.connection_count() < count:
            await trio.lowlevel.checkpoint()
        for client in clients:
            client.close()
        while server.connection_count():
            await trio.lowlevel.checkpoint()
        await server.aclose()
        await trio.testing.wait_all_tasks_blocked()
        server._end_events()
    return heard


# The large one takes five seconds.
@pytest.mark.parametrize("count", [FACT_LIMIT + 100, *([11_000] if "TRIOQT_SOAK" in os.environ else [])])
async def test_a_monitor_that_only_reads_does_not_fall_behind(count: int) -> None:
    """All connections that a server has may end in one step, before the monitor has its turn.

    It used to end after 1,000, and its SocketError took the program down.
    """
    async with VirtualNetwork() as net:
        heard = await hang_up_at_once(Virtual(net), count)

    assert [type(event) for event in heard] == [ConnectionFinished] * count


async def test_a_monitor_that_asks_for_fewer_facts_gets_fewer(network: Network) -> None:
    """An explicit number is exact, whatever the server has seen."""
    async with TcpServer() as server, server.events(facts=20) as events:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await server.accept()
        for number in range(30):
            server._post(fact(number))
        heard = await rest(events)

    assert heard == [NewConnection(), *(fact(number) for number in range(20)), ErrorKind.LIMIT_EXCEEDED]


async def test_a_server_holds_facts_for_twice_its_most_connections(autojump_clock: trio.testing.MockClock) -> None:
    """A bound all the same: exactly so many for who does not read, and 1,000 while there were fewer connections."""
    async with VirtualNetwork() as net:
        network, fact_counts = Virtual(net), []
        for most in (1, FACT_LIMIT // 2 + 50):
            async with TcpServer() as server, server.events(ErrorOccurred) as events:
                await server.listen(network.host)
                server.set_max_pending_connections(most)
                clients = [await network.raw_connect(server.server_port()) for _ in range(most)]
                while server.connection_count() < most:
                    await trio.lowlevel.checkpoint()
                for client in clients:
                    client.close()
                server.close()
                for number in range(3 * FACT_LIMIT):
                    server._post(fact(number))
                heard = await rest(events)
            fact_counts.append(len(heard) - 1)
            assert heard[-1] is ErrorKind.LIMIT_EXCEEDED

    assert fact_counts == [FACT_LIMIT, FACT_LIMIT + 100]
