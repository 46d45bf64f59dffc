"""A step of ``events()`` that was cancelled has lost no event; who waits for a state changes nothing by leaving."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import trio

from tests.cancel.kit import MEDIA, Case, Peer, Play, Seen, Situation, Trial, read_to_end, turn
from trioqt import BytesWritten, Event, SocketState, StateChanged, TcpSocket
from trioqt.core.events import Nudge
from trioqt.core.states import Told

__all__ = ["CASES", "facts_told"]


def facts_told(events: Sequence[Event]) -> list[Told]:
    """Subscribed events as the table has them; nudges are left out, which merge as they like."""
    facts = [event for event in events if not isinstance(event, Nudge)]
    return [event.state if isinstance(event, StateChanged) else type(event) for event in facts]


def told_by(sock: TcpSocket) -> list[Told]:
    """What the socket has told so far, whoever listened."""
    told: list[Told] = sock.told  # type: ignore[attr-defined]
    return told


async def all_steps(trial: Trial, subscription: AsyncIterator[Event]) -> list[Event]:
    """Every event up to the end, each in a call of its own."""
    events: list[Event] = []
    while True:
        try:
            event = await trial.call(subscription.__anext__)
        except StopAsyncIteration:
            return events
        if event is not None:
            events.append(event)


# ---- what a socket goes through while somebody listens -----------------------------------------------------------

Life = Callable[[TcpSocket, Peer], Awaitable[None]]


async def is_over_at_once(sock: TcpSocket, peer: Peer) -> None:
    sock.write(b"hello")
    await peer.send(b"hello")
    sock.read(1)
    sock.abort()
    peer.close()


async def talks(sock: TcpSocket, peer: Peer) -> None:
    for _ in range(3):
        await turn()
        await sock.send_all(b"hello")
        await turn()
        await peer.send(b"hello")
        await sock.receive_exactly(5)
    await sock.disconnect_from_host()
    peer.close()


async def peer_finishes(sock: TcpSocket, peer: Peer) -> None:
    await turn()
    await peer.send(b"bye")
    peer.finish()
    await turn()
    await sock.send_all(b"hello")
    await sock.disconnect_from_host()
    peer.close()


async def peer_only(sock: TcpSocket, peer: Peer) -> None:
    await finishes(sock, peer)
    await sock.wait_for_disconnected()
    peer.close()


async def peer_resets(sock: TcpSocket, peer: Peer) -> None:
    await turn()
    await peer.send(b"bye")
    peer.reset()
    await turn()
    await sock.wait_for_disconnected()


def event_steps(life: Life, said: int, *, half_open: bool = True, listeners: int = 1) -> Play:
    """All facts come, once and in order, and all bytes written are counted."""

    async def play(trial: Trial) -> None:
        written = 0
        everything: list[list[Event]] = []

        async def listen(subscription: AsyncIterator[Event]) -> None:
            everything.append([event async for event in subscription])

        async def live(sock: TcpSocket, peer: Peer) -> None:
            await life(sock, peer)
            await sock.aclose()

        async with trial.pair(half_open=half_open) as (sock, peer):
            before = len(told_by(sock))
            async with sock.events() as subscription, trio.open_nursery() as nursery:
                for _ in range(listeners - 1):
                    nursery.start_soon(listen, await sock.events().__aenter__())
                if life is is_over_at_once:
                    await live(sock, peer)
                else:
                    nursery.start_soon(live, sock, peer)
                events = await all_steps(trial, subscription)
            written = sum(event.count for event in events if isinstance(event, BytesWritten))

            everything.append(events)
            for heard in everything:
                trial.equal("events", facts_told(heard), told_by(sock)[before:])
            trial.equal("bytes written", written, 0 if life is is_over_at_once and trial.medium == "memory" else said)

    return play


async def entering(trial: Trial) -> None:
    """``events()`` that was cancelled on entry has not subscribed; on exit there is nothing to cancel."""
    async with trial.pair() as (sock, peer):

        async def events() -> None:
            async with sock.events(StateChanged) as subscription:
                sock.abort()
                event = await anext(subscription)
                trial.equal("the event", event.state, SocketState.UNCONNECTED)

        await trial.call(events)
        trial.equal("subscriptions left", sock._subscriptions, ())
        peer.close()


# ---- waiting for the end -----------------------------------------------------------------------------------------


async def ends_in_order(sock: TcpSocket, peer: Peer) -> None:
    await turn(2)
    await sock.disconnect_from_host()


async def aborts(sock: TcpSocket, peer: Peer) -> None:
    await turn(2)
    sock.abort()


async def finishes(sock: TcpSocket, peer: Peer) -> None:
    await turn()
    await peer.send(b"bye")
    await turn()
    peer.finish()


async def finishes_then_aborts(sock: TcpSocket, peer: Peer) -> None:
    """With ``half_open`` the peer's end alone is not it."""
    await finishes(sock, peer)
    await turn()
    assert sock.state() is SocketState.CONNECTED
    sock.abort()


async def resets(sock: TcpSocket, peer: Peer) -> None:
    await turn()
    await peer.send(b"bye")
    await turn()
    peer.reset()


async def receives_until_reset(sock: TcpSocket, peer: Peer) -> None:
    """A receiver comes and goes beside it."""
    assert peer is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(resets, sock, peer)
        assert await sock.receive_exactly(3) == b"bye"


async def over_before(sock: TcpSocket, peer: Peer) -> None:
    sock.abort()


def wait_for_disconnected(life: Life, *, half_open: bool = True, unread: bytes = b"") -> Play:
    """Cancelled, it leaves no task behind, and what it read ahead can be read."""

    async def play(trial: Trial) -> None:
        seen = Seen()
        async with trio.open_nursery() as parent:
            sock, peer = trial.child_pair(parent, half_open=half_open)
            trial.nursery.start_soon(read_to_end, peer, seen)
            if life is over_before:
                await life(sock, peer)
            else:
                trial.nursery.start_soon(life, sock, peer)
            await trial.call(sock.wait_for_disconnected)
            if trial.cancelled:
                if half_open:
                    for _ in range(4):
                        await trio.lowlevel.checkpoint()
                    trial.equal("tasks of a socket that nobody watches", len(parent.child_tasks), 0)
                await sock.wait_for_disconnected()
            trial.equal("state", sock.state(), SocketState.UNCONNECTED)
            trial.equal("what it read ahead", sock.read_all(), unread)
            await sock.aclose()
            await seen.over.wait()
            peer.close()

    return play


# fmt: off
LIVES: tuple[tuple[Situation, str, Play], ...] = (
    ("answered at once", "",              event_steps(is_over_at_once, 5)),
    ("answered at once", "entering",      entering),
    ("has to wait",      "",              event_steps(talks, 15)),
    ("peer finishes",    "",              event_steps(peer_finishes, 5)),
    ("peer resets",      "",              event_steps(peer_resets, 0)),
    ("second task",      "listeners",     event_steps(talks, 15, listeners=3)),
    ("second task",      "not half-open", event_steps(peer_only, 0, half_open=False)),
)
ENDS: tuple[tuple[Situation, str, Play], ...] = (
    ("answered at once", "",              wait_for_disconnected(over_before)),
    ("has to wait",      "",              wait_for_disconnected(ends_in_order)),
    ("peer finishes",    "",              wait_for_disconnected(finishes_then_aborts)),
    ("peer finishes",    "not half-open", wait_for_disconnected(finishes, half_open=False, unread=b"bye")),
    ("peer resets",      "",              wait_for_disconnected(resets, unread=b"bye")),
    ("second task",      "a receiver",    wait_for_disconnected(receives_until_reset)),
    ("second task",      "aborted",       wait_for_disconnected(aborts)),
)
# fmt: on


def _cases() -> list[Case]:
    through: dict[Play, str] = {entering: "events"}
    return [
        *(
            Case("TcpSocket.events", situation, play, medium, variant, through.get(play, "__anext__"))
            for situation, variant, play in LIVES
            for medium in MEDIA
        ),
        *(
            Case("TcpSocket.wait_for_disconnected", situation, play, medium, variant)
            for situation, variant, play in ENDS
            for medium in MEDIA
        ),
    ]


CASES = _cases()
