"""Servers that listen at a SOCKS5 proxy: where, for whom, and what a proxy that does not do it is told as."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Network, RawListener
from trioqt import (
    AcceptError,
    ErrorKind,
    HostAddress,
    NetworkProxy,
    ProxyAuthenticationRequired,
    ProxyKind,
    ProxyQuery,
    SocketError,
    TcpServer,
    TcpSocket,
    set_application_proxy,
    set_application_proxy_factory,
)
from trioqt.testing import ScriptedProxy, SignalSpy


async def start(nursery: trio.Nursery, **script: Any) -> ScriptedProxy:
    proxy: ScriptedProxy = await nursery.start(ScriptedProxy(ProxyKind.SOCKS5, **script).serve)
    return proxy


@asynccontextmanager
async def listening(proxy: NetworkProxy, **options: Any) -> AsyncIterator[TcpServer[TcpSocket]]:
    """A server that listens there."""
    async with TcpServer(**options) as server:
        server.set_proxy(proxy)
        await server.listen(HostAddress.ANY_IPV4)
        yield server


async def test_it_listens_where_the_proxy_says_and_takes_one_connection(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """The socket reads just what its peer sends: in Qt 6.12 the proxy's second reply is in front of it."""
    proxy = await start(nursery, early=b"", piece=1)
    async with listening(proxy.network_proxy()) as server:
        assert server.is_listening()
        assert (server.server_address(), server.server_port() > 0) == (HostAddress("127.0.0.1"), True)
        assert proxy.seen == ["methods 0", "BIND 0.0.0.0:0"]
        where = server.server_port()
        with await network.raw_connect(where) as peer:
            await peer.send(b"hi")
            async with await server.accept() as sock:
                address, port = peer.sock.getsockname()[:2]
                assert (sock.peer_address(), sock.peer_port()) == (HostAddress(address), port)
                assert (sock.local_address(), sock.local_port()) == (HostAddress("127.0.0.1"), where)
                assert await sock.receive_exactly(2) == b"hi"
                await sock.send_all(b"there")
            assert await peer.receive_to_end() == b"there"
        assert server.is_listening()
        with trio.move_on_after(100) as scope:
            await server.accept()
        assert scope.cancelled_caught  # there is no second one
        server.close()
        await server.listen(HostAddress.ANY_IPV4)
        assert proxy.seen[2:] == ["methods 0", "BIND 0.0.0.0:0"]
    nursery.cancel_scope.cancel()


async def test_a_handler_gets_it(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """serve() knows nothing of proxies; bytes that came behind the second reply are the first."""
    proxy = await start(nursery, early=b"early ")
    got: list[bytes] = []

    async def handle(sock: TcpSocket) -> None:
        got.append(await sock.receive_exactly(8))
        server.close()

    async with listening(proxy.network_proxy(), idle_limit=60.0) as server:
        with await network.raw_connect(server.server_port()) as peer:
            await peer.send(b"hi")
            await server.serve(handle)

    assert got == [b"early hi"]
    nursery.cancel_scope.cancel()


async def test_the_proxy_may_want_a_password(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    async def know(proxy: NetworkProxy, realm: str) -> tuple[str, str]:
        return "user", "secret"

    proxy = await start(nursery, user="user", password="secret")
    async with TcpServer() as server, SignalSpy(server, ProxyAuthenticationRequired) as spy:
        there = proxy.network_proxy("", "")
        server.set_proxy(there)
        server.set_proxy_authenticator(know)
        await server.listen("0.0.0.0")

        assert (server.is_listening(), list(spy)) == (True, [ProxyAuthenticationRequired(there, "")])
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", [ProxyKind.HTTP, ProxyKind.HTTP_CACHING, ProxyKind.FTP_CACHING])
async def test_other_kinds_cannot_and_on_loopback_nobody_asks(
    network: Network, autojump_clock: trio.testing.MockClock, kind: ProxyKind
) -> None:
    """As in Qt, where a server on a loopback address ignores even its own proxy."""
    async with TcpServer() as server:
        server.set_proxy(NetworkProxy(kind, "127.0.0.1", 9))
        await server.listen("127.0.0.1")
        assert server.is_listening()
        server.close()
        for host in (HostAddress.ANY, "0.0.0.0", ["127.0.0.1", "0.0.0.0"]):
            with pytest.raises(SocketError) as caught:
                await server.listen(host)

            assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
            assert (server.server_error(), server.error_string()) == (caught.value.kind, str(caught.value))
            assert not server.is_listening()


async def test_the_applications_proxy_is_asked_for_servers_too(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    queries: list[ProxyQuery] = []

    def factory(query: ProxyQuery) -> list[NetworkProxy]:
        queries.append(query)
        return [NetworkProxy(ProxyKind.HTTP, "127.0.0.1", 9), proxy.network_proxy()]

    proxy = await start(nursery)
    async with TcpServer() as server, TcpServer() as other, TcpServer() as third:
        set_application_proxy_factory(factory)
        server.set_protocol_tag("ftp")
        await server.listen(HostAddress.ANY)
        await other.listen("127.0.0.1")
        set_application_proxy(proxy.network_proxy())
        third.set_proxy(NetworkProxy(ProxyKind.NONE))
        await third.listen("0.0.0.0")

        assert queries == [ProxyQuery("", 0, "ftp", "server")]
        assert len(proxy.seen) == 2
        set_application_proxy_factory(None)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("says", "kind"),
    [
        (b"\x05\x00\x05\x07", ErrorKind.UNSUPPORTED_SOCKET_OPERATION),
        (b"\x05\x00\x05\x02", ErrorKind.SOCKET_ACCESS),
        (b"\x05\x00", ErrorKind.PROXY_CONNECTION_CLOSED),
        (b"\x04", ErrorKind.PROXY_CONNECTION_CLOSED),
        (b"HT", ErrorKind.PROXY_PROTOCOL),
        (None, ErrorKind.PROXY_CONNECTION_TIMEOUT),
    ],
)
async def test_a_proxy_that_does_not_listen(
    network: Network,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    says: bytes | None,
    kind: ErrorKind,
) -> None:
    proxy = await start(nursery, says=[says])
    async with TcpServer() as server:
        server.set_proxy(proxy.network_proxy())
        with pytest.raises(SocketError) as caught:
            await server.listen("0.0.0.0")

        assert (caught.value.kind, server.server_error(), server.is_listening()) == (kind, kind, False)
    nursery.cancel_scope.cancel()


async def test_a_proxy_whose_name_is_unknown(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    """It is the proxy that is not found, and not the address to listen on."""
    trio.socket.set_custom_hostname_resolver(NoNames())
    async with TcpServer() as server:
        server.set_proxy(NetworkProxy(ProxyKind.SOCKS5, "unknown.test", 1080))
        with pytest.raises(SocketError) as caught:
            await server.listen("0.0.0.0")

        assert (caught.value.kind, server.is_listening()) == (ErrorKind.PROXY_NOT_FOUND, False)


class NoNames(trio.abc.HostnameResolver):
    """Knows none."""

    async def getaddrinfo(self, *args: Any, **hints: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    async def getnameinfo(self, *args: Any) -> Any:
        raise NotImplementedError


LISTENS = b"\x05\x00" + b"\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34"


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        (b"", ErrorKind.PROXY_CONNECTION_CLOSED),
        (b"\x05\x01", ErrorKind.NETWORK),
        (b"\x04\x00", ErrorKind.PROXY_PROTOCOL),
        (b"\x05\x00\x00\x01\x7f", ErrorKind.PROXY_CONNECTION_CLOSED),
    ],
)
async def test_a_connection_that_does_not_come_is_told_once(
    network: Network,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    second: bytes,
    kind: ErrorKind,
) -> None:
    """However long that takes: a server waits for strangers."""
    proxy = await start(nursery, says=[LISTENS + second])
    async with TcpServer() as server, SignalSpy(server, AcceptError) as spy:
        server.set_proxy(proxy.network_proxy())
        await server.listen("0.0.0.0")
        await spy.wait_for(AcceptError)
        await trio.sleep(1000)

        assert [event.kind for event in spy] == [kind]
        assert "it takes another listen()" in caplog.text
        assert "again" not in caplog.text  # a proxy listens for one connection
        assert server.is_listening()
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["close", "aclose", "drain", "leave"])
async def test_a_server_that_stops_ends_the_proxys_listening(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, how: str
) -> None:
    """The connection to the proxy is what holds it."""
    with await network.raw_listener() as listener:
        told = trio.Event()
        nursery.start_soon(say, listener, told)
        async with listening(NetworkProxy(ProxyKind.SOCKS5, "127.0.0.1", listener.port)) as server:
            if how == "close":
                server.close()
            elif how == "aclose":
                await server.aclose()
            elif how == "drain":
                await server.drain(1)
            if how != "leave":
                await told.wait()
        with trio.fail_after(100):
            await told.wait()


async def say(listener: RawListener, told: trio.Event) -> None:
    """A proxy that listens, and tells when it is left."""
    with await listener.accept() as peer:
        await peer.receive(3)
        await peer.send(LISTENS)
        await peer.receive_to_end()
    told.set()
