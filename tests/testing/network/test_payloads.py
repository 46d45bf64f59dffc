"""What was sent is part of a network's digest: not how much only, but which bytes."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from zlib import crc32

import pytest
import trio
import trustme
from OpenSSL import SSL

from trioqt.testing import VirtualNetwork, simulate
from trioqt.testing.network.checksums import datagram_checksum, is_hello

Digest = Callable[[VirtualNetwork, bytes], Awaitable[None]]


async def by_tcp(net: VirtualNetwork, data: bytes) -> None:
    [listener] = await trio.open_tcp_listeners(80, host="127.0.0.1")
    async with listener, await trio.open_tcp_stream("127.0.0.1", 80) as stream, await listener.accept() as peer:
        await stream.send_all(data)
        await peer.receive_some()


async def by_udp(net: VirtualNetwork, data: bytes) -> None:
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as one, trio.socket.socket(type=trio.socket.SOCK_DGRAM) as two:
        await two.bind(("127.0.0.1", 53))
        await one.sendto(data, ("127.0.0.1", 53))
        await two.recv(100)


async def by_unix(net: VirtualNetwork, data: bytes) -> None:
    with trio.socket.socket(trio.socket.AF_UNIX) as listener, trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await listener.bind("name")
        listener.listen()
        await sock.connect("name")
        await sock.send(data)


async def lost(net: VirtualNetwork, data: bytes) -> None:
    """Nobody gets it, and it was sent."""
    with net.host("server"), trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("0.0.0.0", 53))
    with net.partition("default", "server"), trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.sendto(data, ("10.0.0.2", 53))


@pytest.mark.parametrize("send", [by_tcp, by_udp, by_unix, lost], ids=lambda send: str(send.__name__))
def test_other_bytes_of_one_length_give_another_digest(send: Digest) -> None:
    """And the same bytes the same one."""

    async def digest(net: VirtualNetwork, data: bytes) -> tuple[list[str], str]:
        await send(net, data)
        return [str(event) for event in net.trace()], net.digest()

    first, again, other = (simulate(digest, data) for data in (b"left", b"left", b"gone"))

    assert first == again
    assert other[0] == first[0]
    assert other[1] != first[1]


def test_an_event_has_the_checksum_of_what_it_carried() -> None:
    """CRC-32; 0 where there is nothing."""

    async def main(net: VirtualNetwork) -> list[tuple[str, int]]:
        await by_tcp(net, b"hello")
        return [(event.kind, event.checksum) for event in net.trace() if event.target]

    found = simulate(main)

    assert ("DATA", crc32(b"hello")) in found
    assert {checksum for kind, checksum in found if kind != "DATA"} == {0}


# ---- what is encrypted -----------------------------------------------------------------------------------------------

KEYS = trustme.CA(key_type=trustme.KeyType.RSA)
CERTIFICATE = KEYS.issue_cert("server", key_type=trustme.KeyType.RSA)


def digests_over_tls(upgrade: bytes = b"") -> list[str]:
    """Of two runs that send the same over TLS, on a bad link, after ``upgrade`` in the clear."""
    here, there = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    CERTIFICATE.configure_cert(here)
    KEYS.configure_trust(there)

    async def serve(stream: trio.SocketStream) -> None:
        if upgrade:
            assert await stream.receive_some() == upgrade
        async with trio.SSLStream(stream, here, server_side=True) as encrypted:
            async for data in encrypted:
                await encrypted.send_all(data)

    async def main(net: VirtualNetwork) -> str:
        async with trio.open_nursery() as nursery:
            with net.host("server"):
                await nursery.start(trio.serve_tcp, serve, 443)
            net.set_link("default", "server", latency=0.05, jitter=0.05, loss=0.1)
            stream = await trio.open_tcp_stream("server", 443)
            if upgrade:
                await stream.send_all(upgrade)
                await trio.sleep(30)
            async with trio.SSLStream(stream, there, server_hostname="server") as encrypted:
                for size in (1, 100, 40_000):
                    await encrypted.send_all(b"x" * size)
                    while size:
                        size -= len(await encrypted.receive_some())
            nursery.cancel_scope.cancel()
        return net.digest()

    return [simulate(main, seed=2) for _ in range(2)]


def test_what_is_encrypted_does_not_count() -> None:
    """Its bytes are others each time, because OpenSSL draws them; their number is the same, with RSA."""
    first, again = digests_over_tls()

    assert first == again


def test_what_was_sent_before_the_handshake_counts() -> None:
    """A protocol that changes to TLS on the way."""
    (plain, again), (other, _) = digests_over_tls(b"STARTTLS"), digests_over_tls(b"startTLS")

    assert plain == again
    assert plain != other


def test_a_record_of_tls_is_known_by_its_first_bytes() -> None:
    """Only that of a hello; what follows in the same direction is encrypted, whatever it looks like."""
    client = b"\x16\x03\x01\x00\x80\x01\x00"
    server = b"\x16\x03\x03\x00\x80\x02\x00"

    assert [is_hello(client), is_hello(server)] == [True, True]
    others = (b"", client[:5], b"\x17" + client[1:], client[:5] + b"\x0b", b"\x16\x04" + client[2:], b"GET / HTTP/1.1")
    assert not any(map(is_hello, others))


def test_a_datagram_of_dtls_is_known_by_its_version() -> None:
    """Each is a record for itself."""
    context = SSL.Context(SSL.DTLS_METHOD)
    client = SSL.Connection(context)
    client.set_connect_state()
    client.set_ciphertext_mtu(1200)
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()

    assert datagram_checksum(client.bio_read(1200)) == 0
    assert datagram_checksum(b"hello") == crc32(b"hello")
    assert datagram_checksum(b"") == 0
