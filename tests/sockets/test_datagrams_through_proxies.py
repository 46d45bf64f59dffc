"""Datagrams by way of a SOCKS5 proxy: whom they come from, whom they go to, and when the proxy carries no more."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.networks import Network, RawListener, RawPeer
from trioqt import (
    ErrorKind,
    ErrorOccurred,
    HostAddress,
    HostFound,
    NetworkDatagram,
    NetworkProxy,
    ProxyKind,
    ProxyQuery,
    SocketError,
    SocketState,
    StateChanged,
    UdpSocket,
    set_application_proxy,
    set_application_proxy_factory,
)
from trioqt.testing import ScriptedProxy, SignalSpy

LOCAL = HostAddress("127.0.0.1")
BOUND, UNCONNECTED = SocketState.BOUND, SocketState.UNCONNECTED


class Names(trio.abc.HostnameResolver):
    """Knows one name."""

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **hints: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if host in (b"far.test", "far.test"):
            return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", port))]
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    async def getnameinfo(self, *args: Any) -> Any:
        raise NotImplementedError


async def start(nursery: trio.Nursery, **script: Any) -> ScriptedProxy:
    trio.socket.set_custom_hostname_resolver(Names())
    proxy: ScriptedProxy = await nursery.start(ScriptedProxy(ProxyKind.SOCKS5, **script).serve)
    return proxy


async def start_far(nursery: trio.Nursery) -> int:
    """A host that says back what comes; its port."""
    far = await nursery.start(echo)
    port: int = far.local_port()
    return port


async def echo(*, task_status: trio.TaskStatus[UdpSocket]) -> None:
    async with UdpSocket() as far:
        far.set_proxy(NetworkProxy(ProxyKind.NONE))
        await far.bind("127.0.0.1")
        task_status.started(far)
        async for datagram in far:
            await far.send_datagram(datagram.make_reply(datagram.data.upper()))


async def test_datagrams_go_both_ways_with_the_right_sender(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """The sender is the host, not the proxy; of its own address the socket knows none."""
    proxy, port = await start(nursery), await start_far(nursery)
    async with UdpSocket() as sock, SignalSpy(sock, StateChanged) as spy:
        sock.set_proxy(proxy.network_proxy())
        await sock.bind(HostAddress.ANY_IPV4)

        assert list(spy) == [StateChanged(BOUND)]
        assert (sock.local_address(), sock.local_port(), sock.error()) == (HostAddress.NULL, 0, None)
        assert proxy.seen == ["methods 0", "ASSOCIATE 0.0.0.0:0"]
        for data, host in ((b"hello", LOCAL), (b"", LOCAL), (b"by name", "far.test"), (bytes(5000), LOCAL)):
            await sock.send_datagram(data, host, port)
            assert await sock.receive_datagram() == NetworkDatagram(data.upper(), LOCAL, port)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize(("host", "found"), [("127.0.0.1", True), ("far.test", False)])
async def test_one_peer_by_address_and_by_name(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, host: str, found: bool, bound: bool
) -> None:
    """A name is the proxy's to look up, so no address is known."""
    proxy, port, other = await start(nursery), await start_far(nursery), await start_far(nursery)
    async with UdpSocket() as sock, SignalSpy(sock, StateChanged, HostFound) as spy:
        sock.set_proxy(proxy.network_proxy())
        if bound:
            await sock.bind()
            await sock.send_datagram(b"early", LOCAL, other)
            assert (await sock.receive_datagram()).data == b"EARLY"
            spy.clear()
        await sock.connect_to_host(host, port)
        states = [StateChanged(SocketState.HOST_LOOKUP), StateChanged(SocketState.CONNECTING)]
        assert list(spy) == [*states, *([HostFound()] if found else []), StateChanged(SocketState.CONNECTED)]
        assert (sock.peer_address(), sock.peer_port()) == (LOCAL if found else HostAddress.NULL, port)
        await sock.send_datagram(b"to another", LOCAL, other)  # whose answer is not for us any more
        assert sock.write(b"hello") == 5
        assert (await sock.receive_datagram()).data == b"HELLO"
        await sock.disconnect_from_host()
        assert sock.state() is UNCONNECTED
    assert [line for line in proxy.seen if "ASSOCIATE" in line] == ["ASSOCIATE 0.0.0.0:0"]
    nursery.cancel_scope.cancel()


async def test_a_name_is_looked_up_here_if_the_proxy_is_not_to(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    proxy, port = await start(nursery), await start_far(nursery)
    async with UdpSocket() as sock:
        sock.set_proxy(attrs.evolve(proxy.network_proxy(), looks_up_names=False))
        await sock.connect_to_host("far.test", port)

        assert sock.peer_address() == LOCAL
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_proxy_that_carries_no_more_is_told(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, waits: bool
) -> None:
    """The connection to it has ended: whoever waits hears of it, and so does who sends."""
    proxy, port = await start(nursery), await start_far(nursery)
    async with UdpSocket() as sock:
        sock.set_proxy(proxy.network_proxy())
        await sock.bind()
        if waits:
            nursery.start_soon(end_soon, proxy)
        else:
            proxy.end_connections()
            await trio.sleep(1)
            with pytest.raises(SocketError) as caught:
                await sock.send_datagram(b"hello", LOCAL, port)
            assert caught.value.kind is ErrorKind.PROXY_CONNECTION_CLOSED
        with pytest.raises(SocketError) as caught:
            await sock.receive_datagram()

        assert caught.value.kind is ErrorKind.PROXY_CONNECTION_CLOSED
        assert sock.state() is UNCONNECTED
    nursery.cancel_scope.cancel()


async def end_soon(proxy: ScriptedProxy) -> None:
    await trio.sleep(1)
    proxy.end_connections()


@pytest.mark.parametrize("kind", [ProxyKind.HTTP, ProxyKind.HTTP_CACHING, ProxyKind.FTP_CACHING])
async def test_other_kinds_carry_no_datagrams(
    network: Network, autojump_clock: trio.testing.MockClock, kind: ProxyKind
) -> None:
    """On loopback neither, as in Qt; to connect is refused in the same way."""
    async with UdpSocket() as sock, SignalSpy(sock) as spy:
        sock.set_proxy(NetworkProxy(kind, "127.0.0.1", 9))
        with pytest.raises(SocketError) as first:
            await sock.bind("127.0.0.1")
        with pytest.raises(SocketError) as second:
            await sock.connect_to_host("127.0.0.1", 9)

        kinds = [first.value.kind, second.value.kind]
        assert kinds == [ErrorKind.UNSUPPORTED_SOCKET_OPERATION] * 2
        assert list(spy) == [ErrorOccurred(error.value.kind, str(error.value)) for error in (first, second)]
        assert sock.state() is UNCONNECTED


async def test_a_chain_carries_no_datagrams(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    first = NetworkProxy(ProxyKind.SOCKS5, "127.0.0.1", 9)
    async with UdpSocket() as sock:
        sock.set_proxy(NetworkProxy(ProxyKind.SOCKS5, "127.0.0.1", 9, via=first))
        with pytest.raises(SocketError) as caught:
            await sock.bind()

    assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION


@pytest.mark.parametrize(
    ("says", "kind"),
    [
        (b"\x05\x00\x05\x07", ErrorKind.UNSUPPORTED_SOCKET_OPERATION),
        (b"\x05\x00", ErrorKind.PROXY_CONNECTION_CLOSED),
        (b"HTTP", ErrorKind.PROXY_PROTOCOL),
        (None, ErrorKind.PROXY_CONNECTION_TIMEOUT),
    ],
)
async def test_a_proxy_that_does_not_do_it(
    network: Network,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    says: bytes | None,
    kind: ErrorKind,
) -> None:
    proxy = await start(nursery, says=[says, says])
    async with UdpSocket() as sock:
        sock.set_proxy(proxy.network_proxy())
        for call in (sock.bind(), sock.connect_to_host("127.0.0.1", 9)):
            with pytest.raises(SocketError) as caught:
                await call
            assert (caught.value.kind, sock.error(), sock.state()) == (kind, kind, UNCONNECTED)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "place",
    [
        b"\x01\x7f\x00\x00\x01\x00\x00",  # no port
        b"\x01\xe0\x00\x00\x01\x00\x35",  # a group
        b"\x01\xff\xff\xff\xff\x00\x35",  # everybody
        b"\x04\xff\x02" + bytes(13) + b"\x01\x00\x35",
        b"\x03\x04here\x00\x00",
    ],
)
async def test_a_proxy_that_takes_datagrams_in_at_no_place_makes_no_sense(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, place: bytes
) -> None:
    """What it says is no address of one host, or has no port."""
    proxy = await start(nursery, says=[b"\x05\x00\x05\x00\x00" + place])
    async with UdpSocket() as sock:
        sock.set_proxy(proxy.network_proxy())
        with pytest.raises(SocketError, match="takes no datagrams in at") as caught:
            await sock.bind()

        assert (caught.value.kind, sock.state()) == (ErrorKind.PROXY_PROTOCOL, UNCONNECTED)
    nursery.cancel_scope.cancel()


async def test_what_is_no_datagram_for_us_is_dropped_and_a_sender_without_an_address_gets_no_answer(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Parts of datagrams, and garbage, between good ones; and to the null address would be to the proxy's machine."""
    with await network.raw_listener() as listener, trio.socket.socket(type=socket.SOCK_DGRAM) as relay:
        await relay.bind(("127.0.0.1", 0))
        port: int = relay.getsockname()[1]

        async def associate() -> None:
            with await listener.accept() as peer:
                await peer.receive(3)
                await peer.send(b"\x05\x00")
                await peer.receive(10)
                await peer.send(b"\x05\x00\x00\x01" + bytes(4) + port.to_bytes(2, "big"))
                await trio.sleep_forever()

        nursery.start_soon(associate)
        async with UdpSocket() as sock:
            sock.set_proxy(NetworkProxy(ProxyKind.SOCKS5, "127.0.0.1", listener.port))
            await sock.bind()
            await sock.send_datagram(b"where we are", HostAddress("192.0.2.1"), 53)
            _, here = await relay.recvfrom(100)
            for said in (b"", b"\x00", b"\x00\x00\x01\x01\xc0\x00\x02\x01\x00\x35part", b"\x00\x00\x00\x09abcdefgh"):
                await relay.sendto(said, here)
            await relay.sendto(b"\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35whole", here)
            await relay.sendto(b"\x00\x00\x00\x03\x03far\x00\x35named", here)
            whole, named = await sock.receive_datagram(), await sock.receive_datagram()
            with pytest.raises(SocketError, match="no destination") as nowhere:
                sock.write_datagram(named.make_reply(b"answer"))

            assert (whole.data, whole.sender_address, whole.sender_port) == (b"whole", HostAddress("192.0.2.1"), 53)
            assert (named.data, named.sender_address, named.sender_port) == (b"named", HostAddress.NULL, 53)
            assert (nowhere.value.kind, sock.state()) == (ErrorKind.NETWORK, BOUND)
        nursery.cancel_scope.cancel()


async def test_whoever_sends_before_that_must_bind_first(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """write_datagram cannot wait for a proxy; it does not go past it either."""
    proxy = await start(nursery)
    async with UdpSocket() as sock:
        sock.set_proxy(proxy.network_proxy())
        with pytest.raises(SocketError) as caught:
            sock.write_datagram(b"hello", LOCAL, 9)

        assert (caught.value.kind, sock.state()) == (ErrorKind.OPERATION, UNCONNECTED)
    nursery.cancel_scope.cancel()


async def test_groups_are_not_joined_by_a_proxy(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    proxy = await start(nursery)
    async with UdpSocket() as sock:
        sock.set_proxy(proxy.network_proxy())
        await sock.bind()
        with pytest.raises(SocketError) as caught:
            sock.join_multicast_group("239.1.2.3")

        assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
    nursery.cancel_scope.cancel()


async def test_the_applications_proxy_is_for_datagrams_too(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A socket that is bound has no target yet, so all of them go there; a peer on this machine does not."""
    queries: list[ProxyQuery] = []

    def factory(query: ProxyQuery) -> list[NetworkProxy]:
        queries.append(query)
        return [NetworkProxy(ProxyKind.HTTP, "127.0.0.1", 9), proxy.network_proxy()]

    proxy, port = await start(nursery), await start_far(nursery)
    async with UdpSocket() as sock, UdpSocket() as other, UdpSocket() as third:
        set_application_proxy_factory(factory)
        await sock.bind("127.0.0.1")
        await other.connect_to_host("127.0.0.1", port)
        await third.connect_to_host("far.test", port)

        assert queries == [ProxyQuery("", 0, "", "udp"), ProxyQuery("far.test", port, "", "udp")]
        assert proxy.seen == ["methods 0", "ASSOCIATE 0.0.0.0:0"] * 2
        set_application_proxy(NetworkProxy(ProxyKind.NONE))
    nursery.cancel_scope.cancel()


async def test_a_bind_that_is_called_off_leaves_nothing(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Another task aborts the socket while the proxy says nothing."""
    proxy = await start(nursery, says=[None])
    async with UdpSocket() as sock:
        sock.set_proxy(proxy.network_proxy())

        async def abort() -> None:
            await trio.testing.wait_all_tasks_blocked()
            sock.abort()

        nursery.start_soon(abort)
        with pytest.raises(trio.ClosedResourceError):
            await sock.bind()

        assert sock.state() is UNCONNECTED
    nursery.cancel_scope.cancel()


# ---- a proxy of few words ------------------------------------------------------------------

BY_ADDRESS = b"\1\x7f\0\0\1"


@attrs.define
class Relay:
    """Both ends of a proxy that does what a test tells it: the connection, and where it takes datagrams in."""

    control: RawPeer
    sock: trio.socket.SocketType
    client: Any = None

    async def receive(self) -> bytes:
        """What the client sends, its head included."""
        data, self.client = await self.sock.recvfrom(65536)
        return data

    async def send(self, data: bytes, head: bytes = b"\0\0\0" + BY_ADDRESS + b"\0\x09") -> None:
        await self.sock.sendto(head + data, self.client)


@contextlib.asynccontextmanager
async def relay(
    network: Network, *, said: bytes = BY_ADDRESS, more: bytes = b""
) -> AsyncIterator[tuple[UdpSocket, Relay]]:
    """A socket that is bound by way of such a proxy.

    Args:
      said: How the proxy spells its own address.
      more: Goes out with its answer.
    """
    made: list[Relay] = []

    async def answer(listener: RawListener) -> None:
        peer, sock = await listener.accept(), trio.socket.socket(type=socket.SOCK_DGRAM)
        await sock.bind(("127.0.0.1", 0))
        made.append(Relay(peer, sock))
        await peer.receive(3)
        await peer.send(b"\5\0")
        await peer.receive(10)
        await peer.send(b"\5\0\0" + said + struct.pack("!H", sock.getsockname()[1]) + more)

    with await network.raw_listener() as listener:
        async with UdpSocket() as client:
            client.set_proxy(NetworkProxy(ProxyKind.SOCKS5, "127.0.0.1", listener.port))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer, listener)
                await client.bind()
            try:
                yield client, made[0]
            finally:
                made[0].sock.close()
                made[0].control.close()


@pytest.mark.parametrize(
    "said", [BY_ADDRESS, b"\1\0\0\0\0", b"\4" + bytes(16), b"\3\x0aproxy.test"], ids=["address", "any", "any6", "name"]
)
async def test_where_the_proxy_takes_datagrams_in(network: Network, said: bytes) -> None:
    """An address; any, or a name, stands for where it was reached.  What it says behind its answer is nothing."""
    async with relay(network, said=said, more=b"more words") as (client, proxy):
        await client.send_datagram(b"?", "127.0.0.1", 9)
        assert await proxy.receive() == b"\0\0\0" + BY_ADDRESS + b"\0\x09?"
        await proxy.send(b"!")

        assert await client.receive_datagram() == NetworkDatagram(b"!", LOCAL, 9)


@pytest.mark.parametrize("watched", [False, True])
async def test_what_the_proxy_has_carried_is_not_lost_with_it(network: Network, watched: bool) -> None:
    """It arrived before the connection ended, so it is read, and then the end is told."""
    async with relay(network) as (client, proxy), contextlib.AsyncExitStack() as stack:
        if watched:
            await stack.enter_async_context(client.events())
        await client.send_datagram(b"?", "127.0.0.1", 9)
        await proxy.receive()
        for number in range(100):
            await proxy.send(bytes([number]))
        proxy.control.close()

        for number in range(100):
            assert (await client.receive_datagram()).data == bytes([number])
        with pytest.raises(SocketError) as caught:
            await client.receive_datagram()
        assert caught.value.kind is ErrorKind.PROXY_CONNECTION_CLOSED
        assert client.state() is UNCONNECTED


@pytest.mark.parametrize(
    ("host", "head"),
    [
        ("fe80::1%lo", b"\4" + bytes.fromhex("fe80" + "0" * 27 + "1")),
        ("::ffff:127.0.0.1", BY_ADDRESS),
        ("127.0.0.1", b"\4" + bytes(10) + b"\xff\xff\x7f\0\0\1"),
    ],
)
async def test_the_peer_is_known_by_its_address_however_it_is_spelled(network: Network, host: str, head: bytes) -> None:
    """A zone is of this machine and not of the proxy's; a mapped address is an IPv4 address."""
    async with relay(network) as (client, proxy):
        await client.connect_to_host(host, 9)
        client.write(b"?")
        await proxy.receive()
        await proxy.send(b"another's", b"\0\0\0\1\x7f\0\0\2\0\x09")
        await proxy.send(b"!", b"\0\0\0" + head + b"\0\x09")

        assert (await client.receive_datagram()).data == b"!"
