"""The tracker, and asking one."""

from __future__ import annotations

import contextlib

import attrs
import pytest
import trio

from examples.torrent.announce import Question, Reply, announce, parse_reply
from examples.torrent.bencode import Value, encode
from examples.torrent.metainfo import TorrentError
from examples.torrent.tracker import Tracker
from tests.networks import Network
from tests.torrent.kit import serve
from trioqt import SocketError

# Bytes that a URL must spell otherwise.
HASH = bytes([0, 32, 37, 38, 43, 61, 127, 128, 255, *range(11)])
QUESTION = Question(HASH, b"-TQ0001-abcdefghijkl", 6881, 0, 0, 100, "started")


async def test_peers_of_one_torrent_are_told_of_each_other(network: Network, nursery: trio.Nursery) -> None:
    """And of none of another, nor of themselves, nor of who has said that it stops."""
    port = await nursery.start(serve, Tracker(), network.host)
    url = f"http://{network.host}:{port}/announce"

    heard = [
        (await announce(url, attrs.evolve(QUESTION, **changes))).addresses
        for changes in (
            {},
            {"port": 6882},
            {"port": 6883, "info_hash": bytes(20)},
            {"port": 6881},
            {"port": 6882, "event": "stopped"},
            {"port": 6881},
        )
    ]

    host = network.host
    assert heard == [(), ((host, 6881),), (), ((host, 6882),), ((host, 6881),), ()]


async def test_who_has_not_asked_for_long_is_forgotten(autojump_clock: object) -> None:
    """After two intervals."""
    tracker, query = Tracker(interval=60), attrs.evolve(QUESTION).query()
    tracker.reply(query, "10.0.0.1")
    await trio.sleep(119)
    there = tracker.reply(query, "10.0.0.2")
    await trio.sleep(119)
    gone = tracker.reply(query, "10.0.0.3")

    assert there == {b"interval": 60, b"peers": bytes([10, 0, 0, 1, 26, 225])}
    assert gone == {b"interval": 60, b"peers": bytes([10, 0, 0, 2, 26, 225])}


async def test_torrents_and_peers_have_a_bound(autojump_clock: object) -> None:
    """1,000 torrents, of which the silent ones go first, and 200 peers each, the latest."""
    tracker = Tracker(interval=60)
    for number in range(1000):
        tracker.reply(attrs.evolve(QUESTION, info_hash=number.to_bytes(20)).query(), "10.0.0.1")
    refused = tracker.reply(attrs.evolve(QUESTION, info_hash=b"x" * 20).query(), "10.0.0.1")
    reply: Value = 0
    for port in range(1, 1000):
        reply = tracker.reply(attrs.evolve(QUESTION, info_hash=bytes(20), port=port).query(), "10.0.0.1")
    await trio.sleep(121)
    taken = tracker.reply(attrs.evolve(QUESTION, info_hash=b"x" * 20).query(), "10.0.0.1")

    assert refused == {b"failure reason": b"there are too many torrents here"}
    assert isinstance(reply, dict)
    assert reply[b"peers"] == b"".join(bytes([10, 0, 0, 1]) + port.to_bytes(2) for port in range(799, 999))
    assert taken == {b"interval": 60, b"peers": b""}


@pytest.mark.parametrize("question", [b"GET / HTTP/1.1\r\n\r\n", b"POST /announce?x=1 HTTP/1.1\r\n\r\n", b"\0\r\n\r\n"])
async def test_any_other_question_is_not_found(network: Network, nursery: trio.Nursery, question: bytes) -> None:
    """404, and the end."""
    with await network.raw_connect(await nursery.start(serve, Tracker(), network.host)) as peer:
        await peer.send(question)

        assert (await peer.receive_to_end()).startswith(b"HTTP/1.1 404 Not Found\r\n")


@pytest.mark.parametrize(
    "query",
    [
        *("", "info_hash=abc&port=1", f"info_hash={'a' * 20}", f"info_hash={'a' * 20}&port=0"),
        *(f"info_hash={'a' * 20}&port=65536", f"info_hash={'a' * 20}&port=%b2", f"info_hash={'a' * 20}&port=-1"),
    ],
)
def test_a_question_without_a_torrent_or_a_port_is_refused(query: str) -> None:
    """In words that a client shows."""
    assert Tracker().reply(query, "10.0.0.1") == {b"failure reason": b"no torrent, or no port"}


def test_addresses_may_be_short_or_long() -> None:
    """BEP 23's six bytes, or BEP 3's dictionaries; a port of 0 is nobody's."""
    short = encode({b"interval": 60, b"peers": bytes([10, 0, 0, 1, 0, 80, 10, 0, 0, 2, 0, 0])})
    long = encode({b"interval": 60, b"peers": [{b"ip": b"10.0.0.1", b"port": 80}]})

    assert parse_reply(short) == parse_reply(long) == Reply(60, (("10.0.0.1", 80),))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not bencode"),
        (b"l" * 100_000, "not bencode: nested deeper than 16"),
        (b"le", "no dictionary"),
        (encode({b"failure reason": b"go away"}), "refuses: b'go away'"),
        (encode({b"peers": b""}), "does not say when to ask again"),
        (encode({b"interval": 1, b"peers": b"12345"}), "peers are no addresses"),
        (encode({b"interval": 1, b"peers": [b"x"]}), "has no address"),
        (encode({b"interval": 1, b"peers": [{b"ip": b"x", b"port": 1}]}), "is no address"),
        (encode({b"interval": 1, b"peers": [{b"ip": b"::1", b"port": 65536}]}), "has no address"),
    ],
)
def test_an_answer_that_is_none_is_refused(body: bytes, message: str) -> None:
    """With what is wrong."""
    with pytest.raises(TorrentError, match=message):
        parse_reply(body)


def test_what_a_tracker_says_has_bounds() -> None:
    """200 addresses, and an interval of 5 s to an hour."""
    assert len(parse_reply(encode({b"interval": 60, b"peers": b"\1\1\1\1\1\1" * 5000})).addresses) == 200
    assert parse_reply(encode({b"interval": -1, b"peers": b""})).interval == 5
    assert parse_reply(encode({b"interval": 2**40, b"peers": b""})).interval == 3600


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.0 500 Sorry\r\n\r\n", "the tracker says .*500 Sorry"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + bytes(2_000_000), "has more than 1,048,576 bytes"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5000000\r\n\r\n" + bytes(2_000_000), "has more than 1,048,576 bytes"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 50\r\n\r\nd8:int", "not bencode"),
    ],
)
async def test_an_odd_tracker_is_told(network: Network, nursery: trio.Nursery, answer: bytes, message: str) -> None:
    """And no more is taken of it than may be."""
    with await network.raw_listener() as listener:

        async def be_odd() -> None:
            with await listener.accept() as peer:
                await peer.receive(10)
                with contextlib.suppress(OSError):  # who has heard enough ends it
                    await peer.send(answer)
                    peer.finish()
                    await peer.how_it_ends()

        nursery.start_soon(be_odd)
        with pytest.raises(TorrentError, match=message):
            await announce(f"http://{network.host}:{listener.port}/announce", QUESTION)


async def test_a_tracker_that_ends_too_soon_is_told(network: Network, nursery: trio.Nursery) -> None:
    """As any other connection that ends."""
    with await network.raw_listener() as listener:

        async def end() -> None:
            with await listener.accept() as peer:
                await peer.receive(10)

        nursery.start_soon(end)
        with pytest.raises(SocketError):
            await announce(f"http://{network.host}:{listener.port}/announce", QUESTION)


@pytest.mark.parametrize(
    "url",
    ["", "udp://tracker/announce", "http:///x", "http://a:b/x", "http://a:99999/", "http://a/ b", "http://a/\r\nX"],
)
async def test_a_url_that_is_none_is_refused(url: str) -> None:
    """A torrent comes from a stranger, and so does its tracker's name."""
    with pytest.raises(TorrentError, match="the tracker"):
        await announce(url, QUESTION)
