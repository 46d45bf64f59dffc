"""The writing verbs of a stream: Qt's, which queue, and trio's, which wait for room.

What they do to bytes is here; who sends what is queued is ``traffic.py``.
"""

from __future__ import annotations

from _thread import get_ident
from collections import deque
from typing import NoReturn

import trio

from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.events import BytesWritten
from trioqt.core.states import Input
from trioqt.links.base import ENDS, Link
from trioqt.links.interrupts import protected
from trioqt.sockets.arguments import check_char
from trioqt.sockets.connection import BLOCK_SIZE, CONNECTED
from trioqt.sockets.corks import corks_of_this_run
from trioqt.sockets.generation import Generation
from trioqt.sockets.traffic import Traffic

__all__ = ["StreamWriter"]

# Answers are collected up to so many bytes.  A send of one short line costs 4.6 us, and all of trioqt's own work on
# the line 3: with a send for each, a server of pipelined lines did 2.4 x raw trio, collecting it does more than 4.
CORK_SIZE = 16384

FULL = "write_buffer_size bytes are queued: await send_all(), which waits for room"


@protected
class StreamWriter(Traffic):
    """A connection that can be written to.  Qt: QIODevice."""

    __slots__ = ()

    # -- writing: queue only / sending: waits -----------------------------------------------
    #
    # write may be called at any time from any task: it goes out whole, between messages.

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send ``data`` now as far as the kernel takes it, queue the rest.  Returns ``len(data)``, in bytes.

        The unsent rest of anything but ``bytes`` is copied before this returns.  While you work through bytes that have
        arrived, as when one block brought many lines, short answers are collected, and go out together: with the answer
        to the last of them, when 16 KiB are there, or at the latest when other tasks get their turn.

        While looking up or connecting it is queued, and sent once CONNECTED.  If there will be no connection, because
        the attempt failed or was dropped, neither it nor anything else of that queue is ever sent; the failure, or the
        orderly end that dropped the attempt, tells so by its SocketError, ``ErrorOccurred`` in any case, and a reset to
        a peer that was connected already.  While CLOSING it is queued behind what is still to be sent, and refused if
        there is nothing.

        Raises:
          trio.WouldBlock: ``write_buffer_size`` bytes are queued already; nothing was taken.
          SocketError: The failure that ended the connection or the attempt; OPERATION only if there was none.
          trio.ClosedResourceError: The socket is closed, sending is finished, or the connection was aborted here, or
            ended by another task.
          TypeError: Not bytes.
        Qt: write().  There, nothing is sent before control returns to the event loop, and the queue has no limit.
        """
        corked = self._corked
        if corked is not None and type(data) is bytes and data and self._parent is None and get_ident() == self._thread:
            # A shortcut for an answer behind others, which are collected.
            corked.append(data)
            queue, buffer, size = self._queue, self._read_buffer, len(data)
            queue.size = collected = queue.size + size
            was_last = buffer.lines is None and not buffer
            if was_last or collected >= CORK_SIZE or collected >= self._write_buffer_size:
                self._send_collected()
            return size
        queue = self._queue
        if get_ident() != self._thread:
            self._check_run()
        if type(data) is bytes:
            size = len(data)
        else:
            data = _view(data)
            size = len(data)
        link = self._link
        if (
            link is None
            or self._machine.state is not CONNECTED
            or self._send_finished
            or (self._parent is not None and not self._in_scope())
        ):
            return self._write_early(data)
        sent = 0
        # To be read, so more is likely to be written.
        buffer = self._read_buffer
        more = bool(buffer.data) and not self._unseen and len(buffer) > buffer.ahead
        if queue.size:
            if self._corked is None and queue.size >= self._write_buffer_size:
                raise trio.WouldBlock(FULL)
        elif more and 0 < size < CORK_SIZE and not self._sending:
            self._check_run()
            corks_of_this_run().add(self)
            self._corked = queue.pieces = deque()
        else:
            try:
                sent = link.try_send(data)
            except OSError as exc:
                self._fail(exc, Input.WRITE_FAILED)
                self._raise_failure()
            if sent and self._subscriptions:
                self._post(BytesWritten(sent))
        if sent < size:
            if self._drain_scope is None and self._corked is None:
                self._check_run()  # once for all that is queued until then
            rest = data if type(data) is bytes else bytes(data)
            queue.append(memoryview(rest)[sent:] if sent else rest)
            if self._corked is not None:
                if more and queue.size < CORK_SIZE and queue.size < self._write_buffer_size:
                    return size
                self._send_collected()
            elif self._drain_scope is None:
                self._start_drainer()
        return size

    def _send_collected(self) -> None:
        """Send what was collected up to the last answer; if that finds the connection lost, the call of that raises."""
        corked, link, queue = self._corked, self._link, self._queue
        if corked is not None and link is not None and queue.size <= BLOCK_SIZE:
            # A shortcut past _uncork, with six calls less: the kernel mostly takes them all.
            self._corked = None
            try:
                sent = link.try_send(b"".join(corked))
            except OSError as exc:
                self._fail(exc, Input.WRITE_FAILED)
                self._raise_failure()
            if sent == queue.size:
                queue.clear()
                self._sent(sent)
                return
            self._corked = corked
            if sent:
                queue.advance(sent)
                self._sent(sent)
        self._uncork()
        if self._link is None:
            self._raise_failure()

    def _write_early(self, data: bytes | memoryview) -> int:
        """``write`` before or after CONNECTED: queue ``data`` if it will be sent, else say why not."""
        # An end that waits for the queue waits for this too, as Qt's does.  But send_all is refused then: a task that
        # sends on and on would keep the connection from ever ending.
        self._check_run()
        joins = (
            self._link is not None
            and self._queue.size > 0
            and self._generation.failure is None
            and not self._send_finished
        )
        if not self._in_scope() or not (self._attempt is not None or joins):
            self._refuse_sending("write")
        if self._queue.size >= self._write_buffer_size:
            raise trio.WouldBlock(FULL)
        if data:
            if self._attempt is not None:
                self._attempt.reset_when_dropped()
            self._queue.append(bytes(data))
        return len(data)

    def put_char(self, char: bytes) -> None:
        """``write`` one byte.  Raises: as ``write``; ValueError.  Qt: putChar()."""
        self.write(check_char(char))

    def flush(self) -> bool:
        """Try the kernel with what is queued; True if it took any.  The rest goes out by itself.

        Raises: SocketError if that finds the connection lost.
        Qt: flush().  There, while connecting with something queued, it ends the attempt; here it is False.
        """
        self._check_call()
        link = self._link
        if link is None:
            return False
        before = len(self._queue)
        self._send_queued(link)
        if self._link is None:
            self._raise_failure()
        return len(self._queue) < before

    def bytes_to_write(self) -> int:
        """How many bytes are queued, because the kernel does not take them or there is no connection yet.

        Qt: bytesToWrite().
        """
        self._check_call()
        self._uncork()
        return len(self._queue)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Wait until there is room in the queue, then ``write(data)``, whole.

        Returned: it is queued, and is sent whole and in order unless the connection fails or you end it early.  While
        looking up or connecting it waits for nothing but room; an orderly end drops the attempt and the queue with it,
        and raises that.

        Raises:
          SocketError, trio.ClosedResourceError, TypeError: as ``write``.
          trio.BusyResourceError: Another task is in ``send_all``, ``wait_send_all_might_not_block`` or ``send_eof``.
        Cancelled: not one byte of ``data`` is sent, so no cancellation can leave half a message in front of your next.
        Qt: write, with waitForBytesWritten while too much is queued.
        """
        if type(data) is not bytes:
            data = _view(data)
        self._begin_sending()
        try:
            self._uncork()
            if self._queue or self._attempt is not None:
                await self._room_to_send(early=True)
                self.write(data)
            elif self._link is None:
                await self._refuse_at_once("send")
            else:
                # Look for cancellation, send, then let others run, in this order: the peer works on it while they do,
                # and nothing after the write can raise Cancelled.
                await trio.lowlevel.checkpoint_if_cancelled()
                try:
                    self.write(data)
                finally:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                self._look_again()
        finally:
            self._sending = False

    def _look_again(self) -> None:
        """Time has passed since the system was last found empty: the next receive tries before it waits."""
        if self._link is not None:
            self._link.look_again()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``write`` would not raise ``trio.WouldBlock``; while looking up or connecting, until CONNECTED.

        Raises: as ``send_all``.
        Cancelled: nothing has happened.
        """
        self._begin_sending()
        try:
            await self._room_to_send()
        finally:
            self._sending = False

    async def wait_for_bytes_written(self) -> None:
        """Wait until the queue is empty: the kernel has everything.  While looking up or connecting, connect first.

        Raises:
          SocketError: The failure that ended the connection or the attempt; OPERATION if there was none.
          trio.ClosedResourceError: The socket is closed, or the connection was ended here while bytes were queued, or
            the attempt; or another task had ended it before.
        Cancelled: nothing has happened; the queue goes on.
        Qt: waitForBytesWritten().  There, some bytes are enough, and an empty queue is a failure.
        """
        self._check_call()
        if self._link is None and self._attempt is None:
            await self._refuse_at_once("wait for bytes to be written")
        generation = self._generation
        await trio.lowlevel.checkpoint()
        while (self._attempt is not None or self._queue) and self._generation is generation:
            await self._wait_changed()
        # Its bytes may be sent though another attempt has begun meanwhile.
        if generation.unsent or not generation.connected:
            self._refuse("wait for bytes to be written", began=generation)

    async def send_eof(self) -> None:
        """Send what is queued, then finish sending; you can still receive.  Again: no effect.

        Raises:
          SocketError: As ``write``; UNSUPPORTED_SOCKET_OPERATION if it is a stream that cannot, or TLS before 1.3.
          trio.ClosedResourceError: The socket is closed, or the connection was aborted here, or ended by another task.
          trio.BusyResourceError: As ``send_all``.
        Cancelled: sending is not finished.
        Qt: no counterpart; its sockets have no half-close.
        """
        self._begin_sending()
        try:
            if self._machine.state is not CONNECTED:
                await self._refuse_at_once("finish sending")
            generation = self._generation
            await trio.lowlevel.checkpoint()
            self._check_same(generation, "finish sending")
            if self._send_finished and self._machine.state is CONNECTED:
                return
            while True:
                link = self._link
                if link is None or self._machine.state is not CONNECTED:
                    self._refuse("finish sending", began=generation)
                if not self._queue:
                    break
                await self._wait_changed()
                self._check_same(generation, "finish sending")
            await self._finish_sending(link, generation)
        finally:
            self._sending = False

    async def _finish_sending(self, link: Link, generation: Generation) -> None:
        self._send_finished = True  # before anything can wait: no write may come in between
        try:
            await link.finish_sending()
        except NotImplementedError as exc:
            self._reopen(generation)
            message = f"cannot finish sending: {exc}"
            raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, message) from exc
        except ENDS as exc:
            self._link_failed(link, exc, Input.WRITE_FAILED)
            self._check_same(generation, "finish sending")
            self._refuse("finish sending")
        except BaseException:  # cancelled, or a Ctrl-C
            self._reopen(generation)
            raise

    def _reopen(self, generation: Generation) -> None:
        """Sending could not be finished."""
        if self._generation is generation:
            self._send_finished = False

    def _begin_sending(self) -> None:
        self._check_thread()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        self._sending = True

    async def _room_to_send(self, *, early: bool = False) -> None:
        """Wait until the queue has room, and until there is a connection unless ``early``."""
        # It could send when it was called; if that is not so any more later, it is no mistake of the caller's.
        if not self._takes_bytes():
            await self._refuse_at_once("send")
        generation = self._generation
        await trio.lowlevel.checkpoint()
        while True:
            if self._generation is not generation or not self._takes_bytes() or self._send_finished:
                self._refuse_sending("send", began=generation)
            if len(self._queue) < self._write_buffer_size and (early or self._attempt is None):
                return
            await self._wait_changed()

    def _takes_bytes(self) -> bool:
        """Is there a connection, or an attempt at one that they can be queued for?"""
        return self._attempt is not None or (self._link is not None and self._machine.state is CONNECTED)

    def _refuse_sending(self, attempted: str, *, began: Generation | None = None) -> NoReturn:
        if self._send_finished and self._machine.state is CONNECTED:
            raise trio.ClosedResourceError(f"cannot {attempted}: sending is finished")
        self._refuse(attempted, began=began)


def _view(data: bytes | bytearray | memoryview) -> memoryview:
    """Any bytes as a flat view.  Raises: TypeError."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"only bytes can be sent, not {type(data).__name__}")
    view = memoryview(data)
    if view.ndim == 1 and view.format == "B" and view.contiguous:
        return view
    return memoryview(view.tobytes())
