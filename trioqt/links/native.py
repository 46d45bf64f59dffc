"""Bytes over a kernel socket, or over a simulated one that offers the same calls.

Non-blocking calls are made at once; only when they would block does a task wait.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

import trio

from trioqt.core.errors import reason_of
from trioqt.core.options import IPPROTO_SCTP, SocketType, SystemOption, name_of
from trioqt.links.base import Ancillary, Bytes, Link, NativeSocket, Sockaddr
from trioqt.links.handshakes import half_open, ignore_newcomers
from trioqt.links.interrupts import protected
from trioqt.links.poller import Poller, Watched, poller_of_this_run

__all__ = [
    "KernelSocket",
    "NativeLink",
    "NativeListener",
    "SctpSocket",
    "drop_unread",
    "kind_of_socket",
    "native_socket",
    "reset_on_close",
    "set_options",
    "set_where_possible",
]

# (on, 0 seconds): close() drops what is unsent and sends a reset.  A pair of ints on Unix, of unsigned shorts on
# Windows.
LINGER = struct.Struct("HH" if hasattr(socket, "SIO_RCVALL") else "ii")
RESET_ON_CLOSE, FINISH_ON_CLOSE = LINGER.pack(1, 0), LINGER.pack(0, 0)


# A new socket that is non-blocking from the beginning saves a system call; Windows and macOS have no such flag.
STREAM = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)

# What is taken at once to be dropped.
BLOCK_SIZE = 65536

# Of the reports about datagrams, so many in one go.
MOST_REPORTS = 64

# struct tcp_info of linux/tcp.h: tcpi_last_data_recv is at 52, in milliseconds.
ARRIVED_AGO = struct.Struct("=52xI")


@protected
class KernelSocket(socket.socket):
    """The kernel's socket, non-blocking, with the names that the native link uses."""

    __slots__ = ()

    # The C methods themselves: a Python method around each would cost a tenth of a microsecond an operation.
    if TYPE_CHECKING:

        def try_recv(self, max_bytes: int, /) -> bytes: ...
        def try_send(self, data: Bytes, /) -> int: ...
        def try_accept(self, /) -> tuple[Self, Sockaddr]: ...
        def try_bind(self, address: Sockaddr, /) -> None: ...
        def try_connect(self, address: Sockaddr, /) -> None: ...
        def try_send_to(self, data: Bytes, address: Sockaddr, /) -> int: ...
        def try_send_message(
            self, buffers: Sequence[Bytes], ancillary: Sequence[Ancillary], flags: int, address: Sockaddr | None, /
        ) -> int: ...
        def try_receive_message(
            self, max_bytes: int, max_ancillary: int, /
        ) -> tuple[bytes, list[Ancillary], int, Sockaddr]: ...
        def option_bytes(self, level: int, option: int, size: int, /) -> bytes: ...
        def interface_index(self, name: str, /) -> int: ...
        def interface_name(self, index: int, /) -> str: ...
    else:
        try_recv = socket.socket.recv
        try_send = socket.socket.send
        try_bind = socket.socket.bind
        try_connect = socket.socket.connect
        try_send_to = socket.socket.sendto
        option_bytes = socket.socket.getsockopt
        interface_index = staticmethod(socket.if_nametoindex)
        interface_name = staticmethod(socket.if_indextoname)

        def try_accept(self, /):
            # As accept() does it, but without a socket object in between that is only detached again, and without
            # enumerations of family and type: these cost 5 us, and the kernel's part 4.
            descriptor, address = self._accept()
            plain = super(socket.socket, self)
            sock = type(self)(plain.family, plain.type, plain.proto, fileno=descriptor)
            sock.setblocking(False)
            return sock, address

        if hasattr(socket.socket, "recvmsg"):
            try_receive_message = socket.socket.recvmsg
            try_send_message = socket.socket.sendmsg
        else:  # Windows: what comes beside a datagram is not known

            def try_receive_message(self, max_bytes, max_ancillary, /):
                data, address = self.recvfrom(max_bytes)
                return data, [], 0, address

            def try_send_message(self, buffers, ancillary, flags, address, /):
                data = b"".join(buffers)
                return self.send(data) if address is None else self.sendto(data, address)

    @classmethod
    def adopt(cls, sock: socket.socket | trio.socket.SocketType) -> KernelSocket:
        """Take over the descriptor of ``sock``, which is detached from it; one of SCTP becomes an ``SctpSocket``."""
        made = SctpSocket if sock.proto == IPPROTO_SCTP else cls
        adopted = made(sock.family, sock.type, sock.proto, fileno=sock.detach())
        adopted.setblocking(False)
        return adopted

    @classmethod
    def open_stream(cls, family: int, proto: int) -> KernelSocket:
        """A new one.  Raises: OSError."""
        made = SctpSocket if proto == IPPROTO_SCTP else cls
        opened = made(family, STREAM, proto)
        if STREAM == socket.SOCK_STREAM:
            opened.setblocking(False)
        return opened

    def drop_reports(self) -> None:
        """What Linux has put beside the datagrams for who has asked for it (ip(7), IP_RECVERR): it ends every wait."""
        queue = getattr(socket, "MSG_ERRQUEUE", None)
        if queue is not None:
            with contextlib.suppress(OSError):
                for _ in range(MOST_REPORTS):
                    self.recvmsg(0, 0, queue)

    def begin_connecting(self, address: Sockaddr) -> Sockaddr | None:
        """Begin; the peer's address if it is connected at once, as over Linux' loopback.  Raises: OSError."""
        try:
            self.try_connect(address)
        except BlockingIOError:
            if sys.platform != "linux":  # Windows may tell an address already that has not answered
                return None
            # To ask saves the wait for what has happened already, 25 us of a short life's 250, and costs half a one.
            try:
                peer: Sockaddr = self.getpeername()
            except OSError:
                return None
            return peer
        return self._peer_or(address)

    async def finish_connecting(self, address: Sockaddr) -> Sockaddr:
        """Wait until it is connected; the peer's address.  Raises: OSError.  Cancelled: only ``close`` is left."""
        await self.wait_writable()
        number = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        return self._peer_or(address)

    def _peer_or(self, asked: Sockaddr) -> Sockaddr:
        """The peer may have reset it already: then its address is the one that was asked for."""
        try:
            return cast("Sockaddr", self.getpeername())
        except OSError:
            return asked

    def wait_readable(self) -> Awaitable[None]:
        return trio.lowlevel.wait_readable(self.fileno())  # noqa: ASYNC105  (the caller awaits it)

    def wait_writable(self) -> Awaitable[None]:
        return trio.lowlevel.wait_writable(self.fileno())  # noqa: ASYNC105

    def arrived_at(self, now: float) -> float | None:
        if sys.platform != "linux":
            return None
        try:
            info = self.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ARRIVED_AGO.size)
        except OSError:
            return None  # MPTCP, for one
        milliseconds: int = ARRIVED_AGO.unpack(info)[0]
        return now - milliseconds / 1000

    def wake(self) -> None:
        trio.lowlevel.notify_closing(self)

    def close(self) -> None:
        # Outside of trio.run, as when the interpreter sweeps up, there is nobody to wake.
        if self.fileno() != -1 and trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self)
        super().close()


# What SCTP is given as one message: Linux refuses one that is larger than SO_SNDBUF (EMSGSIZE), which is 4,608 or more.
SCTP_PIECE = 4096


@protected
class SctpSocket(KernelSocket):
    """The kernel's SCTP socket, one-to-one style (RFC 6458, section 4), as the stream of bytes that TCP is.

    SCTP gives and takes messages; their borders mean nothing here.
    """

    __slots__ = ("_failure",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What ended a call that had moved some messages already.  The kernel tells it once, so it is kept for the next.
        self._failure: OSError | None = None

    if not TYPE_CHECKING:

        def try_recv(self, max_bytes: int, /) -> bytes:
            """As much as there is, of as many messages: so fewer bytes than asked for mean that there are no more."""
            pieces, room = [], max_bytes
            while room:
                try:
                    piece = super().try_recv(room)
                except OSError as exc:
                    self._keep(exc)
                    if not pieces and self._failure is None:
                        raise
                    break
                if not piece:
                    break
                pieces.append(piece)
                room -= len(piece)
            if not pieces:
                self._raise_what_was_kept()
            return b"".join(pieces)

        def try_send(self, data: Bytes, /) -> int:
            self._raise_what_was_kept()
            sent = 0
            for start in range(0, len(data), SCTP_PIECE):
                try:
                    sent += super().try_send(data[start : start + SCTP_PIECE])
                except OSError as exc:
                    if not sent:
                        raise
                    self._keep(exc)
                    break
            return sent

    def _keep(self, exc: OSError) -> None:
        if self._failure is None and not isinstance(exc, BlockingIOError):
            self._failure = exc

    def _raise_what_was_kept(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def kind_of_socket(sock: NativeSocket | socket.socket) -> SocketType:
    """TCP, or SCTP, of a socket that is a stream."""
    return SocketType.SCTP if getattr(sock, "proto", 0) == IPPROTO_SCTP else SocketType.TCP


def reset_on_close(sock: NativeSocket | trio.socket.SocketType, *, reset: bool = True) -> None:
    """From now on closing ``sock`` sends a reset and drops what is unsent, or no more.  Never fails."""
    # It may be closed already.  And macOS refuses every option once the peer has reset the connection; then nobody
    # needs to be told.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE if reset else FINISH_ON_CLOSE)


def drop_unread(sock: NativeSocket | trio.socket.SocketType) -> None:
    """Take what the system holds for ``sock``, for nobody.  Never fails."""
    taken = 0
    with contextlib.suppress(OSError), _native(sock) as native:
        most = native.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)  # a peer that sends on must not keep us here
        while taken < most and (data := native.try_recv(BLOCK_SIZE)):
            taken += len(data)


@contextlib.contextmanager
def _native(sock: NativeSocket | trio.socket.SocketType) -> Iterator[NativeSocket]:
    """``sock`` with the names that the native link uses; it stays whose it is."""
    if hasattr(sock, "try_recv"):
        yield cast("NativeSocket", sock)
    else:
        with KernelSocket.adopt(sock.dup()) as again:
            yield again


def native_socket(sock: trio.socket.SocketType) -> NativeSocket:
    """What trio's socket is below: a simulated one as it is, a kernel one without trio's wrapper."""
    if hasattr(sock, "try_recv"):
        return cast("NativeSocket", sock)
    return KernelSocket.adopt(sock)


def set_where_possible(
    sock: NativeSocket | trio.socket.SocketType | socket.socket, options: Iterable[tuple[int, int, int]]
) -> None:
    """Set options, ``(level, number, value)``, that make a connection better and that it can do without."""
    for level, number, value in options:
        try:
            sock.setsockopt(level, number, value)
        except OSError:
            pass  # an older kernel, or one that a peer's reset has made deaf (macOS)


def set_options(sock: NativeSocket | trio.socket.SocketType, options: Iterable[SystemOption]) -> None:
    """Set what a caller wants.  Raises: OSError, which names the option that the system refuses."""
    for level, number, value in options:
        try:
            sock.setsockopt(level, number, value)
        except OSError as exc:
            reason = f"cannot set {name_of(level, number)} to {value!r}: {reason_of(exc)}"
            raise OSError(exc.errno, reason) if exc.errno is not None else exc from exc


@protected
class NativeLink(Watched, Link):
    """A connected native socket."""

    __slots__ = ("_closed", "_peer", "_poller", "_sock")

    drained: bool
    # The last recv came back short, so the kernel has nothing now: wait at once next time, instead of paying for a
    # BlockingIOError first (1.5 to 2.3 us, where recv with data and send together are 4.4 to 6.6).

    def __init__(
        self, sock: NativeSocket, peer: Sockaddr | None = None, listener: NativeListener | None = None
    ) -> None:
        super().__init__()
        self._sock = sock
        self._peer = peer
        self._closed = False
        self._poller = _poller_for(sock) if listener is None else listener.poller

    async def finish_connecting(self, asked: Sockaddr) -> None:
        """Wait until the kernel's socket, which has begun to, is connected.  Raises: OSError.

        Cancelled: only ``close`` is left.
        """
        assert isinstance(self._sock, KernelSocket)
        self._peer = await self._sock.finish_connecting(asked)

    def fileno(self) -> int:
        return self._sock.fileno()

    def can_be_asked(self) -> bool:
        return True

    def is_drained(self) -> bool:
        return self.drained

    def look_again(self) -> None:
        self.drained = False

    def try_receive(self, max_bytes: int) -> bytes | None:
        try:
            data = self._sock.try_recv(max_bytes)
        except BlockingIOError:
            self.drained = True
            return None
        self.drained = len(data) < max_bytes
        return data

    def wait_receivable(self, max_bytes: int) -> Awaitable[None]:
        if self._closed:
            raise trio.ClosedResourceError("the link is closed")
        poller = self._poller
        if poller is not None and self.drained:
            if poller.shares and self.descriptor != -1:  # as Poller.wait, with a call less for each message
                return self.wait_for_edge()
            return poller.wait(self)
        return self._sock.wait_readable()

    def wake(self) -> None:
        if self._poller is not None:
            self._poller.wake(self)
        self._sock.wake()

    async def look(self) -> None:
        """The system can be asked at any time."""

    def drop_unread(self) -> None:
        drop_unread(self._sock)

    def try_send(self, data: Bytes) -> int:
        try:
            return self._sock.try_send(data)
        except BlockingIOError:
            return 0

    def wait_sendable(self) -> Awaitable[None]:
        self._check_open()
        return self._sock.wait_writable()

    async def send(self, data: Bytes) -> int:
        while True:
            await self.wait_sendable()
            self._check_open()  # it may have been closed after the wait had ended
            sent = self.try_send(data)
            if sent:
                return sent

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the link is closed")

    async def finish_sending(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool = False, waited_on: bool = True) -> None:
        if self._closed:
            return
        self._closed = True
        if self._poller is not None and self.descriptor != -1:
            self._poller.wake(self)
            self._poller.forget(self)
        if reset:
            reset_on_close(self._sock)
        if waited_on or self._poller is None:
            self._sock.close()
        else:  # trio need not be asked who waits, which costs 3 us; nor the standard library who has files of it
            socket.SocketType.close(self._sock)  # type: ignore[arg-type]

    def has_goodbye(self) -> bool:
        return False

    async def say_goodbye(self, *, linger: float = 0) -> None:
        """TCP has none but its close."""

    def most_unread(self) -> int:
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def local_address(self) -> Sockaddr | None:
        return cast("Sockaddr", self._sock.getsockname())

    def peer_address(self) -> Sockaddr | None:
        # Kept from the beginning: the kernel forgets it when the peer resets.
        return self._peer

    def native(self) -> NativeSocket:
        return self._sock


def _poller_for(sock: NativeSocket) -> Poller | None:
    return poller_of_this_run() if isinstance(sock, KernelSocket) else None


# So many texts of addresses are looked for.  Not sys.intern: under Python 3.12 that keeps each address for ever, 94
# bytes for each that a peer can make up.
TEXTS = 1024


@functools.lru_cache(TEXTS)
def _one_text(host: str) -> str:
    """The connections of one client, or of one proxy in front, all keep the same text."""
    return host


@protected
class NativeListener:
    """A listening native socket."""

    __slots__ = ("_closed", "_sock", "poller")

    def __init__(self, sock: NativeSocket) -> None:
        self._sock = sock
        self._closed = False
        self.poller: Poller | None = _poller_for(sock)
        """That of the links, which need not look for it one by one."""

    def try_accept(self) -> tuple[Link, Sockaddr]:
        sock, (host, *rest) = self._sock.try_accept()
        peer = (_one_text(host), *rest)
        link = NativeLink(sock, peer, self)
        # Most clients speak first, and by the time that the handler asks for it that is there.  To try is cheaper then
        # than to wait by 10 us, and dearer by 2 where nothing is there yet.
        link.drained = False
        return link, peer

    async def wait_acceptable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the listener is closed")
        await self._sock.wait_readable()

    def ignore_newcomers(self) -> bool:
        return ignore_newcomers(self._sock)

    def half_open(self) -> frozenset[object]:
        return half_open(self._sock)

    def close(self) -> None:
        self._closed = True
        self._sock.close()

    def local_address(self) -> Sockaddr:
        return cast("Sockaddr", self._sock.getsockname())

    def native(self) -> NativeSocket:
        return self._sock
