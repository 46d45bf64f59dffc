"""Which blocks are asked of whom, and who is found to have lied."""

from __future__ import annotations

import random

import pytest

from examples.torrent.pieces import LiedError, Pieces, PieceSet
from examples.torrent.wire import BLOCK, ProtocolError, Request
from tests.torrent.kit import content_of, torrent_of

# Five pieces of two blocks, of which the last has one and a bit.
PIECE = 2 * BLOCK
CONTENT = content_of(4 * PIECE + BLOCK + 10)


def pieces_with(**peers: str) -> Pieces:
    """Our pieces, none yet, and peers with what each has: ``"10110"``."""
    pieces = Pieces(torrent_of(CONTENT), random.Random(1))
    for name, have in peers.items():
        pieces.add_peer(name)
        for index, bit in enumerate(have):
            if bit == "1":
                pieces.note(name, index)
    return pieces


def give(pieces: Pieces, peer: str, request: Request, *, lie: bool = False) -> bytes | None:
    start = request.index * PIECE + request.begin
    data = CONTENT[start : start + request.length]
    return pieces.take(peer, request.index, request.begin, bytes(len(data)) if lie else data)[0]


def get_all(pieces: Pieces, *peers: str) -> list[int]:
    """Ask all peers for a block at a time until nobody has more; the pieces in the order in which they are whole."""
    whole: list[int] = []
    while any(requests := [(peer, pieces.ask(peer, 1)) for peer in peers]):
        if not any(asked for _, asked in requests):
            return whole
        for peer, asked in requests:
            for request in asked:
                if give(pieces, peer, request) is not None:
                    pieces.stored(request.index)
                    whole.append(request.index)
    return whole


def test_all_pieces_come_from_several_peers() -> None:
    """Each is asked for what it has, and the last block is shorter."""
    pieces = pieces_with(one="11100", two="00111")

    assert sorted(get_all(pieces, "one", "two")) == [0, 1, 2, 3, 4]
    assert pieces.is_complete()


def test_the_rarest_piece_is_asked_for_first() -> None:
    """What only one has may soon be gone."""
    pieces = pieces_with(one="11111", two="11011", three="11011")

    assert [(request.index, request.begin) for request in pieces.ask("one", 2)] == [(2, 0), (2, BLOCK)]


def test_a_block_is_asked_of_one_peer_until_the_very_end() -> None:
    """Then those that have not come are asked of everybody, and the slower ones are told."""
    pieces = pieces_with(one="11111", two="11111")
    first = pieces.ask("one", 5)
    second = pieces.ask("two", 20)
    assert not set(first) & set(second[:5])
    assert set(second[5:]) == set(first)

    block = CONTENT[first[0].index * PIECE + first[0].begin :][: first[0].length]
    assert pieces.take("two", first[0].index, first[0].begin, block) == (None, {"one"})
    assert pieces.take("one", first[0].index, first[0].begin, bytes(first[0].length)) == (None, set())


def test_who_goes_or_chokes_leaves_its_blocks_to_others() -> None:
    """Nothing waits for somebody who will not answer."""
    for leaves in (Pieces.remove_peer, Pieces.let_off, Pieces.note_slow):
        pieces = pieces_with(one="10000", two="10000")
        asked = pieces.ask("one", 1)
        leaves(pieces, "one")
        assert pieces.ask("two", 1) == asked


def test_a_liar_among_others_is_found_the_second_time() -> None:
    """Nobody is blamed for a piece of several; then it is asked of one alone, and whoever is wrong then has lied."""
    pieces = pieces_with(liar="10000", honest="10000")
    (begin,), (rest,) = pieces.ask("liar", 1), pieces.ask("honest", 1)
    assert give(pieces, "liar", begin, lie=True) is None
    assert give(pieces, "honest", rest) is None

    again = pieces.ask("liar", 2)
    assert pieces.ask("honest", 2) == []
    assert give(pieces, "liar", again[0], lie=True) is None
    with pytest.raises(LiedError, match="its piece 0 is not what the torrent says"):
        give(pieces, "liar", again[1])

    pieces.remove_peer("liar")
    assert get_all(pieces, "honest") == [0]


def test_a_liar_that_grows_silent_does_not_keep_a_piece() -> None:
    """What it alone was asked for is asked of another one alone, from the beginning."""
    pieces = pieces_with(liar="10000", honest="10000")
    (begin,), (rest,) = pieces.ask("liar", 1), pieces.ask("honest", 1)
    give(pieces, "liar", begin, lie=True)
    give(pieces, "honest", rest)
    asked = pieces.ask("liar", 2)
    give(pieces, "liar", asked[0], lie=True)
    pieces.note_slow("liar")

    assert get_all(pieces, "honest") == [0]


@pytest.mark.parametrize(
    ("index", "begin", "size"),
    [(4, 0, BLOCK), (0, 1, BLOCK), (0, 5 * BLOCK, BLOCK), (2**32 - 1, 0, 5), (0, 2**32 - 1, 5)],
)
def test_a_block_that_nobody_asked_for_is_dropped(index: int, begin: int, size: int) -> None:
    """Wherever it says that it belongs."""
    pieces = pieces_with(one="10000")
    pieces.ask("one", 2)

    assert pieces.take("one", index, begin, bytes(size)) == (None, set())


def test_a_block_of_the_wrong_size_is_refused() -> None:
    """It was asked for, but not so."""
    pieces = pieces_with(one="10000")
    pieces.ask("one", 2)

    with pytest.raises(ProtocolError, match="5 bytes for a block of 16,384"):
        pieces.take("one", 0, 0, bytes(5))


def test_a_piece_that_could_not_be_stored_is_missing_again() -> None:
    """As when whoever stored it was cancelled."""
    pieces = pieces_with(one="10000")
    for request in pieces.ask("one", 2):
        give(pieces, "one", request)
    meanwhile = pieces.ask("one", 2)
    pieces.not_stored(0)

    assert meanwhile == []
    assert get_all(pieces, "one") == [0]


def test_what_is_begun_has_a_bound() -> None:
    """In memory there are 16 MiB of pieces, or one."""
    size = 8 << 20
    metainfo = torrent_of(bytes(4 * size), size)
    pieces = Pieces(metainfo, random.Random(1))
    pieces.add_peer("one")
    pieces.note_all("one", b"\xf0")

    requests = pieces.ask("one", 10_000)

    assert len({request.index for request in requests}) == 2
    assert len(requests) == 2 * size // BLOCK


def test_what_is_begun_of_tiny_pieces_has_a_bound() -> None:
    """So that looking through them takes no longer than for large ones."""
    pieces = Pieces(torrent_of(bytes(5000), 1), random.Random(1))
    pieces.add_peer("one")
    pieces.note_all("one", b"\xff" * 625)

    assert len(pieces.ask("one", 10_000)) == 1000


def test_bits_for_pieces_that_there_are_not_are_refused() -> None:
    """Five pieces have five bits, and three that are 0."""
    assert list(PieceSet.from_bits(5, b"\xa8")) == [0, 2, 4]
    assert PieceSet.from_bits(8, b"\xff").size == 8
    for bits in (b"\x04", b"\x01", b"", b"\x80\x00"):
        with pytest.raises(ProtocolError, match="its bits are not as many as there are pieces"):
            PieceSet.from_bits(5, bits)


def test_what_a_peer_has_may_be_said_again() -> None:
    """It counts once."""
    pieces = pieces_with(one="11111", two="11011")
    for bits in (b"\xf8", b"\x40"):
        pieces.note_all("two", bits)
    pieces.note("two", 1)

    assert {request.index for request in pieces.ask("two", 20)} == {1}
    with pytest.raises(ProtocolError, match="it has piece 5 of 5"):
        pieces.note("two", 5)
