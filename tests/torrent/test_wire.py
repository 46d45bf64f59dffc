"""The peer wire protocol: however the bytes are cut the messages are the same, and no message is longer than may be."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, strategies

from examples.torrent.wire import (
    BLOCK,
    KEEP_ALIVE,
    Bitfield,
    Block,
    Cancel,
    Choke,
    Decoder,
    Handshake,
    Have,
    Interested,
    Message,
    NotInterested,
    ProtocolError,
    Request,
    Unchoke,
    encode,
)

PIECES = 20

NUMBER = strategies.integers(0, 2**32 - 1)
MESSAGE: strategies.SearchStrategy[Message] = strategies.one_of(
    strategies.sampled_from([Choke(), Unchoke(), Interested(), NotInterested()]),
    strategies.builds(Have, NUMBER),
    strategies.builds(Bitfield, strategies.binary(min_size=3, max_size=3)),
    strategies.builds(Request, NUMBER, NUMBER, NUMBER),
    strategies.builds(Cancel, NUMBER, NUMBER, NUMBER),
    strategies.builds(Block, NUMBER, NUMBER, strategies.binary(min_size=1, max_size=50)),
)

EVERY_KIND: list[Message] = [
    *(Choke(), Unchoke(), Interested(), NotInterested(), Have(7), Bitfield(b"\xa0\x01\x30")),
    *(Request(1, 2, 3), Block(4, 5, b"bytes"), Cancel(6, 7, 8)),
]


def test_each_message_is_written_as_bep_3_has_it() -> None:
    """Length, kind, and what belongs to it."""
    assert [encode(message).hex(" ") for message in EVERY_KIND] == [
        "00 00 00 01 00",
        "00 00 00 01 01",
        "00 00 00 01 02",
        "00 00 00 01 03",
        "00 00 00 05 04 00 00 00 07",
        "00 00 00 04 05 a0 01 30",
        "00 00 00 0d 06 00 00 00 01 00 00 00 02 00 00 00 03",
        "00 00 00 0e 07 00 00 00 04 00 00 00 05 62 79 74 65 73",
        "00 00 00 0d 08 00 00 00 06 00 00 00 07 00 00 00 08",
    ]


@given(strategies.lists(MESSAGE, max_size=8), strategies.lists(strategies.integers(1, 40)))
def test_however_they_are_cut_the_messages_are_the_same(messages: list[Message], cuts: list[int]) -> None:
    """Pieces of any sizes, with signs of life in between."""
    data = KEEP_ALIVE + KEEP_ALIVE.join(map(encode, messages))
    decoder, heard = Decoder(PIECES), list[Message]()

    for cut in cuts:
        heard += decoder.feed(data[:cut])
        data = data[cut:]
    heard += decoder.feed(data)

    assert heard == messages
    assert decoder.held() == 0


def test_one_cut_at_every_place() -> None:
    """All kinds one after the other, in two pieces."""
    data = b"".join(map(encode, EVERY_KIND))

    for cut in range(len(data) + 1):
        decoder = Decoder(PIECES)
        assert [*decoder.feed(data[:cut]), *decoder.feed(data[cut:])] == EVERY_KIND


@given(strategies.lists(strategies.binary(max_size=100), max_size=10))
def test_any_bytes_are_messages_or_a_protocol_error(chunks: list[bytes]) -> None:
    """And never more is held than a message has."""
    decoder = Decoder(PIECES)
    for chunk in chunks:
        try:
            list(decoder.feed(chunk))
        except ProtocolError:
            return
        assert decoder.held() <= 4 + 1 + 8 + BLOCK


@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 1 + 8 + BLOCK + 1])
def test_a_length_that_is_too_large_is_refused_at_once(length: int) -> None:
    """Before one byte of it has come."""
    with pytest.raises(ProtocolError, match=f"a message of {length:,} bytes; 16,393 are the most"):
        list(Decoder(PIECES).feed(struct.pack("!I", length)))


def test_the_messages_before_a_wrong_one_are_heard() -> None:
    """They were right."""
    heard = []

    with pytest.raises(ProtocolError):
        for message in Decoder(PIECES).feed(encode(Have(1)) + b"\xff\xff\xff\xff"):
            heard.append(message)

    assert heard == [Have(1)]


@pytest.mark.parametrize(
    "body",
    [
        *(b"\x00x", b"\x04", b"\x04" + bytes(5), b"\x05" + bytes(2), b"\x05" + bytes(4), b"\x06" + bytes(11)),
        *(b"\x07" + bytes(8), b"\x08" + bytes(13)),
    ],
)
def test_a_message_of_the_wrong_length_is_refused(body: bytes) -> None:
    """A choke with something in it, a block of nothing, a bitfield for other pieces."""
    with pytest.raises(ProtocolError, match=f"a message of kind {body[0]} and {len(body)} bytes"):
        list(Decoder(PIECES).feed(struct.pack("!I", len(body)) + body))


def test_a_kind_that_is_not_known_is_left_out() -> None:
    """Extensions that others try, as BEP 5's port."""
    data = b"\x00\x00\x00\x03\x09\x1a\xe1" + encode(Have(1))

    assert list(Decoder(PIECES).feed(data)) == [Have(1)]


def test_a_bitfield_may_be_longer_than_a_block() -> None:
    """A torrent of very many pieces has one."""
    message = Bitfield(bytes(20_000))

    assert list(Decoder(160_000).feed(encode(message))) == [message]


def test_the_handshake() -> None:
    """68 bytes, and what begins with something else is refused."""
    handshake = Handshake(b"h" * 20, b"p" * 20)
    data = handshake.encode()

    assert data == b"\x13BitTorrent protocol" + bytes(8) + b"h" * 20 + b"p" * 20
    assert Handshake.decode(data) == handshake
    with pytest.raises(ProtocolError, match=r"does not speak BitTorrent, but says b'GET / HTTP/1.1"):
        Handshake.decode(b"GET / HTTP/1.1\r\n".ljust(68))
