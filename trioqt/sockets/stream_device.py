"""A connection as a device, whatever it connects to: it can be read and written, and ends without losing a byte.

As trio's ``Stream`` is a ``ReceiveStream`` and a ``SendStream``, a device is a ``StreamReader``, with what reads whole
messages, and a ``StreamWriter``, which have the verbs and know nothing of each other.  What belongs to both is here:
its end in order.
"""

from __future__ import annotations

import contextlib
import errno
import math

import trio

from trioqt.core.errors import ErrorKind, SocketError, is_cancellation, kind_of
from trioqt.core.states import Input
from trioqt.links.base import ENDS, Link
from trioqt.links.interrupts import protected
from trioqt.sockets.connection import BLOCK_SIZE, CLOSING, CONNECTED, Flushing
from trioqt.sockets.generation import Generation, raise_failure
from trioqt.sockets.message_reader import MessageReader
from trioqt.sockets.stream_writer import StreamWriter
from trioqt.sockets.traffic import BLOCKS_AT_ONCE, LINGER

__all__ = ["StreamDevice"]


@protected
class StreamDevice(MessageReader, StreamWriter, trio.abc.HalfCloseableStream):
    """A connection with Qt's verbs and trio's.  Qt: QIODevice.

    Args: as for ``TcpSocket``.
    """

    __slots__ = ()

    # -- its end in order -------------------------------------------------------------------

    async def aclose(self) -> None:
        """``disconnect_from_host``, and every later call raises ``trio.ClosedResourceError``.

        Raises: SocketError if queued bytes could not be sent, as ``disconnect_from_host``.
        Cancelled: closed all the same, as by ``abort()``.
        Qt: close().
        """
        self._check_call()
        self._open = False
        self._retired = True
        generation = self._generation
        try:
            self._check_sent(generation, again=await self._disconnect(math.inf, drop=True))
        finally:
            self._close()

    async def _leave(self) -> None:
        self._retired = True
        if (self._task_ends or await self._turn_follows()) and self._ends_at_once():
            return
        generation = self._generation
        self._check_sent(generation, again=await self._disconnect(self._flush_timeout))

    async def _turn_follows(self) -> bool:
        """Do others have their turn once this has ended, so that it needs to give none away?"""
        block = self._block
        if block is None or block.entries > 1 or block.task is not trio.lowlevel.current_task():
            return False
        await trio.lowlevel.checkpoint_if_cancelled()
        return True  # when its nursery ends

    def _ends_at_once(self) -> bool:
        """End it in this step, as ``_disconnect`` would, if there is nothing to wait for; else it is as it was.

        It saves a turn and two coroutines, 8 us of a short life's 70.
        """
        link = self._link
        if link is None or self._machine.state is not CONNECTED or self._receiving or self._under_way is not None:
            return False
        if not self._peer_finished:
            self._pull(BLOCK_SIZE)
        if self._link is not link or self._machine.state is not CONNECTED or not self._is_quiet(link):
            return False
        self._generation.ended_by = trio.lowlevel.current_task()
        self._machine.feed(Input.DISCONNECT, self._tell)
        self._end_link(Input.FLUSHED, waited_on=False)
        return True

    def _is_quiet(self, link: Link) -> bool:
        """Was the system just found empty, and is nothing buffered, queued or to be said, and no task at the link?"""
        return not (
            self._queue.size
            or self._read_buffer.held
            or self._drain_scope is not None
            or self._somebody_waits_on_the_link()
            or link.has_goodbye()
        )

    async def _disconnect(self, flush_timeout: float, *, keep: bool = False, drop: bool = False) -> bool:
        """End the connection in order.  See ``TcpSocket.disconnect_from_host``.

        Args:
          flush_timeout: How long the peer may take nothing.
          keep: What the system holds is to be read after the end.
          drop: Nothing is to be read any more, not even what the buffer holds.

        Returns: Was there a connection to end?
        Raises: SocketError: Bytes were queued for a connection that is not made now.
        """
        # It is meant for what there is now; what another task begins in the same step is none of its business.
        generation, bound, dropped = self._generation, self._bound, ""
        there_was = self._link is not None
        try:
            self._call_off()
            await trio.lowlevel.checkpoint()
            if self._generation is generation:
                self._take_offered()
                link = self._link
                there_was = there_was or link is not None
                if self._attempt is not None:
                    dropped = self._drop_attempt(Input.DISCONNECT)
                    self._changed()
                elif bound is not None and self._bound is bound:
                    self._machine.feed(Input.DISCONNECT, self._tell)
                    if not bound.is_spare():
                        self._machine.feed(Input.FLUSHED, self._tell)
                    self._unbind()
                elif link is not None:
                    if self._machine.state is CONNECTED:
                        await self._end_in_order(link, flush_timeout, keep, drop)
                    if self._link is link:
                        await self._join(link, flush_timeout)  # another task, or half_open=False, may be at it
        except BaseException as exc:
            if self._generation is generation:
                self.abort(reset=not is_cancellation(exc))
            raise
        if dropped:
            raise SocketError(ErrorKind.UNFINISHED_SOCKET_OPERATION, dropped)
        return there_was

    def _check_sent(self, generation: Generation, *, again: bool) -> None:
        """Raise the failure that cost queued bytes, or that is a mistake here: somebody has closed the descriptor.

        Args:
          generation: Of the connection that has ended.
          again: Even if a call has raised it already.
        """
        failure = generation.failure
        if failure is not None and (again or not failure.told):
            cause = failure.cause
            if generation.unsent or (isinstance(cause, OSError) and cause.errno == errno.EBADF):
                raise_failure(failure)

    async def _end_in_order(self, link: Link, flush_timeout: float, keep: bool, drop: bool) -> None:
        # What arrived before this end can still be read, in our buffer or in the system's.  A task that waits for more
        # than that gets no more, whether it waits on the link or for the watcher.
        if keep and link.native() is None:
            await self._hear_all(link)
        if self._link is not link or self._machine.state is not CONNECTED:
            return
        self._wake_receiver(link)
        self._pull(BLOCK_SIZE * BLOCKS_AT_ONCE)
        if keep and self._link is link:
            self._pull_all(link)
        if self._link is not link or self._machine.state is not CONNECTED:
            return  # and the pull found that it had ended, or has begun to
        # Then the kernel may hold more, or more is under way; and closing would reset the connection, which may cost
        # the peer the last thing we said.
        unread = len(self._read_buffer) > 0
        is_quiet = self._is_quiet(link)
        if drop:
            self._generation.dropped = True
            self._drop_unread()
        self._generation.ended_by = trio.lowlevel.current_task()
        self._machine.feed(Input.DISCONNECT, self._tell)
        if is_quiet:
            # What follows would come to the same in this step, with four scopes for waits that are none, each 6 us.
            self._end_link(Input.FLUSHED, waited_on=False)
            return
        self._update_direct()
        self._update_watcher()
        self._changed()
        await self._flush(link, flush_timeout)
        with trio.move_on_after(LINGER):
            while self._link is link and self._somebody_waits_on_the_link():
                await self._wait_changed()  # who was woken lets go of it, in its next turn
        unread = await self._has_left(link) or unread or len(self._read_buffer) > 0
        linger = LINGER if unread and not self._peer_finished else 0.0
        if linger and self._link is link and await self._linger(link):
            linger = 0.0
        if self._link is not link:
            return
        self._goodbye_at = trio.current_time() + linger
        self._changed()
        with trio.move_on_after(flush_timeout + linger) as scope:
            try:
                await link.say_goodbye(linger=linger)
            except ENDS:
                pass  # over TLS the goodbye may fail; everything queued had been sent
        if self._link is link:
            if scope.cancelled_caught:
                self._goodbye_failed(flush_timeout)
            else:
                self._end_link(Input.FLUSHED)

    async def _hear_all(self, link: Link) -> None:
        """Take what a stream gives at once, which only waiting can tell, past the buffer's bound; but not for ever."""
        before, most = -1, len(self._read_buffer) + BLOCK_SIZE * BLOCKS_AT_ONCE
        while before < len(self._read_buffer) < most and self._link is link and not self._peer_finished:
            before = len(self._read_buffer)
            # Who waits on the link has what there is by the time that the look is over.
            with contextlib.nullcontext() if self._somebody_waits_on_the_link() else self._watching_instead():
                try:
                    await link.look()
                except ENDS as exc:
                    self._link_failed(link, exc, Input.READ_FAILED)
            if self._link is link:
                self._pull(before + BLOCK_SIZE, bounded=False)

    def _pull_all(self, link: Link) -> None:
        """Take what the system holds, past the buffer's bound; but a peer that sends on cannot keep us here."""
        before, most = -1, link.most_unread() + len(self._read_buffer)
        while before < len(self._read_buffer) < most and self._link is link:
            before = len(self._read_buffer)
            self._pull(most, bounded=False)

    def _goodbye_failed(self, timeout: float) -> None:
        """The stream below took everything and then did not end: what it may hold back, as TLS does, is lost."""
        reason = f"the stream did not end within {timeout:g} s, not all may have been sent"
        exc = TimeoutError(errno.ETIMEDOUT, reason)
        self._set_failure(kind_of(exc), f"the connection was lost: {reason}", exc)
        self._end_link(Input.WRITE_FAILED, reset=True)
        self._generation.unsent = True

    async def _has_left(self, link: Link) -> bool:
        """Has something come that nobody has read?  Then a part of it is gone."""
        if self._link is not link or self._peer_finished or self._somebody_waits_on_the_link():
            return False
        try:
            if not link.can_be_asked():
                await link.look()
            return self._link is link and bool(link.try_receive(BLOCK_SIZE))
        except ENDS:
            return False  # a reset: lingering is of no use, and everything queued had been sent

    # One end, one clock: whoever waits for an end has a time limit of its own at most, which every byte that goes out
    # starts anew for all of them; the first that is over ends it for all.

    async def _flush(self, link: Link, flush_timeout: float) -> None:
        """Wait until the queue is sent or the connection has ended; fail if the peer takes nothing for so long."""
        began = trio.current_time()
        flushing = Flushing(flush_timeout, trio.CancelScope(deadline=began + flush_timeout))
        self._flushing = (*self._flushing, flushing)
        try:
            with flushing.scope:
                while self._queue and self._link is link:
                    await self._wait_changed()
        finally:
            self._flushing = tuple(other for other in self._flushing if other is not flushing)
        if flushing.scope.cancelled_caught and self._queue and self._link is link:
            reason = f"{self._why_unsent(flush_timeout)}, {len(self._queue)} bytes were not sent"
            self._fail(TimeoutError(errno.ETIMEDOUT, reason), Input.WRITE_FAILED)

    def _why_unsent(self, flush_timeout: float) -> str:
        """What has kept the queue from going out for so long."""
        return f"the peer took nothing for {flush_timeout:g} s"

    async def _join(self, link: Link, flush_timeout: float) -> None:
        """Wait for an end that somebody else makes."""
        began = trio.current_time()
        await self._flush(link, flush_timeout)
        while self._machine.state is CLOSING and self._link is link:
            # What comes between the last byte and the goodbye, as lingering, has a limit of its own.
            deadline = math.inf if self._goodbye_at is None else max(began, self._goodbye_at) + flush_timeout
            with trio.move_on_at(deadline) as scope:
                await self._wait_changed()
            if scope.cancelled_caught and self._machine.state is CLOSING and self._link is link:
                self._goodbye_failed(flush_timeout)

    async def _linger(self, link: Link) -> bool:
        """Finish sending, then wait for the peer's end, dropping what it sends, for at most ``LINGER`` seconds.

        Returns: Could it do that?
        """
        try:
            with trio.move_on_after(LINGER):
                if not self._send_finished:
                    await link.finish_sending()
                while not self._peer_finished and self._link is link:
                    if self._somebody_waits_on_the_link():
                        await self._wait_changed()
                    elif not await self._receive(link, BLOCK_SIZE, ending=True):
                        break
        except NotImplementedError:
            return False
        except ENDS:
            pass  # it ended otherwise, and everything queued had been sent
        return True
