"""The formats of the page on framing: cut anywhere, cancelled anywhere, and what a peer that breaks them gets.

The page shows "framing.py" and "framing_msgpack.py".
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.networks import Network
from tests.peers import peer_module
from tests.sockets.pairs import connection
from trioqt import DataStream, ErrorKind, SocketError, TcpServer, TcpSocket
from trioqt.testing import Probe, cancel_everywhere

HOWTO = Path(__file__).parents[1] / "docs" / "howto"


@pytest.fixture(scope="module", autouse=True)
def importable() -> Any:
    """The programs of the page, which lie in no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HOWTO))
        patch.setattr(sys, "dont_write_bytecode", True)
        yield
    for name in ("framing", "framing_msgpack"):
        sys.modules.pop(name, None)


@attrs.frozen
class Format:
    """One of the page."""

    module: str
    receive: str
    values: tuple[Any, ...]
    wire: bytes
    """These values, one behind the other."""
    send: str = ""
    spread: bool = False
    """``send`` takes the parts of a value."""

    def receiver(self) -> Callable[[TcpSocket], Awaitable[object]]:
        if self.module == "framing_msgpack":
            peer_module("msgpack")
        receive: Callable[[TcpSocket], Awaitable[object]] = getattr(importlib.import_module(self.module), self.receive)
        return receive


FORMATS = {
    "block": Format("framing", "receive_block", (b"hello", b"", b"x"), b"\0\0\0\5hello\0\0\0\0\0\0\0\1x", "send_block"),
    "text": Format("framing", "receive_text", ("hé", "", "a\rb", "c"), "hé\r\n\na\rb\nc\r\n".encode()),
    "json": Format(
        "framing", "receive_json", ({"a": [1, 2]}, "ü\n", None), b'{"a": [1, 2]}\n"\\u00fc\\n"\nnull\n', "send_json"
    ),
    "netstring": Format(
        "framing", "receive_netstring", (b"hello", b"", b"1:,"), b"5:hello,0:,3:1:,,", "send_netstring"
    ),
    "reply": Format(
        "framing",
        "receive_reply",
        ([b"SET", -5, [b"OK"]], None, b"", b"no", []),
        b"*3\r\n$3\r\nSET\r\n:-5\r\n*1\r\n+OK\r\n$-1\r\n$0\r\n\r\n-no\r\n*0\r\n",
    ),
    "sized": Format("framing", "receive_sized", (b"hello", b"", b"x"), b"\5hello\0\1x", "send_sized"),
    "msgpack": Format(
        "framing_msgpack",
        "receive_msgpack",
        ({"a": [1, 2]}, "ü", None, 300),
        b"\x81\xa1a\x92\x01\x02\xa2\xc3\xbc\xc0\xcd\x01,",
        "send_msgpack",
    ),
    "data stream": Format(
        "framing",
        "receive_order",
        (("ü", -1, [0.5, math.inf]), ("", 0, [])),
        bytes.fromhex("00000002 00fc ffffffff 00000002 3fe0000000000000 7ff0000000000000 00000000 00000000 00000000"),
        "send_order",
        spread=True,
    ),
    "data stream in a block": Format(
        "framing",
        "receive_order_block",
        (("ü", -1, [0.5]), ("", 0, [])),
        bytes.fromhex("00000016 00000002 00fc ffffffff 00000001 3fe0000000000000  0000000c 00000000 00000000 00000000"),
    ),
}
every_format = pytest.mark.parametrize("name", FORMATS)


@asynccontextmanager
async def over_memory() -> AsyncIterator[tuple[TcpSocket, trio.StapledStream[Any, Any]]]:
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(ours) as sock:
        yield sock, theirs


async def how_it_ends(receive: Callable[[TcpSocket], Awaitable[object]], sock: TcpSocket) -> ErrorKind:
    with pytest.raises(SocketError) as caught:
        await receive(sock)
    return caught.value.kind


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.send])
async def test_what_is_sent_is_received(network: Network, name: str) -> None:
    """And the bytes are those that the format says."""
    form = FORMATS[name]
    receive = form.receiver()
    send = getattr(sys.modules[form.module], form.send)

    async with TcpServer() as server, TcpSocket() as client:
        await server.listen(network.host)
        await client.connect_to_host(network.host, server.server_port())
        async with await server.accept() as sock:
            for value in form.values:
                await (send(client, *value) if form.spread else send(client, value))
            await client.send_eof()
            await sock.wait_for_ready_read()
            got = [await receive(sock) for _ in form.values]
            assert await how_it_ends(receive, sock) is ErrorKind.REMOTE_HOST_CLOSED

    assert got == list(form.values)

    stream, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(stream) as sock:
        for value in form.values:
            await (send(sock, *value) if form.spread else send(sock, value))
    wire = b""
    while piece := await theirs.receive_some():
        wire += piece
    assert wire == form.wire


@every_format
async def test_frames_that_are_cut_anywhere_are_the_same(network: Network, name: str) -> None:
    """Once at every place, and into single bytes."""
    form = FORMATS[name]
    receive = form.receiver()
    cuts = [[form.wire[:cut], form.wire[cut:]] for cut in range(1, len(form.wire))]
    cuts.append([form.wire[place : place + 1] for place in range(len(form.wire))])

    for pieces in cuts:
        got: list[object] = []

        async def receive_all(sock: TcpSocket, got: list[object] = got) -> None:
            for _ in form.values:
                got.append(await receive(sock))

        async with connection(network) as pair, trio.open_nursery() as nursery:
            nursery.start_soon(receive_all, pair.sock)
            for piece in pieces:
                await pair.arrive(piece)
                await trio.testing.wait_all_tasks_blocked()

        assert got == list(form.values), pieces


@every_format
def test_a_cancellation_at_any_place_loses_no_frame(name: str) -> None:
    """The frames come in pieces that end in the middle of one; whoever was cancelled receives again."""
    form = FORMATS[name]
    receive = form.receiver()

    async def scenario(probe: Probe) -> None:
        async with over_memory() as (sock, theirs), trio.open_nursery() as nursery:

            async def send() -> None:
                for place in range(0, len(form.wire), 3):
                    await trio.sleep(1)
                    await theirs.send_all(form.wire[place : place + 3])
                await theirs.send_eof()

            nursery.start_soon(send)
            got: list[object] = []
            while len(got) < len(form.values):
                before = len(got)
                value = await probe.subject(functools.partial(note, got, sock))
                probe.expect(len(got) == before + 1 or value is None, "a frame, or cancelled")
            probe.expect(got == list(form.values), f"every frame, not {got}")
            probe.expect(sock.read_all() == b"", "and no more")

    async def note(got: list[object], sock: TcpSocket) -> bool:
        got.append(await receive(sock))
        return True

    report = cancel_everywhere(scenario)

    report.raise_if_failed()
    assert report.complete
    assert report.places > len(form.wire) / 3


@every_format
async def test_a_frame_that_is_cut_off_by_the_end_is_told_and_stays_readable(network: Network, name: str) -> None:
    """Wherever it is cut off."""
    form = FORMATS[name]
    receive = form.receiver()
    for cut in range(len(form.wire)):
        async with connection(network) as pair:
            await pair.peer.send(form.wire[:cut])
            pair.peer.finish()
            got = []
            with pytest.raises(SocketError) as caught:
                while True:
                    got.append(await receive(pair.sock))
            rest = pair.sock.read_all()

        assert caught.value.kind is ErrorKind.REMOTE_HOST_CLOSED
        assert got == list(form.values[: len(got)])
        assert form.wire[:cut].endswith(rest)
        assert len(got) < len(form.values)


CORRUPT, LIMIT = ErrorKind.CORRUPT_DATA, ErrorKind.LIMIT_EXCEEDED
DEEP_JSON = b"[" * 100_000 + b"]" * 100_000 + b"\n"
# What the peer sends, what that gives, and what is readable after it, behind which GOOD follows.
BAD: dict[str, tuple[str, bytes, ErrorKind, bytes]] = {
    "a block of 4 GiB": ("block", b"\xff\xff\xff\xff", LIMIT, b"\xff\xff\xff\xff"),
    "a block of 1 MiB and a byte": ("block", b"\0\x10\0\1", LIMIT, b"\0\x10\0\1"),
    "a line that is no UTF-8": ("text", b"\xff\n", CORRUPT, b""),
    "a line that is no JSON": ("json", b"{]\n", CORRUPT, b""),
    "JSON of depth 100,000": ("json", DEEP_JSON, CORRUPT, b""),
    "JSON that is no UTF-8": ("json", b'"\xff"\n', CORRUPT, b""),
    "a line of 1 MiB": ("json", b"1" * (1 << 20), LIMIT, b"1" * (1 << 20)),
    "a negative netstring": ("netstring", b"-1:,", CORRUPT, b"-1:,"),
    "a netstring of 9,999,999": ("netstring", b"9999999:", LIMIT, b"9999999:"),
    "a netstring of many digits": ("netstring", b"1" * 5000 + b":", LIMIT, b"1" * 5000 + b":"),
    "a netstring without a size": ("netstring", b":,", CORRUPT, b":,"),
    "a netstring without its comma": ("netstring", b"1:ab", CORRUPT, b"1:ab"),
    "no reply": ("reply", b"?\r\n", CORRUPT, b"?\r\n"),
    "a reply of no number": ("reply", b"$x\r\n", CORRUPT, b"$x\r\n"),
    "a negative reply": ("reply", b"*-2\r\n", CORRUPT, b"*-2\r\n"),
    "a reply of 4 GiB": ("reply", b"$4294967296\r\n", LIMIT, b"$4294967296\r\n"),
    "replies of depth 1,000": ("reply", b"*1\r\n" * 1000, CORRUPT, b"*1\r\n" * 1000),
    "a size of 4 GiB": ("sized", b"\xff\xff\xff\xff\x0f", LIMIT, b"\xff\xff\xff\xff\x0f"),
    "a size without end": ("sized", b"\xff" * 100, CORRUPT, b"\xff" * 100),
    "no msgpack": ("msgpack", b"\xc1", CORRUPT, b"\xc1"),
    "msgpack of depth 100,000": ("msgpack", b"\x91" * 100_000, CORRUPT, b"\x91" * 100_000),
    "a msgpack array of 4 Gi": ("msgpack", b"\xdd\xff\xff\xff\xff", CORRUPT, b"\xdd\xff\xff\xff\xff"),
    "msgpack that is no UTF-8": ("msgpack", b"\xa1\xff", CORRUPT, b"\xa1\xff"),
    "a QString of 4 GiB": ("data stream", b"\xff\xff\xff\xfe", LIMIT, b"\xff\xff\xff\xfe"),
    "a QString that is no UTF-16": ("data stream", b"\0\0\0\2\xd8\0", CORRUPT, b"\0\0\0\2\xd8\0"),
    "a QString of 3 bytes": ("data stream", b"\0\0\0\3abc", CORRUPT, b"\0\0\0\3abc"),
    "a list of 4 Gi": ("data stream", bytes(8) + b"\xff\xff\xff\xf0", LIMIT, bytes(8) + b"\xff\xff\xff\xf0"),
    "a block that is cut short": ("data stream in a block", b"\0\0\0\4\0\0\0\2", CORRUPT, b""),
    "a block of no UTF-16": ("data stream in a block", b"\0\0\0\6\0\0\0\2\xd8\0", CORRUPT, b""),
    "a list of -1": ("data stream", bytes(8) + b"\xff\xff\xff\xff", CORRUPT, bytes(8) + b"\xff\xff\xff\xff"),
}
GOOD = b"good"


@pytest.mark.parametrize("case", BAD)
async def test_a_peer_that_breaks_the_format_gets_a_clear_error_and_no_memory(network: Network, case: str) -> None:
    """A SocketError, by which a server knows whose trouble it is; everything that was not taken stays readable."""
    name, sent, kind, left = BAD[case]
    receive = FORMATS[name].receiver()
    async with connection(network) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.peer.send, sent + GOOD)
        tracemalloc.start()
        try:
            with pytest.raises(SocketError) as caught:
                await receive(pair.sock)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        rest = await pair.sock.receive_exactly(len(left + GOOD))

    assert caught.value.kind is kind
    assert caught.value.message
    assert rest == left + GOOD
    assert most < 16 * len(sent) + (4 << 20)


@pytest.mark.parametrize(("size", "head"), [(127, "7f"), (128, "8001"), (300, "ac02"), (1 << 14, "808001")])
async def test_a_size_of_several_bytes_is_as_protobuf_has_it(size: int, head: str) -> None:
    """Seven bits in each, the lowest first."""
    framing = importlib.import_module("framing")
    async with over_memory() as (sock, peer):
        await framing.send_sized(sock, bytes(size))
        assert await peer.receive_some() == bytes.fromhex(head) + bytes(size)
        await peer.send_all(bytes.fromhex(head) + bytes(size))
        assert await framing.receive_sized(sock) == bytes(size)


async def test_the_handler_of_the_page_ends_with_its_peer(network: Network) -> None:
    """And answers each block until then, also those that came together."""
    framing = importlib.import_module("framing")
    ended = []

    async def handler(sock: TcpSocket) -> None:
        await framing.answer_blocks(sock)
        ended.append("well")

    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        async with TcpSocket() as client:
            await client.connect_to_host(network.host, server.server_port())
            await client.send_all(b"\0\0\0\1a\0\0\0\2bc")
            answers = [await framing.receive_block(client) for _ in range(2)]
            await client.send_eof()
            assert await client.receive_some() == b""
        nursery.cancel_scope.cancel()

    assert (answers, ended) == ([b"A", b"BC"], ["well"])


def test_a_stream_that_was_given_to_a_reader_is_empty_afterwards() -> None:
    """Whoever keeps it looks at nothing that is another's."""
    kept: list[DataStream] = []

    async def main() -> None:
        async with over_memory() as (sock, theirs):
            await theirs.send_all(b"\0\0")

            def read(stream: DataStream) -> int:
                kept.append(stream)
                return stream.read_uint8()

            assert await sock.receive_message(read) == 0
            assert kept[0].data() == b""
            with pytest.raises(TypeError, match="read only"):
                kept[0].write_uint8(1)

    trio.run(main)
