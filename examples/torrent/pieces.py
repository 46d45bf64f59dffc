"""What we have of a torrent, what to ask whom for, and whom to believe.  No network, no disk, no clock.

A piece goes from *missing* to *begun*, when its first block is asked for; to *whole*, when its last block has come and
the hash is right; and to *ours*, when it has been stored.  If the hash is wrong it is missing again.

Who has lied, when several have sent blocks of a piece, cannot be known.  So the next time such a piece is asked of one
peer alone; and if it is wrong then, that one has.
"""

from __future__ import annotations

import itertools
import random
from array import array
from collections.abc import Hashable, Iterable, Iterator
from typing import Final

import attrs

from examples.torrent.metainfo import Metainfo
from examples.torrent.wire import BLOCK, ProtocolError, Request

__all__ = ["LiedError", "PieceSet", "Pieces"]

# Of the memory for pieces that are begun, and of their number.  One may be begun in any case.
MAX_MEMORY: Final = 16 << 20
MAX_BEGUN: Final = 1000


class LiedError(ProtocolError):
    """What the peer has sent is not what the torrent means."""


class PieceSet:
    """Some of the pieces of a torrent, a bit each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._bits = bytearray((count + 7) // 8)
        self.size = 0

    @classmethod
    def from_bits(cls, count: int, bits: bytes) -> PieceSet:
        """Raises: ProtocolError if there are bits for pieces that there are not."""
        pieces = cls(count)
        if len(bits) != len(pieces._bits) or int.from_bytes(bits) & ((1 << len(bits) * 8 - count) - 1):
            raise ProtocolError("its bits are not as many as there are pieces")
        pieces._bits[:] = bits
        pieces.size = int.from_bytes(bits).bit_count()
        return pieces

    def copy(self) -> PieceSet:
        """Another one with the same pieces."""
        other = PieceSet(self.count)
        other._bits[:], other.size = self._bits, self.size
        return other

    def has_more_than(self, other: PieceSet) -> bool:
        """Is any piece in this one and not in ``other``?"""
        return bool(int.from_bytes(self._bits) & ~int.from_bytes(other._bits))

    def add(self, index: int) -> None:
        """It is in it from now on."""
        if index not in self:
            self._bits[index >> 3] |= 0x80 >> (index & 7)
            self.size += 1

    def __contains__(self, index: int) -> bool:
        return bool(self._bits[index >> 3] & 0x80 >> (index & 7))

    def __iter__(self) -> Iterator[int]:
        return (index for index in range(self.count) if index in self)

    def bits(self) -> bytes:
        """As the wire has them."""
        return bytes(self._bits)


@attrs.define
class _Begun:
    """A piece of which blocks have been asked for."""

    size: int
    only: Hashable | None = None  # who alone is asked, because it was wrong the last time
    blocks: list[bytes | None] = attrs.field(init=False)
    asked: list[set[Hashable]] = attrs.field(init=False)
    givers: set[Hashable] = attrs.field(factory=set)

    def __attrs_post_init__(self) -> None:
        count = (self.size + BLOCK - 1) // BLOCK
        self.blocks = [None] * count
        self.asked = [set() for _ in range(count)]

    def request(self, index: int, block: int) -> Request:
        begin = block * BLOCK
        return Request(index, begin, min(BLOCK, self.size - begin))


class Pieces:
    """All pieces of one torrent.  A peer is anything hashable.

    Args:
      rng: Draws among pieces that are equally rare.
    """

    def __init__(self, metainfo: Metainfo, rng: random.Random) -> None:
        self.metainfo = metainfo
        self.count = len(metainfo.hashes)
        self.ours = PieceSet(self.count)
        self._rng = rng
        self._begun: dict[int, _Begun] = {}
        self._stored: set[int] = set()  # whole, and on their way to the disk
        self._doubtful: set[int] = set()  # those that were wrong
        self._peers: dict[Hashable, PieceSet] = {}
        self._slow: set[Hashable] = set()  # what they have been asked for is asked of others too
        self._seen = array("I", bytes(4 * self.count))  # how many of the peers have each

    def is_complete(self) -> bool:
        """Have we got all?"""
        return self.ours.size == self.count

    # -- what the peers have ----------------------------------------------------------------

    def add_peer(self, peer: Hashable) -> None:
        """A peer that has nothing yet."""
        self._peers[peer] = PieceSet(self.count)

    def remove_peer(self, peer: Hashable) -> None:
        """It has gone: what it was asked for can be asked of others."""
        for index in self._peers.pop(peer):
            self._seen[index] -= 1
        self._slow.discard(peer)
        self.let_off(peer)

    def note_all(self, peer: Hashable, bits: bytes) -> None:
        """What it has.  BEP 3 lets a peer say so first of all only; aria2 does later too.  Raises: ProtocolError."""
        theirs = PieceSet.from_bits(self.count, bits)
        for index in self._peers[peer]:
            self._seen[index] -= 1
        self._peers[peer] = theirs
        for index in theirs:
            self._seen[index] += 1

    def note(self, peer: Hashable, index: int) -> bool:
        """It has one more; False: that is no news.  Raises: ProtocolError."""
        if index >= self.count:
            raise ProtocolError(f"it has piece {index:,} of {self.count:,}")
        if index in self._peers[peer]:
            return False
        self._peers[peer].add(index)
        self._seen[index] += 1
        return True

    def of(self, peer: Hashable) -> PieceSet:
        """What it has."""
        return self._peers[peer]

    def wants(self, peer: Hashable) -> bool:
        """Has it anything that we have not?"""
        return self._peers[peer].has_more_than(self.ours)

    # -- what to ask for --------------------------------------------------------------------

    def ask(self, peer: Hashable, most: int) -> list[Request]:
        """What to ask ``peer`` for: so many blocks at most.

        First the rest of what is begun, then the rarest pieces; at the very end what others have been asked for, too.
        """
        asked: list[Request] = []
        for index, block in itertools.islice(self._choose(peer), most):
            begun = self._begun[index]
            begun.asked[block].add(peer)
            if index in self._doubtful:
                begun.only = peer
            asked.append(begun.request(index, block))
        return asked

    def _choose(self, peer: Hashable) -> Iterator[tuple[int, int]]:
        for index in list(self._begun):
            yield from self._open_blocks(peer, index, among=self._slow)
        while (rarest := self._rarest(peer)) is not None:
            self._begun[rarest] = _Begun(self.metainfo.size_of(rarest))
            yield from self._open_blocks(peer, rarest, among=self._slow)
        if len(self._begun) + len(self._stored) + self.ours.size == self.count:
            for index in list(self._begun):
                yield from self._open_blocks(peer, index, among=self._peers.keys())

    def _open_blocks(self, peer: Hashable, index: int, among: Iterable[Hashable]) -> Iterator[tuple[int, int]]:
        """Blocks that have been asked of nobody, or only of those."""
        begun = self._begun[index]
        if index not in self._peers[peer] or begun.only not in (None, peer):
            return
        for block, asked in enumerate(begun.asked):
            if begun.blocks[block] is None and peer not in asked and asked.issubset(among):
                yield index, block

    def _rarest(self, peer: Hashable) -> int | None:
        """A missing piece that fewest have, and ``peer`` has; None if it has none, or too much is begun."""
        taken = self.ours.copy()
        for index in (*self._begun, *self._stored):
            taken.add(index)
        in_memory = taken.size - self.ours.size
        if in_memory and (in_memory == MAX_BEGUN or (in_memory + 1) * self.metainfo.piece_length > MAX_MEMORY):
            return None
        if not self._peers[peer].has_more_than(taken):
            return None  # most often; what follows looks at each piece, and begins one
        rarest: list[int] = []
        least = len(self._peers) + 1
        for index in self._peers[peer]:
            if index in taken:
                continue
            if self._seen[index] < least:
                least, rarest = self._seen[index], []
            if self._seen[index] == least:
                rarest.append(index)
        return self._rng.choice(rarest) if rarest else None

    def let_off(self, peer: Hashable) -> None:
        """It will not answer what it was asked for, as it has choked us."""
        self._begin_anew(peer)
        for begun in self._begun.values():
            for asked in begun.asked:
                asked.discard(peer)

    def note_slow(self, peer: Hashable) -> None:
        """It has been asked and does not answer.  It may still."""
        self._slow.add(peer)
        self._begin_anew(peer)

    def _begin_anew(self, peer: Hashable) -> None:
        """What was asked of ``peer`` alone is asked of another one alone."""
        for index in [index for index, begun in self._begun.items() if begun.only == peer]:
            del self._begun[index]

    # -- what comes -------------------------------------------------------------------------

    def take(self, peer: Hashable, index: int, begin: int, data: bytes) -> tuple[bytes | None, set[Hashable]]:
        """A block has come.

        Returns: The piece if it is whole now, to be stored, and told as ``stored`` or ``not_stored``; and who else has
            been asked for the block.
        Raises: LiedError if it makes the piece wrong, and nobody else can have.
        """
        self._slow.discard(peer)
        begun = self._begun.get(index)
        block = begin // BLOCK
        if begun is None or begin % BLOCK or block >= len(begun.blocks) or peer not in begun.asked[block]:
            return None, set()  # somebody else was faster, or it had been told that we do not want it any more
        if len(data) != begun.request(index, block).length:
            raise ProtocolError(f"{len(data):,} bytes for a block of {begun.request(index, block).length:,}")
        others = begun.asked[block] - {peer}
        begun.asked[block] = set()
        begun.blocks[block] = data
        begun.givers.add(peer)
        if None in begun.blocks:
            return None, others
        del self._begun[index]
        piece = b"".join(block for block in begun.blocks if block is not None)
        if self.metainfo.is_whole(index, piece):
            self._doubtful.discard(index)
            self._stored.add(index)
            return piece, others
        self._doubtful.add(index)
        if begun.givers == {peer}:
            raise LiedError(f"its piece {index:,} is not what the torrent says")
        return None, others

    def stored(self, index: int) -> None:
        """The piece is on the disk, whoever has put it there."""
        self._stored.discard(index)
        self.ours.add(index)

    def not_stored(self, index: int) -> None:
        """It could not be, and is missing again."""
        self._stored.discard(index)
