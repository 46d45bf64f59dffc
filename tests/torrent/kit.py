"""Torrents, storages and swarms for tests."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from examples.torrent.announce import Question, announce
from examples.torrent.metainfo import File, Metainfo, make, parse
from examples.torrent.tracker import Tracker
from trioqt import TcpServer

__all__ = ["Memory", "content_of", "pieces_of", "serve", "torrent_of", "until_announced"]

KIB = 1024


def pieces_of(content: bytes, piece_length: int) -> list[bytes]:
    return [content[at : at + piece_length] for at in range(0, len(content), piece_length)]


def torrent_of(content: bytes, piece_length: int = 32 * KIB, tracker: str = "http://tracker:6969/announce") -> Metainfo:
    """A torrent of one file."""
    files = [File(("file",), len(content))]
    return parse(make(tracker, files, piece_length, pieces_of(content, piece_length)))


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class Memory:
    """A storage that forgets, with a place where a test can spoil what is read."""

    def __init__(self, metainfo: Metainfo, content: bytes = b"") -> None:
        self.pieces = dict(enumerate(pieces_of(content, metainfo.piece_length)))
        self.spoil: Callable[[int, bytes], bytes] = lambda index, data: data

    async def read(self, index: int, begin: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.spoil(index, self.pieces[index][begin : begin + length])

    async def write(self, index: int, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert index not in self.pieces
        self.pieces[index] = data

    def content(self) -> bytes:
        return b"".join(data for _, data in sorted(self.pieces.items()))


async def serve(
    tracker: Tracker, host: str, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Be that tracker; the port is told."""
    async with TcpServer() as server:
        await server.listen(host, port)
        task_status.started(server.server_port())
        await server.serve(tracker.answer)


async def until_announced(torrent: bytes) -> None:
    """Wait until a peer has told the tracker of this torrent that it is there."""
    metainfo = parse(torrent)
    question = Question(metainfo.info_hash, b"-XX0001-abcdefghijkl", 9, 0, 0, 0, "stopped")
    while not (await announce(metainfo.announce, question)).addresses:
        await trio.lowlevel.checkpoint()
