"""A .torrent file is read as it is meant, and one that is made to do harm is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from examples.torrent.bencode import Value, encode
from examples.torrent.making import torrent_of
from examples.torrent.metainfo import File, TorrentError, parse
from examples.torrent.storage import Folder

ANNOUNCE = "http://127.0.0.1:6969/announce"


def torrent(files: Value = None, **changes: Any) -> bytes:  # type: ignore[assignment]
    """A torrent of one file of ten bytes, or of ``files``, with changes to its info."""
    info: dict[bytes, Value] = {b"name": b"name", b"piece length": 16, b"pieces": bytes(20)}
    if files is None:
        info[b"length"] = 10
    else:
        info[b"files"] = files
    for key, value in changes.items():
        name = key.replace("_", " ").encode()
        if value is None:
            del info[name]
        else:
            info[name] = value
    return encode({b"announce": ANNOUNCE.encode(), b"info": info})


def files_at(*paths: list[bytes]) -> list[Value]:
    """Files of two bytes each."""
    return [{b"length": 2, b"path": list(path)} for path in paths]


def test_a_torrent_says_what_is_in_a_folder(tmp_path: Path) -> None:
    """What was made of a folder is read again: each file, and the hashes of what they are together."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"1" * 300_000)
    (tmp_path / "a" / "b" / "none").touch()
    (tmp_path / "a" / "b" / "two").write_bytes(b"2" * 5)

    metainfo = parse(torrent_of(tmp_path / "a", ANNOUNCE))

    together = b"2" * 5 + b"1" * 300_000
    assert metainfo.announce == ANNOUNCE
    assert metainfo.files == (File(("a", "b", "none"), 0), File(("a", "b", "two"), 5), File(("a", "one"), 300_000))
    assert (metainfo.length, metainfo.piece_length) == (300_005, 262_144)
    assert metainfo.hashes == tuple(hashlib.sha1(each).digest() for each in (together[:262_144], together[262_144:]))
    assert [metainfo.size_of(index) for index in (0, 1)] == [262_144, 37_861]


async def test_pieces_lie_across_files(tmp_path: Path) -> None:
    """What is written to a folder, piece by piece, is found in its files, and read again."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a").mkdir(parents=True)
    contents = {"empty": b"", "one": b"1" * 200_000, "three": b"3" * 400_000, "two": b"2" * 7}
    for name, content in contents.items():
        (source / "a" / name).write_bytes(content)
    metainfo = parse(torrent_of(source / "a", ANNOUNCE))
    here, there = Folder(metainfo, source), Folder(metainfo, target)

    await there.make_files()
    before = await there.whole_pieces()
    for index in reversed(range(len(metainfo.hashes))):
        await there.write(index, await here.read(index, 0, metainfo.size_of(index)))

    assert before == []
    assert {path.name: path.read_bytes() for path in (target / "a").iterdir()} == contents
    assert await there.whole_pieces() == [0, 1, 2]


async def test_another_file_is_not_written_over(tmp_path: Path) -> None:
    """One that has more bytes than the torrent's is somebody's; nothing is made then."""
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "b").write_bytes(b"mine")
    folder = Folder(parse(torrent([*files_at([b"a"], [b"b"])])), tmp_path)

    with pytest.raises(TorrentError, match="b is another file: it has 4 bytes, not 2"):
        await folder.make_files()

    assert [path.name for path in (tmp_path / "name").iterdir()] == ["b"]


@pytest.mark.parametrize("there", ["folder", "pipe", "link to itself", "link to nothing"])
async def test_what_is_no_file_is_not_taken_for_one(tmp_path: Path, there: str) -> None:
    """Whoever read a pipe would wait for ever."""
    (tmp_path / "name").mkdir()
    place = tmp_path / "name" / "a"
    if there == "folder":
        place.mkdir()
    elif there == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(place if there == "link to itself" else tmp_path / "nothing")
    folder = Folder(parse(torrent(files_at([b"a"]))), tmp_path)

    with pytest.raises(TorrentError, match="is no file"):
        await folder.make_files()


async def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    """It was there before, and its name is in the torrent."""
    (tmp_path / "here" / "name").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here" / "name" / "a").symlink_to(tmp_path / "elsewhere")
    folder = Folder(parse(torrent([*files_at([b"a", b"b"])])), tmp_path / "here")

    with pytest.raises(TorrentError, match="leads out of"):
        await folder.make_files()

    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_hash_of_the_info_is_that_of_its_bytes() -> None:
    """By which peers know the torrent."""
    data = torrent()
    begins = data.index(b"4:info") + len(b"4:info")

    assert parse(data).info_hash == hashlib.sha1(data[begins:-1]).digest()


@pytest.mark.parametrize(
    "path",
    [
        *([b".."], [b"."], [b""], [], [b"a", b"..", b"..", b"etc"], [b"/etc/passwd"], [b"a/b"], [b"..\\x"], [b"c:"]),
        *([b"nul\0"], [b"x" * 256], [b"a"] * 40, [b"\xff"], [b"..."], [b".. "], [b"a", b" "]),
        *([b"a\nb"], [b"\x1b[2J"], [b"\x7f"], ["\x9b2J".encode()]),
    ],
)
def test_a_path_that_could_lead_elsewhere_is_refused(path: list[bytes]) -> None:
    """Whatever the system, and before anything is opened; as the torrent's own name too."""
    with pytest.raises(TorrentError, match=r"is no name of a file|names; it has|is not UTF-8"):
        parse(torrent(files_at(path)))
    if len(path) == 1:
        with pytest.raises(TorrentError, match=r"is no name of a file|is not UTF-8"):
            parse(torrent(name=path[0]))


@pytest.mark.parametrize(
    "paths",
    [
        ([b"a"], [b"a"]),
        ([b"a"], [b"A"]),
        ([b"a"], [b"a", b"b"]),
        ([b"a", b"b"], [b"a"]),
        ([b"a", b"b"], [b"A"]),
        (["\xe9".encode()], ["E\u0301".encode()]),
    ],
)
def test_two_files_in_one_place_are_refused(paths: tuple[list[bytes], ...]) -> None:
    """Nor can a file be a folder."""
    with pytest.raises(TorrentError, match="is there twice, or is a file and a folder"):
        parse(torrent(files_at(*paths)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not bencode: no value at byte 0"),
        (b"l" * 100_000, "not bencode: nested deeper than 16"),
        (bytes(5 << 20), "has 5,242,880 bytes; 4,194,304 are read"),
        (b"i1e", "no dictionary"),
        (encode({b"announce": b"x"}), "'info' is missing"),
        (encode({b"info": {}}), "'piece length' is missing"),
        (torrent(pieces=None), "'pieces' is missing"),
        (torrent(length=None), "'length' is missing"),
        (torrent(length=-1), "a file of -1 bytes"),
        (torrent(length=2**60), "a file of 1,152,921,504,606,846,976 bytes"),
        (torrent(length=17), "17 bytes in pieces of 16 are not 1 pieces"),
        (torrent(length=0), "0 bytes in pieces of 16 are not 1 pieces"),
        (torrent(piece_length=0), "pieces of 0 bytes"),
        (torrent(piece_length=-5), "pieces of -5 bytes"),
        (torrent(piece_length=2**40), "pieces of 1,099,511,627,776 bytes"),
        (torrent(pieces=b""), "0 bytes of hashes"),
        (torrent(pieces=bytes(19)), "19 bytes of hashes"),
        (torrent(pieces=bytes(20 * 70_000)), "1,400,000 bytes of hashes"),
        (torrent(name=5), "'name' is missing, or is not what it must be"),
        (torrent([]), "0 files"),
        (torrent([b"x"]), "a file is no dictionary"),
        (torrent([{b"length": 1, b"path": [7]}]), "7 is no text"),
        (torrent([{b"length": 1, b"path": b"x"}]), "'path' is missing, or is not what it must be"),
    ],
)
def test_what_is_no_torrent_is_refused_with_the_reason(data: bytes, message: str) -> None:
    """Before anything is made of its lengths."""
    with pytest.raises(TorrentError, match=message):
        parse(data)
