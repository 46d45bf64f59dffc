"""``trioqt serve fortune`` and ``trioqt serve chat``."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator

import pytest
import trio

from tests.cli.commands import read_rest, running_trioqt
from tests.cli.test_serve import port_of
from tests.networks import Loopback, RawPeer
from trioqt import DataStream, TcpSocket
from trioqt.cli.fortune import FORTUNES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_fortunes_are_told_until_a_signal(network: Loopback, number: signal.Signals) -> None:
    """Each client gets one, and the end; then it says how many it served."""
    async with running_trioqt("serve", "fortune") as process:
        port = await port_of(process)
        heard = []
        for _ in range(3):
            async with TcpSocket() as sock:
                await sock.connect_to_host("127.0.0.1", port)
                heard.append(await sock.receive_message(DataStream.read_q_string))
                assert await sock.receive_some() == b""
        process.send_signal(number)
        rest = [await read_rest(process.stdout), await read_rest(process.stderr)]
        status = await process.wait()

    assert set(heard) <= set(FORTUNES)
    assert (rest, status) == ([b"served 3 connections\n", b""], 0)


def name_of(peer: RawPeer) -> bytes:
    host, port = peer.sock.getsockname()
    return f"{host}:{port}: ".encode()


async def hear(peer: RawPeer, line: bytes) -> None:
    """Read until that line has come."""
    heard = b""
    while not heard.endswith(line):
        piece = await peer.receive(1)
        assert piece, f"{line!r} was not heard, but {heard!r}"
        heard += piece


@contextlib.asynccontextmanager
async def members(network: Loopback, port: int, count: int) -> AsyncIterator[list[RawPeer]]:
    """So many members of the chat, of whom each has been heard by those that came before it."""
    with contextlib.ExitStack() as stack:
        peers: list[RawPeer] = []
        for _ in range(count):
            peer = stack.enter_context(await network.raw_connect(port))
            for other in peers:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(greet, peer)  # again and again: who came before it may not be in yet
                    await hear(other, name_of(peer) + b"hello\n")
                    nursery.cancel_scope.cancel()
            peers.append(peer)
        yield peers


async def greet(peer: RawPeer) -> None:
    while True:
        await peer.send(b"hello\n")
        await trio.sleep(0.01)


async def test_what_one_says_the_others_hear_and_the_last_words_at_a_stop(network: Loopback) -> None:
    """Who has spoken is in front; after the signal what was said is told, and each connection ends in order."""
    async with running_trioqt("serve", "chat") as process:
        port = await port_of(process)
        async with members(network, port, 2) as (one, two):
            await two.send(b"hi\n")
            await hear(one, name_of(two) + b"hi\n")
            await one.send(b"and goodbye")
            one.finish()
            await hear(two, name_of(one) + b"and goodbye\n")
            process.send_signal(signal.SIGTERM)
            ends = [await one.receive_to_end(), await two.receive_to_end()]
        rest = [await read_rest(process.stdout), await read_rest(process.stderr)]
        status = await process.wait()

    assert ends == [b"", b""]
    assert (rest, status) == ([b"served 2 connections\n", b""], 0)


async def test_who_says_too_long_a_line_is_cut_off(network: Loopback) -> None:
    """1,000 bytes are the most; the others go on."""
    async with running_trioqt("serve", "chat") as process:
        async with members(network, await port_of(process), 3) as (one, two, three):
            await one.send(b"x" * 1001)
            ended = await one.how_it_ends()
            await two.send(b"still here\n")
            await hear(three, name_of(two) + b"still here\n")

    assert ended == "reset"


async def test_who_does_not_read_is_cut_off(network: Loopback) -> None:
    """And the speaker never waits for it."""
    async with running_trioqt("serve", "chat") as process:
        async with members(network, await port_of(process), 2) as (speaker, deaf):
            for _ in range(40_000):
                await speaker.send(b"x" * 999 + b"\n")
            speaker.finish()
            assert await speaker.how_it_ends() == "end"
            ended = await deaf.how_it_ends()

    assert ended == "reset"
