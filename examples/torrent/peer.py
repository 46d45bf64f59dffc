"""The conversation with one peer: who may say what when, and what is said in answer.  No network, no clock.

Four truths make the state: does either side choke the other, and is either interested.

    we ask        when we are interested and it does not choke us, for PIPELINE blocks ahead
    we answer     when it is interested and we do not choke it; what it wants waits in ``wanted``
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import attrs

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

__all__ = ["SLOTS", "Peer", "choose"]

# Blocks that are asked for and have not come: 256 KiB, which fills 20 Mbit/s over 100 ms.
PIPELINE: Final = 16

# How many are answered at a time, one of them drawn: BEP 3's four.
SLOTS: Final = 4

# Requests of a peer that wait.  aria2 keeps a few dozen under way, others up to 250.
MAX_WANTED: Final = 500

# How often a peer may change its mind between two blocks; once in ten seconds is usual.
MAX_COSTLY: Final = 200

# Blocks that nobody has asked for: where the rate is limited they come in place of others.  And blocks that were called
# off, of which some may be on their way, are remembered.
MAX_STRAYS: Final = 16
MAX_OFF: Final = 1000


@attrs.define(eq=False)
class Peer:
    """One peer.

    Args:
      say: Sends a message; it never waits, and never fails.
    """

    pieces: Pieces
    say: Callable[[Message], None]
    is_choked: bool = True
    """We do not answer it."""
    chokes_us: bool = True
    is_interested: bool = False
    we_are_interested: bool = False
    wanted: deque[Request] = attrs.field(factory=deque)
    given: int = 0
    """Bytes that it has sent us since it was last asked who is answered."""
    taken: int = 0
    """Bytes that we have sent it since then."""
    asked: set[tuple[int, int]] = attrs.field(factory=set)
    _off: dict[tuple[int, int], None] = attrs.field(factory=dict)
    _costly: int = 0
    _strays: int = 0

    def begin(self) -> None:
        """Say what we have."""
        self.pieces.add_peer(self)
        if self.pieces.ours.size:
            self.say(Bitfield(self.pieces.ours.bits()))

    # -- what it says -----------------------------------------------------------------------

    def hear(self, message: Message) -> tuple[int, bytes] | None:
        """The peer has said that.

        Returns: A piece that is whole now, to be stored.
        Raises: ProtocolError.
        """
        match message:
            case Bitfield(bits):
                self._count("what it has")
                self.pieces.note_all(self, bits)
                self.go_on()
            case Have(index):
                if self.pieces.note(self, index):
                    self.go_on()
            case Interested() | NotInterested():
                self.is_interested = isinstance(message, Interested)
            case Choke():
                self._count("that it chokes us")
                self.chokes_us = True
                self.pieces.let_off(self)
                for key in self.asked:
                    self._note_off(key)
                self.asked.clear()
            case Unchoke():
                if self.chokes_us:
                    self.chokes_us = False
                    self.go_on()
            case Request():
                self._is_asked(message)
            case Cancel(index, begin, length):
                request = Request(index, begin, length)
                if request in self.wanted:
                    self.wanted.remove(request)
            case Block():
                return self._take(message)
        return None

    def _count(self, what: str) -> None:
        """These few cost us far more than they cost the peer.  Raises: ProtocolError."""
        self._costly += 1
        if self._costly > MAX_COSTLY:
            raise ProtocolError(f"it says again and again {what}, and sends nothing")

    def _is_asked(self, request: Request) -> None:
        if request.index not in range(self.pieces.count) or request.index not in self.pieces.ours:
            raise ProtocolError(f"it asks for piece {request.index:,}, which we have not")
        size = self.pieces.metainfo.size_of(request.index)
        if not 0 < request.length <= BLOCK or request.begin + request.length > size:
            raise ProtocolError(f"it asks for {request.length:,} bytes at {request.begin:,} of a piece of {size:,}")
        if self.is_choked:
            return  # it may not have heard yet
        if len(self.wanted) >= MAX_WANTED:
            raise ProtocolError(f"it asks for more than {MAX_WANTED} blocks at a time")
        self.wanted.append(request)

    def _take(self, block: Block) -> tuple[int, bytes] | None:
        if (block.index, block.begin) not in self.asked:
            if (block.index, block.begin) in self._off:
                del self._off[block.index, block.begin]
            else:
                self._strays += 1
                if self._strays > MAX_STRAYS:
                    raise ProtocolError("it sends again and again what it was not asked for")
            return None
        self.asked.remove((block.index, block.begin))
        self._costly = 0
        self.given += len(block.data)
        piece, others = self.pieces.take(self, block.index, block.begin, block.data)
        for other in others:
            assert isinstance(other, Peer)
            other.call_off(block)
        self.go_on()
        return None if piece is None else (block.index, piece)

    def call_off(self, block: Block) -> None:
        """Somebody else has sent it."""
        if (block.index, block.begin) in self.asked:
            self.asked.remove((block.index, block.begin))
            self._note_off((block.index, block.begin))
            self.say(Cancel(block.index, block.begin, len(block.data)))

    def _note_off(self, key: tuple[int, int]) -> None:
        if len(self._off) == MAX_OFF:
            del self._off[next(iter(self._off))]
        self._off[key] = None

    # -- what we say ------------------------------------------------------------------------

    def go_on(self) -> None:
        """Ask for more, if there is anything to ask for."""
        interested = self.pieces.wants(self)
        if interested != self.we_are_interested:
            self.we_are_interested = interested
            self.say(Interested() if interested else NotInterested())
        if interested and not self.chokes_us:
            for request in self.pieces.ask(self, PIPELINE - len(self.asked)):
                self.asked.add((request.index, request.begin))
                self.say(request)

    def tell_have(self, index: int) -> None:
        """We have one more."""
        self.say(Have(index))
        self.go_on()

    def set_choked(self, choked: bool) -> None:
        """Answer it from now on, or no more."""
        if choked != self.is_choked:
            self.is_choked = choked
            self.say(Choke() if choked else Unchoke())
            if choked:
                self.wanted.clear()


def choose(peers: Sequence[Peer], rng: random.Random) -> list[Peer]:
    """Who is answered for the next while: who has given most, or taken most if none gives, and one that is drawn.

    That one may turn out to give more than the others; and somebody new, who has nothing to give, gets a beginning.
    """
    best = sorted((peer for peer in peers if peer.is_interested), key=lambda peer: (peer.given, peer.taken))
    chosen = [best.pop() for _ in range(min(SLOTS - 1, len(best)))]
    if best:
        chosen.append(rng.choice(best))
    for peer in peers:
        peer.given = peer.taken = 0
    return chosen
