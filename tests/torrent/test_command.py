"""``python -m examples.torrent``, as its first lines say to type it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from examples.torrent import __main__ as command
from tests.networks import Loopback
from tests.torrent.kit import content_of, until_announced


async def until_listening(network: Loopback, port: int) -> None:
    """Wait until somebody listens there."""
    while True:
        try:
            (await network.raw_connect(port)).close()
        except ConnectionRefusedError:
            await trio.lowlevel.checkpoint()
        else:
            return


async def test_a_folder_goes_from_one_to_another(
    network: Loopback, nursery: trio.Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tracker, the torrent, one who has it, one who gets it and leaves; and then there is nothing left to get."""
    port = await network.unused_port()
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "things").mkdir(parents=True)
    contents = {"one": content_of(300_000), "two": content_of(5), "none": b""}
    for name, content in contents.items():
        (here / "things" / name).write_bytes(content)
    nursery.start_soon(command.main, ["track", "--port", str(port)])
    await until_listening(network, port)
    announce = f"http://127.0.0.1:{port}/announce"
    await command.main(["make", str(here / "things"), "--announce", announce])
    torrent = here / "things.torrent"
    nursery.start_soon(command.main, ["peer", str(torrent), "--folder", str(here)])
    await until_announced(torrent.read_bytes())

    await command.main(["peer", str(torrent), "--folder", str(there), "--leave"])
    first = capsys.readouterr().out.replace("\r", "\n").splitlines()
    await command.main(["peer", str(torrent), "--folder", str(there), "--leave"])
    second = capsys.readouterr().out.replace("\r", "\n").splitlines()

    assert {path.name: path.read_bytes() for path in (there / "things").iterdir()} == contents
    full = "#" * 30
    assert f"tracking on port {port}" in first
    assert [line for line in first if line.startswith("things.torrent says ")] != []
    assert first[-1].startswith(f"[{full}] 100 %  ")
    assert first[-1].endswith(" peers, 292 KiB in, 0 KiB out")
    assert second[-1] == f"[{full}] 100 %  0 peers, 0 KiB in, 0 KiB out"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"l" * 100_000, "Error: the torrent is not bencode: nested deeper than 16, at byte 16"),
        (bytes(5 << 20), "Error: the torrent has 4,194,305 bytes; 4,194,304 are read"),
    ],
)
async def test_a_bad_torrent_is_told_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    """No traceback, and nothing is made."""
    path = tmp_path / "bad.torrent"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SystemExit, match=message):
        await command.main(["peer", str(path), "--folder", str(tmp_path / "there")])

    assert not (tmp_path / "there").exists()


async def test_a_port_that_is_taken_is_told_in_one_line(network: Loopback, tmp_path: Path) -> None:
    """As the tracker says it."""
    with await network.raw_listener() as other, pytest.raises(SystemExit, match="Error: cannot listen on"):
        await command.main(["track", "--port", str(other.port)])


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "fast"])
async def test_a_rate_that_is_none_is_a_usage_error(rate: str) -> None:
    """argparse says so, with its status 2."""
    with pytest.raises(SystemExit) as caught:
        await command.main(["peer", "x.torrent", "--upload-rate", rate])

    assert caught.value.code == 2
