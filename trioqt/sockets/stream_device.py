"""A connection as a device, whatever it connects to: it can be read and written, and ends without losing a byte.

As trio's ``Stream`` is a ``ReceiveStream`` and a ``SendStream``, a device is a ``StreamReader`` and a ``StreamWriter``,
which have the verbs and know nothing of each other.  What belongs to both is here: how it is made, and its end.
"""

from __future__ import annotations

import errno
import math
import socket

import trio

from trioqt.core.errors import ErrorKind, SocketError, is_cancellation, kind_of
from trioqt.core.states import Input
from trioqt.links.base import Link
from trioqt.links.interrupts import protected
from trioqt.sockets.arguments import check_seconds, check_size
from trioqt.sockets.connection import BLOCK_SIZE, BLOCKS_AT_ONCE, CLOSING, CONNECTED, ENDS, LINGER
from trioqt.sockets.stream_reader import StreamReader
from trioqt.sockets.stream_writer import StreamWriter

__all__ = ["StreamDevice"]


@protected
class StreamDevice(StreamReader, StreamWriter, trio.abc.HalfCloseableStream):
    """A connection with Qt's verbs and trio's.  Qt: QIODevice.

    Args: as for ``TcpSocket``.
    """

    __slots__ = ()

    def __init__(
        self,
        parent: trio.Nursery | None = None,
        *,
        read_buffer_size: int = 65536,
        write_buffer_size: int = 65536,
        half_open: bool = True,
        flush_timeout: float = 10.0,
    ) -> None:
        super().__init__(
            parent,
            check_size(read_buffer_size, "read_buffer_size"),
            check_size(write_buffer_size, "write_buffer_size", least=1),
            bool(half_open),
            check_seconds(flush_timeout, "flush_timeout"),
        )

    # -- its end in order -------------------------------------------------------------------

    async def aclose(self) -> None:
        """``disconnect_from_host``, and every later call raises ``trio.ClosedResourceError``.

        Raises: SocketError if queued bytes could not be sent, as ``disconnect_from_host``.
        Cancelled: closed all the same, as by ``abort()``.
        Qt: close().
        """
        self._check_run()
        self._open = False
        try:
            self._check_sent(again=await self._disconnect(math.inf, drop=True))
        finally:
            self._close()

    async def _leave(self) -> None:
        await self._disconnect(self._flush_timeout)
        self._check_sent(again=False)

    async def _disconnect(self, flush_timeout: float, *, keep: bool = False, drop: bool = False) -> bool:
        """End the connection in order.  See ``TcpSocket.disconnect_from_host``.

        Args:
          flush_timeout: How long the peer may take nothing.
          keep: What the system holds is to be read after the end.
          drop: Nothing is to be read any more, not even what the buffer holds.

        Returns: Was there a connection to end?
        Raises: SocketError: Bytes were queued for a connection that is not made now.
        """
        self._check_call()
        dropped = ""
        try:
            await trio.lowlevel.checkpoint()
            self._take_offered()
            link = self._link
            if self._attempt is not None:
                dropped = self._drop_attempt(Input.DISCONNECT)
                self._changed()
            elif self._bound is not None:
                self._machine.feed(Input.DISCONNECT, self._tell)
                if not self._bound.is_spare():
                    self._machine.feed(Input.FLUSHED, self._tell)
                self._unbind()
            elif link is not None:
                if self._machine.state is CONNECTED:
                    await self._end_in_order(link, flush_timeout, keep, drop)
                if self._machine.state is CLOSING and self._link is link:  # another task, or half_open=False, is at it
                    await self._flush(link, flush_timeout)
                    with trio.move_on_after(flush_timeout) as scope:
                        while self._machine.state is CLOSING and self._link is link:
                            await self._wait_changed()
                    if scope.cancelled_caught and self._link is link:
                        self._goodbye_failed(flush_timeout)
        except BaseException as exc:
            self.abort(reset=not is_cancellation(exc))
            raise
        if dropped:
            raise SocketError(ErrorKind.UNFINISHED_SOCKET_OPERATION, dropped)
        return link is not None

    def _check_sent(self, *, again: bool) -> None:
        """Raise the failure that cost queued bytes.

        Args:
          again: Even if a call has raised it already.
        """
        if self._generation.unsent and self._failure is not None and (again or not self._failure.told):
            self._raise_failure()

    async def _end_in_order(self, link: Link, flush_timeout: float, keep: bool, drop: bool) -> None:
        # What arrived before this end can still be read, in our buffer or in the system's.
        waiting = self._receiving and not self._parked  # then the system is not asked here
        self._pull(BLOCK_SIZE * BLOCKS_AT_ONCE)
        if keep and self._link is link:
            self._pull_all(link)
        if self._link is not link or self._machine.state is not CONNECTED:
            return  # and the pull found that it had ended, or has begun to
        # Then the kernel may hold more, or more is under way; and closing would reset the connection, which may cost
        # the peer the last thing we said.
        unread = len(self._read_buffer) > 0
        if drop:
            self._drop_unread()
        self._generation.ended_by = trio.lowlevel.current_task()
        self._machine.feed(Input.DISCONNECT, self._tell)
        self._update_direct()
        self._update_watcher()
        self._changed()
        await self._flush(link, flush_timeout)
        if self._receiving and not self._parked:
            # A task waits on the link, and would be the one to hear of bytes that nobody has read.  In the first turn
            # the system is asked for it, in the second it has taken them.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        if self._link is not link:
            return
        unread = self._take_left(link, keep and waiting) or unread or len(self._read_buffer) > 0
        if unread and not self._peer_finished:
            await self._linger(link)
        with trio.move_on_after(flush_timeout) as scope:
            try:
                await link.say_goodbye()
            except ENDS:
                pass  # over TLS the goodbye may fail; everything queued had been sent
        if self._link is link:
            if scope.cancelled_caught:
                self._goodbye_failed(flush_timeout)
            else:
                self._end_link(Input.FLUSHED)

    def _pull_all(self, link: Link) -> None:
        """Take what the system holds, past the buffer's bound; but a peer that sends on cannot keep us here."""
        before, most = -1, self._system_holds(link) + len(self._read_buffer)
        while before < len(self._read_buffer) < most and self._link is link:
            before = len(self._read_buffer)
            self._pull(most, bounded=False)

    def _system_holds(self, link: Link) -> int:
        """How many bytes the system can hold at most for us to read."""
        native = link.native()
        return BLOCK_SIZE if native is None else native.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def _goodbye_failed(self, timeout: float) -> None:
        """The stream below took everything and then did not end: what it may hold back, as TLS does, is lost."""
        reason = f"the stream did not end within {timeout:g} s, not all may have been sent"
        exc = TimeoutError(errno.ETIMEDOUT, reason)
        self._set_failure(kind_of(exc), f"the connection was lost: {reason}", exc)
        self._end_link(Input.WRITE_FAILED, reset=True)
        self._generation.unsent = True

    def _take_left(self, link: Link, keep: bool) -> bool:
        """Has something come that nobody has read?  It is kept for after the end, or else a part of it is gone."""
        if self._receiving and not self._parked:
            return False
        most, came = self._system_holds(link), 0
        try:
            while came < most and (data := link.try_receive(BLOCK_SIZE)) is not None:
                came += len(data)
                if not keep:
                    break
                self._absorb(data)
                if not data:
                    break
        except OSError:
            return False  # a reset: lingering is of no use, and everything queued had been sent
        return came > 0

    async def _flush(self, link: Link, flush_timeout: float) -> None:
        """Wait until the queue is sent or the connection has ended; fail if the peer takes nothing for so long."""
        with trio.move_on_after(flush_timeout) as scope:
            if flush_timeout == self._flush_timeout:
                self._flush_scope = scope
            while self._queue and self._link is link:
                await self._wait_changed()
        self._flush_scope = None
        if scope.cancelled_caught and self._link is link:
            reason = f"the peer took nothing for {flush_timeout:g} s, {len(self._queue)} bytes were not sent"
            self._fail(TimeoutError(errno.ETIMEDOUT, reason), Input.WRITE_FAILED)

    async def _linger(self, link: Link) -> None:
        """Finish sending, then wait for the peer's end, dropping what it sends, for at most ``LINGER`` seconds."""
        if link.native() is None:
            return  # closing a stream in order is the stream's own business
        try:
            with trio.move_on_after(LINGER):
                if not self._send_finished:
                    await link.finish_sending()
                while not self._peer_finished and self._link is link:
                    if self._watcher_waits or (self._receiving and not self._parked):
                        await self._wait_changed()
                    elif not await self._receive(link, BLOCK_SIZE):
                        return
        except (OSError, trio.ClosedResourceError):
            pass  # it ended otherwise, and everything queued had been sent
