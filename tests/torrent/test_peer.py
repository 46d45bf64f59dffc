"""What is said to a peer, and what it must not say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies

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


@pytest.mark.parametrize("message", [Bitfield(b"\x80"), Choke()])
def test_changing_ones_mind_has_a_bound(message: Message) -> None:
    """It costs us more than the peer; a block that was asked for shows that it means well."""
    peer, _ = a_peer(our_pieces(0))

    with pytest.raises(ProtocolError, match="it says again and again"):
        for _ in range(201):
            peer.hear(message)
            peer.hear(Unchoke())


def test_a_block_that_was_not_asked_for_buys_nothing() -> None:
    """Nor does it count as a gift."""
    peer, _ = a_peer(our_pieces(0))

    assert peer.hear(Block(1, 0, bytes(BLOCK))) is None
    assert peer.given == 0


def test_blocks_that_were_not_asked_for_have_a_bound() -> None:
    """They would come in place of what others send, where there is a limit; those that were called off do not count."""
    peer, said = a_peer(our_pieces(0))
    peer.hear(Bitfield(b"\x40"))
    for _ in range(50):
        peer.hear(Unchoke())
        asked = [message for message in said if isinstance(message, Request)]
        peer.hear(Choke())
        for request in asked:
            assert peer.hear(Block(request.index, request.begin, bytes(request.length))) is None
        assert len(asked) == 2
        said.clear()

    for _ in range(16):
        assert peer.hear(Block(1, 0, bytes(BLOCK))) is None
    with pytest.raises(ProtocolError, match="again and again what it was not asked for"):
        peer.hear(Block(1, 0, bytes(BLOCK)))


WHAT_MAY_BE_SAID: strategies.SearchStrategy[Message] = strategies.one_of(
    strategies.sampled_from([Choke(), Unchoke(), Interested(), NotInterested(), Bitfield(b"\x40"), Bitfield(b"\x00")]),
    strategies.builds(Have, strategies.integers(0, 1)),
    strategies.builds(Request, strategies.just(0), strategies.integers(0, 9), strategies.integers(1, 9)),
    strategies.builds(Cancel, strategies.just(0), strategies.integers(0, 9), strategies.integers(1, 9)),
    strategies.builds(
        lambda block: Block(1, block * BLOCK, CONTENT[PIECE + block * BLOCK :][:BLOCK]), strategies.integers(0, 1)
    ),
)


@given(strategies.lists(strategies.tuples(strategies.integers(0, 1), WHAT_MAY_BE_SAID), max_size=60))
def test_whatever_two_peers_say_the_books_agree(talk: list[tuple[int, Message]]) -> None:
    """What each is asked for is what the pieces think that it is; nobody is asked while it chokes us; and at last the
    piece can be got of whoever is left.
    """
    pieces = our_pieces(0)
    peers = [a_peer(pieces)[0] for _ in range(2)]
    for which, message in talk:
        whole = peers[which].hear(message)
        if whole is not None:
            assert whole == (1, CONTENT[PIECE:])
            pieces.stored(1)
            for peer in peers:
                peer.tell_have(1)
        for peer in peers:
            assert not (peer.chokes_us and peer.asked)
            assert len(peer.wanted) <= 60

    pieces.remove_peer(peers[0])
    last = peers[1]
    last.hear(Have(1))
    last.hear(Unchoke())
    got = pieces.ours.size == 2
    for _, begin in sorted(last.asked):
        got = last.hear(Block(1, begin, CONTENT[PIECE + begin :][:BLOCK])) is not None or got
    assert got


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
