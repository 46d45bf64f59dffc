"""A connect that was cancelled leaves nothing behind: UNCONNECTED, without a descriptor, and it can begin anew.

A bind that was cancelled took no address.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from tests.cancel.kit import (
    GOOD,
    NETWORKS,
    Case,
    Play,
    Seen,
    Situation,
    SocketPeer,
    Trial,
    connect_now,
    give_spare,
    listen_now,
    read_to_end,
    secrets,
    turn,
)
from trioqt import (
    Connected,
    ErrorKind,
    NetworkProxy,
    ProxyKind,
    SocketError,
    SocketState,
    StateChanged,
    TcpSocket,
)
from trioqt.testing import ScriptedProxy

__all__ = ["CASES", "Resolver"]


@attrs.define(eq=False)
class Resolver(trio.abc.HostnameResolver):
    """Answers after a turn, with these addresses in this order."""

    addresses: tuple[str, ...]

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        await turn()
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


REFUSED = "CONNECTION_REFUSED"

REFUSING, SILENT = "127.0.0.2", "127.0.0.3"


@attrs.define(eq=False)
class Hosts:
    """Three hosts with one port: one that listens, one that refuses, one whose queue is full, so that it is silent."""

    trial: Trial
    port: int
    listener: trio.socket.SocketType
    served: list[Seen] = attrs.Factory(list)

    async def serve(self) -> None:
        """Read each connection to its end, and answer that."""
        async with trio.open_nursery() as nursery:
            with contextlib.suppress(trio.ClosedResourceError):
                while True:
                    sock, _ = await self.listener.accept()
                    self.served.append(Seen())
                    nursery.start_soon(functools.partial(read_to_end, SocketPeer(sock), self.served[-1], then=b"bye"))


@asynccontextmanager
async def hosts(trial: Trial) -> AsyncIterator[Hosts]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen_now(GOOD))
        port = listener.getsockname()[1]
        stack.enter_context(listen_now(SILENT, port, backlog=0))
        stack.enter_context(connect_now(SILENT, port))
        world = Hosts(trial, port, listener)
        trial.nursery.start_soon(world.serve)
        try:
            yield world
        finally:
            await turn()
            listener.close()


async def must_work(sock: TcpSocket, port: int) -> None:
    """Say something, hear the answer."""
    if sock.state() is not SocketState.CONNECTED:
        await sock.connect_to_host(GOOD, port)
    await sock.send_all(b"hello")
    await sock.send_eof()
    assert await sock.receive_exactly(3) == b"bye"
    await sock.disconnect_from_host()


@attrs.frozen
class Starting:
    """Connects in a task of its own, as a program that came from Qt does."""

    sock: TcpSocket

    async def connect_to_host(self, host: str, port: int) -> None:
        """What the call of that name does, by another way."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.sock.connect_to_host, host, port)
            await self.sock.wait_for_connected()


def scheduled(verb: str) -> Play:
    """A call beside an attempt that has not begun is OPERATION, and the attempt goes on."""

    async def play(trial: Trial) -> None:
        async with hosts(trial) as world, trial.socket() as sock:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sock.connect_to_host, GOOD, world.port)
                try:
                    await trial.call(getattr(sock, verb), *([b"hello"] if verb == "send_all" else []))
                except SocketError as error:
                    trial.equal("kind", error.kind.name, "OPERATION")
                else:
                    trial.expect(trial.cancelled, "it was called before the attempt had begun")
                await turn()
            await must_work(sock, world.port)

    return play


def check_dropped(trial: Trial, sock: TcpSocket) -> None:
    trial.equal("state after a cancelled connect", sock.state(), SocketState.UNCONNECTED)
    trial.equal("descriptor after a cancelled connect", sock.socket_descriptor(), -1)
    trial.equal("local port after a cancelled connect", sock.local_port(), 0)


def connect(
    host: str,
    addresses: tuple[str, ...] = (),
    *,
    bound: bool = False,
    spare: bool = False,
    started: bool = False,
    beside: Callable[[Trial, TcpSocket], Awaitable[None]] | None = None,
) -> Play:
    """Connect; if that was cancelled, connect again.  Either way it works then.

    Args:
      addresses: What the name is found to be.
      bound: It has a local address.
      spare: It was given a descriptor to connect.
      started: It has a task of its own, by ``nursery.start``.
      beside: What another task does meanwhile; those in ENDING end the attempt.
    """

    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver(addresses))
        ended = False
        async with hosts(trial) as world, trial.socket() as sock:
            if bound:
                await sock.bind(GOOD)
            if spare:
                give_spare(sock)
            async with trio.open_nursery() as nursery:
                if beside is not None:
                    nursery.start_soon(beside, trial, sock)
                    await turn()
                call = Starting(sock).connect_to_host if started else sock.connect_to_host
                try:
                    await trial.call(call, host, world.port)
                except trio.ClosedResourceError:
                    ended = True
                if trial.cancelled or ended:
                    check_dropped(trial, sock)
                nursery.cancel_scope.cancel()
            if trial.cancelled or ended:
                check_dropped(trial, sock)
            else:
                trial.equal("state", sock.state(), SocketState.CONNECTED)
            trial.expect(beside in ENDING or not ended, "nobody else ends it")
            await must_work(sock, world.port)
        good = [seen for seen in world.served if seen.data]
        trial.equal("what was said", [(bytes(seen.data), seen.end) for seen in good], [(b"hello", "clean")])
        trial.expect(all(seen.over.is_set() for seen in world.served), "every other connection has ended")

    return play


def connect_by_proxy(kind: ProxyKind, *, asked: bool = False, chain: bool = False, encrypted: bool = False) -> Play:
    """Connect by way of a proxy; if that was cancelled, again.  No connection to any proxy is left either way.

    Args:
      asked: It wants a password that somebody else knows, and HTTP or SOCKS5 each in its own way asks again.
      chain: There is another proxy in front of it.
      encrypted: It is spoken to inside of TLS.
    """

    async def know(proxy: NetworkProxy, realm: str) -> tuple[str, str]:
        await turn()
        return "user", "secret"

    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver((GOOD,)))
        shown: dict[str, Any] = {"user": "user", "password": "secret"} if asked else {}
        if encrypted:
            shown["context"] = secrets().server
        async with hosts(trial) as world, trio.open_nursery() as nursery:
            proxy = await nursery.start(ScriptedProxy(kind, **shown).serve)
            there = proxy.network_proxy("", "")
            if encrypted:
                there = attrs.evolve(there, host="peer.example", context=secrets().client)
            if chain:
                first = await nursery.start(ScriptedProxy(ProxyKind.SOCKS5).serve)
                there = attrs.evolve(there, via=first.network_proxy())
            async with trial.socket() as sock:
                sock.set_proxy(there)
                sock.set_proxy_authenticator(know)
                await trial.call(sock.connect_to_host, "some.host", world.port)
                if trial.cancelled:
                    check_dropped(trial, sock)
                else:
                    trial.equal("state", sock.state(), SocketState.CONNECTED)
                await must_work(sock, world.port)
            await turn(2)
            nursery.cancel_scope.cancel()
        good = [(bytes(seen.data), seen.end) for seen in world.served if seen.data]
        trial.equal("what was said", good, [(b"hello", "clean")])
        trial.expect(all(seen.over.is_set() for seen in world.served), "every other connection has ended")

    return play


def connect_with_early_bytes(host: str, addresses: tuple[str, ...]) -> Play:
    """What another task writes meanwhile is sent once it is connected, and gone with an attempt that was cancelled.

    Then it is told, and a peer that was connected already sees a reset.
    """

    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver(addresses))
        written = lost = b""

        async def write() -> None:
            nonlocal written
            async with sock.events(StateChanged) as events:
                async for _ in events:
                    if sock.state() in ATTEMPTING:
                        sock.write(b"early")
                        written += b"early"

        async with hosts(trial) as world, trial.socket() as sock:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                await turn()
                await trial.call(sock.connect_to_host, host, world.port)
                if trial.cancelled:
                    check_dropped(trial, sock)
                    lost, written = written, b""
                    told = ErrorKind.UNFINISHED_SOCKET_OPERATION if lost else None
                    trial.equal("error() after a cancelled connect", sock.error(), told)
                nursery.cancel_scope.cancel()
            await must_work(sock, world.port)
        if lost:
            ends = {seen.end for seen in world.served if not seen.data}
            trial.expect(ends <= {"reset"}, f"who was promised bytes sees a reset, not {ends}")
        good = [(bytes(seen.data), seen.end) for seen in world.served if seen.data]
        trial.equal("what was said", good, [(written + b"hello", "clean")])

    return play


def connect_in_vain(host: str, addresses: tuple[str, ...], kind: str) -> Play:
    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver(addresses))
        async with hosts(trial) as world, trial.socket() as sock:
            try:
                await trial.call(sock.connect_to_host, host, world.port)
            except SocketError as error:
                trial.equal("kind", error.kind.name, kind)
                trial.equal("error()", sock.error(), error.kind)
                trial.equal("state after a failed connect", sock.state(), SocketState.UNCONNECTED)
                trial.equal("descriptor", sock.socket_descriptor(), -1)
            else:
                trial.expect(trial.cancelled, "it fails")
                check_dropped(trial, sock)
            await must_work(sock, world.port)

    return play


def peer_ends(*, reset: bool) -> Play:
    """The peer accepts and ends it at once, which is no failure of the connect."""

    async def play(trial: Trial) -> None:
        async def accept_and_end() -> None:
            sock, _ = await listener.accept()
            peer = SocketPeer(sock)
            if reset:
                peer.reset()
            else:
                peer.close()

        with trio.socket.socket() as listener:
            await listener.bind((GOOD, 0))
            listener.listen(1)
            trial.nursery.start_soon(accept_and_end)
            async with trial.socket() as sock:
                try:
                    await trial.call(sock.connect_to_host, GOOD, listener.getsockname()[1])
                except SocketError as error:
                    # The reset may be there before the connect has returned.
                    trial.equal("kind", (reset, error.kind.name), (True, "REMOTE_HOST_CLOSED"))
                    check_dropped(trial, sock)
                    return
                if trial.cancelled:
                    check_dropped(trial, sock)
                    with contextlib.suppress(SocketError):
                        # The first attempt may have been the one that is accepted.
                        with trio.move_on_after(1):
                            await sock.connect_to_host(GOOD, listener.getsockname()[1])
                            await sock.receive_some()
                else:
                    trial.equal("state", sock.state(), SocketState.CONNECTED)
                    with contextlib.suppress(SocketError):
                        trial.equal("received", await sock.receive_some(), b"")
            await turn()

    return play


async def abort_it(trial: Trial, sock: TcpSocket) -> None:
    await turn(2)
    sock.abort()


async def disconnect_it(trial: Trial, sock: TcpSocket) -> None:
    await turn(2)
    if sock.state() is not SocketState.CONNECTED:
        await sock.disconnect_from_host()


async def abort_while_connecting(trial: Trial, sock: TcpSocket) -> None:
    async with sock.events(StateChanged) as events:
        async for event in events:
            if event.state is SocketState.CONNECTING:
                return sock.abort()


ATTEMPTING = (SocketState.HOST_LOOKUP, SocketState.CONNECTING)

ENDING = (abort_it, disconnect_it, abort_while_connecting)


async def connect_it_too(trial: Trial, sock: TcpSocket) -> None:
    """A second call is refused while the first runs, and disturbs nothing."""
    while sock.state() is SocketState.UNCONNECTED:
        await turn()
    try:
        await sock.connect_to_host(GOOD, 1)
    except SocketError as error:
        trial.equal("the second call", error.kind.name, "OPERATION")


async def wait_for_it(trial: Trial, sock: TcpSocket) -> None:
    """Two that only look: a subscriber, and one in wait_for_connected, which starts when the attempt has begun."""
    async with sock.events(StateChanged, Connected) as events:
        async for event in events:
            if event == StateChanged(SocketState.HOST_LOOKUP):
                break
        try:
            await sock.wait_for_connected()
        except trio.ClosedResourceError:
            pass  # the attempt was cancelled meanwhile
        except SocketError as error:
            trial.equal("wait_for_connected after a cancelled attempt", error.kind.name, "OPERATION")


def wait_for_connected(host: str, addresses: tuple[str, ...], *, abort: bool = False, end: str = "") -> Play:
    """The attempt of another task goes on, whether anybody waits for it or not."""

    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver(addresses))
        attempts: list[str] = []

        async def attempt() -> None:
            try:
                await sock.connect_to_host(host, world.port)
            except (SocketError, trio.ClosedResourceError) as exc:
                attempts.append(getattr(exc, "kind", type(exc)).__class__.__name__)
            else:
                attempts.append("connected")

        async def wait() -> None:
            try:
                await trial.call(sock.wait_for_connected)
                if trial.cancelled:
                    await sock.wait_for_connected()
            except SocketError as error:
                trial.equal("wait_for_connected", error.kind.name, end)
            except trio.ClosedResourceError:
                trial.equal("wait_for_connected", "closed", end)
            else:
                trial.equal("wait_for_connected", "", end)
                trial.equal("state", sock.state(), SocketState.CONNECTED)

        async with hosts(trial) as world, trial.socket() as sock:
            trial.nursery.start_soon(attempt)
            while sock.state() is SocketState.UNCONNECTED:
                await trio.lowlevel.checkpoint()
            if abort:
                trial.nursery.start_soon(abort_it, trial, sock)
            await wait()
            await turn(2)
            trial.equal("attempts", len(attempts), 1)
            await must_work(sock, world.port)

    return play


def early(verb: str, addresses: tuple[str, ...], *, abort: bool = False, end: str = "") -> Play:
    """A call that waits for the attempt of another task.  Cancelled, neither the attempt nor the queue is touched."""

    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver(addresses))
        said = b"early"

        async def attempt() -> None:
            with contextlib.suppress(SocketError, trio.ClosedResourceError):
                await sock.connect_to_host("some.host", world.port)

        async def wait() -> None:
            nonlocal said
            if verb != "send_all":
                await trial.call(getattr(sock, verb))
            else:
                await trial.call(sock.send_all, b", more")
                if not trial.cancelled:
                    said += b", more"

        async def ask() -> None:
            with contextlib.suppress(SocketError, trio.ClosedResourceError):
                await sock.wait_for_connected()
                await sock.send_eof()  # which the peer answers

        async with hosts(trial) as world, trial.socket(write_buffer_size=5) as sock:
            trial.nursery.start_soon(attempt)
            while sock.state() is SocketState.UNCONNECTED:
                await trio.lowlevel.checkpoint()
            sock.write(b"early")
            if abort:
                trial.nursery.start_soon(abort_it, trial, sock)
            if verb == "wait_for_ready_read":
                trial.nursery.start_soon(ask)
            how = ""
            try:
                await wait()
                if trial.cancelled and verb != "send_all":
                    await wait()
            except SocketError as error:
                how = error.kind.name
            except trio.ClosedResourceError:
                how = "closed"
            if end:
                trial.expect(how == end or (trial.cancelled and not how), f"{verb} ends with {how!r}, not {end!r}")
                await turn(3)
                trial.equal("queued", sock.bytes_to_write(), 0)
                await must_work(sock, world.port)
                said = b"hello"
            else:
                trial.equal(verb, how, "")
                await sock.wait_for_connected()
                await sock.send_eof()
                trial.equal("the answer", await sock.receive_exactly(3), b"bye")
        good = [(bytes(seen.data), seen.end) for seen in world.served if seen.data]
        trial.equal("what was said", good, [(said, "clean")])

    return play


async def connected_at_once(trial: Trial) -> None:
    async with trial.pair() as (sock, peer):
        await trial.call(sock.wait_for_connected)
        trial.equal("state", sock.state(), SocketState.CONNECTED)
        peer.close()


def peer_ends_connected(*, reset: bool) -> Play:
    """The connection is lost while a task looks whether there is one."""

    async def play(trial: Trial) -> None:
        async def end() -> None:
            if reset:
                peer.reset()
            else:
                peer.finish()

        async with trial.pair() as (sock, peer), sock.events() as _:
            trial.nursery.start_soon(end)
            for _turn in range(5):
                try:
                    await trial.call(sock.wait_for_connected)
                except SocketError as error:
                    trial.equal("wait_for_connected", error.kind.name, "REMOTE_HOST_CLOSED")
                    trial.equal("state", sock.state(), SocketState.UNCONNECTED)
                    break
            else:
                trial.expect(not reset, "the reset is noticed")
            peer.close()

    return play


def bind(
    host: str, addresses: tuple[str, ...] = (), *, beside: Callable[[Trial, TcpSocket], Awaitable[None]] | None = None
) -> Play:
    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver(addresses))
        async with trio.open_nursery() as nursery, trial.socket() as sock:
            if beside is not None:
                nursery.start_soon(beside, trial, sock)
            await trial.call(sock.bind, host)
            if trial.cancelled:
                check_dropped(trial, sock)
                await sock.bind(host)
            trial.equal("state", sock.state(), SocketState.BOUND)
            trial.expect(sock.local_port() > 0, "a bound socket has a port")

    return play


async def bind_called_off(trial: Trial) -> None:
    """Another task's abort ends it, though it has no state yet; cancelled or not, nothing was taken."""
    trio.socket.set_custom_hostname_resolver(Resolver((GOOD,)))
    async with trio.open_nursery() as nursery, trial.socket() as sock:

        async def abort() -> None:
            await turn()
            sock.abort()

        nursery.start_soon(abort)
        try:
            await trial.call(sock.bind, "some.host")
        except trio.ClosedResourceError:
            pass
        else:
            trial.expect(trial.probe.injected, "the abort calls it off")
        if sock.state() is SocketState.BOUND:  # before the abort, which was late then
            trial.expect(trial.probe.injected, "nothing else is in its way")
            sock.abort()
        check_dropped(trial, sock)
        await turn(2)
        await sock.bind("some.host")
        trial.equal("state", sock.state(), SocketState.BOUND)


async def bind_in_use(trial: Trial) -> None:
    with listen_now(GOOD) as taken:
        async with trial.socket() as sock:
            try:
                await trial.call(sock.bind, GOOD, taken.getsockname()[1])
            except SocketError as error:
                trial.equal("kind", error.kind.name, "ADDRESS_IN_USE")
            else:
                trial.expect(trial.cancelled, "the address is in use")
            trial.equal("state", sock.state(), SocketState.UNCONNECTED)
            trial.equal("descriptor", sock.socket_descriptor(), -1)
            await sock.bind(GOOD)


async def watch(trial: Trial, sock: TcpSocket) -> None:
    """A subscriber is told BOUND once, at the end of the bind that was not cancelled."""
    async with sock.events(StateChanged) as events:
        told = [event.state async for event in events]
    trial.equal("told", told, [SocketState.BOUND, SocketState.CLOSING, SocketState.UNCONNECTED])


# fmt: off
CONNECTS: tuple[tuple[Situation, str, Play], ...] = (
    ("answered at once", "address",            connect(GOOD)),
    ("answered at once", "bound",              connect(GOOD, bound=True)),
    ("has to wait",      "name",               connect("some.host", (GOOD,))),
    ("has to wait",      "name, bound",        connect("some.host", (REFUSING, GOOD), bound=True)),
    ("has to wait",      "name, spare",        connect("some.host", (REFUSING, GOOD), spare=True)),
    ("has to wait",      "started",            connect("some.host", (SILENT, GOOD), started=True)),
    ("has to wait",      "losers",             connect("some.host", (SILENT, REFUSING, GOOD, GOOD))),
    ("has to wait",      "no such name",       connect_in_vain("some.host", (), "HOST_NOT_FOUND")),
    ("has to wait",      "all refuse",         connect_in_vain("some.host", (REFUSING, REFUSING), REFUSED)),
    ("peer resets",      "refuses",            connect_in_vain(REFUSING, (), REFUSED)),
    ("peer finishes",    "",                   peer_ends(reset=False)),
    ("peer resets",      "after it accepted",  peer_ends(reset=True)),
    ("second task",      "aborted in look-up", connect("some.host", (SILENT,), beside=abort_it)),
    ("second task",      "aborted",            connect("some.host", (SILENT, GOOD), beside=abort_while_connecting)),
    ("second task",      "disconnected",       connect("some.host", (SILENT,), beside=disconnect_it)),
    ("second task",      "another connect",    connect("some.host", (SILENT, GOOD), beside=connect_it_too)),
    ("second task",      "watched",            connect("some.host", (SILENT, GOOD), beside=wait_for_it)),
    ("has to wait",      "SOCKS5 proxy",       connect_by_proxy(ProxyKind.SOCKS5)),
    ("has to wait",      "SOCKS5, asked",      connect_by_proxy(ProxyKind.SOCKS5, asked=True)),
    ("has to wait",      "HTTP, asked",        connect_by_proxy(ProxyKind.HTTP, asked=True)),
    ("has to wait",      "HTTP by SOCKS5",     connect_by_proxy(ProxyKind.HTTP, chain=True)),
    ("has to wait",      "HTTP inside of TLS", connect_by_proxy(ProxyKind.HTTP, asked=True, encrypted=True)),
    ("second task",      "a writer",           connect_with_early_bytes("some.host", (REFUSING, GOOD))),
)
EARLY: tuple[tuple[Situation, str, Callable[[str], Play]], ...] = (
    ("second task",      "connecting",         lambda verb: early(verb, (SILENT, GOOD))),
    ("second task",      "connecting, abort",  lambda verb: early(verb, (SILENT,), abort=True, end="closed")),
    ("second task",      "connecting, fails",  lambda verb: early(verb, (REFUSING,), end=REFUSED)),
)
EARLY_VERBS = ("send_all", "wait_send_all_might_not_block", "wait_for_bytes_written", "wait_for_ready_read")
WAITS: tuple[tuple[Situation, str, Play], ...] = (
    ("answered at once", "",                   connected_at_once),
    ("has to wait",      "",                   wait_for_connected("some.host", (SILENT, GOOD))),
    ("peer resets",      "refuses",            wait_for_connected("some.host", (REFUSING,), end=REFUSED)),
    ("peer finishes",    "",                   peer_ends_connected(reset=False)),
    ("peer resets",      "connected",          peer_ends_connected(reset=True)),
    ("second task",      "aborted",            wait_for_connected("some.host", (SILENT,), abort=True, end="closed")),
)
BINDS: tuple[tuple[Situation, str, Play], ...] = (
    ("answered at once", "address",            bind(GOOD)),
    ("answered at once", "in use",             bind_in_use),
    ("has to wait",      "name",               bind("some.host", (GOOD,))),
    ("second task",      "watched",            bind("some.host", (GOOD,), beside=watch)),
    ("second task",      "called off",         bind_called_off),
)
# fmt: on

CASES = (
    [
        Case(f"TcpSocket.{name}", situation, play, medium, variant)
        for name, plays in (("connect_to_host", CONNECTS), ("wait_for_connected", WAITS), ("bind", BINDS))
        for situation, variant, play in plays
        for medium in NETWORKS
    ]
    + [
        Case(f"TcpSocket.{verb}", "second task", scheduled(verb), medium, "scheduled")
        for verb in (*EARLY_VERBS, "wait_for_connected", "receive_line")
        for medium in NETWORKS
    ]
    + [
        Case(f"TcpSocket.{verb}", situation, make(verb), medium, variant)
        for verb in EARLY_VERBS
        for situation, variant, make in EARLY
        for medium in NETWORKS
    ]
)
