"""TcpServer as a thing that listens: where, on what, until when; and what its block does to what it accepted."""

from __future__ import annotations

import errno
import functools
import ipaddress
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.networks import Loopback, Network, RawPeer, this_network
from tests.sockets.arrivals import open_descriptors, until
from tests.sockets.echoing import ask, echo
from trioqt import (
    AcceptError,
    Connected,
    Disconnected,
    ErrorKind,
    Event,
    HostAddress,
    NewConnection,
    SocketError,
    SocketOption,
    SocketState,
    TcpServer,
    TcpSocket,
)
from trioqt.links import bind

OVER_TLS = True


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")


async def reach(host: str, port: int) -> RawPeer:
    """A client of the host at that address."""
    return await this_network().raw_connect(port, host)


def names_are(*addresses: str) -> None:
    """From now on, in this run, every host name means these addresses; none: it is unknown."""

    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(
            self,
            host: bytes | None,
            port: bytes | str | int | None,
            family: int = 0,
            type: int = 0,
            proto: int = 0,
            flags: int = 0,
        ) -> Any:
            await trio.lowlevel.checkpoint()
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "unknown name")
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
                if ":" in address
                else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in addresses
            ]

        async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Resolver())


def said(server: TcpServer[Any]) -> tuple[bool, HostAddress, int, int]:
    """What a server says of where it listens."""
    return server.is_listening(), server.server_address(), server.server_port(), server.socket_descriptor()


NOWHERE = (False, HostAddress.NULL, 0, -1)


# ---- Where ---------------------------------------------------------------------------------------


async def test_a_server_says_where_it_listens_and_after_close_that_it_does_not(network: Network) -> None:
    """The getters before, while and after listening, in and out of the block."""
    server = TcpServer()
    fresh = said(server)
    async with server:
        entered = said(server)
        await server.listen(network.host)
        listening, address, port, descriptor = said(server)
        with network.socket(descriptor) as below:
            name = below.getsockname()
        server.close()
        closed = said(server)
        await server.listen(network.host)
    left = said(server)

    assert (fresh, entered, closed, left) == (NOWHERE,) * 4
    assert (listening, address) == (True, HostAddress(network.host))
    assert name == (network.host, port)
    assert port > 0
    assert (server.server_error(), server.error_string(), server.connection_count()) == (None, "", 0)
    assert (server.has_pending_connections(), server.next_pending_connection()) == (False, None)
    assert server.max_pending_connections() == 30  # Qt's default


async def test_a_server_is_a_trio_listener() -> None:
    """Whatever takes a ``trio.abc.Listener`` takes a server."""
    assert isinstance(TcpServer(), trio.abc.Listener)


@pytest.mark.parametrize("host", ["127.0.0.1", HostAddress.LOCAL_HOST, ipaddress.IPv4Address("127.0.0.1")])
async def test_an_address_may_be_given_in_any_form(network: Network, host: HostAddress | str) -> None:
    """As text, as ours and as the standard library's."""
    async with TcpServer() as server:
        await server.listen(host)
        with await reach("127.0.0.1", server.server_port()):
            sock = await server.accept()

        assert server.server_address() == HostAddress.LOCAL_HOST
        assert (sock.local_address(), sock.local_port()) == (HostAddress.LOCAL_HOST, server.server_port())


@needs_ipv6
async def test_any_is_both_families_on_one_port_that_the_system_chose(network: Network) -> None:
    """``listen()`` without a word is reached by IPv4 and by IPv6, and an IPv4 peer has an IPv4 address."""
    async with TcpServer() as server:
        await server.listen()
        peers = []
        for host in ("127.0.0.1", "::1"):
            with await reach(host, server.server_port()):
                peers.append((await server.accept()).peer_address())

        assert peers == [HostAddress.LOCAL_HOST, HostAddress.LOCAL_HOST_IPV6]
        assert server.server_address() == HostAddress.ANY
        assert server.server_port() > 0


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "reached", "refused"),
    [
        (HostAddress.ANY_IPV6, "::1", "127.0.0.1"),
        (HostAddress.ANY_IPV4, "127.0.0.1", "::1"),
        (HostAddress.LOCAL_HOST_IPV6, "::1", "127.0.0.1"),
        (HostAddress.LOCAL_HOST, "127.0.0.1", "::1"),
    ],
)
async def test_one_family_is_not_reached_by_the_other(
    network: Network, host: HostAddress, reached: str, refused: str
) -> None:
    """Who asks for one family gets that one, also where it is all of its addresses."""
    async with TcpServer() as server:
        await server.listen(host)
        with await reach(reached, server.server_port()):
            sock = await server.accept()
        with pytest.raises(ConnectionRefusedError):
            await reach(refused, server.server_port())

        assert server.server_address() == host
        assert sock.local_address() == HostAddress(reached)


@needs_ipv6
async def test_a_name_is_all_its_addresses_on_one_port(network: Network) -> None:
    """What most machines call localhost: one server, two listening sockets, one port, drawn by the system."""
    names_are("127.0.0.1", "::1")
    async with TcpServer() as server:
        await server.listen("localhost")
        peers = []
        for host in ("127.0.0.1", "::1"):
            with await reach(host, server.server_port()):
                peers.append((await server.accept()).peer_address())

        assert peers == [HostAddress.LOCAL_HOST, HostAddress.LOCAL_HOST_IPV6]
        assert server.server_address() == HostAddress.LOCAL_HOST  # the first of them

        port = server.server_port()
        server.close()
        for host in ("127.0.0.1", "::1"):
            with pytest.raises(ConnectionRefusedError):
                await reach(host, port)


@needs_ipv6
@pytest.mark.parametrize("asked", ["127.0.0.1", "::ffff:127.0.0.1"])
async def test_an_ipv4_mapped_address_is_listened_on_for_its_ipv4_peers(network: Network, asked: str) -> None:
    """However they spell it; and no IPv6 peer gets there.  In Qt it is refused."""
    async with TcpServer() as server:
        await server.listen("::ffff:127.0.0.1")
        address, port = server.server_address(), server.server_port()
        async with TcpSocket() as client:
            await client.connect_to_host(asked, port)
            peer = (await server.accept()).peer_address()
            with pytest.raises(SocketError):
                async with TcpSocket() as other:
                    await other.connect_to_host("::1", port)

    assert (address.text, peer.text) == ("::ffff:127.0.0.1", "::ffff:127.0.0.1")


@needs_ipv6
async def test_a_mapped_address_and_its_ipv4_form_are_one_on_one_port(network: Network) -> None:
    """The system takes them for the same, so the second is in use."""
    async with TcpServer() as server, TcpServer() as other:
        await server.listen("127.0.0.1")
        with pytest.raises(SocketError) as caught:
            await other.listen("::ffff:127.0.0.1", server.server_port())

    assert caught.value.kind is ErrorKind.ADDRESS_IN_USE


async def test_localhost_as_this_machine_means_it_can_be_listened_on(network: Network) -> None:
    """No fake resolver here: the name that every tutorial uses."""
    async with TcpServer() as server:
        await server.listen("localhost")
        async with TcpSocket() as client:
            await client.connect_to_host("localhost", server.server_port())
            sock = await server.accept()

            assert sock.peer_port() == client.local_port()
        assert server.server_address().is_loopback()


async def test_a_port_drawn_for_the_first_address_that_the_second_cannot_have_is_drawn_anew(
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system draws for one address only; that the other one's port is taken is bad luck, not an error."""
    names_are("127.0.0.1", "127.0.0.2")
    drawn: list[tuple[str, int]] = []
    really_bind = bind.bind_socket

    async def bind_unluckily(target: Any, *args: Any, **options: Any) -> trio.socket.SocketType:
        drawn.append(target.address)
        if len(drawn) == 2:
            raise OSError(errno.EADDRINUSE, "bad luck")
        return await really_bind(target, *args, **options)

    monkeypatch.setattr(bind, "bind_socket", bind_unluckily)
    before = open_descriptors()
    async with TcpServer() as server:
        await server.listen("twice")
        opened = open_descriptors() - before
        for host in ("127.0.0.1", "127.0.0.2"):
            with await reach(host, server.server_port()):
                await server.accept()

    assert [(host, port == 0) for host, port in drawn] == [
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("127.0.0.1", True),
        ("127.0.0.2", False),
    ]
    assert len(opened) == 2


@pytest.mark.parametrize("backlog", [0, 1, 7, None])
async def test_the_backlog_is_the_kernels_bound(network: Network, backlog: int | None) -> None:
    """What is asked for; nothing asked for is all that the system allows."""
    async with TcpServer() as server:
        await server.listen(network.host, backlog=backlog)

        assert network.accept_queue(server.socket_descriptor()) == (
            0,
            network.longest_queue() if backlog is None else backlog,
        )


async def test_the_backlog_size_is_what_listen_uses_when_it_is_not_told(network: Network) -> None:
    """It is for every later ``listen``, an argument for one; and changing it leaves what listens alone."""
    bounds = []
    server = TcpServer()
    fresh = server.listen_backlog_size()
    server.set_listen_backlog_size(5)
    async with server:
        for backlog in (None, 3, None):
            await server.listen(network.host, backlog=backlog)
            bounds.append(network.accept_queue(server.socket_descriptor())[1])
            server.set_listen_backlog_size(server.listen_backlog_size() + 1)
            bounds.append(network.accept_queue(server.socket_descriptor())[1])
            server.close()

    assert fresh == 65535
    assert bounds == [5, 5, 3, 3, 7, 7]
    assert server.listen_backlog_size() == 8


async def test_a_backlog_size_beyond_all_bounds_is_as_many_as_the_system_allows(network: Network) -> None:
    """The number is given back as it was; the system has a bound of its own."""
    async with TcpServer() as server:
        server.set_listen_backlog_size(2**70)
        await server.listen(network.host)

        assert network.accept_queue(server.socket_descriptor())[1] == network.longest_queue()
        assert server.listen_backlog_size() == 2**70


def test_a_wrong_backlog_size_is_refused() -> None:
    """A number of connections, so never negative; and what was set stays."""
    server = TcpServer()
    with pytest.raises(ValueError):
        server.set_listen_backlog_size(-1)
    with pytest.raises(TypeError):
        server.set_listen_backlog_size("many")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        server.set_listen_backlog_size(1.5)  # type: ignore[arg-type]

    assert server.listen_backlog_size() == 65535


# ---- Where not -----------------------------------------------------------------------------------


async def test_a_port_in_use_is_told_and_the_server_can_listen_elsewhere(network: Network) -> None:
    """The kind, the system's number and words; afterwards nothing is open, and another port will do."""
    with await network.raw_listener() as other:
        before = open_descriptors()
        async with TcpServer() as server:
            with pytest.raises(SocketError) as caught:
                await server.listen(network.host, other.port)
            after = open_descriptors() - before
            refused = said(server)
            await server.listen(network.host)

            assert caught.value.kind is ErrorKind.ADDRESS_IN_USE
            assert caught.value.errno == errno.EADDRINUSE
            assert isinstance(caught.value.__cause__, OSError)
            assert str(caught.value) == f"cannot listen on 127.0.0.1 port {other.port}: Address already in use"
            assert refused == NOWHERE
            assert after == set()
            assert server.is_listening()
            # The last error, also after a success, as in Qt.
            assert (server.server_error(), server.error_string()) == (ErrorKind.ADDRESS_IN_USE, str(caught.value))


async def test_two_servers_cannot_have_one_port(network: Network) -> None:
    """Though a server may come back to its port at once, two at a time never share it by accident."""
    async with TcpServer() as first, TcpServer() as second:
        await first.listen(network.host)
        with pytest.raises(SocketError) as caught:
            await second.listen(network.host, first.server_port())

        assert caught.value.kind is ErrorKind.ADDRESS_IN_USE
        assert (first.is_listening(), second.is_listening()) == (True, False)


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("192.0.2.1", ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE),  # RFC 5737: nobody's
        ("nowhere.invalid", ErrorKind.HOST_NOT_FOUND),
        ("x" * 70, ErrorKind.HOST_NOT_FOUND),  # a label that IDNA cannot encode
        ("", ErrorKind.UNSUPPORTED_SOCKET_OPERATION),
        (HostAddress.NULL, ErrorKind.UNSUPPORTED_SOCKET_OPERATION),
    ],
)
async def test_what_cannot_be_listened_on_says_why(network: Network, host: HostAddress | str, kind: ErrorKind) -> None:
    """An address of another machine, a name that means nothing, no address at all."""
    names_are()
    before = open_descriptors()
    async with TcpServer() as server:
        with pytest.raises(SocketError) as caught:
            await server.listen(host)

        assert caught.value.kind is kind
        assert (server.server_error(), server.error_string()) == (kind, str(caught.value))
        assert said(server) == NOWHERE
        assert open_descriptors() - before == set()


async def test_a_name_with_one_foreign_address_leaves_nothing_open(network: Network) -> None:
    """All addresses or none: the first one is given back when the second cannot be had."""
    names_are("127.0.0.1", "192.0.2.1")
    before = open_descriptors()
    async with TcpServer() as server:
        with pytest.raises(SocketError) as caught:
            await server.listen("half-ours")

        assert caught.value.kind is ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE
        assert said(server) == NOWHERE
        assert open_descriptors() - before == set()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((5,), TypeError),
        ((b"127.0.0.1",), TypeError),
        ((None,), TypeError),
        (("127.0.0.1", "80"), TypeError),
        (("127.0.0.1", 80.5), TypeError),
        (("127.0.0.1", -1), ValueError),
        (("127.0.0.1", 65536), ValueError),
    ],
)
async def test_wrong_arguments_are_refused_before_anything_is_touched(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    """A wrong type is a TypeError, a number out of range a ValueError, and the server is as it was."""
    async with TcpServer() as server:
        with pytest.raises(error):
            await server.listen(*arguments)

        assert (said(server), server.server_error()) == (NOWHERE, None)


async def test_a_backlog_beyond_all_bounds_is_as_many_as_the_system_allows(network: Network) -> None:
    """No OverflowError: the system has a bound of its own anyway."""
    bounds = []
    async with TcpServer() as server:
        for backlog in (65535, 2**31, 2**70):
            await server.listen(network.host, backlog=backlog)
            bounds.append(network.accept_queue(server.socket_descriptor())[1])
            server.close()

    assert bounds == [network.longest_queue()] * 3


async def test_a_wrong_backlog_is_refused(network: Network) -> None:
    """Likewise."""
    async with TcpServer() as server:
        with pytest.raises(ValueError):
            await server.listen(network.host, backlog=-1)
        with pytest.raises(TypeError):
            await server.listen(network.host, backlog="many")  # type: ignore[arg-type]

        assert (said(server), server.server_error()) == (NOWHERE, None)


def test_wrong_construction_is_refused() -> None:
    """A limit is at least one, and a factory can be called."""
    with pytest.raises(ValueError):
        TcpServer(max_connections=0)
    with pytest.raises(ValueError):
        TcpServer(max_connections=-1)
    with pytest.raises(TypeError):
        TcpServer(max_connections=1.5)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        TcpServer(5)  # type: ignore[call-overload]


async def makes_a_socket_later() -> TcpSocket:
    """Async, which a factory cannot be."""
    return TcpSocket()


class ForSomebody(TcpSocket):
    """It has to be told for whom."""

    def __init__(self, whom: str) -> None:
        super().__init__()


FACTORIES: dict[str, tuple[Any, str]] = {
    "a socket": (TcpSocket(), "a socket factory is callable, not TcpSocket"),
    "a class of something else": (dict, "a socket factory must make TcpSockets, not dicts"),
    "a server": (TcpServer, "a socket factory must make TcpSockets, not TcpServers"),
    "async": (makes_a_socket_later, "a socket factory is an ordinary function, and not an async one"),
    "a class with an argument": (ForSomebody, "a socket factory is called without arguments: missing a required"),
    "a function with one": (lambda peer: TcpSocket(), "a socket factory is called without arguments: missing a"),
}


@pytest.mark.parametrize(("factory", "message"), FACTORIES.values(), ids=FACTORIES)
def test_a_factory_that_can_make_no_socket_is_refused_before_the_first_client(factory: Any, message: str) -> None:
    """As far as it can be seen before it is called; each connection would fail."""
    with pytest.raises(TypeError, match=message):
        TcpServer(factory)


@pytest.mark.parametrize(
    "factory",
    [TcpSocket, functools.partial(ForSomebody, "me"), lambda: ForSomebody("me"), lambda whom="me": ForSomebody(whom)],
    ids=["class", "partial", "lambda", "default"],
)
def test_what_may_make_one_is_not_refused(factory: Any) -> None:
    """Whatever can be called without arguments."""
    assert not TcpServer(factory).is_listening()


# ---- When ----------------------------------------------------------------------------------------


async def test_listening_twice_is_a_mistake_that_harms_nothing(network: Network) -> None:
    """OPERATION, by whichever call; and the server is reached as before."""
    with socket.socket() as other:
        other.bind((network.host, 0))
        other.listen()
        async with TcpServer() as server:
            await server.listen(network.host)
            before = said(server)
            for _ in range(2):
                with pytest.raises(SocketError) as caught:
                    await server.listen(network.host)
                assert caught.value.kind is ErrorKind.OPERATION
            with pytest.raises(SocketError) as caught:
                server.set_socket_descriptor(other.fileno())
            with await network.raw_connect(server.server_port()):
                await server.accept()

            assert caught.value.kind is ErrorKind.OPERATION
            assert (said(server), server.server_error()) == (before, None)
            assert other.getsockname()[0] == network.host  # still open, and ours


async def test_two_tasks_that_listen_at_once_do_not_both(network: Network, nursery: trio.Nursery) -> None:
    """One of them listens, the other one made the mistake, and only one socket is open."""
    outcomes: list[ErrorKind | None] = []

    async def listen(server: TcpServer[TcpSocket]) -> None:
        try:
            await server.listen(network.host)
        except SocketError as exc:
            outcomes.append(exc.kind)
        else:
            outcomes.append(None)

    before = open_descriptors()
    async with TcpServer() as server:
        async with trio.open_nursery() as both:
            both.start_soon(listen, server)
            both.start_soon(listen, server)

        assert outcomes == [None, ErrorKind.OPERATION]
        assert len(open_descriptors() - before) == 1
    assert open_descriptors() - before == set()


async def test_a_server_works_only_in_its_block(network: Network) -> None:
    """Before it, a mistake; after it, closed.  Law 3: without a scope it does not work."""
    with socket.socket() as other:
        other.bind((network.host, 0))
        other.listen()
        server = TcpServer()
        for call in ("listen", "descriptor"):
            with pytest.raises(SocketError) as caught:
                await (server.listen(network.host) if call == "listen" else adopt(server, other))
            assert caught.value.kind is ErrorKind.OPERATION
        async with server:
            pass
        for call in ("listen", "descriptor"):
            with pytest.raises(trio.ClosedResourceError):
                await (server.listen(network.host) if call == "listen" else adopt(server, other))
        with pytest.raises(trio.ClosedResourceError):
            await server.__aenter__()

        assert other.getsockname()[0] == network.host


async def adopt(server: TcpServer[Any], sock: socket.socket) -> None:
    """``set_socket_descriptor`` in the shape of ``listen``."""
    server.set_socket_descriptor(sock.fileno())


async def test_after_close_a_server_may_listen_again_on_the_same_port(network: Network) -> None:
    """At once, though connections that the server ended first are still in the kernel's TIME_WAIT."""
    async with TcpServer() as server:
        await server.listen(network.host)
        port = server.server_port()
        for _ in range(3):
            with await network.raw_connect(port) as client:
                sock = await server.accept()
                await sock.aclose()
                ended = await client.receive_to_end()
                client.close()
            server.close()
            server.close()  # again: no effect
            with pytest.raises(ConnectionRefusedError):
                await network.raw_connect(port)
            await server.listen(network.host, port)

            assert ended == b""
            assert server.server_port() == port


async def test_after_aclose_a_server_never_listens_again(network: Network) -> None:
    """That is what distinguishes it from ``close``; and it can be called twice, and before anything was begun."""
    async with TcpServer() as server:
        await server.listen(network.host)
        port = server.server_port()
        await server.aclose()
        await server.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await server.listen(network.host)
        with pytest.raises(ConnectionRefusedError):
            await network.raw_connect(port)

        assert said(server) == NOWHERE
    never_entered = TcpServer()
    await never_entered.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await never_entered.__aenter__()


async def test_a_cancelled_aclose_has_closed(network: Network) -> None:
    """Ending is the exception to the rule that cancelled means it did not happen."""
    async with TcpServer() as server:
        await server.listen(network.host)
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.aclose()

        assert scope.cancelled_caught
        assert said(server) == NOWHERE
        with pytest.raises(trio.ClosedResourceError):
            await server.listen(network.host)


async def test_a_cancelled_listen_has_not_listened(network: Network) -> None:
    """Nothing is open, and the server can listen later."""
    names_are("127.0.0.1", "127.0.0.2")
    before = open_descriptors()
    async with TcpServer() as server:
        for host in (network.host, HostAddress.ANY, "a-name"):
            with trio.CancelScope() as scope:
                scope.cancel()
                await server.listen(host)

            assert scope.cancelled_caught
            assert said(server) == NOWHERE
            assert open_descriptors() - before == set()
        await server.listen(network.host)
        assert server.is_listening()


async def test_a_block_that_is_left_while_another_task_listens_opens_nothing(
    network: Network, nursery: trio.Nursery
) -> None:
    """The look-up ends after the block did: then nothing is opened, and the call says closed."""
    asked, answer = trio.Event(), trio.Event()
    outcomes: list[str] = []

    class SlowResolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
            asked.set()
            await answer.wait()
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
            raise NotImplementedError

    async def listen(server: TcpServer[TcpSocket]) -> None:
        try:
            await server.listen("slow")
        except trio.ClosedResourceError:
            outcomes.append("closed")

    trio.socket.set_custom_hostname_resolver(SlowResolver())
    before = open_descriptors()
    async with TcpServer() as server:
        nursery.start_soon(listen, server)
        await asked.wait()
    answer.set()
    await trio.testing.wait_all_tasks_blocked()

    assert outcomes == ["closed"]
    assert said(server) == NOWHERE
    assert open_descriptors() - before == set()


# ---- On a socket that listens already ------------------------------------------------------------


# Loopback: a descriptor is handed over.
@pytest.mark.parametrize("blocking", [True, False])
async def test_an_open_listening_socket_can_be_adopted(network: Loopback, blocking: bool) -> None:
    """As systemd and parent processes hand one over; connections that wait in it are served."""
    handed = socket.socket()
    handed.setblocking(blocking)
    handed.bind((network.host, 0))
    handed.listen()
    port = handed.getsockname()[1]
    async with TcpServer() as server:
        with await network.raw_connect(port) as early:
            descriptor = handed.detach()
            server.set_socket_descriptor(descriptor)
            sock = await server.accept()
            await sock.send_all(b"hello")

            assert said(server) == (True, HostAddress(network.host), port, descriptor)
            assert await early.receive(5) == b"hello"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)  # it was the server's, and has been closed


# Loopback: a descriptor is handed over.
async def test_what_is_accepted_has_low_delay_wherever_the_listening_socket_came_from(network: Loopback) -> None:
    """LOW_DELAY is on by default.  An adopted listener used to lack it, so its connections did too."""
    handed = socket.socket()
    handed.bind((network.host, 0))
    handed.listen()
    found = []
    async with TcpServer() as server:
        await server.listen(network.host)
        for _ in range(2):
            with await network.raw_connect(server.server_port()):
                found.append((await server.accept()).socket_option(SocketOption.LOW_DELAY))
            server.close()
            if len(found) == 1:
                server.set_socket_descriptor(handed.detach())

    assert found == [1, 1]


def _not_listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def _udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _unix() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("")  # Linux: a name of its own choice
    sock.listen()
    return sock


def _connected() -> socket.socket:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        return socket.create_connection(listener.getsockname())


# Loopback: a descriptor is handed over.
@pytest.mark.parametrize("make", [_not_listening, _udp, _unix, _connected])
async def test_a_socket_that_is_no_tcp_listener_is_refused_and_stays_yours(make: Any, network: Loopback) -> None:
    """Bound only, UDP, a unix socket, a connection: each refused, still open, and the server is as it was."""
    with make() as sock:
        async with TcpServer() as server:
            with pytest.raises(SocketError) as caught:
                server.set_socket_descriptor(sock.fileno())
            refused = said(server)
            error = server.server_error(), server.error_string()
            await server.listen(network.host)

            assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
            assert error == (caught.value.kind, caught.value.message)
            assert str(sock.fileno()) in str(caught.value)
            assert refused == NOWHERE
        sock.getsockname()  # would raise if it were closed


async def test_a_descriptor_that_is_no_socket_or_not_open_is_refused() -> None:
    """A pipe stays open; a closed number and a negative one are said to be wrong."""
    async with TcpServer() as server:
        reading, writing = os.pipe()
        os.close(writing)
        for descriptor in (reading, writing, -1):
            with pytest.raises(SocketError) as caught:
                server.set_socket_descriptor(descriptor)
            assert caught.value.kind is server.server_error() is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
        with pytest.raises(TypeError):
            server.set_socket_descriptor("3")  # type: ignore[arg-type]

        assert os.read(reading, 1) == b""
        os.close(reading)
        assert said(server) == NOWHERE


# ---- What ends what ------------------------------------------------------------------------------


async def test_close_aborts_pending_connections_and_keeps_those_that_were_taken(network: Network) -> None:
    """As Qt does: nobody will ever serve the pending ones, and the taken ones are none of its business."""
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as first:
            taken = await server.accept()
            with await network.raw_connect(server.server_port()) as second:
                await server.wait_for_new_connection()
                counts = [server.connection_count()]
                server.close()
                counts.append(server.connection_count())

                assert await second.receive_to_end() == b""
                assert (server.has_pending_connections(), server.next_pending_connection()) == (False, None)
                assert counts == [2, 1]
                await first.send(b"still there?")
                assert await taken.receive_exactly(12) == b"still there?"
                await taken.send_all(b"yes")
                assert await first.receive(3) == b"yes"


async def test_leaving_the_block_ends_every_accepted_socket(network: Network) -> None:
    """Pending, taken and waited on: all are closed, their peers are told, and their slots are free."""
    outcomes: list[str] = []

    async def receive(sock: TcpSocket) -> None:
        try:
            await sock.receive_some()
        except trio.ClosedResourceError:
            outcomes.append("closed")

    async with trio.open_nursery() as outer:
        async with TcpServer() as server:
            await server.listen(network.host)
            clients = [await network.raw_connect(server.server_port()) for _ in range(2)]
            taken = await server.accept()
            outer.start_soon(receive, taken)
            await server.wait_for_new_connection()
            await trio.testing.wait_all_tasks_blocked()
        counted = server.connection_count()
    ends = [await client.receive_to_end() for client in clients]
    for client in clients:
        client.close()

    assert outcomes == ["closed"]
    assert counted == 0
    assert ends == [b"", b""]
    assert taken.state() is SocketState.UNCONNECTED
    with pytest.raises(trio.ClosedResourceError):
        taken.write(b"x")


async def test_leaving_the_block_drops_queued_bytes_with_a_reset(network: Network) -> None:
    """Law 6: if queued bytes are dropped, the peer never sees a clean end."""
    async with TcpServer() as server:
        await server.listen(network.host)
        client = await network.raw_connect(server.server_port())
        sock = await server.accept()
        sock.write(bytes(16 << 20))
        queued = sock.bytes_to_write()
    with client, pytest.raises(ConnectionResetError):
        await client.receive_to_end()

    assert queued > 0


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SocketError(ErrorKind.NETWORK, "mine")])
async def test_the_bodys_exception_leaves_the_block_as_it_is(network: Network, error: BaseException) -> None:
    """Never wrapped in a group, though the block has a nursery with tasks in it; and the sockets are ended."""
    caught: BaseException | None = None
    with await network.raw_listener():
        try:
            async with TcpServer() as server:
                await server.listen(network.host)
                client = await network.raw_connect(server.server_port())
                await server.accept()
                raise error
        except BaseException as exc:
            caught = exc
        with client:
            assert await client.how_it_ends() == "reset"

    assert caught is error
    assert (server.connection_count(), said(server)) == (0, NOWHERE)


async def test_a_cancelled_block_ends_everything(network: Network) -> None:
    """Cancelled in the body or at the exit: the same end, and the cancellation goes out."""
    for where in ("body", "exit"):
        with trio.CancelScope() as scope:
            async with TcpServer() as server:
                await server.listen(network.host)
                client = await network.raw_connect(server.server_port())
                await server.accept()
                scope.cancel()
                if where == "body":
                    await trio.sleep_forever()

        with client:
            assert await client.receive_to_end() == b""
        assert scope.cancelled_caught
        assert (server.connection_count(), said(server)) == (0, NOWHERE)


async def test_entering_an_entered_server_does_nothing_and_that_exit_is_aclose(network: Network) -> None:
    """A function may take a server and enter it for itself: the inner exit closes it, the outer one ends it."""
    async with TcpServer() as server:
        await server.listen(network.host)
        client = await network.raw_connect(server.server_port())
        taken = await server.accept()
        async with server as same:
            assert same is server
            assert server.is_listening()
        with pytest.raises(trio.ClosedResourceError):
            await server.listen(network.host)
        with pytest.raises(trio.ClosedResourceError):
            await server.accept()
        await taken.send_all(b"I go on")

        assert said(server) == NOWHERE
        assert await client.receive(7) == b"I go on"
    with client:
        assert await client.receive_to_end() == b""
    assert taken.state() is SocketState.UNCONNECTED


async def test_an_exception_leaves_the_inner_block_as_it_is_even_when_cancelled(network: Network) -> None:
    """The inner exit used to look for cancellation, and lost the exception to it."""
    caught: BaseException | None = None
    error = ValueError("mine")
    with trio.CancelScope() as scope:
        async with TcpServer() as server:
            await server.listen(network.host)
            try:
                async with server:
                    scope.cancel()
                    raise error
            except BaseException as exc:
                caught = exc

    assert caught is error
    assert said(server) == NOWHERE


async def test_a_block_can_be_left_while_another_task_is_in_the_same_server(
    network: Network, nursery: trio.Nursery
) -> None:
    """The one who opened it ends it.

    The exits used to be counted whoever made them: so the opener's exit was taken for an inner one, it left the
    server's nursery open, and trio failed with a corrupted stack of cancel scopes.
    """
    inside, leave = trio.Event(), trio.Event()

    async def enter(server: TcpServer[TcpSocket]) -> None:
        async with server:
            inside.set()
            await leave.wait()

    async with TcpServer() as server:
        await server.listen(network.host)
        nursery.start_soon(enter, server)
        await inside.wait()
        client = await network.raw_connect(server.server_port())
        taken = await server.accept()
    with client:
        assert await client.receive_to_end() == b""
    assert (taken.state(), said(server)) == (SocketState.UNCONNECTED, NOWHERE)

    leave.set()
    await trio.testing.wait_all_tasks_blocked()
    assert said(server) == NOWHERE


async def test_the_inner_block_of_another_task_closes_the_server_too(network: Network, nursery: trio.Nursery) -> None:
    """As ``trio.serve_listeners`` does, which enters the listener that it is given."""

    async def enter(server: TcpServer[TcpSocket], task_status: trio.TaskStatus[None]) -> None:
        async with server:
            task_status.started()

    async with TcpServer() as server:
        await server.listen(network.host)
        client = await network.raw_connect(server.server_port())
        taken = await server.accept()
        await nursery.start(lambda task_status: enter(server, task_status))
        await trio.testing.wait_all_tasks_blocked()

        assert said(server) == NOWHERE
        await taken.send_all(b"I go on")
        assert await client.receive(7) == b"I go on"
    with client:
        assert await client.receive_to_end() == b""


async def test_an_accepted_socket_that_connects_elsewhere_still_ends_with_the_servers_block(network: Network) -> None:
    """Law 3: it lives in its server's scope, whatever it does there.

    Its slot had been freed when the accepted connection ended, and with it the server forgot the socket: so the
    block's exit left the new connection open, and waited for ever for the task that watched it.
    """
    with await network.raw_listener() as elsewhere:
        async with TcpServer() as server:
            await server.listen(network.host)
            with await network.raw_connect(server.server_port()):
                sock = await server.accept()
            await sock.disconnect_from_host()
            await sock.connect_to_host(network.host, elsewhere.port)
            peer = await elsewhere.accept()
            events = sock.events()
            await events.__aenter__()  # so a task watches it
            sock.write(bytes(16 << 20))  # and another one sends
            assert sock.bytes_to_write() > 0

        assert sock.state() is SocketState.UNCONNECTED
        with peer, pytest.raises(ConnectionResetError):
            await peer.receive_to_end()


async def test_events_of_an_accepted_socket_end_with_the_servers_block(network: Network, nursery: trio.Nursery) -> None:
    """Also if the connection had ended before: its listener used to wait for ever."""
    seen: list[Event | str] = []

    async def watch(sock: TcpSocket, task_status: trio.TaskStatus[None]) -> None:
        async with sock.events(Connected, Disconnected) as events:
            task_status.started()
            async for event in events:
                seen.append(event)
            seen.append("over")

    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            sock = await server.accept()
            await nursery.start(lambda task_status: watch(sock, task_status))
        await sock.disconnect_from_host()
    await trio.testing.wait_all_tasks_blocked()

    assert seen == [Disconnected(), "over"]


async def test_events_of_a_server_end_with_its_block_not_with_aclose(network: Network, nursery: trio.Nursery) -> None:
    """Handlers may still end after ``aclose``, and somebody may want to know."""
    seen: list[Event | str] = []

    async def watch(server: TcpServer[TcpSocket], task_status: trio.TaskStatus[None]) -> None:
        async with server.events() as events:
            task_status.started()
            async for event in events:
                seen.append(event)
            seen.append("over")

    async with TcpServer() as server:
        await nursery.start(lambda task_status: watch(server, task_status))
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await server.accept()
        await server.aclose()
        await trio.testing.wait_all_tasks_blocked()
        before = list(seen)
    await trio.testing.wait_all_tasks_blocked()

    assert before == [NewConnection()]
    assert seen == [NewConnection(), "over"]


# ---- Sockets made by a factory -------------------------------------------------------------------


async def test_a_factory_makes_the_sockets(network: Network) -> None:
    """Qt's ``incomingConnection``: your class, or any callable, with what it sets up beforehand."""

    class Named(TcpSocket):
        name = "unnamed"

    def make() -> Named:
        sock = Named(read_buffer_size=1000)
        sock.set_socket_option(SocketOption.KEEP_ALIVE, 0)
        sock.name = "made"
        return sock

    async with TcpServer(make) as server, TcpServer(Named) as plain:
        await server.listen(network.host)
        await plain.listen(network.host)
        with await network.raw_connect(server.server_port()), await network.raw_connect(plain.server_port()):
            sock, other = await server.accept(), await plain.accept()

            assert (type(sock), sock.name, sock.read_buffer_size()) == (Named, "made", 1000)
            assert sock.socket_option(SocketOption.KEEP_ALIVE) == 0
            assert (type(other), other.name, other.socket_option(SocketOption.KEEP_ALIVE)) == (Named, "unnamed", 1)


def _fails() -> TcpSocket:
    raise LookupError("a factory's bug")


def _raises_a_cancellation() -> TcpSocket:
    raise trio.Cancelled._create(source="explicit")


def _makes_something_else() -> Any:
    return socket.socket


def _makes_the_same_again(kept: list[TcpSocket]) -> TcpSocket:
    if not kept:
        kept.append(TcpSocket())
    return kept[0]


def _asks_for_what_tcp_cannot() -> TcpSocket:
    sock = TcpSocket()
    sock.set_socket_option(SocketOption.MULTICAST_TTL, 3)
    return sock


@pytest.fixture(
    params=[
        *("fails", "a cancellation of nobody", "something else", "nothing", "the same again", "a closed one"),
        "one that has a parent",
    ]
)
def bad_factory(request: pytest.FixtureRequest) -> tuple[Any, type[Exception], int]:
    """A factory with a bug, what comes of it, and which of its connections is the first that cannot be taken."""
    kept: list[TcpSocket] = []
    return {
        "fails": (_fails, LookupError, 1),
        "a cancellation of nobody": (_raises_a_cancellation, RuntimeError, 1),
        "something else": (_makes_something_else, TypeError, 1),
        "nothing": (lambda: None, TypeError, 1),
        "the same again": (lambda: _makes_the_same_again(kept), TypeError, 2),
        "a closed one": (_makes_a_closed_one, TypeError, 1),
        "one that has a parent": (_makes_one_with_a_parent, TypeError, 1),
    }[request.param]


def _makes_a_closed_one() -> TcpSocket:
    sock = TcpSocket()
    sock._close()
    return sock


def _makes_one_with_a_parent() -> TcpSocket:
    return TcpSocket(trio.lowlevel.current_task().parent_nursery)


async def test_a_bug_in_the_factory_ends_one_connection_and_no_more(
    network: Network,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    handler_failures: Callable[[], list[Exception]],
    bad_factory: tuple[Any, type[Exception], int],
) -> None:
    """It is told as an event and an error, logged with its traceback, and a test hears of it; the next is served."""
    factory, error, bad = bad_factory
    made = []

    def make() -> Any:
        made.append(1)
        return factory() if len(made) <= bad else TcpSocket()

    async with TcpServer(make) as server, server.events(AcceptError) as events:
        await server.listen(network.host)
        clients = [await network.raw_connect(server.server_port()) for _ in range(bad)]
        await until(lambda: len(made) == bad)
        end = await clients[-1].receive_to_end()
        event = await anext(events)
        port = clients[-1].sock.getsockname()[1]
        nursery.start_soon(server.serve, echo)
        with await network.raw_connect(server.server_port()) as good:
            answered = await ask(good)
            counted = server.connection_count()
        said_then = (server.server_error(), server.error_string())
        for client in clients:
            client.close()

    (record,) = caplog.records
    assert (end, answered, counted) == (b"", True, bad)
    assert event == AcceptError(ErrorKind.UNKNOWN, said_then[1])
    assert said_then[0] is ErrorKind.UNKNOWN
    assert said_then[1].startswith(f"cannot take the connection from 127.0.0.1:{port}: {error.__name__}: ")
    assert (record.levelno, record.getMessage()) == (logging.ERROR, said_then[1])
    assert record.exc_info is not None
    assert handler_failures() == [record.exc_info[1]]


async def test_an_option_that_the_system_refuses_ends_one_connection_and_no_more(
    network: Network, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """It was set before there was a socket to refuse it: one line at WARNING, and the next is served."""
    made = []

    def make() -> TcpSocket:
        made.append(1)
        return _asks_for_what_tcp_cannot() if len(made) == 1 else TcpSocket()

    before = open_descriptors()
    async with TcpServer(make) as server, server.events(AcceptError) as events:
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        with await network.raw_connect(server.server_port()) as client:
            end = await client.receive_to_end()
            event = await anext(events)
        with await network.raw_connect(server.server_port()) as good:
            answered = await ask(good)
        said_then = (server.server_error(), server.error_string())
    left = open_descriptors() - before

    (record,) = caplog.records
    assert (end, answered, left) == (b"", True, set())
    assert said_then[0] is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
    assert event == AcceptError(said_then[0], said_then[1])
    assert (record.levelno, record.getMessage(), record.exc_info) == (logging.WARNING, said_then[1], None)


@pytest.mark.parametrize("stop", [SystemExit(3), KeyboardInterrupt()], ids=["exit", "Ctrl-C"])
async def test_a_factory_that_ends_the_program_does(network: Network, stop: BaseException) -> None:
    """It leaves the server's block bare, and nothing stays open."""

    def make() -> TcpSocket:
        raise stop

    before = open_descriptors()
    caught: BaseException | None = None
    client: RawPeer | None = None
    try:
        async with TcpServer(make) as server:
            await server.listen(network.host)
            server.pause_accepting()
            client = await network.raw_connect(server.server_port())
            server.resume_accepting()
            await trio.sleep_forever()
    except (SystemExit, KeyboardInterrupt) as exc:
        caught = exc
    assert client is not None
    end = await client.receive_to_end()
    client.close()

    assert caught is stop
    assert (end, open_descriptors() - before) == (b"", set())


async def test_a_factory_that_closes_the_server_accepts_nothing_more(network: Network) -> None:
    """The connection it was called for has no server any more: it is ended, as pending ones are."""

    def make() -> TcpSocket:
        server.close()
        return TcpSocket()

    async with TcpServer(make) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:
            with pytest.raises(trio.ClosedResourceError):
                await server.accept()

            assert await client.receive_to_end() == b""
        assert (server.connection_count(), server.has_pending_connections()) == (0, False)
        assert server.server_error() is None
