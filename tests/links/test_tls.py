"""The link itself: what it holds back, what it refuses, and that nothing in it grows without a bound."""

from __future__ import annotations

import ssl

import attrs
import pytest
import trio

from tests.certificates import Contexts
from trioqt import ErrorKind, SocketError, SslSocket
from trioqt.core.errors import kind_of
from trioqt.core.states import Input
from trioqt.links import tls as tls_link
from trioqt.links.base import Bytes, Link, NativeSocket, Sockaddr
from trioqt.links.tls import TlsLink
from trioqt.links.tls_terms import Terms

NAME = "peer.example"


class Pipe(Link):
    """A link of memory that takes as many bytes as it is told, and counts its calls."""

    def __init__(self) -> None:
        self.room = 1 << 30
        self.sent = bytearray()
        self.arrived = bytearray()
        self.sends = self.receives = 0
        self.closed: list[bool] = []

    def can_be_asked(self) -> bool:
        return True

    def is_drained(self) -> bool:
        return not self.arrived

    def look_again(self) -> None:
        pass

    def try_receive(self, max_bytes: int) -> bytes | None:
        self.receives += 1
        data = bytes(self.arrived[:max_bytes])
        del self.arrived[:max_bytes]
        return data or None

    async def wait_receivable(self, max_bytes: int) -> None:
        await trio.lowlevel.checkpoint()

    def wake(self) -> None:
        pass

    async def look(self) -> None:
        pass

    def try_send(self, data: Bytes) -> int:
        self.sends += 1
        taken = min(self.room, len(data))
        self.room -= taken
        self.sent += bytes(data[:taken])
        return taken

    async def wait_sendable(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send(self, data: Bytes) -> int:
        raise NotImplementedError

    async def finish_sending(self) -> None:
        raise NotImplementedError

    def close(self, *, reset: bool = False, waited_on: bool = True) -> None:
        self.closed.append(reset)

    def has_goodbye(self) -> bool:
        return False

    async def say_goodbye(self, *, linger: float = 0) -> None:
        pass

    def drop_unread(self) -> None: ...

    def most_unread(self) -> int:
        return 0

    def local_address(self) -> Sockaddr | None:
        return None

    def peer_address(self) -> Sockaddr | None:
        return None

    def native(self) -> NativeSocket | None:
        return None


class End:
    """The other end: an SSLObject of the standard library."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def take(self, pipe: Pipe) -> None:
        self.incoming.write(bytes(pipe.sent))
        pipe.sent.clear()

    def give(self, pipe: Pipe) -> None:
        pipe.arrived += self.outgoing.read()

    def read(self, pipe: Pipe) -> bytes:
        self.take(pipe)
        got = b""
        try:
            while True:
                got += self.tls.read(65536)
        except ssl.SSLWantReadError:
            return got


async def opened(tls: Contexts, server: ssl.SSLContext | None = None) -> tuple[TlsLink, Pipe, End]:
    """A client's link after its handshake."""
    pipe, end = Pipe(), End(tls.server if server is None else server)
    link = TlsLink(pipe, Terms(tls.client, False, NAME))

    async def answer() -> None:
        while True:
            end.take(pipe)
            try:
                end.tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            end.give(pipe)
            if done:
                return
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await link.shake_hands()
    pipe.sends = pipe.receives = 0
    return link, pipe, end


async def test_all_records_of_a_message_go_in_one_piece(tls: Contexts) -> None:
    """64 KiB at a time: four records, one call below; and one recv brings them all."""
    link, pipe, end = await opened(tls)
    data = bytes(range(256)) * 256

    assert link.try_send(data) == len(data)
    assert pipe.sends == 1
    assert end.read(pipe) == data
    for start in range(0, len(data), 16384):
        end.tls.write(data[start : start + 16384])
    end.give(pipe)
    link.look_again()
    assert link.try_receive(1 << 20) == data
    assert pipe.receives == 1


async def test_bytes_that_are_encrypted_and_not_gone_do_not_count_as_sent(tls: Contexts) -> None:
    """They are offered again, and go out once: the count is honest at every byte that the link below takes."""
    link, pipe, end = await opened(tls)
    data = bytes(range(256)) * 100
    queue, rounds = data, 0
    while queue:
        pipe.room = 997
        sent = link.try_send(queue)
        assert 0 <= sent <= 997
        queue = queue[sent:]
        rounds += 1

    assert rounds >= len(data) // 997
    assert end.read(pipe) == data
    assert link.try_send(b"") == 0


async def test_bytes_that_go_out_with_an_answer_are_not_sent_again(tls: Contexts) -> None:
    """What the peer makes OpenSSL say goes behind what is unsent and takes that along; it used to be forgotten then
    that the caller had not been told, so the same bytes went out twice."""
    client, server = tls.new_client(), tls.new_server()
    client.post_handshake_auth = server.post_handshake_auth = True
    server.verify_mode = ssl.CERT_OPTIONAL
    link, pipe, end = await opened(attrs.evolve(tls, client=client, server=server))
    data = bytes(range(256)) * 256
    pipe.room = 1000
    queue = data[link.try_send(data) :]
    assert len(queue) > 60_000

    end.tls.verify_client_post_handshake()
    end.tls.write(b"?")  # which asks for a certificate first
    end.give(pipe)
    link.look_again()
    before, pipe.room = len(pipe.sent), 1 << 30
    assert link.try_receive(10) == b"?"
    assert len(pipe.sent) > before + len(queue)
    while queue:
        queue = queue[link.try_send(queue) :]

    assert end.read(pipe) == data


async def test_a_refused_renegotiation_takes_no_queued_bytes_with_it(tls: Contexts) -> None:
    """The answer is dropped; the record that is half sent is not."""
    server = tls.new_server()
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    link, pipe, end = await opened(tls, server)
    data = bytes(range(256)) * 64
    pipe.room = 1000
    queue = data[link.try_send(data) :]
    link._outgoing.write(bytes([22, 3, 3, 0, 1, 1]))

    link._answer()
    pipe.room = 1 << 30
    while queue:
        queue = queue[link.try_send(queue) :]

    assert end.read(pipe) == data


@pytest.mark.parametrize("size", [1, 100, 8192, 16000, 16384])
async def test_a_long_stream_comes_in_large_pieces(tls: Contexts, size: int) -> None:
    """Each step gives as many records as have room in it, and the end of one is no step of its own; it used to be."""
    link, pipe, end = await opened(tls)
    count = 1_000_000 // (size + 22)
    data = bytes(range(256)) * (count * size // 256 + 1)
    data = data[: count * size]
    for at in range(0, len(data), size):
        end.tls.write(data[at : at + size])
    end.give(pipe)
    link.look_again()
    pieces = []
    while piece := link.try_receive(tls_link.RECEIVE_SIZE):
        pieces.append(piece)

    assert b"".join(pieces) == data
    assert link.is_drained()
    most = tls_link.RECORDS_AT_ONCE * tls_link.RECORD_ROOM * size // (size + 22) - 2 * size
    assert all(len(piece) >= most for piece in pieces[1:-1])
    assert pipe.receives <= len(pieces) + 2


@pytest.mark.parametrize("size", [1, 100, 8192, 16384])
@pytest.mark.parametrize("asked", [1, 99, 16384, 20000, 65536])
async def test_all_that_came_is_given_before_the_end(tls: Contexts, size: int, asked: int) -> None:
    """Whatever the records and the pieces are: bytes, then the close_notify, and it is never said that there is nothing
    while there is something."""
    link, pipe, end = await opened(tls)
    data = bytes(range(256)) * 300
    data = data[: min(len(data), size * 200)]
    for at in range(0, len(data), size):
        end.tls.write(data[at : at + size])
    with pytest.raises(ssl.SSLWantReadError):
        end.tls.unwrap()
    end.give(pipe)
    link.look_again()
    got = b""
    while True:
        assert not link.is_drained()
        piece = link.try_receive(asked)
        if piece == b"":
            break
        got += piece or b""

    assert got == data


class Breaking(Pipe):
    """A pipe that breaks, for good, once it is empty; and says that there is more until then."""

    def is_drained(self) -> bool:
        return False

    def try_receive(self, max_bytes: int) -> bytes | None:
        if not self.arrived:
            raise ConnectionResetError
        return super().try_receive(max_bytes)


async def test_what_came_before_a_loss_can_be_read_after_it(tls: Contexts) -> None:
    """A record that was taken and not decrypted yet is not lost with the connection; who asks again gets it."""
    link, pipe, end = await opened(tls)
    link._below = broken = Breaking()
    end.tls.write(bytes(16384))
    end.tls.write(b"and a little more")
    end.give(pipe)
    broken.arrived = pipe.arrived
    got, losses = b"", 0
    while losses < 2:
        try:
            got += link.try_receive(65536) or b""
        except ConnectionResetError:
            losses += 1

    assert got == bytes(16384) + b"and a little more"


async def test_what_is_held_is_bounded(tls: Contexts) -> None:
    """However much lies below, no more ciphertext is taken than a record needs, if little is asked for."""
    link, pipe, end = await opened(tls)
    for _ in range(100):
        end.tls.write(bytes(16384))
    end.give(pipe)
    before = len(pipe.arrived)
    link.look_again()

    assert link.try_receive(10) == bytes(10)
    assert before - len(pipe.arrived) <= 2 * tls_link.RECORD_ROOM  # the first may have held the end of a handshake
    assert sum(len(link.try_receive(65536) or b"") for _ in range(200)) == 100 * 16384 - 10


async def test_renegotiation_is_refused(tls: Contexts) -> None:
    """In TLS 1.2 a server may ask for it; what came before can be read, then the link has failed, for good."""
    server = tls.new_server()
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    link, _, _ = await opened(tls, server)
    link._outgoing.write(bytes([22, 3, 3, 0, 1, 1]))  # what OpenSSL says when it is asked for one

    link._answer()

    for _ in range(2):
        with pytest.raises(SocketError) as failed:
            link.try_receive(10)
        assert failed.value.message == "the peer wants to renegotiate, which is refused"


async def test_answers_that_the_peer_does_not_read_have_a_bound(tls: Contexts) -> None:
    """Of new keys again and again, for one: then the link has failed."""
    link, pipe, _ = await opened(tls)
    pipe.room = 0
    said = 0
    while link._failed is None and said < 1_000_000:
        link._outgoing.write(bytes(100))
        link._answer()
        said += 100

    assert said <= tls_link.MOST_ANSWERS + tls_link.SEND_SIZE + 100
    assert kind_of(link._failed or OSError()) is ErrorKind.LIMIT_EXCEEDED


class NewKeys:
    """A TLS object whose peer sends new keys for ever: it takes them in, and gives nothing."""

    def __init__(self, incoming: ssl.MemoryBIO) -> None:
        self.incoming = incoming

    def read(self, size: int) -> bytes:
        self.incoming.read()
        raise ssl.SSLWantReadError

    def pending(self) -> int:
        return 0


async def test_a_peer_that_sends_nothing_but_new_keys_does_not_hold_up_others(tls: Contexts) -> None:
    """A step takes in a bounded piece of that, says that there is more, and is over; it used to go on for ever."""
    link, pipe, _ = await opened(tls)
    pipe.arrived += bytes(10_000_000)
    link._tls = NewKeys(link._incoming)  # type: ignore[assignment]
    link.look_again()
    taken = []
    for _ in range(3):
        before = len(pipe.arrived)
        assert link.try_receive(65536) is None
        assert not link.is_drained()
        await link.wait_receivable(65536)  # a checkpoint
        taken.append(before - len(pipe.arrived))

    most = tls_link.MOST_FRUITLESS
    assert taken[0] == most * (65536 // tls_link.RECORD_SIZE) * tls_link.RECORD_ROOM
    assert taken[1:] == [(most - 1) * tls_link.RECORD_ROOM] * 2


async def test_a_record_that_was_changed_on_the_way_is_an_error(tls: Contexts) -> None:
    """SSL_HANDSHAKE_FAILED as long as the peer has said nothing, SSL_INTERNAL after that."""
    kinds = []
    for is_heard in (False, True):
        link, pipe, end = await opened(tls)
        if is_heard:
            end.tls.write(b"hello")
            end.give(pipe)
            link.look_again()
            assert link.try_receive(10) == b"hello"
        end.tls.write(b"changed")
        end.give(pipe)
        pipe.arrived[-1] ^= 1
        link.look_again()
        with pytest.raises(SocketError) as failed:
            while link.try_receive(10) is None:
                pass
        kinds.append(failed.value.kind)

    assert kinds == [ErrorKind.SSL_HANDSHAKE_FAILED, ErrorKind.SSL_INTERNAL]


async def test_a_half_close_keeps_what_had_arrived(tls: Contexts) -> None:
    """OpenSSL would choke on it: it is decrypted before, and can be read after."""
    link, pipe, end = await opened(tls)
    end.tls.write(b"before")
    end.give(pipe)
    link.look_again()
    link._incoming.write(bytes(pipe.arrived))
    pipe.arrived.clear()

    await link.finish_sending()
    end.tls.write(b" and after")
    end.give(pipe)
    link.look_again()

    assert [link.try_receive(100), link.try_receive(100)] == [b"before", b" and after"]


async def test_a_half_close_keeps_the_rest_of_a_record(tls: Contexts) -> None:
    """Of which a part was read: OpenSSL holds the rest, and would lose it."""
    link, pipe, end = await opened(tls)
    end.tls.write(b"the one and the other")
    end.give(pipe)
    link.look_again()
    assert link.try_receive(7) == b"the one"

    await link.finish_sending()
    end.tls.write(b", and what came after")
    end.give(pipe)
    link.look_again()

    assert [link.try_receive(100), link.try_receive(100)] == [b" and the other", b", and what came after"]


async def test_all_that_the_system_holds_can_be_counted_at_once(tls: Contexts) -> None:
    """In small records a block of ciphertext is less than a block of bytes; there may be another all the same."""
    link, pipe, end = await opened(tls)
    for _ in range(3000):
        end.tls.write(bytes(100))
    end.give(pipe)
    link.look_again()
    async with SslSocket(read_buffer_size=0) as sock:
        sock._adopt(link, Input.ADOPTED)

        assert sock.bytes_available() == 300_000
        assert sock.read_all() == bytes(300_000)
        sock.abort()
