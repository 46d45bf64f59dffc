"""What a server and a socket say of themselves: state, addresses, bounds."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network
from trioqt import HostAddress, TcpServer, TcpSocket

BOUNDS = "read_buffer_size 65,536, write_buffer_size 65,536, flush_timeout 10 s, unsent_limit 131,072"


@pytest.mark.parametrize(
    ("options", "rest"),
    [
        ({}, "0 connections"),
        ({"max_connections": 1000}, "0 of at most 1,000 connections"),
        ({"max_connections_per_peer": 20}, "0 connections, max_connections_per_peer 20"),
        ({"idle_limit": 300}, "0 connections, idle_limit 300 s"),
        ({"stall_limit": 0.5}, "0 connections, stall_limit 0.5 s"),
        (
            {"max_connections": 5, "max_connections_per_peer": 2, "idle_limit": 300, "stall_limit": 5},
            "0 of at most 5 connections, max_connections_per_peer 2, idle_limit 300 s, stall_limit 5 s",
        ),
    ],
)
def test_a_server_names_each_of_its_limits(options: dict[str, Any], rest: str) -> None:
    """And none that it has not."""
    assert repr(TcpServer(**options)) == f"<TcpServer not listening, {rest}>"


async def test_a_server_says_where_it_listens_and_how_many_it_has(network: Network) -> None:
    """Then that it is closed."""
    async with TcpServer(max_connections=7, idle_limit=300) as server:
        await server.listen(network.host)
        port = server.server_port()
        with await network.raw_connect(port):
            await server.accept()
            listening = repr(server)
        await server.aclose()
        closed = repr(server)

    limits = "of at most 7 connections, idle_limit 300 s"
    assert listening == f"<TcpServer listening on 127.0.0.1:{port}, 1 {limits}>"
    assert closed.startswith("<TcpServer closed, ")


async def test_a_server_on_every_address_says_so(network: Network) -> None:
    """As ``server_address`` does."""
    async with TcpServer() as server:
        await server.listen()
        where = f"{HostAddress.ANY.text}:{server.server_port()}"

        assert repr(server) == f"<TcpServer listening on {where}, 0 connections>"


async def test_a_socket_says_what_it_is_connected_to(network: Network) -> None:
    """And what it was, no more."""
    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:
            new = repr(sock)
            await sock.connect_to_host(network.host, listener.port)
            connected, port = repr(sock), sock.local_port()
            there = f"{network.host}:{listener.port}"
        ended = repr(sock)

    assert new == ended == f"<TcpSocket unconnected, {BOUNDS}>"
    assert connected == f"<TcpSocket connected, 127.0.0.1:{port} to {there}, {BOUNDS}>"


async def test_a_bound_socket_says_where(network: Network) -> None:
    """It has no peer yet."""
    async with TcpSocket() as sock:
        await sock.bind(network.host)

        assert repr(sock) == f"<TcpSocket bound, 127.0.0.1:{sock.local_port()}, {BOUNDS}>"


async def test_a_socket_over_a_stream_has_no_addresses(network: Network) -> None:
    """Only a state."""
    stream, _ = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(stream) as sock:
        assert repr(sock) == f"<TcpSocket connected, {BOUNDS}>"


async def test_an_accepted_socket_names_the_limits_of_its_server(network: Network) -> None:
    """They hold for it."""
    async with TcpServer(idle_limit=300, stall_limit=5) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:
            sock = await server.accept()
            both = f"127.0.0.1:{server.server_port()} to 127.0.0.1:{client.sock.getsockname()[1]}"

            assert repr(sock) == f"<TcpSocket connected, {both}, {BOUNDS}, idle_limit 300 s, stall_limit 5 s>"


async def test_a_socket_whose_descriptor_somebody_has_closed_says_what_it_can(network: Loopback) -> None:
    """A repr is for the worst of moments, and never raises."""
    with await network.raw_listener() as listener:
        async with TcpSocket() as sock:
            await sock.connect_to_host(network.host, listener.port)
            spare = os.dup(sock.socket_descriptor())
            os.close(sock.socket_descriptor())
            said = repr(sock)
            os.dup2(spare, sock.socket_descriptor())
            os.close(spare)

    assert said == f"<TcpSocket connected, {BOUNDS}>"


def test_a_class_of_ones_own_has_its_own_name_and_bounds() -> None:
    """A limit that is lifted is not named."""

    class Session(TcpSocket):
        pass

    sock = Session(read_buffer_size=0, write_buffer_size=1, flush_timeout=0.5, unsent_limit=None)

    assert repr(sock) == "<Session unconnected, read_buffer_size 0, write_buffer_size 1, flush_timeout 0.5 s>"
