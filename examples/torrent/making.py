"""A .torrent file for what lies in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from examples.torrent.metainfo import MAX_PIECES, File, make, parse

__all__ = ["torrent_of"]

PIECE_LENGTH = 256 << 10


def torrent_of(path: Path, announce: str) -> bytes:
    """The .torrent file for the file or the folder ``path``.  Raises: TorrentError, OSError."""
    path = path.resolve()
    paths = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    files = [File(each.relative_to(path.parent).parts, each.stat().st_size) for each in paths]
    piece_length = PIECE_LENGTH
    while sum(file.length for file in files) > piece_length * MAX_PIECES:
        piece_length *= 2
    torrent = make(announce, files, piece_length, _pieces(paths, piece_length))
    parse(torrent)  # or nobody else could read it
    return torrent


def _pieces(paths: Sequence[Path], piece_length: int) -> Iterator[bytes]:
    """All files, one after the other, cut into pieces."""
    piece = b""
    for path in paths:
        with path.open("rb") as file:
            while more := file.read(piece_length - len(piece)):
                piece += more
                if len(piece) == piece_length:
                    yield piece
                    piece = b""
    if piece:
        yield piece
