"""Bytes over a kernel socket, or over a simulated one that offers the same calls.

Non-blocking calls are made at once; only when they would block does a task wait.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, cast

import trio

from trioqt.links.base import Ancillary, Bytes, Link, NativeSocket, Sockaddr
from trioqt.links.interrupts import protected
from trioqt.links.newcomers import ignore_newcomers

__all__ = ["KernelSocket", "NativeLink", "NativeListener", "native_socket", "reset_on_close", "set_where_possible"]

# (on, 0 seconds): close() drops what is unsent and sends a reset.  A pair of ints on Unix, of unsigned shorts on
# Windows.
LINGER = struct.Struct("HH" if hasattr(socket, "SIO_RCVALL") else "ii")
RESET_ON_CLOSE, FINISH_ON_CLOSE = LINGER.pack(1, 0), LINGER.pack(0, 0)


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
        """Take over the descriptor of ``sock``, which is detached from it."""
        adopted = cls(sock.family, sock.type, sock.proto, fileno=sock.detach())
        adopted.setblocking(False)
        return adopted

    def try_accept(self) -> tuple[KernelSocket, Sockaddr]:
        sock, address = self.accept()
        return self.adopt(sock), address

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


def reset_on_close(sock: NativeSocket | trio.socket.SocketType, *, reset: bool = True) -> None:
    """From now on closing ``sock`` sends a reset and drops what is unsent, or no more.  Never fails."""
    # It may be closed already.  And macOS refuses every option once the peer has reset the connection; then nobody
    # needs to be told.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE if reset else FINISH_ON_CLOSE)


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
        with contextlib.suppress(OSError):  # an older kernel, or one that a peer's reset has made deaf (macOS)
            sock.setsockopt(level, number, value)


@protected
class NativeLink(Link):
    """A connected native socket."""

    __slots__ = ("_closed", "_drained", "_peer", "_sock")

    def __init__(self, sock: NativeSocket, peer: Sockaddr | None = None) -> None:
        self._sock = sock
        self._peer = peer
        self._closed = False
        # The last recv came back short, so the kernel has nothing now: wait at once next time, instead of paying for
        # a BlockingIOError first (1.5 to 2.3 us, where recv with data and send together are 4.4 to 6.6).
        self._drained = True

    def can_be_asked(self) -> bool:
        return True

    def is_drained(self) -> bool:
        return self._drained

    def look_again(self) -> None:
        self._drained = False

    def try_receive(self, max_bytes: int) -> bytes | None:
        try:
            data = self._sock.try_recv(max_bytes)
        except BlockingIOError:
            self._drained = True
            return None
        self._drained = len(data) < max_bytes
        return data

    def wait_receivable(self, max_bytes: int) -> Awaitable[None]:
        if self._closed:
            raise trio.ClosedResourceError("the link is closed")
        return self._sock.wait_readable()

    def wake(self) -> None:
        self._sock.wake()

    async def look(self) -> None:
        """The system can be asked at any time."""

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

    def close(self, *, reset: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        if reset:
            reset_on_close(self._sock)
        self._sock.close()

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


@protected
class NativeListener:
    """A listening native socket."""

    __slots__ = ("_closed", "_sock")

    def __init__(self, sock: NativeSocket) -> None:
        self._sock = sock
        self._closed = False

    def try_accept(self) -> tuple[Link, Sockaddr]:
        sock, (host, *rest) = self._sock.try_accept()
        # Interned, because the connections of one client, or of one proxy in front, all keep the same text.
        peer = (sys.intern(host), *rest)
        return NativeLink(sock, peer), peer

    async def wait_acceptable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the listener is closed")
        await self._sock.wait_readable()

    def ignore_newcomers(self) -> bool:
        return ignore_newcomers(self._sock)

    def close(self) -> None:
        self._closed = True
        self._sock.close()

    def local_address(self) -> Sockaddr:
        return cast("Sockaddr", self._sock.getsockname())

    def native(self) -> NativeSocket:
        return self._sock
