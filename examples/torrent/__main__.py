"""Qt's torrent client: a small BitTorrent peer, which gets files from many others at once, and gives them on.

In the first terminal type ``python -m examples.torrent track``, which is a tracker.  In the second terminal type

    python -m examples.torrent make BIG-FILE                          writes BIG-FILE.torrent
    python -m examples.torrent peer BIG-FILE.torrent                  has all of it, and gives it

and in a third, and as many others as you like,

    python -m examples.torrent peer BIG-FILE.torrent --folder ANOTHER-PLACE --leave

You will see a bar grow there until all has come; ``--download-rate 100`` makes that slower.  Any other client can take
part: ``aria2c BIG-FILE.torrent``.

From below: ``bencode`` and ``metainfo`` read .torrent files, ``wire`` cuts bytes into messages, ``pieces`` knows what
to ask whom for, ``peer`` what may be said when.  None of these has heard of a network.  ``announce`` asks a tracker,
``tracker`` is one, ``storage`` keeps the files, and ``swarm`` holds the connections.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import trio

from examples.torrent.making import torrent_of
from examples.torrent.metainfo import MAX_TORRENT, TorrentError, parse
from examples.torrent.storage import Folder
from examples.torrent.swarm import Progress, Swarm
from examples.torrent.tracker import Tracker
from trioqt import HostAddress, SocketError, TcpServer

KIB = 1024


async def take_part(arguments: argparse.Namespace) -> None:
    """Get what is missing; then give it, or leave."""
    async with await trio.open_file(arguments.torrent, "rb") as file:
        metainfo = parse(await file.read(MAX_TORRENT + 1))
    folder = Folder(metainfo, arguments.folder)
    await folder.make_files()
    swarm = Swarm(
        metainfo,
        folder,
        await folder.whole_pieces(),
        download_rate=arguments.download_rate * KIB,
        upload_rate=arguments.upload_rate * KIB,
        tell=lambda message: print(f"\r{message}"),
    )
    async with trio.open_nursery() as nursery:
        port = await nursery.start(functools.partial(swarm.run, port=arguments.port))
        print(f"listening on port {port}")
        nursery.start_soon(show_progress, swarm)
        await swarm.complete.wait()
        if arguments.leave:
            nursery.cancel_scope.cancel()
    print(f"\r{bar(swarm.progress())}")


async def show_progress(swarm: Swarm) -> None:
    while True:
        print(f"\r{bar(swarm.progress())}", end="", flush=True)
        await trio.sleep(0.5)


def bar(progress: Progress, width: int = 30) -> str:
    """``[######----] 60 %  3 peers, ...``."""
    done = progress.pieces * width // progress.of
    return (
        f"[{'#' * done}{'-' * (width - done)}] {progress.pieces * 100 // progress.of:3} %  {progress.peers} peers, "
        f"{progress.downloaded // KIB:,} KiB in, {progress.uploaded // KIB:,} KiB out"
    )


async def track(arguments: argparse.Namespace) -> None:
    async with TcpServer(max_connections=1000) as server:
        await server.listen(HostAddress.ANY_IPV4, arguments.port)
        print(f"tracking on port {server.server_port()}")
        await server.serve(Tracker().answer)


async def make_torrent(arguments: argparse.Namespace) -> None:
    path: Path = arguments.path
    torrent = await trio.to_thread.run_sync(torrent_of, path, arguments.announce)
    await trio.Path(path.with_name(f"{path.name}.torrent")).write_bytes(torrent)
    print(f"{path.name}.torrent says {len(torrent):,} bytes about {path.name}")


def rate(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError
    return value


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.torrent", description="A small BitTorrent peer.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("track", help="be a tracker")
    command.add_argument("--port", type=int, default=6969)
    command.set_defaults(does=track)
    command = commands.add_parser("make", help="write a .torrent file")
    command.add_argument("path", type=Path)
    command.add_argument("--announce", default="http://127.0.0.1:6969/announce")
    command.set_defaults(does=make_torrent)
    command = commands.add_parser("peer", help="get what is missing, give what is there")
    command.add_argument("torrent", type=Path)
    command.add_argument("--folder", type=Path, default=Path())
    command.add_argument("--port", type=int, default=0)
    command.add_argument("--leave", action="store_true", help="when all is there")
    command.add_argument("--download-rate", type=rate, default=math.inf, help="KiB a second")
    command.add_argument("--upload-rate", type=rate, default=math.inf, help="KiB a second")
    command.set_defaults(does=take_part)
    return parser


async def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    try:
        await arguments.does(arguments)
    except* (TorrentError, SocketError, OSError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    trio.run(main)
