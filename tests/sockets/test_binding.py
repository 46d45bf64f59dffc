"""A local address: taking it, sharing it, connecting from it, and giving it back."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
import trio
import trio.testing

from tests.links.scripted import Answer, ScriptedNetwork, ScriptedSocket, names
from tests.networks import Network, RawListener
from tests.sockets.arrivals import open_descriptors
from tests.sockets.ports import refusing_port
from tests.sockets.telling import told
from trioqt import (
    BindMode,
    Connected,
    Disconnected,
    ErrorKind,
    ErrorOccurred,
    Event,
    HostAddress,
    HostFound,
    ReadChannelFinished,
    SocketError,
    SocketOption,
    SocketState,
    StateChanged,
    TcpSocket,
)

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, LISTENING, CLOSING = SocketState

DEFAULT, SHARE, DONT_SHARE, HINT, REUSE_PORT = (
    BindMode.DEFAULT_FOR_PLATFORM,
    BindMode.SHARE_ADDRESS,
    BindMode.DONT_SHARE_ADDRESS,
    BindMode.REUSE_ADDRESS_HINT,
    BindMode.REUSE_PORT,
)

# Where nobody else takes a port between two steps of a test: each of 127.0.0.0/8 has ports of its own.
RARE_HOST = "127.83.17.59"


async def listen_on(host: str, port: int = 0) -> RawListener:
    sock = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await sock.bind((host, port))
        sock.listen()
    except OSError:
        sock.close()
        raise
    return RawListener(sock)


# ---- Taking an address -------------------------------------------------------------------------


# fmt: off
OWN: list[tuple[Any, HostAddress]] = [
    ("127.0.0.1",                    HostAddress.LOCAL_HOST),
    ("127.1.2.3",                    HostAddress("127.1.2.3")),
    (HostAddress.LOCAL_HOST,         HostAddress.LOCAL_HOST),
    (IPv4Address("127.0.0.1"),       HostAddress.LOCAL_HOST),
    ("::1",                          HostAddress.LOCAL_HOST_IPV6),
    (IPv6Address("::1"),             HostAddress.LOCAL_HOST_IPV6),
    (HostAddress.ANY_IPV4,           HostAddress.ANY_IPV4),
    (HostAddress.ANY_IPV6,           HostAddress.ANY_IPV6),
    (HostAddress.ANY,                HostAddress.ANY),
    ("host.example",                 HostAddress("127.9.9.9")),
]
# fmt: on


@pytest.mark.parametrize(("host", "address"), OWN)
async def test_an_address_of_this_machine(network: Network, host: Any, address: HostAddress) -> None:
    """B-013, B-016: BOUND, with the address that was asked for, a port of the system's choice and a descriptor."""
    names({"host.example": ["127.9.9.9"]})

    async with TcpSocket() as sock:
        async with told(sock) as events:
            await sock.bind(host)

        assert events == [StateChanged(BOUND)]
        assert (sock.state(), sock.is_valid(), sock.error()) == (BOUND, True, None)
        assert sock.local_address() == address
        assert sock.local_port() > 0
        assert sock.socket_descriptor() > 0
        assert (sock.peer_address(), sock.peer_port(), sock.peer_name()) == (HostAddress.NULL, 0, "")


async def test_every_address_is_the_default(network: Network) -> None:
    """``bind()`` with nothing said takes a free port of both families."""
    async with TcpSocket() as sock:
        await sock.bind()

        assert sock.local_address() == HostAddress.ANY
        with pytest.raises(OSError) as four:
            await listen_on("127.0.0.1", sock.local_port())
        with pytest.raises(OSError) as six:
            await listen_on("::1", sock.local_port())

    assert (four.value.errno, six.value.errno) == (errno.EADDRINUSE, errno.EADDRINUSE)


async def test_a_port_that_is_asked_for(network: Network) -> None:
    """It is the one that is got."""
    async with TcpSocket() as first:
        await first.bind(RARE_HOST)
        port = first.local_port()

    async with TcpSocket() as sock:
        await sock.bind(RARE_HOST, port)

        assert sock.local_port() == port


async def test_every_address_without_ipv6_is_ipv4(network: Network) -> None:
    """On a machine whose kernel lacks IPv6, ``HostAddress.ANY`` is not an error."""
    without_ipv6 = NoIPv6()

    async with TcpSocket() as sock:
        await sock.bind()

        assert sock.local_address() == HostAddress.ANY
        assert sock.local_port() > 0
    assert without_ipv6.refused == 1


async def test_binding_is_a_checkpoint(network: Network) -> None:
    """An async call lets others run, whether it takes an address or finds that it cannot."""
    async with TcpSocket() as sock:
        with trio.testing.assert_checkpoints():
            await sock.bind("127.0.0.1")


# ---- Not getting it ----------------------------------------------------------------------------


async def test_an_address_that_is_in_use(network: Network) -> None:
    """B-015: told and raised; the state has not changed, and another port can be tried."""
    with await network.raw_listener() as listener:
        port = listener.port
        async with TcpSocket() as sock:
            async with told(sock) as events:
                with pytest.raises(SocketError) as caught:
                    await sock.bind(network.host, port)
            failed = sock.state(), sock.error(), sock.error_string(), sock.local_address(), sock.socket_descriptor()
            await sock.bind(network.host)
            later = sock.state()

    message = f"cannot bind to 127.0.0.1 port {port}: Address already in use"
    assert (caught.value.kind, caught.value.message) == (ErrorKind.ADDRESS_IN_USE, message)
    assert caught.value.errno == errno.EADDRINUSE
    assert isinstance(caught.value.__cause__, OSError)
    assert failed == (UNCONNECTED, ErrorKind.ADDRESS_IN_USE, message, HostAddress.NULL, -1)
    assert events == [ErrorOccurred(ErrorKind.ADDRESS_IN_USE, message)]
    assert later is BOUND


# fmt: off
NOT_TO_BE_HAD: list[tuple[Any, ErrorKind, str]] = [
    ("198.51.100.1",     ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE, "198.51.100.1 port 0: Cannot assign requested"),
    ("2001:db8::1",      ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE, "2001:db8::1 port 0: Cannot assign requested address"),
    (HostAddress.NULL,   ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "no address port 0: there is none"),
    ("",                 ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "no address port 0: there is none"),
    ("nobody.example",   ErrorKind.HOST_NOT_FOUND,               "nobody.example port 0: Name or service not known"),
    ("fe80::1%nosuch0",  ErrorKind.HOST_NOT_FOUND,               "fe80::1%nosuch0 port 0: no interface has the name"),
    ("a..b",             ErrorKind.HOST_NOT_FOUND,               "a..b port 0: "),
]
# fmt: on


@pytest.mark.parametrize(("host", "kind", "message"), NOT_TO_BE_HAD)
async def test_an_address_that_is_not_to_be_had(network: Network, host: Any, kind: ErrorKind, message: str) -> None:
    """B-014, B-023: nobody's address here, none at all, or a name for none; told without a change of state."""
    names({})
    before = open_descriptors()

    async with TcpSocket() as sock:
        async with told(sock) as events:
            with pytest.raises(SocketError) as caught:
                await sock.bind(host)

        assert caught.value.kind is sock.error() is kind
        assert caught.value.message.startswith(f"cannot bind to {message}")
        assert events == [ErrorOccurred(kind, caught.value.message)]
        assert (sock.state(), sock.local_address(), sock.local_port()) == (UNCONNECTED, HostAddress.NULL, 0)
    assert open_descriptors() == before


async def test_a_port_below_1024_is_for_the_superuser() -> None:
    """The system's refusal has a kind of its own."""
    machine = Forbidding({})

    async with TcpSocket() as sock:
        with pytest.raises(SocketError) as caught:
            await sock.bind("127.0.0.1", 80)

    assert len(machine.sockets) == 1
    assert machine.open_sockets() == []
    assert (caught.value.kind, caught.value.errno) == (ErrorKind.SOCKET_ACCESS, errno.EACCES)


async def test_a_failed_bind_is_no_failed_connection(network: Network) -> None:
    """Calls that need a connection say that there is none; connecting forgets the error."""
    async with TcpSocket() as sock:
        with pytest.raises(SocketError):
            await sock.bind("198.51.100.1")
        with pytest.raises(SocketError) as caught:
            sock.write(b"x")
        with await network.raw_listener() as listener:
            await sock.connect_to_host(network.host, listener.port)

        assert (caught.value.kind, caught.value.message) == (ErrorKind.OPERATION, "cannot write while unconnected")
        assert sock.error() is None


# ---- At the wrong moment -----------------------------------------------------------------------


async def test_binding_twice_is_refused_and_the_first_address_stays(network: Network) -> None:
    """B-017: OPERATION, told too; a second address would have to replace the first, and nobody asked for that."""
    async with TcpSocket() as sock:
        await sock.bind(network.host)
        port = sock.local_port()
        async with told(sock) as events:
            with pytest.raises(SocketError) as caught:
                await sock.bind("127.0.0.2")

        refused = ErrorOccurred(ErrorKind.OPERATION, "cannot bind while bound")
        assert (caught.value.kind, caught.value.message) == (refused.kind, refused.message)
        assert (events, sock.error()) == ([refused], ErrorKind.OPERATION)
        assert (sock.state(), sock.local_address(), sock.local_port()) == (BOUND, HostAddress.LOCAL_HOST, port)


async def test_binding_while_connected_is_refused_and_the_connection_goes_on(network: Network) -> None:
    """B-018: OPERATION, told too; not a byte is lost."""
    async with trio.open_nursery() as nursery:
        sock, peer = await network.connected(nursery)
        with peer:
            async with told(sock) as events:
                with pytest.raises(SocketError) as caught:
                    await sock.bind(network.host)
            await sock.send_all(b"still here")

            refused = ErrorOccurred(ErrorKind.OPERATION, "cannot bind while connected")
            assert (caught.value.kind, caught.value.message) == (refused.kind, refused.message)
            assert (events, sock.error(), sock.is_valid()) == ([refused], ErrorKind.OPERATION, True)
            assert await peer.receive(10) == b"still here"
            assert sock.state() is CONNECTED
            await sock.aclose()


@pytest.mark.parametrize("stage", ["host lookup", "connecting"])
async def test_binding_while_connecting_is_refused(stage: str) -> None:
    """It would come too late for the attempt that runs."""
    gate = trio.Event()
    names({"peer.example": ["1.1.1.1"]}, gate=gate)
    ScriptedNetwork({"1.1.1.1": Answer(gate=trio.Event())})
    if stage == "connecting":
        gate.set()

    async with TcpSocket() as sock, trio.open_nursery() as nursery:
        nursery.start_soon(sock.connect_to_host, "peer.example", 80)
        await trio.testing.wait_all_tasks_blocked()
        async with told(sock) as events:
            with pytest.raises(SocketError) as caught:
                await sock.bind("127.0.0.1")
        nursery.cancel_scope.cancel()

    refused = ErrorOccurred(ErrorKind.OPERATION, f"cannot bind while {stage}")
    assert (caught.value.kind, caught.value.message) == (refused.kind, refused.message)
    assert events == [refused]


@pytest.mark.parametrize("found", [["127.0.0.1"], []])
async def test_a_bind_that_another_task_overtook_is_refused(network: Network, found: list[str]) -> None:
    """While its name was looked up the socket was connected: OPERATION, whatever the look-up said; no socket stays."""
    gate = trio.Event()
    names({"slow.example": found}, gate=gate)
    refused: list[tuple[ErrorKind, str]] = []

    async def bind(sock: TcpSocket) -> None:
        with pytest.raises(SocketError) as caught:
            await sock.bind("slow.example")
        refused.append((caught.value.kind, caught.value.message))

    async with TcpSocket() as sock:
        with await network.raw_listener() as listener:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bind, sock)
                await trio.testing.wait_all_tasks_blocked()
                await sock.connect_to_host(network.host, listener.port)
                before = open_descriptors()
                gate.set()

        assert refused == [(ErrorKind.OPERATION, "cannot bind while connected")]
        assert (sock.state(), sock.error()) == (CONNECTED, ErrorKind.OPERATION)
        assert len(open_descriptors()) == len(before) - 1  # the listener


async def test_a_cancelled_bind_took_nothing(network: Network) -> None:
    """UNCONNECTED, nothing told, no descriptor; the next one works."""
    gate = trio.Event()
    names({"slow.example": ["127.0.0.1"]}, gate=gate)
    before = open_descriptors()

    async with TcpSocket() as sock:
        async with told(sock) as events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sock.bind, "slow.example")
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            with trio.CancelScope() as scope:
                scope.cancel()
                await sock.bind("127.0.0.1")
        left = sock.state(), sock.error(), sock.local_port()
        descriptors = open_descriptors()
        await sock.bind("127.0.0.1")
        later = sock.state()

    assert scope.cancelled_caught
    assert events == []
    assert left == (UNCONNECTED, None, 0)
    assert descriptors == before
    assert later is BOUND


async def test_a_closed_socket_is_not_bound() -> None:
    """Nor is one without a scope: nobody would give the address back."""
    sock = TcpSocket()
    with pytest.raises(SocketError, match="cannot bind outside of the socket's `async with` block"):
        await sock.bind("127.0.0.1")
    async with sock:
        pass
    with pytest.raises(trio.ClosedResourceError, match="cannot bind: the socket is closed"):
        await sock.bind("127.0.0.1")

    assert sock.state() is UNCONNECTED


# fmt: off
WRONG: list[tuple[Any, Any, Any, type[Exception], str]] = [
    (5,           0,     None,                   TypeError,  "a host is a name or an address, not int"),
    ("127.0.0.1", "x",   None,                   TypeError,  "a port is an int, not str"),
    ("127.0.0.1", 65536, None,                   ValueError, "a port is 0 to 65535, not 65536"),
    ("127.0.0.1", -1,    None,                   ValueError, "a port is 0 to 65535, not -1"),
    ("127.0.0.1", 0,     4,                      TypeError,  "a mode is a BindMode, not int"),
    ("127.0.0.1", 0,     "share",                TypeError,  "a mode is a BindMode, not str"),
    ("127.0.0.1", 0,     SHARE | DONT_SHARE,     ValueError, "an address is shared or it is not"),
]
# fmt: on


@pytest.mark.parametrize(("host", "port", "mode", "kind", "message"), WRONG)
async def test_wrong_arguments_touch_nothing(
    host: Any, port: Any, mode: Any, kind: type[Exception], message: str
) -> None:
    """TypeError or ValueError, before the state is looked at."""
    async with TcpSocket() as sock:
        async with told(sock) as events:
            with pytest.raises(kind) as caught:
                await sock.bind(host, port, mode)

        assert str(caught.value).startswith(message)
        assert events == []
        assert (sock.state(), sock.error()) == (UNCONNECTED, None)


# ---- Sharing -----------------------------------------------------------------------------------


# fmt: off
MODES = [
    #            DEFAULT  SHARE   DONT_SHARE  HINT   REUSE_PORT
    (DEFAULT,    (False,  False,  False,      False, False)),
    (SHARE,      (False,  True,   False,      True,  False)),
    (DONT_SHARE, (False,  False,  False,      False, False)),
    (HINT,       (False,  True,   False,      True,  False)),
    (REUSE_PORT, (False,  False,  False,      False, True)),
]
# fmt: on


@pytest.mark.parametrize(("first", "row"), MODES)
async def test_who_may_have_the_same_address(network: Network, first: BindMode, row: tuple[bool, ...]) -> None:
    """B-024: both have to say that they share; what is said is never undone by the other."""
    got: list[bool] = []

    async with TcpSocket() as holder:
        await holder.bind("127.0.0.1", mode=first)
        for mode in (DEFAULT, SHARE, DONT_SHARE, HINT, REUSE_PORT):
            async with TcpSocket() as sock:
                with contextlib.suppress(SocketError):
                    await sock.bind("127.0.0.1", holder.local_port(), mode)
                assert (sock.state(), sock.error()) in [(BOUND, None), (UNCONNECTED, ErrorKind.ADDRESS_IN_USE)]
                got.append(sock.state() is BOUND)

    assert tuple(got) == row


# ---- Giving it back ----------------------------------------------------------------------------


# A socket that was only bound tells all of it on disconnect and less on abort, as in Qt (D-019).
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("abort", [StateChanged(UNCONNECTED), ReadChannelFinished()]),
        ("disconnect", [StateChanged(CLOSING), StateChanged(UNCONNECTED), ReadChannelFinished(), Disconnected()]),
    ],
)
async def test_ending_gives_the_address_back(network: Network, end: str, expected: list[Event]) -> None:
    """The getters are empty, the port is free for others, and the socket may bind again."""
    async with TcpSocket() as sock:
        await sock.bind(RARE_HOST)
        port = sock.local_port()
        async with told(sock) as events:
            if end == "abort":
                sock.abort()
            else:
                await sock.disconnect_from_host()
        left = sock.state(), sock.is_valid(), sock.local_address(), sock.local_port(), sock.socket_descriptor()
        await sock.bind(RARE_HOST, port)
        again = sock.state(), sock.local_port()

    assert events == expected
    assert left == (UNCONNECTED, False, HostAddress.NULL, 0, -1)
    assert again == (BOUND, port)


async def test_leaving_the_block_gives_the_address_back(network: Network) -> None:
    """Normally or by an exception."""
    before = open_descriptors()
    async with TcpSocket() as sock:
        await sock.bind(network.host)
    with pytest.raises(KeyError):
        async with TcpSocket() as other:
            await other.bind(network.host, 0)
            raise KeyError

    assert (sock.state(), other.state()) == (UNCONNECTED, UNCONNECTED)
    assert open_descriptors() == before


# ---- Connecting from it ------------------------------------------------------------------------


async def test_connecting_keeps_the_port(network: Network) -> None:
    """B-019, B-025: through look-up, attempt and connection the local address is the one that was bound, then gone."""
    gate = trio.Event()
    names({"peer.example": ["127.0.0.1"]}, gate=gate)
    seen: list[tuple[SocketState, str, bool, bool]] = []

    async with TcpSocket() as sock:
        await sock.bind("127.0.0.2")
        port, descriptor = sock.local_port(), sock.socket_descriptor()

        def look() -> None:
            same = sock.local_port() == port, sock.socket_descriptor() == descriptor
            seen.append((sock.state(), sock.local_address().text, *same))

        with await network.raw_listener() as listener:
            async with told(sock) as events, trio.open_nursery() as nursery:
                look()
                nursery.start_soon(sock.connect_to_host, "peer.example", listener.port)
                await trio.testing.wait_all_tasks_blocked()
                look()
                gate.set()
                peer = await listener.accept()
                await sock.wait_for_connected()
                look()
            with peer:
                from_where = peer.sock.getpeername()
        sock.abort()
        look()

    assert seen == [
        (BOUND, "127.0.0.2", True, True),
        (HOST_LOOKUP, "127.0.0.2", True, True),
        (CONNECTED, "127.0.0.2", True, True),
        (UNCONNECTED, "", False, False),
    ]
    assert from_where == ("127.0.0.2", port)
    assert events == [
        StateChanged(HOST_LOOKUP),
        StateChanged(CONNECTING),
        HostFound(),
        StateChanged(CONNECTED),
        Connected(),
    ]


async def test_the_peer_of_a_bound_socket_is_the_one_it_reached(network: Network) -> None:
    """C-030: who asks for every address reaches this host.  A bound socket used to say that its peer was 0.0.0.0."""
    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:
            await sock.bind(network.host)
            await sock.connect_to_host("0.0.0.0", listener.port)

            assert sock.peer_address() == HostAddress.LOCAL_HOST


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
async def test_every_address_connects_to_both_families(network: Network, peer: str) -> None:
    """B-020: a dual-stack socket reaches IPv4 through the mapped form, which equals the plain one."""
    with await listen_on(peer) as listener:
        async with TcpSocket() as sock:
            await sock.bind()
            port = sock.local_port()
            await sock.connect_to_host(peer, listener.port)
            with await listener.accept() as accepted:
                assert accepted.sock.getpeername()[:2] == (peer, port)

            assert sock.peer_address() == HostAddress(peer)
            assert (sock.local_address(), sock.local_port()) == (HostAddress(peer), port)


@pytest.mark.parametrize(
    ("local", "peer"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1"), (HostAddress.ANY_IPV6, "127.0.0.1")]
)
async def test_an_address_of_the_other_family_cannot_be_reached(network: Network, local: Any, peer: str) -> None:
    """B-021: the kind is Qt's, and the reason says why; the address is given back."""
    with await listen_on(peer) as listener:
        async with TcpSocket() as sock:
            await sock.bind(local)
            with pytest.raises(SocketError) as caught:
                await sock.connect_to_host(peer, listener.port)

            assert caught.value.kind is ErrorKind.CONNECTION_REFUSED
            assert caught.value.message.endswith("not reachable from the address that was bound")
            assert (sock.state(), sock.local_port(), sock.socket_descriptor()) == (UNCONNECTED, 0, -1)


async def test_a_names_addresses_are_tried_one_after_the_other_from_the_same_port(network: Network) -> None:
    """Unreachable, refused, then served: each attempt leaves from the address that was bound."""
    names({"peer.example": ["::1", "127.0.0.2", "127.0.0.1"]})

    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:
            await sock.bind("127.0.0.3")
            port = sock.local_port()
            await sock.connect_to_host("peer.example", listener.port)
            with await listener.accept() as peer:
                assert peer.sock.getpeername() == ("127.0.0.3", port)

            assert (sock.peer_address(), sock.local_port()) == (HostAddress.LOCAL_HOST, port)


@pytest.mark.parametrize("order", [["::1", "127.0.0.1"], ["127.0.0.1", "::1"]], ids=str)
@pytest.mark.parametrize("listening", ["::1", "127.0.0.1"])
async def test_a_socket_of_both_families_gets_through_by_the_other_one(
    network: Network, order: list[str], listening: str
) -> None:
    """The one socket that was bound tries both, its options and its port stay, and bytes get through.

    IPv6 comes first, whatever the resolver says: refused by IPv4, a Linux socket connects to IPv6 and carries nothing.
    """
    names({"peer.example": order})

    with await listen_on(listening) as listener:
        async with TcpSocket() as sock:
            await sock.bind()
            sock.set_socket_option(SocketOption.KEEP_ALIVE_IDLE, 77)
            port, descriptor = sock.local_port(), sock.socket_descriptor()
            await sock.connect_to_host("peer.example", listener.port)
            with await listener.accept() as peer:
                assert (peer.sock.getpeername()[:2], sock.local_port()) == ((listening, port), port)
                assert (sock.socket_descriptor(), sock.socket_option(SocketOption.KEEP_ALIVE_IDLE)) == (descriptor, 77)
                await sock.send_all(b"hello")
                assert await peer.receive(5) == b"hello"
                await peer.send(b"back")
                assert await sock.receive_exactly(4) == b"back"


async def test_when_all_fail_the_address_is_given_back(network: Network) -> None:
    """One error for the call, one exception per attempt; B-022 differs: Qt goes on reporting the port."""
    names({"peer.example": ["::1", "127.0.0.1"]})
    before = open_descriptors()

    async with TcpSocket() as sock:
        await sock.bind(network.host)
        async with refusing_port() as port:
            with pytest.raises(SocketError) as caught:
                await sock.connect_to_host("peer.example", port)

        cause = caught.value.__cause__
        assert caught.value.kind is ErrorKind.CONNECTION_REFUSED
        assert isinstance(cause, ExceptionGroup)
        assert [(exc.errno, exc.__notes__) for exc in cause.exceptions if isinstance(exc, OSError)] == [
            (errno.ECONNREFUSED, [f"while connecting to [::1]:{port}"]),
            (errno.ECONNREFUSED, [f"while connecting to 127.0.0.1:{port}"]),
        ]
        assert (sock.state(), sock.local_port(), sock.socket_descriptor()) == (UNCONNECTED, 0, -1)
        assert open_descriptors() == before


def cancel(sock: TcpSocket, scope: trio.CancelScope) -> None:
    scope.cancel()


def abort(sock: TcpSocket, scope: trio.CancelScope) -> None:
    sock.abort()


@pytest.mark.parametrize("end", [cancel, abort])
async def test_an_attempt_that_is_dropped_gives_the_address_back(
    network: Network,
    end: Callable[[TcpSocket, trio.CancelScope], None],
) -> None:
    """Cancelled or aborted: a bind is gone either way, at once, and no descriptor stays."""
    names({"peer.example": ["127.0.0.1"]}, gate=trio.Event())
    before = open_descriptors()
    scope = trio.CancelScope()

    async def connect() -> None:
        with scope:
            try:
                await sock.connect_to_host("peer.example", 80)
            except trio.ClosedResourceError:
                assert end is abort

    async with TcpSocket() as sock:
        await sock.bind(RARE_HOST)
        port = sock.local_port()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect)
            await trio.testing.wait_all_tasks_blocked()
            during = sock.local_port()
            end(sock, scope)
        left = sock.state(), sock.local_port(), sock.socket_descriptor()
        descriptors = open_descriptors()
        await sock.bind(RARE_HOST, port)
        again = sock.local_port()

    assert during == port
    assert left == (UNCONNECTED, 0, -1)
    assert descriptors == before
    assert again == port


class NoIPv6(trio.abc.SocketFactory):
    """A machine whose kernel has no IPv6."""

    def __init__(self) -> None:
        self.refused = 0
        self._machine = trio.socket.set_custom_socket_factory(self)

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> Any:
        if family == socket.AF_INET6:
            self.refused += 1
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        if self._machine is not None:
            return self._machine.socket(family, type, proto)
        return trio.socket.from_stdlib_socket(socket.socket(family, type, proto))


class Forbidding(ScriptedNetwork):
    """A machine on which nobody may bind anything."""

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> ScriptedSocket:
        sock = Forbidden(self, family)
        self.sockets.append(sock)
        return sock


class Forbidden(ScriptedSocket):
    """Cannot be bound by the likes of us."""

    async def bind(self, address: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize("asked", ["127.0.0.1", "::ffff:127.0.0.1"])
async def test_an_ipv4_mapped_address_is_bound_and_leads_to_ipv4(network: Network, asked: str) -> None:
    """However the peer is spelled; and not to IPv6.  In Qt it is refused."""
    listener = await listen_on("127.0.0.1")
    async with TcpSocket() as sock:
        await sock.bind("::ffff:127.0.0.1")
        bound = sock.local_address().text, sock.local_port()
        await sock.connect_to_host(asked, listener.port)
        connected = sock.local_address().text, sock.local_port()
        peer = sock.peer_address().text
    async with TcpSocket() as other:
        await other.bind("::ffff:127.0.0.1")
        with pytest.raises(SocketError):
            await other.connect_to_host("::1", listener.port)
    listener.close()

    assert bound == connected
    assert (bound[0], peer) == ("::ffff:127.0.0.1", "::ffff:127.0.0.1")
