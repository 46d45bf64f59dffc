"""Datagrams under cancellation: one that was to be received is still there, one that was to be sent was not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.cancel.connecting import Resolver
from tests.cancel.kit import GOOD, NETWORKS, Case, Play, Situation, Trial, turn
from trioqt import Connected, ErrorKind, ProxyKind, SocketError, SocketState, StateChanged, UdpSocket
from trioqt.core.socket_state import SocketState as State
from trioqt.testing import ScriptedProxy

__all__ = ["CASES", "EXCUSED"]

MESSAGES = (b"one", b"", b"three", b"four")

Raw = trio.socket.SocketType


@asynccontextmanager
async def raw_peer(port: int = 0) -> AsyncIterator[Raw]:
    """A peer without any trioqt."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        await sock.bind((GOOD, port))
        yield sock


@asynccontextmanager
async def pair(trial: Trial, *, connected: bool = False) -> AsyncIterator[tuple[UdpSocket, Raw]]:
    """A socket under test, bound, in a block of its own, and a peer, which may be its only one."""
    async with raw_peer() as peer, trial.udp_socket() as sock:
        await sock.bind(GOOD)
        if connected:
            await sock.connect_to_host(*peer.getsockname())
        yield sock, peer


def address_of(sock: UdpSocket) -> tuple[str, int]:
    return GOOD, sock.local_port()


async def talk(peer: Raw, address: tuple[str, int]) -> None:
    """Send one datagram a turn."""
    for data in MESSAGES:
        await turn()
        await peer.sendto(data, address)


# ---- receiving -------------------------------------------------------------------------------------------------------

Step = Callable[[], Awaitable[list[bytes]]]
"""One call, and what it brought."""
Verb = Callable[[UdpSocket], Step]


def receive_datagram(sock: UdpSocket) -> Step:
    async def step() -> list[bytes]:
        return [(await sock.receive_datagram()).data]

    return step


def iterate(sock: UdpSocket) -> Step:
    async def step() -> list[bytes]:
        return [(await sock.__anext__()).data]

    return step


def ready_read(sock: UdpSocket) -> Step:
    async def step() -> list[bytes]:
        await sock.wait_for_ready_read()
        taken = []
        while (datagram := sock.read_datagram()) is not None:
            taken.append(datagram.data)
        return taken

    return step


VERBS: dict[str, Verb] = {
    "receive_datagram": receive_datagram,
    "__anext__": iterate,
    "wait_for_ready_read": ready_read,
}


async def receive_all(trial: Trial, sock: UdpSocket, verb: Verb, name: str, count: int) -> tuple[list[bytes], str]:
    """Until there are so many; what they were, and how it ended."""
    got: list[bytes] = []
    step = verb(sock)
    trial.called.add(name)
    while len(got) < count:
        try:
            brought = await trial.call(step)
        except SocketError as error:
            return got, error.kind.name
        except trio.ClosedResourceError:
            return got, "closed"
        got += brought or []
    return got, "enough"


def at_once(verb: Verb, name: str, *, batch: bool = False) -> Play:
    """They are there already; ``batch``: in the socket's own hands."""

    async def play(trial: Trial) -> None:
        async with pair(trial) as (sock, peer):
            for data in MESSAGES:
                await peer.sendto(data, address_of(sock))
            if batch:
                sock.has_pending_datagrams()

            got, _ = await receive_all(trial, sock, verb, name, len(MESSAGES))

            trial.equal("received", got, list(MESSAGES))
            trial.expect(not sock.has_pending_datagrams(), "none twice")

    return play


def waits(verb: Verb, name: str, *, watched: bool = False) -> Play:
    """They come one by one; ``watched``: somebody else takes them in."""

    async def play(trial: Trial) -> None:
        async with pair(trial) as (sock, peer), contextlib.AsyncExitStack() as stack:
            if watched:
                await stack.enter_async_context(sock.events())
            trial.nursery.start_soon(talk, peer, address_of(sock))

            got, _ = await receive_all(trial, sock, verb, name, len(MESSAGES))

            trial.equal("received", got, list(MESSAGES))

    return play


def refused(verb: Verb, name: str) -> Play:
    """The peer is gone: what it had sent comes first, then ICMP's answer once, and then there is a new peer."""

    async def play(trial: Trial) -> None:
        async with pair(trial, connected=True) as (sock, peer):
            port = peer.getsockname()[1]
            for data in MESSAGES:
                await peer.sendto(data, address_of(sock))
            peer.close()
            await turn()
            sock.write(b"too late")
            await turn()

            got, end = await receive_all(trial, sock, verb, name, len(MESSAGES) + (name != "__anext__"))
            trial.equal("error", sock.error(), ErrorKind.CONNECTION_REFUSED)
            trial.equal("ended", end, "enough" if name == "__anext__" else "CONNECTION_REFUSED")
            async with raw_peer(port) as late:
                await late.sendto(b"late", address_of(sock))
                more, end = await receive_all(trial, sock, verb, name, 1)

            trial.equal("received", got + more, [*MESSAGES, b"late"])
            trial.equal("ended", end, "enough")

    return play


def beside(verb: Verb, name: str, other: Callable[[Trial, UdpSocket], Awaitable[None]], end: str) -> Play:
    """Another task does something with the same socket."""

    async def play(trial: Trial) -> None:
        async with pair(trial) as (sock, peer):
            trial.nursery.start_soon(talk, peer, address_of(sock))
            trial.nursery.start_soon(other, trial, sock)

            got, ended = await receive_all(trial, sock, verb, name, len(MESSAGES) + (end == "closed"))

            trial.equal("received", got, list(MESSAGES))
            trial.equal("ended", ended, end)

    return play


async def sends(trial: Trial, sock: UdpSocket) -> None:
    async with raw_peer() as other:
        for data in MESSAGES:
            await turn()
            await sock.send_datagram(data, *other.getsockname())


async def watches(trial: Trial, sock: UdpSocket) -> None:
    await turn()
    async with sock.events() as events:
        await anext(events)


async def ends_it(trial: Trial, sock: UdpSocket) -> None:
    # Late: a cancelled receive does not take what comes meanwhile, and an abort drops it.
    await turn(3 * len(MESSAGES))
    await sock.disconnect_from_host()


# ---- sending ---------------------------------------------------------------------------------------------------------


async def send_all(trial: Trial, sock: UdpSocket, messages: list[bytes], *to: Any) -> None:
    """One by one; one that was cancelled was not sent, so it is sent again."""
    for data in messages:
        while True:
            await trial.call(sock.send_datagram, data, *to)
            if not trial.cancelled:
                break


async def hear(trial: Trial, peer: Raw, expected: list[bytes]) -> None:
    heard = [await peer.recv(100) for _ in expected]
    trial.equal("heard", sorted(heard), sorted(expected))
    with trio.move_on_after(0):
        await turn()
        trial.equal("heard beside", await peer.recv(100), None)


async def sending_at_once(trial: Trial) -> None:
    async with pair(trial) as (sock, peer):
        await send_all(trial, sock, list(MESSAGES), *peer.getsockname())
        await turn()
        await hear(trial, peer, list(MESSAGES))


async def sending_unbound(trial: Trial) -> None:
    async with raw_peer() as peer, trial.udp_socket() as sock:
        await send_all(trial, sock, list(MESSAGES), *peer.getsockname())
        await turn()
        await hear(trial, peer, list(MESSAGES))


async def sending_to_a_name(trial: Trial) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver((GOOD,)))
    async with pair(trial) as (sock, peer):
        await send_all(trial, sock, list(MESSAGES), "peer.example", peer.getsockname()[1])
        await turn()
        await hear(trial, peer, list(MESSAGES))


async def sending_refused(trial: Trial) -> None:
    """Every one goes out, whatever the network says of the one before."""
    async with pair(trial, connected=True) as (sock, peer):
        port = peer.getsockname()[1]
        peer.close()
        await send_all(trial, sock, [b"1", b"2"])
        await turn()
        async with raw_peer(port) as late:
            await send_all(trial, sock, list(MESSAGES))
            await turn()
            await hear(trial, late, list(MESSAGES))
        trial.equal("error", sock.error(), ErrorKind.CONNECTION_REFUSED)


async def sending_beside_a_sender(trial: Trial) -> None:
    async def also(sock: UdpSocket, address: tuple[str, int]) -> None:
        for data in MESSAGES:
            await sock.send_datagram(data.upper() + b"!", *address)

    async with pair(trial) as (sock, peer):
        trial.nursery.start_soon(also, sock, peer.getsockname())
        await send_all(trial, sock, list(MESSAGES), *peer.getsockname())
        await turn()
        await hear(trial, peer, [*MESSAGES, *(data.upper() + b"!" for data in MESSAGES)])


async def nothing_to_wait_for(trial: Trial) -> None:
    async with pair(trial) as (sock, peer):
        sock.write_datagram(b"x", *peer.getsockname())
        await trial.call(sock.wait_for_bytes_written)
        trial.equal("state", sock.state(), SocketState.BOUND)


async def nothing_to_wait_for_beside(trial: Trial) -> None:
    async with pair(trial) as (sock, _):
        trial.nursery.start_soon(sock.disconnect_from_host)
        await trial.call(sock.wait_for_bytes_written)


# ---- an address, and one peer ----------------------------------------------------------------------------------------


async def bind_by_proxy(trial: Trial) -> None:
    """Cancelled, no proxy is asked to carry anything any more; then one is, and does."""
    async with trio.open_nursery() as nursery:
        proxy = await nursery.start(ScriptedProxy(ProxyKind.SOCKS5).serve)
        async with raw_peer() as peer, trial.udp_socket() as sock:
            sock.set_proxy(proxy.network_proxy())
            await trial.call(sock.bind)
            if trial.cancelled:
                trial.equal("state", sock.state(), SocketState.UNCONNECTED)
                trial.equal("descriptor", sock.socket_descriptor(), -1)
                await sock.bind()
            await sock.send_datagram(b"hello", *peer.getsockname())
            trial.equal("received", await peer.recv(100), b"hello")
        await turn(2)
        nursery.cancel_scope.cancel()


def binding(host: str, *, disturbed: bool = False) -> Play:
    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver((GOOD,)))
        async with trial.udp_socket() as sock:

            async def disturb() -> None:
                await turn()
                sock.abort()

            if disturbed:
                trial.nursery.start_soon(disturb)
            with contextlib.suppress(trio.ClosedResourceError):
                await trial.call(sock.bind, host)
            if trial.cancelled or disturbed:
                await turn(2)
                trial.equal("state", sock.state(), SocketState.UNCONNECTED)
                trial.equal("descriptor", sock.socket_descriptor(), -1)
                await sock.bind(GOOD)
            trial.equal("state", sock.state(), SocketState.BOUND)
            sock.write_datagram(b"x", *address_of(sock))
            await turn()
            trial.equal("received", (await sock.receive_datagram()).data, b"x")

    return play


def connecting(host: str, *, bound: bool = False, disturbed: bool = False) -> Play:
    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver((GOOD,)))
        async with raw_peer() as peer, trial.udp_socket() as sock:
            port = peer.getsockname()[1]
            if bound:
                await sock.bind(GOOD)

            async def disturb() -> None:
                await turn()
                sock.abort()

            if disturbed:
                trial.nursery.start_soon(disturb)
            with contextlib.suppress(trio.ClosedResourceError):
                await trial.call(sock.connect_to_host, host, port)
            if trial.cancelled or disturbed:
                await turn(2)
                trial.equal("state", sock.state(), SocketState.UNCONNECTED)
                trial.equal("descriptor", sock.socket_descriptor(), -1)
                await sock.connect_to_host(GOOD, port)
            trial.equal("peer", sock.peer_port(), port)
            sock.write(b"x")
            await turn()
            trial.equal("heard", await peer.recv(9), b"x")

    return play


def waiting_for_connected(*, before: bool = False) -> Play:
    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver((GOOD,)))
        async with raw_peer() as peer, trial.udp_socket() as sock:
            await trial.nursery.start(sock.connect_to_host, "peer.example", peer.getsockname()[1])
            if before:
                await turn(2)
            while True:
                await trial.call(sock.wait_for_connected)
                if not trial.cancelled:
                    break
            trial.equal("state", sock.state(), SocketState.CONNECTED)

    return play


# ---- ends ------------------------------------------------------------------------------------------------------------


def ending(verb: str, *, receiving: bool = False, connected: bool = False) -> Play:
    """It has ended, cancelled or not; who waits hears of it."""

    async def play(trial: Trial) -> None:
        ended: list[str] = []

        async def receive(sock: UdpSocket) -> None:
            try:
                await sock.receive_datagram()
            except trio.ClosedResourceError:
                ended.append("closed")

        async with pair(trial, connected=connected) as (sock, _):
            if receiving:
                trial.nursery.start_soon(receive, sock)
                await turn()
            await trial.call(getattr(sock, verb))
            trial.equal("state", sock.state(), SocketState.UNCONNECTED)
            trial.equal("descriptor", sock.socket_descriptor(), -1)
            await turn()
            trial.equal("who waited", ended, ["closed"] if receiving else [])
            if verb == "disconnect_from_host":
                await sock.bind(GOOD)
            elif not trial.cancelled:
                with contextlib.suppress(trio.ClosedResourceError):
                    await sock.bind(GOOD)
                    trial.expect(False, "a closed socket is bound")

    return play


def a_block(*, receiving: bool = False) -> Play:
    async def play(trial: Trial) -> None:
        sock = trial.udp_socket()

        async def receive() -> None:
            with contextlib.suppress(trio.ClosedResourceError):
                await sock.receive_datagram()

        async def block() -> None:
            async with sock:
                await sock.bind(GOOD)
                if receiving:
                    trial.nursery.start_soon(receive)
                    await turn()

        await trial.call(block)
        if sock.state() is not SocketState.UNCONNECTED:
            trial.expect(False, "it has not ended")

    return play


def waiting_for_the_end(*, before: bool = False, beside: bool = False) -> Play:
    async def play(trial: Trial) -> None:
        async with pair(trial) as (sock, _):

            async def end() -> None:
                await turn(2)
                sock.abort()

            async def receive() -> None:
                with contextlib.suppress(trio.ClosedResourceError):
                    await sock.receive_datagram()

            if before:
                sock.abort()
            else:
                trial.nursery.start_soon(end)
            if beside:
                trial.nursery.start_soon(receive)
            while True:
                await trial.call(sock.wait_for_disconnected)
                if not trial.cancelled:
                    break
            trial.equal("state", sock.state(), SocketState.UNCONNECTED)

    return play


# ---- events ----------------------------------------------------------------------------------------------------------


def event_steps(*, late: bool = False, receiving: bool = False) -> Play:
    """No fact is lost, in whatever step."""

    async def play(trial: Trial) -> None:
        told: list[object] = []

        async def live(sock: UdpSocket, port: int) -> None:
            if late:
                await turn()
            await sock.bind(GOOD)
            if late:
                await turn()
            await sock.connect_to_host(GOOD, port)

        async def receive(sock: UdpSocket) -> None:
            await turn()
            with contextlib.suppress(trio.ClosedResourceError, SocketError):
                await sock.receive_datagram()

        async with raw_peer() as peer, trial.udp_socket() as sock, sock.events(StateChanged, Connected) as events:
            if late:
                trial.nursery.start_soon(live, sock, peer.getsockname()[1])
            else:
                await live(sock, peer.getsockname()[1])
            if receiving:
                trial.nursery.start_soon(receive, sock)
            while len(told) < 5:
                event = await trial.call(events.__anext__)
                if not trial.cancelled:
                    told.append(event)
            states = [event.state for event in told if isinstance(event, StateChanged)]
            trial.equal("told", states, [State.BOUND, State.HOST_LOOKUP, State.CONNECTING, State.CONNECTED])
            trial.equal("the last", told[-1], Connected())

    return play


# fmt: off
RECEIVES: tuple[tuple[Situation, str, Callable[[Verb, str], Play]], ...] = (
    ("answered at once", "",           at_once),
    ("answered at once", "batch",      lambda verb, name: at_once(verb, name, batch=True)),
    ("has to wait",      "",           waits),
    ("has to wait",      "watched",    lambda verb, name: waits(verb, name, watched=True)),
    ("peer resets",      "",           refused),
    ("second task",      "a sender",   lambda verb, name: beside(verb, name, sends, "enough")),
    ("second task",      "a listener", lambda verb, name: beside(verb, name, watches, "enough")),
    ("second task",      "an end",     lambda verb, name: beside(verb, name, ends_it, "closed")),
)
OTHERS: tuple[tuple[str, Situation, str, Play, str], ...] = (
    ("send_datagram",          "answered at once", "",           sending_at_once,                        ""),
    ("send_datagram",          "answered at once", "unbound",    sending_unbound,                        ""),
    ("send_datagram",          "has to wait",      "",           sending_to_a_name,                      ""),
    ("send_datagram",          "peer resets",      "",           sending_refused,                        ""),
    ("send_datagram",          "second task",      "a sender",   sending_beside_a_sender,                ""),
    ("wait_for_bytes_written", "answered at once", "",           nothing_to_wait_for,                    ""),
    ("wait_for_bytes_written", "second task",      "",           nothing_to_wait_for_beside,             ""),
    ("bind",                   "answered at once", "",           binding(GOOD),                          ""),
    ("bind",                   "has to wait",      "",           binding("host.example"),                ""),
    ("bind",                   "has to wait",      "proxy",      bind_by_proxy,                          ""),
    ("bind",                   "second task",      "aborted",    binding("host.example", disturbed=True), ""),
    ("connect_to_host",        "answered at once", "",           connecting(GOOD),                       ""),
    ("connect_to_host",        "answered at once", "bound",      connecting(GOOD, bound=True),           ""),
    ("connect_to_host",        "has to wait",      "",           connecting("peer.example"),             ""),
    ("connect_to_host",        "has to wait",      "bound",      connecting("peer.example", bound=True), ""),
    ("connect_to_host",        "second task",      "aborted",    connecting("peer.example", disturbed=True), ""),
    ("wait_for_connected",     "answered at once", "",           waiting_for_connected(before=True),     ""),
    ("wait_for_connected",     "has to wait",      "",           waiting_for_connected(),                ""),
    ("disconnect_from_host",   "answered at once", "",           ending("disconnect_from_host"),         ""),
    ("disconnect_from_host",   "answered at once", "connected",
     ending("disconnect_from_host", connected=True), ""),
    ("disconnect_from_host",   "second task",      "a receiver",
     ending("disconnect_from_host", receiving=True), ""),
    ("aclose",                 "answered at once", "",           ending("aclose"),                       ""),
    ("aclose",                 "second task",      "a receiver", ending("aclose", receiving=True),       ""),
    ("__aenter__",             "answered at once", "",           a_block(),                              "block"),
    ("__aexit__",              "answered at once", "",           a_block(),                              "block"),
    ("__aexit__",              "second task",      "a receiver", a_block(receiving=True),                "block"),
    ("wait_for_disconnected",  "answered at once", "",           waiting_for_the_end(before=True),       ""),
    ("wait_for_disconnected",  "has to wait",      "",           waiting_for_the_end(),                  ""),
    ("wait_for_disconnected",  "second task",      "a receiver", waiting_for_the_end(beside=True),       ""),
    ("events",                 "answered at once", "",           event_steps(),                          "__anext__"),
    ("events",                 "has to wait",      "",           event_steps(late=True),                 "__anext__"),
    ("events",                 "second task",      "a receiver",
     event_steps(late=True, receiving=True), "__anext__"),
)
# fmt: on

CASES: list[Case] = [
    *(
        Case(f"UdpSocket.{name}", situation, make(verb, name), medium, variant)
        for name, verb in VERBS.items()
        for situation, variant, make in RECEIVES
        for medium in NETWORKS
    ),
    *(
        Case(f"UdpSocket.{name}", situation, play, medium, variant, through)
        for name, situation, variant, play, through in OTHERS
        for medium in NETWORKS
    ),
]

NO_END: dict[Situation, str] = {"peer finishes": "datagrams have no end"}
NO_PEER: dict[Situation, str] = {**NO_END, "peer resets": "no peer is asked"}
NO_WAIT: dict[Situation, str] = {**NO_PEER, "has to wait": "it waits for nobody"}

EXCUSED: dict[str, dict[Situation, str]] = {
    **{f"UdpSocket.{name}": NO_END for name in ("receive_datagram", "__anext__", "wait_for_ready_read")},
    "UdpSocket.send_datagram": NO_END,
    **{f"UdpSocket.{name}": NO_PEER for name in ("bind", "connect_to_host", "wait_for_disconnected", "events")},
    "UdpSocket.wait_for_connected": {**NO_PEER, "second task": "whoever connects is one"},
    **{
        f"UdpSocket.{name}": NO_WAIT
        for name in ("wait_for_bytes_written", "disconnect_from_host", "aclose", "__aexit__")
    },
    "UdpSocket.__aenter__": {**NO_WAIT, "second task": "it opens a nursery, and never waits"},
}
