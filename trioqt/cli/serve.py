"""A server to try things on."""

from __future__ import annotations

from collections.abc import Callable

import click

from trioqt.core.addresses import location
from trioqt.sockets.tcp_server import TcpServer
from trioqt.sockets.tcp_socket import TcpSocket

__all__ = ["serve_echo"]


async def serve_echo(
    host: str, port: int, count: Callable[[], None], *, max_connections: int, idle_limit: float
) -> int:
    """Say back whatever comes, until cancelled.

    Args:
      count: Called at each connection.

    Raises: SocketError if it cannot listen.
    Cancelled: every connection is ended.
    """

    async def echo(sock: TcpSocket) -> None:
        count()
        async for chunk in sock:
            await sock.send_all(chunk)

    async with TcpServer(max_connections=max_connections, idle_limit=idle_limit) as server:
        await server.listen(host, port)
        click.echo(f"listening on {location(server.server_address(), server.server_port())}")
        await server.serve(echo)
    return 0
