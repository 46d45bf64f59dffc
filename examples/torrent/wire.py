"""The peer wire protocol of BEP 3, as bytes and as values.  No rules of conduct, no network.

    | 19 | "BitTorrent protocol" | 8 bytes, what else is spoken | info hash, 20 bytes | peer id, 20 bytes |

and then messages, each

    | u32 length | u8 kind | what that kind has |

of which one with length 0 is a sign of life.  Nothing is collected that is longer than a message may be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import attrs

__all__ = [
    "BLOCK",
    "HANDSHAKE_SIZE",
    "KEEP_ALIVE",
    "Bitfield",
    "Block",
    "Cancel",
    "Choke",
    "Decoder",
    "Handshake",
    "Have",
    "Interested",
    "Message",
    "NotInterested",
    "ProtocolError",
    "Request",
    "Unchoke",
    "encode",
]

NAME: Final = b"\x13BitTorrent protocol"
HANDSHAKE_SIZE: Final = 68
HASHES: Final = struct.Struct("!20s8x20s20s")
LENGTH: Final = struct.Struct("!I")
THREE: Final = struct.Struct("!III")
TWO: Final = struct.Struct("!II")

# What everybody asks for at a time, and more than which everybody refuses.
BLOCK: Final = 16384

KEEP_ALIVE: Final = LENGTH.pack(0)


class ProtocolError(Exception):
    """The peer has done what it must not do."""


@attrs.frozen
class Handshake:
    """What each side says first."""

    info_hash: bytes
    peer_id: bytes

    def encode(self) -> bytes:
        """Its bytes.  We speak nothing but BEP 3."""
        return HASHES.pack(NAME, self.info_hash, self.peer_id)

    @classmethod
    def decode(cls, data: bytes) -> Handshake:
        """Raises: ProtocolError."""
        name, info_hash, peer_id = HASHES.unpack(data)
        if name != NAME:
            raise ProtocolError(f"it does not speak BitTorrent, but says {name!r}")
        return cls(info_hash, peer_id)


@attrs.frozen
class Choke:
    """From now on requests are not answered."""


@attrs.frozen
class Unchoke:
    """From now on they are."""


@attrs.frozen
class Interested:
    """You have what I need."""


@attrs.frozen
class NotInterested:
    """You have not."""


@attrs.frozen
class Have:
    """I have this piece now."""

    index: int


@attrs.frozen
class Bitfield:
    """I have these pieces: a bit each, the first one the highest of the first byte."""

    bits: bytes


@attrs.frozen
class Request:
    """Send me this."""

    index: int
    begin: int
    length: int


@attrs.frozen
class Block:
    """Here it is."""

    index: int
    begin: int
    data: bytes


@attrs.frozen
class Cancel:
    """I have it from somebody else."""

    index: int
    begin: int
    length: int


Message = Choke | Unchoke | Interested | NotInterested | Have | Bitfield | Request | Block | Cancel

PLAIN: Final[dict[int, Message]] = {0: Choke(), 1: Unchoke(), 2: Interested(), 3: NotInterested()}
NUMBERS: Final = {type(message): number for number, message in PLAIN.items()}
HAVE, BITFIELD, REQUEST, PIECE, CANCEL = 4, 5, 6, 7, 8


def encode(message: Message) -> bytes:
    """Its bytes."""
    match message:
        case Have(index):
            kind, body = HAVE, LENGTH.pack(index)
        case Bitfield(bits):
            kind, body = BITFIELD, bits
        case Request(index, begin, length):
            kind, body = REQUEST, THREE.pack(index, begin, length)
        case Block(index, begin, data):
            kind, body = PIECE, TWO.pack(index, begin) + data
        case Cancel(index, begin, length):
            kind, body = CANCEL, THREE.pack(index, begin, length)
        case _:
            kind, body = NUMBERS[type(message)], b""
    return LENGTH.pack(len(body) + 1) + bytes([kind]) + body


class Decoder:
    """Takes bytes as they come, and gives whole messages.

    Args:
      pieces: How many there are, which is how long a bitfield is.
    """

    def __init__(self, pieces: int) -> None:
        self._bitfield_size = (pieces + 7) // 8
        self._longest = 1 + max(TWO.size + BLOCK, self._bitfield_size)
        self._held = bytearray()

    def held(self) -> int:
        """How many bytes wait for the rest of their message."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are whole with ``data``, signs of life left out; to be taken to the end.

        Raises: ProtocolError; what came before that has been given.
        """
        self._held += data
        at = 0
        try:
            while len(self._held) - at >= LENGTH.size:
                (length,) = LENGTH.unpack_from(self._held, at)
                if length > self._longest:
                    raise ProtocolError(f"a message of {length:,} bytes; {self._longest:,} are the most")
                if len(self._held) - at < LENGTH.size + length:
                    break
                at += LENGTH.size + length
                message = self._message(bytes(self._held[at - length : at]))
                if message is not None:
                    yield message
        finally:
            del self._held[:at]

    def _message(self, data: bytes) -> Message | None:
        if not data:
            return None
        kind, body = data[0], data[1:]
        if kind in PLAIN and not body:
            return PLAIN[kind]
        if kind == HAVE and len(body) == LENGTH.size:
            return Have(*LENGTH.unpack(body))
        if kind == BITFIELD and len(body) == self._bitfield_size:
            return Bitfield(body)
        if kind == REQUEST and len(body) == THREE.size:
            return Request(*THREE.unpack(body))
        if kind == CANCEL and len(body) == THREE.size:
            return Cancel(*THREE.unpack(body))
        if kind == PIECE and TWO.size < len(body) <= TWO.size + BLOCK:
            index, begin = TWO.unpack_from(body)
            return Block(index, begin, body[TWO.size :])
        if kind <= CANCEL:
            raise ProtocolError(f"a message of kind {kind} and {len(data):,} bytes")
        return None  # an extension that we have not asked for, as BEP 5's port
