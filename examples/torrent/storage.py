"""Where the bytes of a torrent lie: in a folder, as the files that it names.

Every call opens what it needs and closes it, in a thread that is waited for, so that nothing is open in between and a
cancellation leaves no half-written piece behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import trio

from examples.torrent.metainfo import Metainfo, TorrentError

__all__ = ["Folder", "Storage"]


class Storage(Protocol):
    """What keeps pieces."""

    async def read(self, index: int, begin: int, length: int) -> bytes:
        """Some bytes of a piece that has been written.  Raises: OSError.  Cancelled: nothing has happened."""

    async def write(self, index: int, data: bytes) -> None:
        """Keep a piece.  Raises: OSError.  Cancelled: it has not been kept."""


class Folder:
    """The files below ``path``."""

    def __init__(self, metainfo: Metainfo, path: Path) -> None:
        self._metainfo = metainfo
        self._path = path

    async def read(self, index: int, begin: int, length: int) -> bytes:
        """Fewer, if a file is shorter than it should be."""
        return await trio.to_thread.run_sync(self._read, index, begin, length)

    async def write(self, index: int, data: bytes) -> None:
        await trio.to_thread.run_sync(self._write, index, data)

    async def whole_pieces(self) -> list[int]:
        """Which pieces are there already.  Cancelled: at the next piece.  Raises: OSError."""
        whole = []
        for index in range(len(self._metainfo.hashes)):
            data = await self.read(index, 0, self._metainfo.size_of(index))
            if self._metainfo.is_whole(index, data):
                whole.append(index)
        return whole

    async def make_files(self) -> None:
        """Make the folders, and the files that have no bytes.

        Raises:
          OSError: The system refuses.
          TorrentError: A file is there that cannot be the torrent's, or a link leads out of the folder.
        Cancelled: all are made, or none.
        """
        await trio.to_thread.run_sync(self._make_files)

    def _make_files(self) -> None:
        root = self._path.resolve()
        for file in self._metainfo.files:
            path = self._path.joinpath(*file.parts)
            if os.path.lexists(path) and not path.is_file():  # a pipe would never end
                raise TorrentError(f"{path} is no file")
            try:
                inside = path.resolve().is_relative_to(root)
            except RuntimeError:  # a folder is a link to itself
                inside = False
            if not inside:
                raise TorrentError(f"{path} leads out of {self._path}")
            if path.exists() and path.stat().st_size > file.length:
                raise TorrentError(f"{path} is another file: it has {path.stat().st_size:,} bytes, not {file.length:,}")
        for file in self._metainfo.files:
            path = self._path.joinpath(*file.parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not file.length:
                path.touch()

    def _read(self, index: int, begin: int, length: int) -> bytes:
        data = bytearray()
        for path, offset, count in self._spans(index, begin, length):
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    data += file.read(count)
            except FileNotFoundError:
                break
        return bytes(data)

    def _write(self, index: int, data: bytes) -> None:
        rest = memoryview(data)
        for path, offset, count in self._spans(index, 0, len(data)):
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
                file.seek(offset)
                file.write(rest[:count])
            rest = rest[count:]

    def _spans(self, index: int, begin: int, length: int) -> Iterator[tuple[Path, int, int]]:
        """Where these bytes are: in which files, from where on, how many."""
        start = index * self._metainfo.piece_length + begin
        for file in self._metainfo.files:
            if start < file.length and length > 0:
                count = min(length, file.length - start)
                yield self._path.joinpath(*file.parts), start, count
                start, length = start + count, length - count
            start -= file.length
