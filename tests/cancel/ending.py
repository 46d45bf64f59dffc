"""What ends a connection has ended it, cancelled or not; the peer never sees a clean end in front of missing bytes."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Literal

import attrs
import trio

from tests.cancel.kit import MEDIA, Case, Peer, Play, Seen, Situation, Trial, adopt, read_to_end, turn
from trioqt import SocketError, SocketState, TcpSocket

__all__ = ["CASES"]

ENDS: tuple[Literal["aclose", "disconnect_from_host"], ...] = ("aclose", "disconnect_from_host")
LOST = "REMOTE_HOST_CLOSED"
UNREAD = b"who reads this?"


class Oops(Exception):
    """What a body raises."""


@attrs.frozen(kw_only=True)
class Plan:
    """What is so when the end is called for, and what else happens meanwhile."""

    queued: bool = False
    """Bytes are queued that the link has not taken."""
    unread: bool = False
    """Bytes have arrived that nobody has read."""
    peer: Literal["reads", "reads slowly", "finishes", "resets", "stays"] = "reads"
    beside: Callable[[Trial, TcpSocket, Ended], Awaitable[None]] | None = None
    """What another task does; it gets a turn before the end is called for."""
    aborts: bool = False
    """And it aborts the socket."""
    half_open: bool = True
    over_stream: bool = False
    """Of trio's, on the network's sockets."""
    body: Literal["normal", "raises", "raises late", "nested"] = "normal"
    """Of a block."""


@attrs.define(eq=False)
class Ended:
    """What became of it."""

    written: bytearray = attrs.Factory(bytearray)
    error: str = ""
    seen: Seen = attrs.Factory(Seen)


async def play_peer(peer: Peer, plan: Plan, seen: Seen) -> None:
    if plan.peer == "resets":
        await turn(2)
        peer.reset()
        seen.over.set()
        return
    if plan.aborts:
        await turn(4)
    if plan.peer == "finishes":
        await turn(2)
        peer.finish()
    await read_to_end(peer, seen, pause=1 if plan.peer == "reads slowly" else 0, stay=3 if plan.peer == "stays" else 0)


def prepare(trial: Trial, sock: TcpSocket, peer: Peer, plan: Plan, ended: Ended) -> None:
    """Sync, so that a block can do it without a place of its own."""
    large, small = (15000, 100) if trial.medium != "memory" else (250, 50)
    if plan.unread:
        peer.send_now(UNREAD)
    data = bytes(range(250)) * 60
    data = data[: large if plan.queued else small]
    sock.write(data)
    ended.written += data
    if plan.queued:
        trial.expect(sock.bytes_to_write() > 0, "bytes are queued")
    trial.nursery.start_soon(play_peer, peer, plan, ended.seen)
    if plan.beside is not None:
        trial.nursery.start_soon(plan.beside, trial, sock, ended)


async def noting_errors(trial: Trial, ended: Ended, fn: Callable[[], Awaitable[None]]) -> None:
    try:
        await trial.call(fn)
    except SocketError as error:
        ended.error = error.kind.name
    except trio.ClosedResourceError:
        ended.error = "closed"
    except Oops as error:
        ended.error = "oops"
        trial.equal("what the exception brings along", (error.__cause__, error.__suppress_context__), (None, False))


async def check(trial: Trial, sock: TcpSocket, plan: Plan, ended: Ended) -> None:
    """What must hold right after the end, and what the peer saw."""
    cancelled, seen = trial.cancelled, ended.seen
    trial.equal("state", sock.state(), SocketState.UNCONNECTED)
    trial.equal("descriptor", sock.socket_descriptor(), -1)
    trial.equal("queued", sock.bytes_to_write(), 0)
    await seen.over.wait()

    data = bytes(seen.data)
    if plan.body in ("raises", "raises late") and not trial.interrupted:
        trial.equal("the exception", ended.error, "oops")
    elif plan.peer == "resets" and plan.queued:
        trial.expect(cancelled or ended.error == LOST, f"lost bytes are told, not {ended.error!r}")
    elif not plan.aborts:
        trial.equal("the error", ended.error, "")
    if plan.peer == "resets":
        return
    if not (cancelled or ended.error or plan.aborts):
        trial.equal("the peer's view", (data == ended.written, seen.end), (True, "clean"))
    elif seen.end == "clean":
        trial.equal("bytes before a clean end", len(data), len(ended.written))
        trial.expect(data == ended.written, "they are whole and in order")
    else:
        trial.expect(ended.written.startswith(data), "before a reset the peer has seen nothing else")
    if ended.error == "oops" and trial.medium != "memory":  # a memory pair has no other end than a clean one
        trial.equal("the peer's end after an exception", seen.end, "reset")
    elif not plan.queued and not plan.unread and not trial.interrupted and trial.medium != "memory":
        trial.equal("the peer's end, nothing being dropped", seen.end, "clean")


def a_verb(name: Literal["aclose", "disconnect_from_host"], plan: Plan) -> Play:
    """On a socket whose tasks are in a nursery of ours: that it ends shows that they have."""

    async def play(trial: Trial) -> None:
        ended = Ended()
        async with trio.open_nursery() as parent:
            pair = trial.socket_stream_pair if plan.over_stream else trial.child_pair
            sock, peer = pair(parent, half_open=plan.half_open, write_buffer_size=1)
            prepare(trial, sock, peer, plan, ended)
            if plan.beside is not None:
                await turn()
            await noting_errors(trial, ended, getattr(sock, name))
            await check(trial, sock, plan, ended)
            if name == "disconnect_from_host":
                if (
                    plan.unread
                    and plan.beside is None
                    and trial.medium != "memory"
                    and not trial.cancelled
                    and not ended.error
                ):
                    trial.equal("what had arrived", sock.read_all(), UNREAD)
                try:
                    await sock.aclose()
                except SocketError as error:
                    # A failure that a cancelled call has not told is told by the next one.
                    trial.equal("told later", (trial.cancelled, plan.peer, error.kind.name), (True, "resets", LOST))
            must_be_closed(trial, sock)

    return play


def must_be_closed(trial: Trial, sock: TcpSocket) -> None:
    for call in (sock.abort, sock.state):
        call()
    for refused in (functools.partial(sock.write, b"x"), functools.partial(sock.read, 1)):
        try:
            refused()
        except trio.ClosedResourceError:
            continue
        trial.expect(False, f"{refused.func.__name__} says that the socket is closed")


def open_pair(trial: Trial, plan: Plan) -> tuple[TcpSocket, Peer | None]:
    if trial.medium == "memory":
        return trial.stream_pair(half_open=plan.half_open, write_buffer_size=1)
    return trial.socket(half_open=plan.half_open, write_buffer_size=1), None


def a_block(plan: Plan) -> Play:
    """The whole block is cancelled, in whatever part of it."""

    async def play(trial: Trial) -> None:
        ended = Ended()
        sock, given = open_pair(trial, plan)

        async def body() -> None:
            prepare(trial, sock, given or adopt(sock), plan, ended)
            if plan.beside is not None:
                await turn()
            if plan.body == "raises":
                raise Oops
            if plan.body == "raises late":
                try:
                    await turn(2)
                finally:
                    raise Oops

        async def block() -> None:
            async with sock:
                if plan.body == "nested":
                    async with sock:
                        await body()
                    trial.equal("state between the exits", sock.state(), SocketState.UNCONNECTED)
                else:
                    await body()

        await noting_errors(trial, ended, block)
        await check(trial, sock, plan, ended)
        must_be_closed(trial, sock)

    return play


def a_parent(plan: Plan) -> Play:
    """The nursery that holds the socket's tasks is cancelled, with whoever would have closed the socket."""

    async def play(trial: Trial) -> None:
        ended = Ended()
        socks: list[TcpSocket] = []

        async def block() -> None:
            async with trio.open_nursery() as parent:
                sock, peer = trial.child_pair(parent, half_open=plan.half_open, write_buffer_size=1)
                socks.append(sock)
                prepare(trial, sock, peer, plan, ended)
                await turn(2)
                try:
                    await sock.aclose()
                except SocketError as error:
                    # The drainer may be cancelled first, and then the bytes that it dropped are told of.
                    dropped = trial.probe.injected and not plan.half_open
                    trial.equal("told", (dropped, error.kind.name), (True, LOST))

        await noting_errors(trial, ended, block)
        await check(trial, socks[0], plan, ended)
        must_be_closed(trial, socks[0])

    return play


# ---- what other tasks do -------------------------------------------------------------------------------------------


async def a_receiver(trial: Trial, sock: TcpSocket, ended: Ended) -> None:
    """Waits for bytes, and is woken by the end."""
    try:
        while await sock.receive_some():
            pass
    except trio.ClosedResourceError:
        pass  # or it meets the peer's end first


async def a_sender(trial: Trial, sock: TcpSocket, ended: Ended) -> None:
    """Waits for room, and is refused when the end begins: then nothing of its message is sent."""
    try:
        await sock.send_all(b"y" * 1000)
        ended.written += b"y" * 1000
    except trio.ClosedResourceError:
        pass


async def an_abort(trial: Trial, sock: TcpSocket, ended: Ended) -> None:
    await turn(3)
    trial.expect(trial.probe.injected or sock.bytes_to_write(), "bytes are queued when it is aborted")
    sock.abort()


async def three_turns(trial: Trial, sock: TcpSocket, ended: Ended) -> None:
    """What happens meanwhile is the peer's doing."""
    await turn(3)


async def another_end(trial: Trial, sock: TcpSocket, ended: Ended) -> None:
    """Joins it.  If the first is cancelled, this one is told."""
    await turn()
    try:
        await sock.disconnect_from_host()
    except trio.ClosedResourceError:
        trial.expect(trial.probe.injected, "only a cancelled end is an abort to the other")
    trial.equal("state after the other end", sock.state(), SocketState.UNCONNECTED)


async def waiters(trial: Trial, sock: TcpSocket, ended: Ended) -> None:
    """One for the end, one for the queue, one who listens."""

    async def wait_for_queue() -> None:
        try:
            await sock.wait_for_bytes_written()
        except trio.ClosedResourceError:
            trial.expect(trial.probe.injected, "without a cancellation the kernel gets everything")

    async def listen() -> None:
        async with sock.events() as events:
            async for _ in events:
                pass

    trial.nursery.start_soon(wait_for_queue)
    trial.nursery.start_soon(listen)
    await sock.wait_for_disconnected()
    trial.equal("state when wait_for_disconnected returns", sock.state(), SocketState.UNCONNECTED)


# fmt: off
PLANS: tuple[tuple[Situation, str, Plan], ...] = (
    ("answered at once", "",                Plan()),
    ("has to wait",      "queued",          Plan(queued=True, peer="reads slowly")),
    ("has to wait",      "unread",          Plan(unread=True)),
    ("has to wait",      "unread, stays",   Plan(unread=True, peer="stays")),
    ("has to wait",      "queued, unread",  Plan(queued=True, unread=True, peer="reads slowly")),
    ("peer finishes",    "",                Plan(queued=True, peer="finishes")),
    ("peer resets",      "queued",          Plan(queued=True, peer="resets")),
    ("peer resets",      "unread",          Plan(unread=True, peer="resets")),
    ("peer finishes",    "not half-open",   Plan(queued=True, peer="finishes", half_open=False, beside=three_turns)),
    ("second task",      "a receiver",      Plan(queued=True, peer="reads slowly", beside=a_receiver)),
    ("second task",      "a receiver, unread", Plan(unread=True, beside=a_receiver)),
    ("second task",      "a sender",        Plan(queued=True, peer="reads slowly", beside=a_sender)),
    ("second task",      "aborted",         Plan(queued=True, peer="reads slowly", beside=an_abort, aborts=True)),
    ("second task",      "another end",     Plan(queued=True, peer="reads slowly", beside=another_end)),
    ("second task",      "waiters",         Plan(queued=True, peer="reads slowly", beside=waiters)),
)
OVER_STREAMS: tuple[tuple[Situation, str, Plan], ...] = (
    ("has to wait",      "unread",          Plan(unread=True, over_stream=True)),
    ("has to wait",      "unread, stays",   Plan(unread=True, over_stream=True, peer="stays")),
    ("has to wait",      "queued, unread",  Plan(queued=True, unread=True, over_stream=True, peer="reads slowly")),
    ("peer resets",      "unread",          Plan(unread=True, over_stream=True, peer="resets")),
    ("second task",      "a receiver, unread", Plan(unread=True, over_stream=True, beside=a_receiver)),
)
PARENTS: tuple[tuple[str, Plan], ...] = (
    ("parent cancelled",                Plan(queued=True, peer="reads slowly")),
    ("parent cancelled, unread",        Plan(unread=True)),
    ("parent cancelled, not half-open", Plan(queued=True, peer="finishes", half_open=False)),
)
BODIES: tuple[tuple[Situation, str, Plan], ...] = (
    ("answered at once", "exception",       Plan(body="raises")),
    ("answered at once", "exception, queued", Plan(body="raises", queued=True)),
    ("has to wait",      "exception",       Plan(body="raises late", queued=True)),
    ("has to wait",      "nested",          Plan(body="nested", queued=True, peer="reads slowly")),
)
# fmt: on


def _cases() -> list[Case]:
    cases: list[Case] = []
    for medium in MEDIA:
        for situation, variant, plan in PLANS:
            cases += [
                Case("TcpSocket.aclose", situation, a_verb("aclose", plan), medium, variant),
                Case(
                    "TcpSocket.disconnect_from_host", situation, a_verb("disconnect_from_host", plan), medium, variant
                ),
                Case("TcpSocket.__aexit__", situation, a_block(plan), medium, variant, "block"),
            ]
        for situation, variant, plan in OVER_STREAMS if medium in ("loopback", "virtual") else ():
            cases += [
                Case(f"TcpSocket.{name}", situation, a_verb(name, plan), medium, f"over a stream, {variant}")
                for name in ENDS
            ]
        for variant, plan in PARENTS:
            cases.append(Case("TcpSocket.aclose", "has to wait", a_parent(plan), medium, variant, "block"))
        for situation, variant, plan in BODIES:
            cases.append(Case("TcpSocket.__aexit__", situation, a_block(plan), medium, variant, "block"))
        cases.append(Case("TcpSocket.__aenter__", "answered at once", a_block(Plan()), medium, through="block"))
    return cases


CASES = _cases()
