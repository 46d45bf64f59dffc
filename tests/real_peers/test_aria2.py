"""aria2 on the other side: it gets a torrent from our peer, and our peer gets one from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from examples.torrent.making import torrent_of
from examples.torrent.metainfo import Metainfo, parse
from examples.torrent.storage import Folder
from examples.torrent.swarm import Swarm
from examples.torrent.tracker import Tracker
from tests.networks import Loopback
from tests.peers import peer_command
from tests.real_peers.programs import random_bytes, running
from tests.torrent.kit import serve, until_announced

HOST = "127.0.0.1"
CONTENTS = {"large": random_bytes(2_000_000), "small": random_bytes(7), "none": b""}

# Nothing but BEP 3: no other ways to find peers, and no files of its own.
PLAIN = (
    *("--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--disable-ipv6=true"),
    *("--enable-peer-exchange=false", "--follow-torrent=false", "--console-log-level=notice", "--file-allocation=none"),
)


@pytest.fixture
def aria2() -> str:
    return peer_command("aria2c")


async def a_torrent(nursery: trio.Nursery, folder: Path) -> tuple[Path, Metainfo]:
    """Three files in ``folder``, the torrent of them beside it, and its tracker."""
    port = await nursery.start(serve, Tracker(interval=5), HOST)
    (folder / "things").mkdir(parents=True)
    for name, content in CONTENTS.items():
        (folder / "things" / name).write_bytes(content)
    data = torrent_of(folder / "things", f"http://{HOST}:{port}/announce")
    path = folder / "things.torrent"
    path.write_bytes(data)
    return path, parse(data)


def found(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "things").iterdir()}


async def test_aria2_gets_a_torrent_from_our_peer(
    network: Loopback, nursery: trio.Nursery, aria2: str, tmp_path: Path
) -> None:
    """Every file, byte for byte; it checks the hashes itself."""
    path, metainfo = await a_torrent(nursery, tmp_path / "here")
    folder = Folder(metainfo, tmp_path / "here")
    swarm = Swarm(metainfo, folder, await folder.whole_pieces())
    await nursery.start(swarm.run, HOST)
    await until_announced(path.read_bytes())

    with trio.fail_after(60):
        async with running(aria2, *PLAIN, "--seed-time=0", f"--dir={tmp_path / 'there'}", str(path)) as program:
            await program.out.everything()
            status = await program.process.wait()

    assert status == 0
    assert found(tmp_path / "there") == CONTENTS
    assert swarm.progress().uploaded >= 2_000_007


async def test_our_peer_gets_a_torrent_from_aria2(
    network: Loopback, nursery: trio.Nursery, aria2: str, tmp_path: Path
) -> None:
    """Every file, byte for byte; nobody else has it."""
    path, metainfo = await a_torrent(nursery, tmp_path / "here")
    folder = Folder(metainfo, tmp_path / "there")
    await folder.make_files()
    swarm = Swarm(metainfo, folder, [])

    with trio.fail_after(60):
        seeding = ("--check-integrity=true", "--seed-ratio=0.0", f"--dir={path.parent}")
        async with running(aria2, *PLAIN, *seeding, str(path)):
            await until_announced(path.read_bytes())
            await nursery.start(swarm.run, HOST)
            await swarm.complete.wait()

    assert found(tmp_path / "there") == CONTENTS
    assert await folder.whole_pieces() == list(range(len(metainfo.hashes)))
