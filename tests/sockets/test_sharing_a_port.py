"""SO_REUSEPORT: processes of their own that have one port, on the kernel; and the modes that let nobody in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.networks import Loopback, Network
from trioqt import BindMode, ErrorKind, SocketError, TcpServer, TcpSocket, UdpSocket

ROOT = Path(__file__).parents[2]

# Linux picks by a hash of the addresses; that one of two is left out so often has a chance of one in 2^199.
ENOUGH = 200


@asynccontextmanager
async def sharer(kind: str, port: int, reuse: str = "reuse") -> AsyncIterator[tuple[int, str]]:
    """Another process: its id, and the port or the error that it prints."""
    command = [sys.executable, "-m", "tests.sockets.port_sharers", kind, str(port), reuse]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.pid, bytes(await process.stdout.receive_some()).decode().strip()
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            await process.wait()
            await process.stdout.aclose()


async def test_two_processes_share_the_connections_to_one_port(network: Loopback) -> None:
    """Each gets some of them, and none is lost: every client is answered."""
    answers: list[int] = []
    async with sharer("tcp", 0) as (first, port), sharer("tcp", int(port)) as (second, same_port):
        while len(answers) < ENOUGH and set(answers) != {first, second}:
            async with TcpSocket() as sock:
                await sock.connect_to_host("127.0.0.1", int(port))
                answers.append(int(await sock.receive_line()))

    assert same_port == port
    assert set(answers) == {first, second}


async def test_a_process_may_leave_and_the_other_serves_on(network: Loopback) -> None:
    """Clients that come after it go to who is left."""
    async with sharer("tcp", 0) as (first, port):
        async with sharer("tcp", int(port)):
            pass
        answers = set()
        for _ in range(20):
            async with TcpSocket() as sock:
                await sock.connect_to_host("127.0.0.1", int(port))
                answers.add(int(await sock.receive_line()))

    assert answers == {first}


async def test_two_processes_share_the_datagrams_to_one_port(network: Loopback) -> None:
    """Those of one sender go to one of them; many senders reach both."""
    answers: list[int] = []
    async with sharer("udp", 0) as (first, port), sharer("udp", int(port)) as (second, same_port):
        while len(answers) < ENOUGH and set(answers) != {first, second}:
            async with UdpSocket() as sock:
                await sock.connect_to_host("127.0.0.1", int(port))
                own = set()
                for _ in range(3):
                    sock.write(b"who are you?")
                    own.add(int((await sock.receive_datagram()).data))
                assert len(own) == 1
                answers += own

    assert same_port == port
    assert set(answers) == {first, second}


@pytest.mark.parametrize(
    ("kind", "first", "second", "told"),
    [
        ("tcp", "reuse", "alone", "ADDRESS_IN_USE"),
        ("tcp", "alone", "reuse", "ADDRESS_IN_USE"),
        ("udp", "reuse", "alone", "ADDRESS_IN_USE"),
    ],
)
async def test_who_does_not_share_is_alone(network: Loopback, kind: str, first: str, second: str, told: str) -> None:
    """Both have to say so; one who comes without is refused, and so is one who comes to somebody without."""
    async with sharer(kind, 0, first) as (_, port), sharer(kind, int(port), second) as (_, answer):
        assert port.isdigit()
        assert answer == told


async def test_servers_of_one_process_share_a_port_as_well(network: Network) -> None:
    """On both networks; each gets some of the clients."""
    async with TcpServer() as first, TcpServer() as second:
        await first.listen(network.host, reuse_port=True)
        await second.listen(network.host, first.server_port(), reuse_port=True)
        clients = 0
        while clients < ENOUGH and not (first.connection_count() and second.connection_count()):
            async with TcpSocket() as sock:
                await sock.connect_to_host(network.host, first.server_port())
                clients += 1
                while first.connection_count() + second.connection_count() < clients:
                    await trio.lowlevel.checkpoint()

        assert first.connection_count() > 0
        assert second.connection_count() > 0


async def test_a_listener_lets_in_who_reuses_the_port_and_nobody_who_shares_the_address(network: Network) -> None:
    """SHARE_ADDRESS and REUSE_ADDRESS_HINT are for those that do not listen."""
    async with TcpServer() as server, TcpSocket() as sock:
        await server.listen(network.host, reuse_port=True)
        for mode in (BindMode.SHARE_ADDRESS, BindMode.REUSE_ADDRESS_HINT, BindMode.DONT_SHARE_ADDRESS):
            with pytest.raises(SocketError) as caught:
                await sock.bind(network.host, server.server_port(), mode)
            assert caught.value.kind is ErrorKind.ADDRESS_IN_USE
        await sock.bind(network.host, server.server_port(), BindMode.REUSE_PORT)

        assert sock.local_port() == server.server_port()
