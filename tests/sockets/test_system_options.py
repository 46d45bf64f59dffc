"""Options by the system's own numbers, given to the verb that opens the socket: connect, bind, listen."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st

from tests.certificates import contexts
from tests.links.scripted import Answer, ScriptedNetwork, names
from tests.networks import Loopback, Network, RawListener
from tests.sockets.telling import told
from trioqt import (
    BindMode,
    ErrorKind,
    ErrorOccurred,
    SocketError,
    SocketOption,
    SocketState,
    SslServer,
    SslSocket,
    TcpServer,
    TcpSocket,
)
from trioqt.core import options
from trioqt.sockets import native_options
from trioqt.sockets.arguments import check_options

SOL, IP, IPV6, TCP = socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.IPPROTO_TCP

NO_SUCH_DEVICE = (SOL, socket.SO_BINDTODEVICE, b"nosuch0")
UNKNOWN = (TCP, 9999, 1)

Options = list[tuple[int, int, int | bytes]]
Verb = Callable[[Options], Awaitable[TcpSocket | TcpServer[TcpSocket]]]


async def listening(network: Network) -> RawListener:
    return await network.raw_listener()


# ---- They are set ------------------------------------------------------------------------------


async def test_a_connection_has_them(network: Network) -> None:
    """An int, and bytes where the system wants a structure or a name."""
    options: Options = [
        (SOL, socket.SO_PRIORITY, 3),
        (SOL, socket.SO_LINGER, struct.pack("ii", 1, 5)),
        (SOL, socket.SO_BINDTODEVICE, b"lo"),
        (TCP, socket.TCP_SYNCNT, 2),
    ]
    with await listening(network) as listener:
        async with TcpSocket() as sock:
            await sock.connect_to_host(network.host, listener.port, options=options)
            with network.socket(sock.socket_descriptor()) as below:
                there = [below.getsockopt(SOL, socket.SO_PRIORITY), below.getsockopt(TCP, socket.TCP_SYNCNT)]
                linger = struct.unpack("ii", below.getsockopt(SOL, socket.SO_LINGER, 8))
                device = below.getsockopt(SOL, socket.SO_BINDTODEVICE, 16).rstrip(b"\0")

    assert (there, linger, device) == ([3, 2], (1, 5), b"lo")


async def test_they_come_behind_our_own_and_those_of_set_socket_option(network: Network) -> None:
    """The more special wins: LOW_DELAY is on by default, KEEP_ALIVE was asked for."""
    with await listening(network) as listener:
        async with TcpSocket() as sock:
            sock.set_socket_option(SocketOption.KEEP_ALIVE, 1)
            await sock.connect_to_host(
                network.host, listener.port, options=[(TCP, socket.TCP_NODELAY, 0), (SOL, socket.SO_KEEPALIVE, 0)]
            )

            assert sock.socket_option(SocketOption.LOW_DELAY) == 0
            assert sock.socket_option(SocketOption.KEEP_ALIVE) == 0


async def test_they_are_for_that_call_only(network: Network) -> None:
    """The next connection does not have them."""
    with await listening(network) as listener:
        async with TcpSocket() as sock:
            await sock.connect_to_host(network.host, listener.port, options=[(TCP, socket.TCP_NODELAY, 0)])
            await sock.disconnect_from_host()
            await sock.connect_to_host(network.host, listener.port)

            assert sock.socket_option(SocketOption.LOW_DELAY) == 1


async def test_a_bound_socket_has_them_before_it_has_its_address() -> None:
    """SO_BINDTODEVICE and IP_FREEBIND are of no use behind bind()."""
    network = ScriptedNetwork({})
    bound: list[list[Any]] = []

    async def bind(self: Any, address: Any) -> None:
        bound.append([option for option in self.options if option[0] == SOL])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.links.scripted.ScriptedSocket.bind", bind, raising=False)
        async with TcpSocket() as sock:
            await sock.bind("127.0.0.1", mode=BindMode.SHARE_ADDRESS, options=[(SOL, socket.SO_BINDTODEVICE, b"lo")])

    assert bound == [[(SOL, socket.SO_REUSEADDR, 1), (SOL, socket.SO_BINDTODEVICE, b"lo")]]
    assert network.open_sockets() == []


async def test_a_bound_socket_keeps_them_when_it_connects(network: Network) -> None:
    """It is the same socket, and more can be given then."""
    with await listening(network) as listener:
        async with TcpSocket() as sock:
            await sock.bind(network.host, options=[(SOL, socket.SO_PRIORITY, 3)])
            await sock.connect_to_host(network.host, listener.port, options=[(TCP, socket.TCP_SYNCNT, 2)])
            with network.socket(sock.socket_descriptor()) as below:
                there = below.getsockopt(SOL, socket.SO_PRIORITY), below.getsockopt(TCP, socket.TCP_SYNCNT)

    assert there == (3, 2)


async def test_each_listening_socket_has_them_and_hands_them_down(network: Network) -> None:
    """Both families of localhost; an accepted connection inherits what the system lets it inherit."""
    async with TcpServer() as server:
        await server.listen(
            ["127.0.0.1", "::1"], options=[(SOL, socket.SO_PRIORITY, 3), (TCP, socket.TCP_KEEPIDLE, 77)]
        )
        with await network.raw_connect(server.server_port()):
            async with await server.accept() as sock:
                with network.socket(server.socket_descriptor()) as below:
                    there = below.getsockopt(SOL, socket.SO_PRIORITY), below.getsockopt(TCP, socket.TCP_KEEPIDLE)
                inherited = sock.socket_option(SocketOption.KEEP_ALIVE_IDLE)

    assert (there, inherited) == ((3, 77), 77)


async def test_fast_open_is_asked_for_on_a_listener(network: Network) -> None:
    """It must be so before the first client comes (RFC 7413)."""
    async with TcpServer() as server:
        await server.listen(network.host, options=[(TCP, socket.TCP_FASTOPEN, 16)])
        with network.socket(server.socket_descriptor()) as below:
            assert below.getsockopt(TCP, socket.TCP_FASTOPEN) == 16


async def test_each_attempt_of_the_race_has_them(autojump_clock: trio.testing.MockClock) -> None:
    """Whichever address answers."""
    network = ScriptedNetwork({"::1": Answer(error=errno.ECONNREFUSED), "127.0.0.1": Answer()})
    names({"both": ["::1", "127.0.0.1"]})

    async with TcpSocket() as sock:
        await sock.connect_to_host("both", 80, options=[(SOL, socket.SO_PRIORITY, 3)])

    assert [sock.options[-1] for sock in network.sockets] == [(SOL, socket.SO_PRIORITY, 3)] * 2


async def test_they_win_when_an_option_is_set_while_the_race_runs(autojump_clock: trio.testing.MockClock) -> None:
    """Then everything is set once more on the winner, in the same order."""
    network = ScriptedNetwork({"127.0.0.1": Answer(delay=1.0)})

    async with TcpSocket() as sock, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: sock.connect_to_host("127.0.0.1", 80, options=[(TCP, socket.TCP_NODELAY, 0)]))
        await trio.sleep(0.5)
        sock.set_socket_option(SocketOption.KEEP_ALIVE, 1)
        await sock.wait_for_connected()
        (below,) = network.sockets

        assert below.getsockopt(TCP, socket.TCP_NODELAY) == 0
        assert below.getsockopt(SOL, socket.SO_KEEPALIVE) == 1


# ---- They are refused --------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("option", "kind", "number", "words"),
    [
        (NO_SUCH_DEVICE, ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE, errno.ENODEV, "SO_BINDTODEVICE to b'nosuch0'"),
        (UNKNOWN, ErrorKind.UNSUPPORTED_SOCKET_OPERATION, errno.ENOPROTOOPT, "option 9999 of level 6 to 1"),
        ((TCP, socket.TCP_KEEPCNT, 999), ErrorKind.UNSUPPORTED_SOCKET_OPERATION, errno.EINVAL, "TCP_KEEPCNT to 999"),
    ],
)
async def test_what_the_system_refuses_is_named(
    network: Network, host: str, option: tuple[int, int, int | bytes], kind: ErrorKind, number: int, words: str
) -> None:
    """The kind and the number are the system's; connect, bind and listen fail, and are as they were."""
    with await network.raw_listener() as listener:
        port = listener.port
        async with TcpSocket() as sock, TcpServer() as server:
            async with told(sock, ErrorOccurred) as events:
                with pytest.raises(SocketError) as connecting:
                    await sock.connect_to_host(host, port, options=[option])
                with pytest.raises(SocketError) as binding:
                    await sock.bind(host, options=[option])
            with pytest.raises(SocketError) as listen:
                await server.listen(host, options=[option])
            states = sock.state(), server.is_listening()
            await sock.bind(host)
            await server.listen(host)

    errors = [connecting.value, binding.value, listen.value]
    assert [(error.kind, error.errno) for error in errors] == [(kind, number)] * 3
    assert all(f": cannot set {words}: " in error.message for error in errors)
    assert connecting.value.message.startswith(f"cannot connect to {host} port {port}: ")
    assert [event.kind for event in events if isinstance(event, ErrorOccurred)] == [kind, kind]
    assert (states, server.server_error()) == ((SocketState.UNCONNECTED, False), kind)


@pytest.fixture
def without_rights() -> Iterator[None]:
    """As a user who may do nothing special."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)


async def test_a_process_without_the_right_is_told_so(network: Loopback, without_rights: None) -> None:
    """SO_MARK needs CAP_NET_ADMIN: SOCKET_ACCESS."""
    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:
            with pytest.raises(SocketError) as caught:
                await sock.connect_to_host(network.host, listener.port, options=[(SOL, socket.SO_MARK, 7)])

    assert (caught.value.kind, caught.value.errno) == (ErrorKind.SOCKET_ACCESS, errno.EPERM)
    assert "cannot set SO_MARK to 7: Operation not permitted" in caught.value.message


async def test_an_address_whose_socket_refuses_one_has_failed_and_the_next_is_tried(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option of IPv6 is none of an IPv4 socket: only ::1 can have it."""
    names({"both": ["127.0.0.1", "::1"]})
    sock6 = trio.socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    await sock6.bind(("::1", 0))
    sock6.listen()
    with sock6:
        async with TcpSocket() as sock:
            await sock.connect_to_host("both", sock6.getsockname()[1], options=[(IPV6, socket.IPV6_TCLASS, 32)])

            assert sock.peer_address().text == "::1"
            assert sock.socket_option(SocketOption.TYPE_OF_SERVICE) == 32


# fmt: off
WRONG: list[tuple[Any, type[Exception], str]] = [
    (7,                          TypeError,  "options are a list of"),
    ("SO_MARK",                  TypeError,  "options are a list of"),
    ({(1, 2, 3)},                TypeError,  "options are a list of"),
    ([7],                        TypeError,  "an option is"),
    ([(1, 2)],                   TypeError,  "an option is"),
    (["abc"],                    TypeError,  "an option is"),
    ([(1, 2, "eth0")],           TypeError,  "its value is an int or bytes"),
    ([(1, 2, None)],             TypeError,  "its value is an int or bytes"),
    ([(1, 2, 1.0)],              TypeError,  "its value is an int or bytes"),
    ([("SOL_SOCKET", 2, 1)],     TypeError,  "level and number are ints"),
    ([(1, 2, 2**31)],            ValueError, "are C ints"),
    ([(1, -(2**31) - 1, 1)],     ValueError, "are C ints"),
    ([(2**40, 1, b"")],          ValueError, "are C ints"),
]
# fmt: on


@pytest.mark.parametrize(("options", "kind", "words"), WRONG)
async def test_wrong_options_touch_nothing(options: Any, kind: type[Exception], words: str) -> None:
    """TypeError or ValueError, before anything is looked up or opened."""
    async with TcpSocket() as sock, TcpServer() as server:
        async with told(sock) as events:
            with pytest.raises(kind, match=words):
                await sock.connect_to_host("127.0.0.1", 1, options=options)
            with pytest.raises(kind, match=words):
                await sock.bind("127.0.0.1", options=options)
            with pytest.raises(kind, match=words):
                await server.listen("127.0.0.1", options=options)

        assert (events, sock.state(), sock.error(), server.server_error()) == ([], SocketState.UNCONNECTED, None, None)


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3), st.just(b"eth0")
)
OPTION = st.one_of(ANYTHING, st.lists(ANYTHING, max_size=4), st.lists(ANYTHING, max_size=4).map(tuple))


@given(st.one_of(ANYTHING, st.lists(OPTION, max_size=3), st.lists(OPTION, max_size=3).map(tuple)))
def test_whatever_is_given_as_options_is_taken_or_refused(options: Any) -> None:
    """Triples of C ints, or of two and bytes, come out as such; all else is TypeError or ValueError."""
    try:
        taken = check_options(options)
    except (TypeError, ValueError):
        return
    assert len(taken) == len(options)
    for level, number, value in taken:
        assert all(type(each) is int and -(2**31) <= each < 2**31 for each in (level, number))
        assert type(value) is bytes or (type(value) is int and -(2**31) <= value < 2**31)


# ---- What was set before -----------------------------------------------------------------------


async def test_an_option_set_before_is_on_a_socket_that_is_only_bound(network: Network) -> None:
    """A datagram socket may never be more than that; and what is read is what the system has."""
    async with TcpSocket() as sock:
        sock.set_socket_option(SocketOption.RECEIVE_BUFFER_SIZE, 20000)
        sock.set_socket_option(SocketOption.KEEP_ALIVE, 1)
        await sock.bind(network.host)

        values = [sock.socket_option(SocketOption.RECEIVE_BUFFER_SIZE), sock.socket_option(SocketOption.KEEP_ALIVE)]

    assert values == [40000, 1]


async def test_an_option_that_the_system_refuses_when_it_binds_is_named(network: Network) -> None:
    """It could not be known before."""
    async with TcpSocket() as sock:
        sock.set_socket_option(SocketOption.KEEP_ALIVE_COUNT, 999)
        with pytest.raises(
            SocketError, match=r"cannot bind to 127\.0\.0\.1 port 0: cannot set KEEP_ALIVE_COUNT to 999"
        ):
            await sock.bind("127.0.0.1")

        assert (sock.state(), sock.error()) == (SocketState.UNCONNECTED, ErrorKind.UNSUPPORTED_SOCKET_OPERATION)


async def test_what_a_stream_can_never_have_is_refused_before_there_is_one() -> None:
    """Remembering a multicast TTL would make every connection fail later, with no word of it now."""
    async with TcpSocket() as sock:
        with pytest.raises(SocketError, match="MULTICAST_TTL cannot be set") as caught:
            sock.set_socket_option(SocketOption.MULTICAST_TTL, 3)

    assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION


async def test_a_system_without_reuse_port_says_so(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows: UNSUPPORTED, and never an address that is not shared after all."""
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    async with TcpSocket() as sock, TcpServer() as server:
        with pytest.raises(SocketError, match="this platform has no SO_REUSEPORT") as bound:
            await sock.bind("127.0.0.1", mode=BindMode.REUSE_PORT)
        with pytest.raises(SocketError, match="this platform has no SO_REUSEPORT") as listened:
            await server.listen("127.0.0.1", reuse_port=True)

        assert [each.value.kind for each in (bound, listened)] == [ErrorKind.UNSUPPORTED_SOCKET_OPERATION] * 2
        assert sock.state() is SocketState.UNCONNECTED


async def test_an_option_that_the_platform_lacks_is_never_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """UNSUPPORTED for setting and reading, with and without a socket."""
    monkeypatch.delattr(socket, "TCP_KEEPCNT")
    monkeypatch.setattr(native_options, "_known", options.option_for)  # nobody has asked before
    option = SocketOption.KEEP_ALIVE_COUNT
    kinds = []
    async with TcpSocket() as sock:
        for bound in (False, True):
            if bound:
                await sock.bind("127.0.0.1")
            with pytest.raises(SocketError) as written:
                sock.set_socket_option(option, 3)
            with pytest.raises(SocketError) as read:
                sock.socket_option(option)
            kinds += [written.value.kind, read.value.kind]

    assert kinds == [ErrorKind.UNSUPPORTED_SOCKET_OPERATION] * 4


async def test_a_connection_that_speaks_tls_has_them(network: Network) -> None:
    """From the first packet on: they go to the socket below."""
    both = contexts("localhost")
    async with SslServer(both.server) as server, SslSocket(context=both.client) as sock:
        await server.listen(network.host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.accept)
            await sock.connect_to_host_encrypted(
                network.host,
                server.server_port(),
                server_hostname="localhost",
                options=[(TCP, socket.TCP_NODELAY, 0)],
            )

        assert sock.socket_option(SocketOption.LOW_DELAY) == 0
