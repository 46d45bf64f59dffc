"""A server to try things on."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import click
import trio

from trioqt.core.addresses import location
from trioqt.core.errors import reason_of
from trioqt.sockets.ssl_server import SslServer
from trioqt.sockets.ssl_socket import SslSocket
from trioqt.sockets.stopping import stop_on_signals
from trioqt.sockets.tcp_server import TcpServer
from trioqt.sockets.tcp_socket import TcpSocket

__all__ = ["serve_echo", "serve_handler", "server_context"]

# A client that has said nothing yet may be about to, so it has this long when the server is told to stop, in seconds.
LAST_CALL = 1.0


class Echo:
    """A server that says back whatever comes, and when it is told to stop, whatever has come by then.

    Args:
      count: Called at each connection.
      context: Speak TLS.
    """

    def __init__(
        self, count: Callable[[], None], max_connections: int, idle_limit: float, context: ssl.SSLContext | None
    ) -> None:
        self.server: TcpServer[TcpSocket] | SslServer[SslSocket]
        if context is None:
            self.server = TcpServer(max_connections=max_connections, idle_limit=idle_limit)
        else:
            self.server = SslServer(context, max_connections=max_connections, idle_limit=idle_limit)
        self._count = count
        self._waiting: set[trio.CancelScope] = set()  # those that wait for something to come

    async def serve(self, grace: float, ready: Callable[[], None]) -> None:
        """Until a signal; ``ready`` is called when one would be heard."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_no_more)
            await nursery.start(self.server.serve, self._echo)
            await nursery.start(stop_on_signals, self.server, grace)
            ready()

    async def _echo(self, sock: TcpSocket) -> None:
        self._count()
        if isinstance(sock, SslSocket):
            cipher = sock.session_cipher()
            where = location(sock.peer_address(), sock.peer_port())
            click.echo(f"{where} speaks {sock.session_protocol()} {'' if cipher is None else cipher[0]}")
        chunk = await self._receive(sock, LAST_CALL)
        while chunk:
            await sock.send_all(chunk)
            chunk = await self._receive(sock, 0)

    async def _receive(self, sock: TcpSocket, last_call: float) -> bytes:
        """What comes next; while the server drains, what has come, or comes within so many seconds."""
        if not self.server.is_draining():
            with trio.CancelScope() as scope:
                self._waiting.add(scope)
                try:
                    return await sock.receive_some()
                finally:
                    self._waiting.remove(scope)
        with trio.move_on_after(last_call):
            return await sock.receive_some()
        return sock.read_all()

    async def _wait_no_more(self) -> None:
        await self.server.wait_for_draining()
        for scope in self._waiting:
            scope.cancel(reason="the server drains")


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """A server's, with the certificate chain and the key of these files.  Raises: click.ClickException."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as exc:
        reason = reason_of(exc)
        if isinstance(exc, ssl.SSLError):  # which has no reason where a file holds nothing of the kind
            reason = (exc.reason or "there is no certificate, or no key").replace("_", " ").lower()
        raise click.ClickException(f"cannot use {certificate} with {key}: {reason}") from exc
    return context


async def serve_echo(
    host: str,
    port: int,
    count: Callable[[], None],
    *,
    max_connections: int,
    idle_limit: float,
    grace: float,
    context: ssl.SSLContext | None = None,
) -> int:
    """Say back whatever comes, until a signal; then say back what has come, for so many seconds at most.

    Args:
      count: Called at each connection.
      context: Speak TLS.

    Raises: SocketError if it cannot listen.
    Cancelled: every connection is ended.
    """
    echo = Echo(count, max_connections, idle_limit, context)
    async with echo.server as server:
        await server.listen(host, port)
        where = location(server.server_address(), server.server_port())
        await echo.serve(grace, lambda: click.echo(f"listening on {where}"))
    return 0


async def serve_handler(
    host: str,
    port: int,
    count: Callable[[], None],
    *,
    max_connections: int,
    idle_limit: float,
    grace: float,
    handler: Callable[[TcpServer[TcpSocket], TcpSocket], Awaitable[None]],
) -> int:
    """Give each connection to ``handler``, until a signal; then wait for those it has, for so many seconds at most.

    Args:
      count: Called at each connection.

    Raises: SocketError if it cannot listen.
    Cancelled: every connection is ended.
    """

    async def handle(sock: TcpSocket) -> None:
        count()
        await handler(server, sock)

    async with TcpServer(max_connections=max_connections, idle_limit=idle_limit) as server:
        await server.listen(host, port)
        where = location(server.server_address(), server.server_port())
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, handle)
            await nursery.start(stop_on_signals, server, grace)
            click.echo(f"listening on {where}")
    return 0
