"""What a .torrent file says: which files there are, the hash of each piece, and where the tracker is.

It comes from a stranger, so nothing in it is believed: not a length, and least of all a name.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import attrs

from examples.torrent.bencode import BencodeError, Value, decode, encode

__all__ = ["HASH_SIZE", "MAX_TORRENT", "File", "Metainfo", "TorrentError", "make", "parse"]

HASH_SIZE: Final = 20  # SHA-1

T = TypeVar("T", bound=Value)

# 65,536 pieces have 1.25 MiB of hashes, and files have names.
MAX_TORRENT: Final = 4 << 20
MAX_PIECES: Final = 65_536
MAX_FILES: Final = 10_000

# A piece is in memory until it is whole.
MAX_PIECE_LENGTH: Final = 16 << 20

# What a file system takes for one name, what is a path to some system, and what would move a terminal's cursor.
# Windows leaves out the dots and spaces at the end of a name, so those that have nothing else may be any folder above.
MAX_NAME: Final = 255
MAX_PARTS: Final = 32
NOT_IN_NAMES: Final = frozenset("/\\:").union(map(chr, (*range(0x20), *range(0x7F, 0xA0))))


class TorrentError(ValueError):
    """The torrent is not one that can be used, and why."""


@attrs.frozen
class File:
    """A file of the torrent, and where it lies in its folder."""

    parts: tuple[str, ...]
    length: int


@attrs.frozen
class Metainfo:
    """A torrent.  All files, one after the other, are cut into pieces, of which the last may be shorter."""

    announce: str
    info_hash: bytes
    piece_length: int
    hashes: tuple[bytes, ...]
    files: tuple[File, ...]
    length: int = attrs.field(init=False)
    """Of all files; there may be thousands, and each request of a peer asks."""

    @length.default
    def _length_of_all(self) -> int:
        return sum(file.length for file in self.files)

    def size_of(self, index: int) -> int:
        """How many bytes a piece has."""
        return min(self.piece_length, self.length - index * self.piece_length)

    def is_whole(self, index: int, data: bytes | bytearray) -> bool:
        """Is it the piece that the torrent means?"""
        return hashlib.sha1(data).digest() == self.hashes[index]


def parse(data: bytes) -> Metainfo:
    """The torrent that a .torrent file holds.  Raises: TorrentError."""
    if len(data) > MAX_TORRENT:
        raise TorrentError(f"the torrent has {len(data):,} bytes; {MAX_TORRENT:,} are read")
    try:
        torrent = decode(data)
    except BencodeError as exc:
        raise TorrentError(f"the torrent is not bencode: {exc}") from exc
    if not isinstance(torrent, dict):
        raise TorrentError("the torrent is no dictionary")
    info = _get(torrent, b"info", dict)
    piece_length, pieces = _get(info, b"piece length", int), _get(info, b"pieces", bytes)
    if not 0 < piece_length <= MAX_PIECE_LENGTH:
        raise TorrentError(f"pieces of {piece_length:,} bytes; they have 1 to {MAX_PIECE_LENGTH:,}")
    if len(pieces) % HASH_SIZE or not 0 < len(pieces) <= MAX_PIECES * HASH_SIZE:
        raise TorrentError(f"{len(pieces):,} bytes of hashes; a piece has {HASH_SIZE}, and there are {MAX_PIECES:,}")
    files = _files(info)
    count, length = len(pieces) // HASH_SIZE, sum(file.length for file in files)
    if math.ceil(length / piece_length) != count:
        raise TorrentError(f"{length:,} bytes in pieces of {piece_length:,} are not {count:,} pieces")
    return Metainfo(
        announce=_text(_get(torrent, b"announce", bytes)),
        info_hash=hashlib.sha1(encode(info)).digest(),
        piece_length=piece_length,
        hashes=tuple(pieces[at : at + HASH_SIZE] for at in range(0, len(pieces), HASH_SIZE)),
        files=files,
    )


def _files(info: dict[bytes, Value]) -> tuple[File, ...]:
    name = _name(_get(info, b"name", bytes))
    if b"files" not in info:
        return (File((name,), _length(info)),)
    files: dict[tuple[str, ...], File] = {}
    folders: set[tuple[str, ...]] = set()
    entries = _get(info, b"files", list)
    if not 0 < len(entries) <= MAX_FILES:
        raise TorrentError(f"{len(entries):,} files; there are 1 to {MAX_FILES:,}")
    for entry in entries:
        if not isinstance(entry, dict):
            raise TorrentError("a file is no dictionary")
        path = _get(entry, b"path", list)
        if not 0 < len(path) < MAX_PARTS:
            raise TorrentError(f"a path of {len(path):,} names; it has 1 to {MAX_PARTS - 1}")
        file = File((name, *map(_name, path)), _length(entry))
        # As a system sees them that does not tell capitals from small letters, nor the two ways to write an accent.
        folded = tuple(unicodedata.normalize("NFC", part).casefold() for part in file.parts)
        above = {folded[:count] for count in range(1, len(folded))}
        if folded in files or folded in folders or not above.isdisjoint(files):
            raise TorrentError(f"{'/'.join(file.parts)!r} is there twice, or is a file and a folder")
        files[folded] = file
        folders |= above
    return tuple(files.values())


def _name(value: Value) -> str:
    """One name of a path, that cannot lead out of its folder."""
    name = _text(value)
    if not name.strip(". ") or not NOT_IN_NAMES.isdisjoint(name) or len(name.encode()) > MAX_NAME:
        raise TorrentError(f"{name[:100]!r} is no name of a file")
    return name


def _length(entry: dict[bytes, Value]) -> int:
    length = _get(entry, b"length", int)
    if not 0 <= length <= MAX_PIECES * MAX_PIECE_LENGTH:
        raise TorrentError(f"a file of {length:,} bytes")
    return length


def _text(value: Value) -> str:
    if not isinstance(value, bytes):
        raise TorrentError(f"{value!r:.100} is no text")
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise TorrentError(f"{value!r:.100} is not UTF-8") from exc


def _get(values: dict[bytes, Value], key: bytes, kind: type[T]) -> T:
    value = values.get(key)
    if not isinstance(value, kind):
        raise TorrentError(f"{key.decode()!r} is missing, or is not what it must be")
    return value


def make(announce: str, files: Sequence[File], piece_length: int, pieces: Iterable[bytes]) -> bytes:
    """What the .torrent file says for ``files``, which lie in one folder, and are cut into ``pieces``."""
    info: dict[bytes, Value] = {
        b"name": files[0].parts[0].encode(),
        b"piece length": piece_length,
        b"pieces": b"".join(hashlib.sha1(piece).digest() for piece in pieces),
    }
    if len(files[0].parts) == 1:
        info[b"length"] = files[0].length
    else:
        info[b"files"] = [
            {b"length": file.length, b"path": [part.encode() for part in file.parts[1:]]} for file in files
        ]
    return encode({b"announce": announce.encode(), b"info": info})
