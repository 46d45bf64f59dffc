"""A connection by hand: stdin to the peer, the peer to stdout, every event to stderr.

One task writes the last two, so that on a terminal what came stands before what was told of later.  All three are read
and written in threads, by their descriptors: Python's own files have locks, and a thread that is left behind in a read
would hold one of them when the interpreter ends.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import AsyncIterator, Sequence

import click
import trio

from trioqt.core.errors import ErrorKind, SocketError, reason_of
from trioqt.core.events import (
    BytesWritten,
    Encrypted,
    ErrorOccurred,
    Event,
    ReadChannelFinished,
    ReadyRead,
    SslErrors,
    StateChanged,
)
from trioqt.core.network_proxy import NetworkProxy
from trioqt.core.socket_state import SocketState
from trioqt.core.tls import SslErrorKind
from trioqt.sockets.connection import BLOCK_SIZE, PEER_CLOSED
from trioqt.sockets.ssl_socket import SslSocket
from trioqt.sockets.tcp_socket import TcpSocket

__all__ = ["connect_to"]

# How long the last events may take to be written, if nobody reads stderr, in seconds.
LAST_WORDS = 1.0


async def connect_to(
    host: str,
    port: int,
    half_open: bool,
    proxy: NetworkProxy | None = None,
    ignored: Sequence[SslErrorKind] | None = None,
) -> int:
    """Connect, send stdin and finish, print what comes, until the peer has finished.  The exit status.

    Args:
      proxy: By way of that.
      half_open: The socket's; if so, stdin is sent to its end, even after the peer has finished.
      ignored: Over TLS, ignoring these errors; None: without TLS.

    Raises:
      SocketError: It could not be connected or was lost; what had arrived is printed.
      OSError: stdin cannot be read, or stdout not be written.
    Cancelled: the connection is aborted.
    """
    sock = TcpSocket(half_open=half_open) if ignored is None else SslSocket(half_open=half_open)
    if proxy is not None:
        sock.set_proxy(proxy)
    follower = Follower(sock)
    # Shielded, because the last events come after a cancellation: they are about it.  They end with the socket's block.
    telling = trio.CancelScope(shield=True)
    async with sock.events() as events, trio.open_nursery() as nursery:
        try:
            async with sock:
                nursery.start_soon(follower.follow, events, telling)
                if isinstance(sock, SslSocket):
                    sock.ignore_ssl_errors(ignored or ())
                    await sock.connect_to_host_encrypted(host, port)
                else:
                    await sock.connect_to_host(host, port)
                await _exchange(sock, follower, half_open)
        finally:
            follower.print_no_more()
            telling.deadline = trio.current_time() + LAST_WORDS
    return 0


async def _exchange(sock: TcpSocket, follower: Follower, half_open: bool) -> None:
    failure: SocketError | None = None

    async def send() -> None:
        nonlocal failure
        try:
            await _send_stdin(sock)
        except SocketError as exc:
            failure = exc  # later: what had arrived is printed first

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await follower.wait_for_end()
        if not half_open:
            nursery.cancel_scope.cancel(reason="the peer has finished")
    if failure is not None:
        raise failure


async def _send_stdin(sock: TcpSocket) -> None:
    """Send what stdin gives, then finish sending."""
    if sys.stdin is not None:  # else it was closed from the beginning, and its descriptor may be a socket by now
        while chunk := await _read(sys.stdin.fileno()):
            await sock.send_all(chunk)
    try:
        await sock.send_eof()
    except SocketError as exc:
        if exc.kind is not ErrorKind.UNSUPPORTED_SOCKET_OPERATION:  # before TLS 1.3 there is no half-close
            raise


async def _read(descriptor: int) -> bytes:
    """Some bytes.  Cancelled: a thread is left behind that may take what comes next; it does not keep the process."""
    try:
        return await trio.to_thread.run_sync(os.read, descriptor, BLOCK_SIZE, abandon_on_cancel=True)
    except OSError as exc:
        raise OSError(exc.errno, f"cannot read stdin: {reason_of(exc)}") from exc


async def _write(descriptor: int, data: bytes) -> None:
    """Write all of it.  Cancelled: it may still be written."""
    await trio.to_thread.run_sync(_write_all, descriptor, data, abandon_on_cancel=True)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


# ---- what happens ----------------------------------------------------------------------------


class Follower:
    """Tells each event and prints what it brings, before the next: on a terminal all of it is in order."""

    def __init__(self, sock: TcpSocket) -> None:
        self._sock = sock
        self._failure: OSError | None = None
        self._over = trio.Event()
        self._tells = sys.stderr is not None
        self._has_colours = self._tells and sys.stderr.isatty() and "NO_COLOR" not in os.environ
        self._prints = True
        self._printing = trio.CancelScope()

    def print_no_more(self) -> None:
        """But go on telling: stdout may be full, and nobody read it."""
        self._prints = False
        self._printing.cancel()

    async def wait_for_end(self) -> None:
        """Wait until the peer has finished and all that it sent is printed.

        Raises: SocketError if the connection was lost, OSError if stdout took no more.
        """
        await self._over.wait()
        if self._failure is not None:
            raise self._failure
        if (rest := await self._sock.receive_some()) != b"":
            raise AssertionError(f"{len(rest)} bytes came behind the end")

    async def follow(self, events: AsyncIterator[Event], scope: trio.CancelScope) -> None:
        """Until the socket's block is left."""
        with scope:
            async for event in events:
                if isinstance(event, (ErrorOccurred, ReadChannelFinished)):
                    await self._print()  # what came before the end stands before it
                await self._tell(event)
                match event:
                    case ReadyRead():
                        await self._print()
                    case ReadChannelFinished() | StateChanged(SocketState.CLOSING):
                        self._over.set()

    async def _tell(self, event: Event) -> None:
        if self._tells:
            line = _describe(event, self._sock)
            try:
                await _write(sys.stderr.fileno(), f"{line if self._has_colours else click.unstyle(line)}\n".encode())
            except BrokenPipeError:
                self._tells = False

    async def _print(self) -> None:
        while self._prints and (count := self._sock.bytes_available()):
            with trio.CancelScope() as self._printing:
                try:
                    await _write(sys.stdout.fileno(), self._sock.read(count))
                except OSError as exc:
                    self._failure, self._prints = exc, False
                    self._over.set()


def _describe(event: Event, sock: TcpSocket) -> str:
    # The time at which it is seen: at most one thread's turn after it happened, unless nobody reads what is written.
    time = click.style(f"{datetime.datetime.now():%H:%M:%S.%f}"[:-3], dim=True)
    name = type(event).__name__
    match event:
        case StateChanged(state):
            return f"{time}  {name} {click.style(state.name, fg='cyan', bold=True)}"
        case ErrorOccurred(ErrorKind.REMOTE_HOST_CLOSED as kind, message) if message == PEER_CLOSED:
            return f"{time}  {click.style(name, fg='green')} {kind.name}: {message}, which is a good end"
        case ErrorOccurred(kind):
            return f"{time}  {click.style(name, fg='red')} {click.style(kind.name, fg='red', bold=True)}"
        case Encrypted() if isinstance(sock, SslSocket):
            cipher = sock.session_cipher()
            return f"{time}  {click.style(name, fg='green')} {sock.session_protocol()} {cipher and cipher[0]}"
        case SslErrors(errors):
            kinds = " ".join(error.kind.name for error in errors)
            return f"{time}  {click.style(name, fg='red')} {click.style(kinds, fg='red', bold=True)}"
        case BytesWritten(count):
            return f"{time}  {name} {count}"
        case _:
            return f"{time}  {click.style(name, fg='green')}"
