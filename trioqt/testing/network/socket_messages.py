"""Bytes and datagrams through a simulated socket: the calls of trio's socket that receive and send.

A base class of the socket and not a part of it, because these are the socket's own methods; what it needs of the socket
is declared, and it keeps nothing.
"""

from __future__ import annotations

import errno
import operator
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import trio

from trioqt.links.base import Ancillary, Bytes
from trioqt.links.interrupts import protected
from trioqt.testing.network.host import fail
from trioqt.testing.network.options import Options
from trioqt.testing.network.socket_addresses import destination, sockaddr
from trioqt.testing.network.stream_ends import StreamListener
from trioqt.testing.network.udp_messages import known_beside, said_beside
from trioqt.testing.network.unix import UnixEnd
from trioqt.testing.network.waiting import try_and_wait

__all__ = ["Messages"]

Buffer = Any
"""Anything with the buffer protocol; `collections.abc.Buffer` is of Python 3.12."""

MAX_DATAGRAM = 65535


@protected
class Messages(trio.socket.SocketType):
    """What receives and sends; the rest of the socket says what is below it, and waits."""

    end: Any
    """What is below it."""
    options: Options

    async def wait_readable(self) -> None:
        """Wait until a receive would not block."""
        raise NotImplementedError

    async def wait_writable(self) -> None:
        """Wait until a send would not block."""
        raise NotImplementedError

    async def resolve(self, address: Any) -> Any:
        """The address, looked up if it is a name."""
        raise NotImplementedError

    def try_recv(self, max_bytes: int, /) -> bytes:
        """What has arrived, up to ``max_bytes``.  Raises: BlockingIOError if nothing has; OSError."""
        data: bytes = self.end.read(max_bytes)
        return data

    def try_send(self, data: Bytes, /) -> int:
        """Hand over what there is room for.  Raises: BlockingIOError if there is none; OSError."""
        sent: int = self.end.send(data)
        return sent

    def try_send_to(self, data: Bytes, address: Any, /) -> int:
        return self.send_now(data, 0, address)

    def try_send_message(
        self, buffers: Sequence[Bytes], ancillary: Sequence[Ancillary], flags: int, address: Any, /
    ) -> int:
        return self.send_now(b"".join(buffers), flags, address, ancillary)

    def try_receive_message(self, max_bytes: int, max_ancillary: int, /) -> tuple[bytes, list[Ancillary], int, Any]:
        return self._receive_datagram(max_bytes, max_ancillary, 0)

    def _receive_datagram(self, count: int, room: int, flags: int) -> tuple[bytes, list[Ancillary], int, Any]:
        arrival = self.end.read(peek=bool(flags & socket.MSG_PEEK))
        known, told = known_beside(arrival, self.family, self.options, room)
        if len(arrival.data) > count:
            told |= socket.MSG_TRUNC
        return arrival.data[:count], known, told, sockaddr(self.family, arrival.source)

    def receive_now(self, count: int, flags: int) -> bytes:
        refuse_urgent(flags)
        if count == 0:
            return b""  # Python does not even ask the system
        if self.type == socket.SOCK_DGRAM:
            return self.receive_from_now(count, flags)[0]
        if isinstance(self.end, StreamListener):
            fail(errno.ENOTCONN if self.family != socket.AF_UNIX else errno.EINVAL)
        data: bytes = self.end.read(count, peek=bool(flags & socket.MSG_PEEK))
        return data

    def receive_from_now(self, count: int, flags: int) -> tuple[bytes, Any]:
        if self.type != socket.SOCK_DGRAM:
            data = self.receive_now(count, flags)
            return data, self.end.peer_name if isinstance(self.end, UnixEnd) else None
        arrival = self.end.read(peek=bool(flags & socket.MSG_PEEK))
        return arrival.data[:count], sockaddr(self.family, arrival.source)

    def send_now(self, data: Any, flags: int = 0, address: Any = None, said: Sequence[Ancillary] = ()) -> int:
        refuse_urgent(flags)
        view = memoryview(data)
        if self.type == socket.SOCK_DGRAM:
            refuse_collecting(flags)
            target = None if address is None else destination(self.family, self.options, address)
            sent: int = self.end.send(view.tobytes(), target, said_beside(said))
            return sent
        if isinstance(self.end, StreamListener):
            fail(errno.EPIPE if self.family != socket.AF_UNIX else errno.ENOTCONN)
        if address is not None and isinstance(self.end, UnixEnd):
            fail(errno.EISCONN)
        return self.try_send(view.cast("B") if view.nbytes else view)

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        count = not_negative(buflen, "recv")
        return await try_and_wait(self.wait_readable, self.receive_now, count, flags)

    async def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        view, count = writable_view(buffer, nbytes)
        data = await try_and_wait(self.wait_readable, self.receive_now, *self._real_length(count, flags))
        view[: len(data)] = data[:count]
        return len(data)

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        count = not_negative(bufsize, "recvfrom")
        return await try_and_wait(self.wait_readable, self.receive_from_now, count, flags)

    async def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        view, count = writable_view(buffer, nbytes)
        data, source = await try_and_wait(self.wait_readable, self.receive_from_now, *self._real_length(count, flags))
        view[: len(data)] = data[:count]
        return len(data), source

    def _real_length(self, count: int, flags: int) -> tuple[int, int]:
        """MSG_TRUNC: a datagram's length is told, not how much of it there was room for."""
        whole = count and self.type == socket.SOCK_DGRAM and flags & getattr(socket, "MSG_TRUNC", 0)
        return (MAX_DATAGRAM if whole else count), flags

    async def send(self, data: Buffer, flags: int = 0, /) -> int:
        return await try_and_wait(self.wait_writable, self.send_now, data, flags)

    async def sendto(self, *args: Any) -> int:
        data, *flags, address = args
        address = await self.resolve(address)
        return await try_and_wait(self.wait_writable, self.send_now, data, *(flags or (0,)), address)

    if sys.platform != "win32":

        async def recvmsg(
            self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
        ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
            count = not_negative(bufsize, "recvmsg")
            room = not_negative(ancbufsize, "recvmsg")
            return await try_and_wait(self.wait_readable, self.receive_message_now, count, flags, room)

        async def recvmsg_into(
            self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
        ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
            views = [memoryview(buffer).cast("B") for buffer in buffers]
            count = sum(map(len, views))
            data, ancillary, returned, source = await try_and_wait(
                self.wait_readable, self.receive_message_now, count, flags, ancbufsize
            )
            rest = data
            for view in views:
                view[: len(rest)] = rest[: len(view)]
                rest = rest[len(view) :]
            return len(data), ancillary, returned, source

        def receive_message_now(
            self, count: int, flags: int, room: int
        ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
            if self.type != socket.SOCK_DGRAM:
                data, source = self.receive_from_now(count, flags)
                return data, [], 0, source
            return self._receive_datagram(count, room, flags)

        async def sendmsg(
            self,
            buffers: Iterable[Buffer],
            ancdata: Iterable[tuple[int, int, Buffer]] = (),
            flags: int = 0,
            address: Any = None,
            /,
        ) -> int:
            data = b"".join(bytes(memoryview(buffer)) for buffer in buffers)
            said = [(level, kind, bytes(memoryview(value))) for level, kind, value in ancdata]
            if said and self.type != socket.SOCK_DGRAM:
                raise NotImplementedError("simulated streams carry no ancillary data")
            if address is not None:
                address = await self.resolve(address)
            return await try_and_wait(self.wait_writable, self.send_now, data, flags, address, said)


def refuse_urgent(flags: int) -> None:
    if flags & socket.MSG_OOB:
        raise NotImplementedError("simulated sockets carry no urgent data")


def refuse_collecting(flags: int) -> None:
    """To a stream MSG_MORE is a hint that changes no byte; of datagrams it makes one of several."""
    if flags & getattr(socket, "MSG_MORE", 0):
        raise NotImplementedError("simulated sockets do not collect a datagram from several calls (MSG_MORE)")


def not_negative(count: int, call: str) -> int:
    """A float fails at once (TypeError), as on a real socket."""
    count = operator.index(count)
    if count < 0:
        raise ValueError(f"negative buffersize in {call}")
    return count


def writable_view(buffer: Buffer, nbytes: int) -> tuple[memoryview, int]:
    view = memoryview(buffer).cast("B")
    if view.readonly:
        raise TypeError("a buffer to receive into must be writable")
    count = not_negative(nbytes, "recv_into")
    if count > len(view):
        raise ValueError("buffer too small for requested bytes")
    return view, count or len(view)
