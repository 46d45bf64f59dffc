"""Who is in the middle of a handshake with a listening socket, as the kernel tells it."""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from tests.networks import Loopback
from trioqt.links.bind import any_target, listen_on
from trioqt.links.handshakes import half_open
from trioqt.links.native import NativeListener
from trioqt.links.newcomers import SO_ATTACH_FILTER
from trioqt.testing import VirtualNetwork

# As in links/newcomers.py: drop a segment with SYN and ACK, so that a client does not hear of the answer.
DROP_ANSWER = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),
        (0x54, 0, 0, 0x12),
        (0x15, 0, 1, 0x12),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
    )
)


@pytest.fixture
async def listener() -> AsyncIterator[NativeListener]:
    """For both families, if there are two."""
    (made,) = await listen_on([any_target(0)], 10)
    yield made
    made.close()


def deaf_client(host: str, port: int) -> socket.socket:
    """One that has asked and does not hear the answer, so it is half in."""
    client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    program = array.array("B", DROP_ANSWER)
    address, _ = program.buffer_info()
    client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(DROP_ANSWER) // 8, address))
    client.setblocking(False)
    client.connect_ex((host, port))
    return client


async def test_who_has_been_answered_and_not_heard_of_again_is_half_open(
    network: Loopback, listener: NativeListener
) -> None:
    """Of either family; and nobody who is in, nor anybody at another port."""
    (other,) = await listen_on([any_target(0)], 10)
    port = listener.local_address()[1]
    nobody = listener.half_open()
    with socket.create_connection(("127.0.0.1", port)):
        who_is_in = listener.half_open()
        with deaf_client("127.0.0.1", port) as client, deaf_client("127.0.0.1", other.local_address()[1]):
            first = listener.half_open()
            own_port = client.getsockname()[1].to_bytes(2, "big")
            with deaf_client("127.0.0.1", port):
                both = listener.half_open()
    other.close()

    assert (nobody, who_is_in) == (frozenset(), frozenset())
    assert [peer[0] for peer in first if isinstance(peer, tuple)] == [own_port]
    assert first < both
    assert len(both) == 2


async def test_where_it_may_not_be_asked_for_nobody_is(
    network: Loopback, listener: NativeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox without such sockets, or no descriptor left."""
    monkeypatch.setattr("trioqt.links.handshakes.NETLINK_SOCK_DIAG", 255)
    with deaf_client("127.0.0.1", listener.local_address()[1]):
        assert listener.half_open() == frozenset()


async def test_something_else_than_a_socket_of_the_kernels_has_nobody() -> None:
    """As one that a test has made."""
    async with VirtualNetwork():
        assert half_open(object()) == frozenset()  # type: ignore[arg-type]
