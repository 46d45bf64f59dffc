"""Bytes over what is nothing but a trio stream: TLS, a memory pair, a unix socket.

A stream cannot be asked without waiting, so ``try_receive`` has only what an earlier wait brought, and ``try_send``
takes nothing: whatever is written is queued and sent by a task.
"""

from __future__ import annotations

from typing import Any

import trio

from trioqt.links.base import Bytes, Link, NativeSocket, Resettable, Sockaddr
from trioqt.links.interrupts import protected
from trioqt.links.native import reset_on_close

__all__ = ["StreamLink"]


@protected
class StreamLink(Link):
    """A trio stream."""

    __slots__ = ("_arrived", "_closed", "_goodbye", "_stream", "home")

    def __init__(self, stream: trio.abc.Stream, home: trio.Nursery | None = None) -> None:
        self._stream = stream
        self.home: trio.Nursery | None = home  # where the closing task runs; None: nobody has entered the socket yet
        self._closed = False
        self._goodbye = trio.CancelScope()  # of say_goodbye()
        self._arrived: bytes | None = None  # what a wait brought and nobody has taken; b"" is the peer's end

    def is_drained(self) -> bool:
        return self._arrived is None

    def look_again(self) -> None:
        """A stream that has nothing must be asked anyway."""

    def try_receive(self, max_bytes: int) -> bytes | None:
        arrived = self._arrived
        if not arrived:
            return arrived
        self._arrived = arrived[max_bytes:] or None
        return arrived[:max_bytes]

    async def wait_receivable(self, max_bytes: int) -> None:
        if self._arrived is None:
            self._arrived = bytes(await self._stream.receive_some(max_bytes))
        else:
            await trio.lowlevel.checkpoint()

    def try_send(self, data: Bytes) -> int:
        return 0

    async def send(self, data: Bytes) -> int:
        await self._stream.send_all(data)
        return len(data)

    async def finish_sending(self) -> None:
        if not isinstance(self._stream, trio.abc.HalfCloseableStream):
            raise NotImplementedError("the stream has no send_eof")
        # Shielded, because a stream's send_eof does not say what is so after a cancellation.  It cannot take long:
        # what was queued is sent.
        with trio.CancelScope(shield=True):
            await self._stream.send_eof()

    def close(self, *, reset: bool = False) -> None:
        if reset:
            _close_by_reset(self._stream)
        if self._closed:
            # To abort what still says goodbye, which may take for ever: a cancelled aclose closes forcefully.
            self._goodbye.cancel(reason="the link was closed")
            return
        self._closed = True
        # A trio stream has no sync close.  A task does it, which ends within a step or two, as a forceful close never
        # waits; in the socket's nursery, so that the stream is closed when the block is left.
        try:
            if self.home is not None:
                self.home.start_soon(_close_forcefully, self._stream)
                return
        except RuntimeError:
            pass  # that nursery has ended
        trio.lowlevel.spawn_system_task(_close_forcefully, self._stream)

    async def say_goodbye(self) -> None:
        if not self._closed:
            self._closed = True
            with self._goodbye:
                await self._stream.aclose()

    def local_address(self) -> Sockaddr | None:
        return None

    def peer_address(self) -> Sockaddr | None:
        return None

    def native(self) -> NativeSocket | None:
        return None


def _close_by_reset(stream: Any) -> None:
    """Closing ``stream`` shall not look like a clean end, if there is a TCP connection at its bottom.

    A memory pair has no other end than a clean one, and neither has what we do not know.
    """
    while True:
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        elif isinstance(stream, trio.StapledStream):
            stream = stream.send_stream
        elif isinstance(stream, trio.SocketStream):
            return reset_on_close(stream.socket)
        elif isinstance(stream, Resettable):
            return stream.abort(reset=True)
        else:
            return None


@trio.lowlevel.enable_ki_protection
async def _close_forcefully(stream: trio.abc.Stream) -> None:
    try:
        await trio.aclose_forcefully(stream)
    except (OSError, trio.BrokenResourceError):
        pass  # it is gone, which is all that was wanted
