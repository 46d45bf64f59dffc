"""What is said to a peer, and what it must not say."""

from __future__ import annotations

import random

import pytest

from examples.torrent.peer import Peer, choose
from examples.torrent.pieces import Pieces
from examples.torrent.wire import (
    BLOCK,
    Bitfield,
    Block,
    Cancel,
    Choke,
    Have,
    Interested,
    Message,
    NotInterested,
    ProtocolError,
    Request,
    Unchoke,
)
from tests.torrent.kit import content_of, torrent_of

PIECE = 2 * BLOCK
CONTENT = content_of(2 * PIECE)


def a_peer(pieces: Pieces) -> tuple[Peer, list[Message]]:
    said: list[Message] = []
    peer = Peer(pieces, said.append)
    peer.begin()
    return peer, said


def our_pieces(*ours: int) -> Pieces:
    pieces = Pieces(torrent_of(CONTENT), random.Random(1))
    for index in ours:
        pieces.stored(index)
    return pieces


def test_a_download_from_the_first_word_to_the_last() -> None:
    """Interest, requests once it lets us, the piece, and no interest any more."""
    pieces = our_pieces(0)
    peer, said = a_peer(pieces)
    assert said == [Bitfield(b"\x80")]

    assert peer.hear(Bitfield(b"\xc0")) is None
    assert peer.hear(Unchoke()) is None
    assert said[1:] == [Interested(), Request(1, 0, BLOCK), Request(1, BLOCK, BLOCK)]

    assert peer.hear(Block(1, BLOCK, CONTENT[-BLOCK:])) is None
    assert peer.hear(Block(1, 0, CONTENT[PIECE : PIECE + BLOCK])) == (1, CONTENT[PIECE:])
    pieces.stored(1)
    peer.tell_have(1)
    assert said[4:] == [Have(1), NotInterested()]
    assert peer.given == PIECE


def test_an_upload() -> None:
    """Only who is not choked is answered, and a choke or a cancel takes back what waits."""
    peer, said = a_peer(our_pieces(0, 1))
    request, other = Request(0, 0, BLOCK), Request(1, 0, 5)

    peer.hear(Interested())
    peer.hear(request)
    assert list(peer.wanted) == []

    peer.set_choked(False)
    peer.hear(request)
    peer.hear(other)
    peer.hear(Cancel(0, 0, BLOCK))
    peer.hear(Cancel(0, 0, BLOCK))
    assert list(peer.wanted) == [other]

    peer.set_choked(True)
    assert list(peer.wanted) == []
    assert said == [Bitfield(b"\xc0"), Unchoke(), Choke()]


def test_who_chokes_us_is_not_asked_and_asked_anew_afterwards() -> None:
    """What it had been asked for does not count."""
    peer, said = a_peer(our_pieces(0))
    peer.hear(Have(1))
    peer.hear(Unchoke())
    peer.hear(Choke())
    assert peer.asked == set()

    before = len(said)
    peer.hear(Unchoke())
    assert said[before:] == [Request(1, 0, BLOCK), Request(1, BLOCK, BLOCK)]


def test_the_slower_of_two_is_told_that_a_block_has_come() -> None:
    """At the end, when both were asked."""
    pieces = our_pieces(0)
    fast, _ = a_peer(pieces)
    slow, heard = a_peer(pieces)
    for peer in (slow, fast):
        peer.hear(Have(1))
        peer.hear(Unchoke())

    fast.hear(Block(1, 0, CONTENT[PIECE : PIECE + BLOCK]))

    assert heard[-1] == Cancel(1, 0, BLOCK)
    assert slow.asked == {(1, BLOCK)}


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Have(2), "it has piece 2 of 2"),
        (Bitfield(b"\xff"), "its bits are not as many"),
        (Request(1, 0, BLOCK), "piece 1, which we have not"),
        (Request(2**32 - 1, 0, BLOCK), "piece 4,294,967,295, which we have not"),
        (Request(0, 0, BLOCK + 1), "16,385 bytes at 0 of a piece of 32,768"),
        (Request(0, 0, 2**32 - 1), "4,294,967,295 bytes at 0"),
        (Request(0, PIECE - 1, 2), "2 bytes at 32,767 of a piece of 32,768"),
        (Request(0, 2**32 - 1, BLOCK), "16,384 bytes at 4,294,967,295"),
        (Request(0, 0, 0), "0 bytes at 0"),
    ],
)
def test_what_a_peer_must_not_say(message: Message, why: str) -> None:
    """Each is told with its figures."""
    peer, _ = a_peer(our_pieces(0))
    peer.set_choked(False)

    with pytest.raises(ProtocolError, match=why):
        peer.hear(message)


def test_requests_have_a_bound() -> None:
    """Who asks without end is told that there is one."""
    peer, _ = a_peer(our_pieces(0))
    peer.set_choked(False)

    with pytest.raises(ProtocolError, match="more than 500 blocks at a time"):
        for _ in range(501):
            peer.hear(Request(0, 0, 1))

    assert len(peer.wanted) == 500


def test_who_gives_most_is_answered_and_one_that_is_drawn() -> None:
    """Nobody who wants nothing; and what they gave counts once."""
    pieces = our_pieces()
    peers = [a_peer(pieces)[0] for _ in range(10)]
    for number, peer in enumerate(peers):
        peer.given, peer.is_interested = number, number != 9

    chosen = choose(peers, random.Random(1))

    assert chosen[:3] == [peers[8], peers[7], peers[6]]
    assert chosen[3] in peers[:6]
    assert all(peer.given == 0 for peer in peers)
