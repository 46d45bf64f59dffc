"""A spy holds all that was told, at once; ``expect`` fails and says what was expected, what came, and when."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Network
from tests.sources import Source, fact
from trioqt import (
    BytesWritten,
    Connected,
    ConnectionFinished,
    Disconnected,
    Encrypted,
    ErrorKind,
    ErrorOccurred,
    Event,
    HostFound,
    NewConnection,
    ReadChannelFinished,
    ReadyRead,
    SocketState,
    StateChanged,
    TcpServer,
    TcpSocket,
)
from trioqt.core.events import Nudge
from trioqt.testing import Probe, cancel_everywhere
from trioqt.testing.signal_spy import LISTED, SPY_LIMIT, Expected, SignalSpy, expect, like

UNCONNECTED, CONNECTING, CONNECTED = SocketState.UNCONNECTED, SocketState.CONNECTING, SocketState.CONNECTED


# All that can be asked of the record.
LOOKS: tuple[Callable[[SignalSpy[Event]], object], ...] = (
    list,
    len,
    bool,
    lambda spy: list(reversed(spy)),
    SignalSpy.clear,
    lambda spy: spy[0],
    lambda spy: spy[:0],
    lambda spy: fact(0) in spy,
    lambda spy: spy.count(fact(0)),
)


# ---- What a spy holds ----------------------------------------------------------------------------


async def test_what_was_told_is_there_in_the_same_step() -> None:
    """Facts and nudges, all, in order, and no ``await`` between the telling and the looking."""
    source = Source()
    told = [ReadyRead(), Connected(), ReadyRead(), BytesWritten(1), BytesWritten(2), Connected()]
    async with SignalSpy(source) as spy:
        before = list(spy)
        source.tell(*told)

        assert before == []
        assert list(spy) == told
        assert (len(spy), spy[1], spy[-2], spy[2:4]) == (
            6,
            Connected(),
            BytesWritten(2),
            [ReadyRead(), BytesWritten(1)],
        )
        assert (Connected() in spy, Disconnected() in spy) == (True, False)
        assert (spy.count(ReadyRead()), spy.index(BytesWritten(2))) == (2, 4)
        with pytest.raises(IndexError):
            spy[6]


async def test_looking_changes_nothing() -> None:
    """In a subscription, nudges that were not read yet merge; a spy holds the same whenever one looks."""
    source = Source()
    async with SignalSpy(source) as looked_at, SignalSpy(source) as left_alone:
        for count in (1, 2, 3):
            source.tell(BytesWritten(count))
            list(looked_at)

        assert list(looked_at) == list(left_alone) == [BytesWritten(1), BytesWritten(2), BytesWritten(3)]


async def test_a_loop_that_waits_sees_what_had_come_when_it_began() -> None:
    """So a loop in which the socket is used ends."""
    source = Source()
    seen = []
    async with SignalSpy(source) as spy:
        source.tell(fact(0), fact(1))
        for event in spy:
            seen.append(event)
            source.tell(Connected())

        assert seen == [fact(0), fact(1)]
        assert len(spy) == 4


async def test_kinds_narrow_what_is_recorded() -> None:
    """One, several, a base class; none is everything."""
    source = Source()
    told = [Connected(), ReadyRead(), StateChanged(CONNECTED), BytesWritten(1)]
    async with (
        SignalSpy(source, StateChanged) as one,
        SignalSpy(source, Connected, BytesWritten) as two,
        SignalSpy(source, Nudge) as nudges,
        SignalSpy(source) as everything,
    ):
        source.tell(*told)

    assert [event.state for event in one] == [CONNECTED]
    assert list(two) == [Connected(), BytesWritten(1)]
    assert list(nudges) == [ReadyRead(), BytesWritten(1)]
    assert list(everything) == told


async def test_it_records_its_block_and_can_be_read_after_it() -> None:
    """Neither what came before nor what comes after; and nobody listens any more."""
    source = Source()
    source.tell(HostFound())
    spy = SignalSpy(source)
    source.tell(HostFound())
    async with spy:
        source.tell(Connected())
    source.tell(Disconnected())

    assert list(spy) == [Connected()]
    assert source.listeners() == 0


async def test_clear_forgets_what_was_and_records_on() -> None:
    """For the next act of a test."""
    source = Source()
    async with SignalSpy(source) as spy:
        source.tell(Connected(), ReadyRead())
        first = await spy.wait_for(ReadyRead)
        spy.clear()
        cleared = list(spy)
        source.tell(Disconnected())

        assert (first, cleared) == (ReadyRead(), [])
        assert await spy.wait_for(Disconnected) == Disconnected()
        assert list(spy) == [Disconnected()]


async def test_a_spy_used_again_starts_anew() -> None:
    """One object for two blocks: two records, and a wait that begins at the second one's start."""
    source = Source()
    spy = SignalSpy(source)
    async with spy:
        source.tell(Connected())
        await spy.wait_for(Connected)
    first = list(spy)
    async with spy:
        second = list(spy)
        source.tell(Connected(), Disconnected())
        again = await spy.wait_for(Connected)

    assert (first, second, again) == ([Connected()], [], Connected())
    assert list(spy) == [Connected(), Disconnected()]


async def test_a_spy_that_is_entered_cannot_be_entered_again() -> None:
    """One record could not belong to two blocks; and the first goes on."""
    source = Source()
    async with SignalSpy(source) as spy:
        with pytest.raises(RuntimeError, match="entered already"):
            async with spy:
                raise AssertionError("never entered")
        source.tell(Connected())

        assert list(spy) == [Connected()]
    assert source.listeners() == 0


async def test_a_spy_that_was_not_entered_says_so() -> None:
    """An empty record would be a lie: ``assert list(spy) == []`` must not pass because the block was forgotten."""
    spy = SignalSpy(Source())
    for look in LOOKS:
        with pytest.raises(RuntimeError, match="not been entered"):
            look(spy)
    with pytest.raises(RuntimeError, match="not been entered"):
        await spy.wait_for(Connected)

    assert str(spy) == repr(spy) == "<SignalSpy of Source: not entered>"


def test_wrong_arguments_are_refused_at_the_call() -> None:
    """Before anything is entered."""
    source = Source()
    wrong: Any
    for wrong in (ReadyRead(), "ReadyRead", None, int):
        with pytest.raises(TypeError, match="not an event class"):
            SignalSpy(source, Connected, wrong)
        with pytest.raises(TypeError, match="not an event class"):
            like(wrong, lambda event: True)
    for wrong in ("Connected", None, int, SocketState.CONNECTED, (Connected, bool), lambda event: True):
        with pytest.raises(TypeError, match="not an event, an event class or like"):
            expect(source, Connected, wrong)
    for wrong in (None, source.events(), TcpSocket):
        with pytest.raises(TypeError, match="not a socket or server"):
            SignalSpy(wrong)
        with pytest.raises(TypeError, match="not a socket or server"):
            expect(wrong, Connected)
    wrong = True
    with pytest.raises(TypeError, match="predicate"):
        like(Connected, wrong)
    with pytest.raises(ValueError, match="limit"):
        SignalSpy(source, limit=0)
    with pytest.raises(ValueError, match="at least one event"):
        expect(source)
    for seconds in (-1, math.nan):
        with pytest.raises(ValueError, match="within"):
            expect(source, Connected, within=seconds)


async def test_a_cancelled_entry_records_nothing() -> None:
    """And an earlier record stays."""
    source = Source()
    spy = SignalSpy(source)
    async with spy:
        source.tell(Connected())
    with trio.CancelScope() as scope:
        scope.cancel()
        async with spy:
            raise AssertionError("never entered")

    assert scope.cancelled_caught
    assert source.listeners() == 0
    assert list(spy) == [Connected()]


async def test_it_prints_what_came_and_when(autojump_clock: trio.testing.MockClock) -> None:
    """Seconds since it was entered; where the last wait_for() came to."""
    source = Source()
    await trio.sleep(100)
    async with SignalSpy(source) as spy:
        empty = str(spy)
        await source.tell_later((0.5, Connected()), (1, BytesWritten(3)))
        await spy.wait_for(Connected)

    assert empty == "<SignalSpy of Source: 0 events>, seconds since it was entered:\n  nothing"
    assert str(spy).splitlines() == [
        "<SignalSpy of Source: 2 events>, seconds since it was entered:",
        "      0.500  Connected()   <- an earlier wait_for() came to here",
        "      1.500  BytesWritten(count=3)",
    ]


# ---- The bound -----------------------------------------------------------------------------------


async def test_a_spy_that_is_full_says_so_whatever_is_asked_of_it() -> None:
    """Exactly the limit is held; one more, and no assertion on the record can pass by mistake."""
    source = Source()
    async with SignalSpy(source, limit=3) as spy, SignalSpy(source) as other:
        source.tell(fact(0), fact(1), fact(2))
        held = list(spy)
        listening = source.listeners()
        source.tell(fact(3), fact(4))

        assert (held, listening) == ([fact(0), fact(1), fact(2)], 2)
        assert source.listeners() == 1  # it has ceased to listen
        for look in LOOKS:
            with pytest.raises(AssertionError, match="full: more came than the 3 events it holds"):
                look(spy)
        assert await spy.wait_for(fact(2)) == fact(2)
        with pytest.raises(AssertionError, match="full: more came than the 3"):
            await spy.wait_for(fact(3))
        assert repr(spy) == "<SignalSpy of Source: 3 events>"
        assert len(str(spy).splitlines()) == 5
        assert len(other) == 5


async def test_a_spy_that_becomes_full_wakes_who_waits() -> None:
    """What was waited for may have been the event that found no room."""
    source = Source()
    async with SignalSpy(source, limit=1) as spy, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(AssertionError, match="the spy is full"):
                await spy.wait_for(Disconnected)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        source.tell(Connected(), Disconnected())


async def test_ten_thousand_events_are_held_unless_told_otherwise() -> None:
    """And a failure message shows the last of them."""
    source = Source()
    async with SignalSpy(source) as spy:
        source.tell(*(fact(number) for number in range(SPY_LIMIT)))
        text = str(spy).splitlines()

        assert len(spy) == 10_000
        assert len(text) == 2 + LISTED
        assert text[1] == "  ... 9960 before"
        assert text[-1].endswith("message='9999')")


# ---- Waiting with a spy --------------------------------------------------------------------------


async def test_wait_for_gives_what_has_come_already_or_waits(autojump_clock: trio.testing.MockClock) -> None:
    """A class, an event, a predicate; each call goes on where the one before it came to."""
    source = Source()
    async with SignalSpy(source) as spy, trio.open_nursery() as nursery:
        source.tell(StateChanged(CONNECTING), StateChanged(CONNECTED), Connected())
        nursery.start_soon(source.tell_later, (2, BytesWritten(5)), (1, BytesWritten(50)), (1, Disconnected()))
        got: list[Event] = [await spy.wait_for(StateChanged), await spy.wait_for(Connected())]
        at_once = trio.current_time()
        big = like(BytesWritten, lambda event: event.count > 10)
        got.append(await spy.wait_for(big))
        later = trio.current_time()
        got.append(await spy.wait_for(Event))

        assert got == [StateChanged(CONNECTING), Connected(), BytesWritten(50), Disconnected()]
        assert (at_once, later, trio.current_time()) == (0, 3, 4)


async def test_no_event_answers_two_waits(autojump_clock: trio.testing.MockClock) -> None:
    """After a reconnection ``wait_for(Connected)`` must not be content with the first connection."""
    source = Source()
    async with SignalSpy(source) as spy:
        source.tell(Connected(), Disconnected())
        await spy.wait_for(Disconnected)
        with trio.move_on_after(1) as scope:
            await spy.wait_for(Connected)
        too_early = scope.cancelled_caught
        source.tell(Connected())

        assert too_early
        assert await spy.wait_for(Connected) == Connected()
        assert list(spy) == [Connected(), Disconnected(), Connected()]


async def test_a_wait_that_was_cancelled_has_passed_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Whether the event is there already, or comes in the step of the cancellation."""
    source = Source()
    async with SignalSpy(source) as spy:
        source.tell(Connected())
        with trio.CancelScope() as scope:
            scope.cancel()
            await spy.wait_for(Connected)
        assert scope.cancelled_caught
        assert await spy.wait_for(Connected) == Connected()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(spy.wait_for, Disconnected)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            source.tell(Disconnected())
        assert await spy.wait_for(Disconnected) == Disconnected()


@pytest.mark.parametrize("how", ["source", "spy", "source before the wait"])
async def test_what_cannot_come_any_more_is_not_waited_for(how: str) -> None:
    """The error lists what came."""
    source = Source()
    text = ""

    async def wait() -> None:
        nonlocal text
        with pytest.raises(AssertionError) as caught:
            await spy.wait_for(like(Disconnected, bool))
        text = str(caught.value)

    async with trio.open_nursery() as nursery:
        async with SignalSpy(source) as spy:
            source.tell(Connected())
            await spy.wait_for(Connected)
            source.tell(ReadyRead())
            if how == "source before the wait":
                source.end()
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            if how == "source":
                source.end()

    first, second, *listed = text.splitlines()
    assert first.startswith("like(Disconnected, bool) did not come, and no more will come: ")
    assert second == "told by the Source, seconds since the spy was entered:"
    assert [line.split()[1] for line in listed] == ["Connected()", "ReadyRead()"]
    assert "<- an earlier wait_for()" in listed[0]


async def test_the_last_event_is_found_though_the_source_ended_with_it() -> None:
    """Told and over in one step: the waiter wakes to both."""
    source = Source()
    async with SignalSpy(source) as spy, trio.open_nursery() as nursery:

        async def wait() -> None:
            assert await spy.wait_for(Disconnected) == Disconnected()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        source.tell(Disconnected())
        source.end()


async def test_a_source_that_was_over_before_tells_nothing() -> None:
    """As for ``events()``: nobody waits."""
    source = Source()
    source.end()
    async with SignalSpy(source) as spy:
        with pytest.raises(AssertionError, match="did not come"):
            await spy.wait_for(Connected)

        assert list(spy) == []


async def test_one_task_waits_with_a_spy() -> None:
    """Two would take events from each other; clear() would take what is waited for."""
    source = Source()
    async with SignalSpy(source) as spy, trio.open_nursery() as nursery:
        nursery.start_soon(spy.wait_for, Connected)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await spy.wait_for(Disconnected)
        with pytest.raises(trio.BusyResourceError):
            spy.clear()
        source.tell(Disconnected(), Connected())

    assert list(spy) == [Disconnected(), Connected()]


async def test_what_a_spy_does_not_record_is_not_waited_for() -> None:
    """A mistake in the test, told at once; base classes and subclasses of what it records are none."""
    source = Source()
    async with SignalSpy(source, StateChanged, Nudge) as spy:
        for never in (Connected, Connected(), like(Connected, bool)):
            with pytest.raises(ValueError, match="Connected never comes: this spy records StateChanged and Nudge"):
                await spy.wait_for(never)
        wrong: Any = "Connected"
        with pytest.raises(TypeError, match="not an event"):
            await spy.wait_for(wrong)
        source.tell(StateChanged(CONNECTED), ReadyRead())

        assert await spy.wait_for(Event) == StateChanged(CONNECTED)
        assert await spy.wait_for(ReadyRead) == ReadyRead()


async def test_what_a_predicate_raises_comes_out_of_the_wait_not_in_the_socket() -> None:
    """The one who tells goes on, and the next wait begins where this one did."""
    source = Source()

    def broken(event: ReadyRead) -> bool:
        raise ZeroDivisionError

    async with SignalSpy(source) as spy:
        source.tell(ReadyRead())
        with pytest.raises(ZeroDivisionError):
            await spy.wait_for(like(ReadyRead, broken))

        assert await spy.wait_for(ReadyRead) == ReadyRead()


# ---- expect --------------------------------------------------------------------------------------


async def test_what_comes_in_the_block_is_as_expected(autojump_clock: trio.testing.MockClock) -> None:
    """Classes, events, predicates, in their order, others in between; the block may take as long as it likes."""
    source = Source()
    expected: list[Expected] = [
        StateChanged,
        StateChanged(CONNECTED),
        like(BytesWritten, lambda event: event.count == 7),
    ]
    async with expect(source, *expected, within=0) as spy:
        source.tell(ReadyRead(), StateChanged(CONNECTING))
        await trio.sleep(1000)
        source.tell(Connected(), StateChanged(CONNECTED), BytesWritten(6), BytesWritten(7))

    assert trio.current_time() == 1000
    assert [type(event).__name__ for event in spy] == [
        "ReadyRead",
        "StateChanged",
        "Connected",
        "StateChanged",
        "BytesWritten",
        "BytesWritten",
    ]
    assert source.listeners() == 0


async def test_what_is_missing_at_the_end_of_the_block_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """Up to ``within`` seconds after the block, that instant included; and no longer than needed."""
    source = Source()
    async with trio.open_nursery() as nursery:
        async with expect(source, Connected, Disconnected):
            nursery.start_soon(source.tell_later, (1, Connected()), (1, Disconnected()), (1, ReadyRead()))
            await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == 2
        await trio.sleep(1)

        async with expect(source, Connected, within=math.inf):
            nursery.start_soon(source.tell_later, (1000, Connected()))
        assert trio.current_time() == 1003


async def test_an_event_of_the_instant_in_which_time_is_up_is_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """However many tasks must run in it before the event is told; a millisecond later is late."""
    source = Source()
    async with trio.open_nursery() as nursery:
        async with expect(source, Connected, Disconnected, within=2):
            nursery.start_soon(source.tell_later, (2, Connected()), (0, HostFound()), (0, Disconnected()))
    assert trio.current_time() == 2

    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match="Connected: MISSING"):
            async with expect(source, Connected, within=2):
                nursery.start_soon(source.tell_later, (2.001, Connected()))


async def test_without_waiting_no_clock_needs_to_move(mock_clock: trio.testing.MockClock) -> None:
    """``within=0`` fails at once, on a clock that stands still too."""
    source = Source()
    with pytest.raises(AssertionError, match="0 s after the block it has not all come"):
        async with expect(source, Connected, within=0):
            pass


async def test_each_event_counts_for_one_item() -> None:
    """Two equal items need two events."""
    source = Source()
    for ordered in (True, False):
        async with expect(source, ReadyRead, ReadyRead, within=0, ordered=ordered):
            source.tell(ReadyRead(), Connected(), ReadyRead())
        with pytest.raises(AssertionError, match="ReadyRead: MISSING\n"):
            async with expect(source, ReadyRead, ReadyRead, within=0, ordered=ordered):
                source.tell(ReadyRead())


async def test_in_any_order_an_event_is_counted_where_it_is_needed() -> None:
    """CONNECTED, which comes first, is kept for the item that only it can be."""
    source = Source()
    small = like(BytesWritten, lambda event: event.count < 10)
    items: list[Expected] = [StateChanged, StateChanged(CONNECTED), BytesWritten, small, BytesWritten(1)]
    async with expect(source, *items, ordered=False, within=0):
        source.tell(BytesWritten(1), StateChanged(CONNECTED), BytesWritten(2), StateChanged(CONNECTING))
        source.tell(BytesWritten(1000))
    with pytest.raises(AssertionError, match=r"  StateChanged\(state=.*\): MISSING\n"):
        async with expect(source, *items, ordered=False, within=0):
            source.tell(StateChanged(CONNECTING), BytesWritten(1), StateChanged(UNCONNECTED), BytesWritten(2))


async def test_the_failure_says_what_was_expected_what_came_when_and_what_is_missing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Enough to see the mistake without running it again."""
    source = Source()
    is_refused = like(ErrorOccurred, lambda event: event.kind is ErrorKind.CONNECTION_REFUSED)
    await trio.sleep(10)
    with pytest.raises(AssertionError) as caught:
        async with expect(source, Connected, is_refused, Disconnected, Encrypted(), within=2):
            await source.tell_later((0.25, Connected()), (0.25, Disconnected()), (1, fact(1)))

    assert round(trio.current_time(), 3) == 13.5
    line = is_refused.predicate.__code__.co_firstlineno
    assert str(caught.value).splitlines() == [
        "expected of the Source, in this order; 2 s after the block it has not all come",
        "  Connected: came at 0.250",
        f"  like(ErrorOccurred, <lambda> at test_signal_spy.py:{line}): MISSING",
        "  Disconnected: MISSING (came too early, at 0.500)",
        "  Encrypted(): MISSING",
        "told, seconds since the block was entered:",
        "      0.250  Connected()",
        "      0.500  Disconnected()",
        "      1.500  ErrorOccurred(kind=<ErrorKind.UNKNOWN: -1>, message='1')",
    ]
    assert source.listeners() == 0


async def test_what_cannot_come_any_more_fails_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """The source is over, or the spy is full: no virtual second is spent."""
    source = Source()
    with pytest.raises(AssertionError, match="in any order; the spy is full"):
        async with expect(source, Connected, ordered=False):
            source.tell(*(fact(number) for number in range(SPY_LIMIT + 1)))
    with pytest.raises(AssertionError, match="no more will come"):
        async with expect(source, Connected):
            source.tell(ReadyRead())
            source.end()

    assert trio.current_time() == 0


async def test_what_the_block_raises_goes_through_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    """That something is missing is then no news; nothing is waited for, and nobody listens on."""
    source = Source()
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        async with expect(source, Connected):
            raise error

    assert caught.value is error
    assert (error.__context__, source.listeners(), trio.current_time()) == (None, 0, 0)


async def test_a_cancelled_block_and_a_cancelled_wait_assert_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """The caller's time limit is the caller's, before, in and after the block."""
    source = Source()
    for seconds, pause in ((0, 0), (1, 9), (2, 0)):
        with trio.move_on_after(seconds) as scope:
            async with expect(source, Connected, within=100):
                await trio.sleep(pause)
        assert scope.cancelled_caught
        assert source.listeners() == 0

    assert trio.current_time() == 3


async def test_expect_can_be_kept_and_used_again() -> None:
    """Each block for itself; but not one inside the other."""
    source = Source()
    connects = expect(source, Connected, within=0)
    async with connects:
        source.tell(Connected())
    with pytest.raises(AssertionError, match="Connected: MISSING"):
        async with connects:
            pass
    async with connects:
        source.tell(Connected())
        with pytest.raises(RuntimeError, match="entered already"):
            async with connects:
                raise AssertionError("never entered")

    assert source.listeners() == 0


async def test_the_spy_of_expect_can_be_used_in_the_block() -> None:
    """What it has waited for counts; what it was told to forget does not."""
    source = Source()
    async with expect(source, Connected, within=0) as spy:
        source.tell(Connected())
        assert await spy.wait_for(Connected) == Connected()
    with pytest.raises(AssertionError, match="Connected: MISSING"):
        async with expect(source, Connected, within=0) as spy:
            source.tell(Connected())
            spy.clear()


# ---- Of sockets and servers ----------------------------------------------------------------------


async def test_the_whole_life_of_a_socket(network: Network) -> None:
    """The spy is entered before the socket, so it sees its end as well."""
    with await network.raw_listener() as listener:
        sock = TcpSocket()
        async with SignalSpy(sock, StateChanged) as spy, sock:
            await sock.connect_to_host(network.host, listener.port)
            with await listener.accept():
                pass

    assert [event.state.name for event in spy] == ["HOST_LOOKUP", "CONNECTING", "CONNECTED", "CLOSING", "UNCONNECTED"]


async def test_an_abort_is_seen_before_anybody_else_runs() -> None:
    """A sync call, a sync look."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(ours) as sock, theirs:
        async with SignalSpy(sock) as spy:
            sock.abort()

            assert list(spy) == [StateChanged(UNCONNECTED), ReadChannelFinished(), Disconnected()]


async def test_a_socket_answers_what_is_expected_of_it(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody reads: the spy alone makes the socket see the answer and the end, a virtual second later."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def answer() -> None:
        assert await theirs.receive_some(5) == b"hello"
        await trio.sleep(1)
        await theirs.send_all(b"welcome")
        await theirs.aclose()

    async with TcpSocket.from_stream(ours) as sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            async with expect(sock, BytesWritten(5), ReadyRead, ReadChannelFinished, within=1):
                sock.write(b"hello")

        assert trio.current_time() == 1
        assert sock.read_all() == b"welcome"


async def test_a_server_is_spied_on_too(network: Network, nursery: trio.Nursery) -> None:
    """NewConnection, and how the handler ended."""

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_some()

    async with TcpServer() as server:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        ended_well = like(ConnectionFinished, lambda event: event.error is None)
        async with expect(server, NewConnection, ended_well) as spy:
            (await network.raw_connect(server.server_port())).close()

        assert [type(event) for event in spy] == [NewConnection, ConnectionFinished]


# ---- Cancelled everywhere ------------------------------------------------------------------------


def test_no_place_of_wait_for_passes_an_event() -> None:
    """Cancelled anywhere and called again, the calls give every event once."""
    told = [(0.0, fact(0)), (0.0, fact(1)), (1.0, fact(2)), (1.0, fact(3))]

    async def waits(probe: Probe) -> None:
        source = Source()
        got: list[Event] = []
        async with SignalSpy(source, ErrorOccurred) as spy, trio.open_nursery() as nursery:
            nursery.start_soon(source.tell_later, *told)
            while len(got) < len(told):
                event = await probe.subject(spy.wait_for, ErrorOccurred)
                if event is not None:
                    got.append(event)
        probe.expect(got == [event for _, event in told], f"every event once, not {got}")
        probe.expect(source.listeners() == 0, "nobody listens any more")

    report = cancel_everywhere(waits)

    report.raise_if_failed()
    assert report.complete
    assert report.places > 0


def test_expect_cancelled_anywhere_listens_no_more_and_asserts_nothing() -> None:
    """At the entry, in the block, in the wait after it."""

    async def expects(probe: Probe) -> None:
        source = Source()

        async def subject() -> str:
            async with expect(source, Connected, Disconnected, within=3):
                await trio.sleep(1)
            return "all came"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.tell_later, (0.5, Connected()), (1.5, Disconnected()))
            outcome = await probe.subject(subject)
        probe.expect(outcome == (None if probe.cancelled else "all came"), f"all came or cancelled, not {outcome}")
        probe.expect(source.listeners() == 0, "nobody listens any more")

    report = cancel_everywhere(expects)

    report.raise_if_failed()
    assert report.complete
    assert report.places > 0
