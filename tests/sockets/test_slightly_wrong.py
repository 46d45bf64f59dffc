"""What somebody is told who gets it slightly wrong: the error says what to write instead.

Where a type checker would tell too, the wrong thing is said by way of ``Any``, as by somebody who has none.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trio.testing

from tests.certificates import Contexts
from tests.networks import Network
from tests.sockets.pairs import connection
from trioqt import Connected, DataStream, SocketError, SslServer, SslSocket, TcpServer, TcpSocket, UdpSocket
from trioqt.testing import VirtualNetwork

Made = Callable[[], Any]

BLOCKS: dict[str, Made] = {
    "a socket": TcpSocket,
    "a datagram socket": UdpSocket,
    "a server": TcpServer,
    "events": lambda: TcpSocket().events(Connected),
    "a network": VirtualNetwork,
}


@pytest.mark.parametrize("what", BLOCKS)
async def test_with_in_place_of_async_with_is_told(what: str) -> None:
    """Python alone would say that it is no context manager."""
    with pytest.raises(TypeError, match=r"^write `async with`, not `with`$"), BLOCKS[what]():
        raise AssertionError


async def test_a_transaction_that_is_entered_without_async_is_told(network: Network) -> None:
    """And has not begun."""
    async with connection(network) as pair:
        transaction: Any = pair.sock.transaction()
        with pytest.raises(TypeError, match="write `async with`"), transaction:
            raise AssertionError

        assert not pair.sock.is_transaction_started()


async def test_events_that_are_iterated_without_a_block_are_told() -> None:
    """Nothing has been subscribed to, so nothing would come."""
    async with TcpSocket() as sock:
        events: Any = sock.events(Connected)
        with pytest.raises(TypeError, match=r"^write `async with it\.events\(\.\.\.\)"):
            async for _ in events:
                raise AssertionError


@pytest.mark.parametrize("kind", [TcpSocket, SslSocket, UdpSocket, TcpServer, SslServer])
def test_no_class_asks_itself_for_names_that_it_lacks(kind: type) -> None:
    """One that told what `recv` is called here cost all of its calls a tenth to a sixth of their speed."""
    assert [
        cls for cls in kind.__mro__ if {"__getattr__", "__getattribute__"} & vars(cls).keys() and cls is not object
    ] == []


async def test_a_full_queue_says_what_waits_for_room(network: Network) -> None:
    """A bare WouldBlock would leave it to be guessed."""
    async with connection(network, write_buffer_size=1) as pair:
        with pytest.raises(trio.WouldBlock, match=r"await send_all\(\), which waits for room"):
            while True:
                pair.sock.write(bytes(100_000))


WRONG_KINDS: list[tuple[str, Callable[[TcpSocket], Any], str]] = [
    ("a count", lambda sock: sock.receive_exactly("4"), "count is an int, not str"),  # type: ignore[arg-type]
    ("a float", lambda sock: sock.receive_exactly(4.0), "count is an int, not float"),  # type: ignore[arg-type]
    ("a limit", lambda sock: sock.receive_line(b"\n"), "max_bytes is an int, not bytes"),  # type: ignore[arg-type]
    ("a reader", lambda sock: sock.receive_message("q"), "read by a function, as DataStream.read_q_string, not str"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "told"), [case[1:] for case in WRONG_KINDS], ids=[case[0] for case in WRONG_KINDS])
async def test_what_is_of_the_wrong_type_is_told_by_name(
    network: Network, call: Callable[[TcpSocket], Any], told: str
) -> None:
    """Before anything is waited for: nothing has arrived here."""
    async with connection(network) as pair:
        with pytest.raises(TypeError, match=told):
            await call(pair.sock)


def test_an_address_or_a_handler_in_the_wrong_place_is_told_where_it_goes() -> None:
    """As ``socket.create_server`` and ``asyncio.start_server`` have them."""

    async def handler(sock: TcpSocket) -> None:
        raise AssertionError

    sockets: list[Any] = [TcpSocket, UdpSocket]
    server: Any = TcpServer
    for kind in sockets:
        with pytest.raises(TypeError, match=r"not str; an address is given to connect_to_host\(\) or bind\(\)"):
            kind("127.0.0.1")
    with pytest.raises(TypeError, match=r"a handler is given to serve\(\)"):
        server(handler)


async def test_a_datagram_without_a_port_is_told_what_it_lacks(network: Network) -> None:
    """It has a destination, but for that."""
    async with UdpSocket() as sock:
        with pytest.raises(SocketError, match="cannot send a datagram: it has no port"):
            await sock.send_datagram(b"x", "127.0.0.1")
        with pytest.raises(SocketError, match="cannot send a datagram: it has no destination"):
            await sock.send_datagram(b"x")


async def test_a_context_of_the_other_end_of_tls_is_told_at_once(network: Network, tls: Contexts) -> None:
    """And not by each handshake that fails, to a server's log."""
    for_servers = r"a server needs a context for servers: ssl\.create_default_context\(ssl\.Purpose\.CLIENT_AUTH\)"
    for_clients = r"a client needs a context for clients: ssl\.create_default_context\(\)"

    with pytest.raises(ValueError, match=for_servers):
        SslServer(ssl.create_default_context())
    async with SslServer(tls.server) as server:
        with pytest.raises(ValueError, match=for_servers):
            server.set_context(tls.client)
    async with SslSocket(context=tls.server) as sock:
        with pytest.raises(ValueError, match=for_clients):
            await sock.connect_to_host_encrypted("127.0.0.1", 9, server_hostname="peer.example")
    here, there = trio.testing.memory_stream_pair()
    async with SslSocket.from_stream(here, context=tls.client) as ours:
        with pytest.raises(ValueError, match=for_servers):
            await ours.start_server_encryption()
    async with SslSocket.from_stream(there, context=tls.server) as theirs:
        with pytest.raises(ValueError, match=for_clients):
            await theirs.start_client_encryption(server_hostname="peer.example")


def test_a_method_of_the_stream_in_place_of_the_classs_is_told() -> None:
    """It would be given the stream once more."""
    stream = DataStream(bytes(4))
    told = r"^give DataStream\.{}, which is called with the stream, and not the stream's own {}$"

    with pytest.raises(TypeError, match=told.format("read_int32", "read_int32")):
        stream.read_list(stream.read_int32)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=told.format("read_int8", "read_int8")):
        stream.read_map(DataStream.read_bool, stream.read_int8)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=told.format("write_int8", "write_int8")):
        stream.write_list([], stream.write_int8)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=told.format("write_bool", "write_bool")):
        stream.write_map({}, stream.write_bool, DataStream.write_bool)  # type: ignore[arg-type]

    assert (stream.data(), repr(stream)) == (bytes(4), "<DataStream of 4 bytes, 0 read>")


WRITES: list[tuple[Callable[[Any], object], str]] = [
    (lambda stream: stream.write_int32("5"), "an int is written, not str"),
    (lambda stream: stream.write_uint8(5.0), "an int is written, not float"),
    (lambda stream: stream.write_double(None), "a float is written, not NoneType"),
    (lambda stream: stream.write_float("1.5"), "a float is written, not str"),
    (lambda stream: stream.write_double(1j), "a float is written, not complex"),
    (lambda stream: stream.write_raw_data("x"), "bytes are written, not str"),
    (lambda stream: stream.read_raw_data("4"), "a count is an int, not str"),
    (lambda stream: stream.write_list(iter(()), DataStream.write_bool), "a list is written, not tuple_iterator"),
    (lambda stream: stream.write_map([], DataStream.write_bool, DataStream.write_bool), "a map is written, not list"),
    (lambda stream: stream.set_version("6.5"), "a version is a DataStreamVersion or an int, not str"),
    (lambda stream: DataStream("x"), "bytes are read, not str"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("write", "told"), WRITES)
def test_what_a_stream_cannot_write_is_told(write: Callable[[Any], object], told: str) -> None:
    """In words of what was to be written, and nothing of it is."""
    stream = DataStream()

    with pytest.raises(TypeError, match=f"^{told}$"):
        write(stream)

    assert stream.data() == b""
