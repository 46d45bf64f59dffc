"""A connection's bytes: who reads, and who sends.

The engine under the verbs of ``StreamReader`` and ``StreamWriter``, with the two tasks that a connection may have.  It
knows neither a verb nor a line; how the connection began and what its end is are ``connection.py``.

Who reads is one rule: a caller that waits on the link reads, and the watcher stands by meanwhile; while the watcher
waits on the link, a caller waits for what it brings.  Who sends: ``write`` tries the link at once, the drainer sends
what that did not take.  Neither task exists unless it must.

Both are in one file, for they change the same few fields in one step each, and who reads one of them alone would not
see what the other may do in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import trio
from trio.lowlevel import current_task

from trioqt.core.errors import ErrorKind
from trioqt.core.events import BytesWritten, ErrorOccurred, ReadyRead
from trioqt.core.states import Input
from trioqt.links.base import ENDS, Link
from trioqt.links.interrupts import protected
from trioqt.sockets.connection import BLOCK_SIZE, CONNECTED, Connection
from trioqt.sockets.generation import Generation
from trioqt.sockets.nursery_ends import at_end_of
from trioqt.sockets.subscription import Subscription

__all__ = ["BLOCKS_AT_ONCE", "LINGER", "Traffic"]

# A sync verb on an unlimited buffer takes at most this many blocks (1 MiB) from the system in one go, so that a fast
# peer cannot hold the caller in it.
BLOCKS_AT_ONCE = 16

# How long a close waits for the end of a peer that sent bytes we did not read, in seconds.
LINGER = 1.0

# What ends the connection when a task of ours meets it: its nursery may be a server's, which has others to serve.
# ``BusyResourceError``: a task of the program waits for the descriptor, or uses the stream, itself.
BREAKS = (*ENDS, trio.BusyResourceError)

READY_READ = ReadyRead()


@protected
class Traffic(Connection):
    """A connection whose bytes come and go."""

    __slots__ = ()

    # -- bytes arrive -----------------------------------------------------------------------

    def _room(self) -> int:
        """How many bytes may be read ahead now."""
        buffer, size = self._read_buffer, self._read_buffer_size
        if buffer.owned is not None:  # what such a transaction has taken counts against its own bound
            return min(size - len(buffer) if size else BLOCK_SIZE, buffer.owned.max_bytes - buffer.held)
        return size - buffer.held if size else BLOCK_SIZE

    def _pull(self, wanted: int, *, bounded: bool = True, ahead: bool = False, end: bool = False) -> None:
        """Take what the system already holds into the buffer, until ``wanted`` bytes are there or it is full.

        Args:
          ahead: Nobody has asked for them, as far as a call can tell.
          end: An end that is behind them is asked for.
        """
        if not ahead and self._read_buffer.ahead and len(self._read_buffer) - self._read_buffer.ahead < wanted:
            self._ask()
        link = self._link
        if link is None or self._peer_finished or self._machine.state is not CONNECTED:
            return
        if self._receiving and not self._parked and not self._generation.woken:
            return  # a task waits on the link: it would not hear of what we take
        if not end and self._has_asked(link):
            return
        for _ in range(BLOCKS_AT_ONCE):
            room = min(self._room(), BLOCK_SIZE) if bounded else BLOCK_SIZE
            if room <= 0 or len(self._read_buffer) >= wanted:
                return
            try:
                data = link.try_receive(room)
            except OSError as exc:
                self._fail(exc, Input.READ_FAILED)
                return
            if data is None:
                return
            self._absorb(data, ahead=ahead)
            if len(data) < room and (not data or link.is_drained()):  # TLS may have more all the same
                self._note_asked()
                return

    # After a recv that came short the system is not asked again in the same step of a task, as long as there are bytes
    # to answer with: that would only pay for a BlockingIOError, 2 us, where an echo by Qt's verbs takes 25 in all.
    # What may be behind them, an end or a failure, is news once they are read.  Nobody tells us when a step ends, but a
    # field of the task does, which trio offers to whoever puts it to sleep, and clears when it wakes.

    def _note_asked(self) -> None:
        task = current_task()
        if (
            task.custom_sleep_data is None or type(task.custom_sleep_data) is Generation
        ):  # else somebody puts it to sleep
            task.custom_sleep_data = self._generation

    def _has_asked(self, link: Link) -> bool:
        """Was ``link`` asked in this step, and had no more than what is in the buffer?"""
        if current_task().custom_sleep_data is not self._generation:
            return False
        return len(self._read_buffer) > 0 and link.is_drained()

    # Bytes are seen once a read or wait_for_ready_read has returned after they came.  A call that the buffer answers
    # does not look at the system, so those that wait there are none that came.  The same bytes may be in the buffer
    # already if somebody watches; so that this changes nothing they are marked, as long as no call has asked for more
    # than is in front of them.

    def _ask(self) -> None:
        """A call has asked for more than what is in front of the bytes that were read ahead."""
        if self._read_buffer.ahead:
            self._read_buffer.ahead = 0
            self._unseen = True

    def _saw(self) -> None:
        """A read returns.  It has seen all that had come, and what was read ahead if it took any of that."""
        self._unseen = False
        buffer = self._read_buffer
        if buffer.ahead > len(buffer):
            buffer.ahead = 0

    def _has_unseen(self) -> bool:
        buffer = self._read_buffer
        return buffer.ahead > 0 or (self._unseen and len(buffer) > 0)

    def _absorb(self, data: bytes, *, ahead: bool = False) -> None:
        """What a link gave goes into the buffer; ``b""`` is the peer's end."""
        if data:
            buffer = self._read_buffer
            buffer.append(data)
            self._full_told = False
            if ahead:
                buffer.ahead += len(data)
            else:
                self._unseen, buffer.ahead = True, 0
            if self._subscriptions:
                self._post(READY_READ)
            self._changed()
        else:
            self._peer_ended()

    async def _fill(self, max_bytes: int | None, generation: Generation) -> None:
        """Wait for news: bytes in the buffer, the peer's end, or the reason why there will be neither.

        The caller is the one in a receive_... and looks again after it.

        Args:
          max_bytes: None: as many as the buffer's bound allows when they come.
          generation: Of the connection that the caller began with; another one's news are not for it.

        Raises: SocketError, trio.ClosedResourceError: nothing more can come.
        Cancelled: nothing was taken.
        """
        link, buffer = self._link, self._read_buffer
        if link is None or self._machine.state is not CONNECTED:
            self._refuse("receive")
        if self._timed is not None and buffer.held:
            self._timed.ask()
        if self._direct is link and not self._watcher_waits:
            # A shortcut past _receive and _absorb, where nothing but this wait can bring bytes: saves 3 us of 22.
            try:
                if link.is_drained():
                    await link.wait_receivable(max_bytes or BLOCK_SIZE)
                else:
                    await trio.lowlevel.checkpoint()
                room = max_bytes or min(self._room(), BLOCK_SIZE)
                data = link.try_receive(room) if room > 0 else None
            except ENDS as exc:
                self._receiver_woke(link, exc)
            else:
                self._arrived_at_receiver(link, generation, data)
            if self._generation is not generation:
                self._check_same(generation, "receive")
            return
        if self._watcher_waits:
            await self._park()
            self._check_same(generation, "receive")
            return
        try:
            data = await self._receive(link, max_bytes)
        except ENDS as exc:
            self._receiver_woke(link, exc)
        else:
            if data is not None:
                self._came(link, generation, data)
        self._check_same(generation, "receive")

    def _arrived_at_receiver(self, link: Link, generation: Generation, data: bytes | None) -> None:
        """As ``_came``, where nobody else reads, nobody listens, and the caller goes on with what came."""
        if data and self._direct is link:
            buffer = self._read_buffer
            buffer.append(data)
            buffer.ahead = 0
            self._unseen, self._full_told = True, False
            self._note_asked()
        elif data is not None:
            self._came(link, generation, data)

    def _somebody_waits_on_the_link(self) -> bool:
        return self._watcher_waits or (self._receiving and not self._parked)

    def _wake_receiver(self, link: Link) -> None:
        """Who waits on the link to receive looks again; an end is made here."""
        if self._receiving and not self._parked:
            self._generation.woken = True
            link.wake()

    def _receiver_woke(self, link: Link, exc: Exception) -> None:
        """A receiver's wait on ``link`` ended in ``exc``."""
        if not (self._generation.woken and isinstance(exc, trio.ClosedResourceError)):  # else we did it
            self._link_failed(link, exc, Input.READ_FAILED)

    def _came(self, link: Link, generation: Generation, data: bytes) -> None:
        """A wait on ``link`` brought ``data``: absorb it, unless an end that drops it was made in the same step."""
        dropped = self._generation is not generation or generation.dropped or self._closed
        if (self._link is link or data) and not dropped:
            self._absorb(data)

    async def _park(self) -> None:
        """Wait, as the one in a receive_..., for what somebody else brings: the watcher, or the attempt that runs."""
        self._parked = True
        try:
            await self._wait_changed()
        finally:
            self._parked = False
            if self._timed is not None:
                self._timed.leave()

    async def _receive(self, link: Link, max_bytes: int | None, *, ending: bool = False) -> bytes | None:
        """Wait for bytes on ``link``; ``b""`` at the peer's end, None if an end was made here meanwhile.

        Cancelled: nothing was taken.

        Args:
          max_bytes: None: as many as the buffer's bound allows when they come; None is returned if it allows none then.
          ending: On behalf of that end.
        """
        if not link.is_drained():
            await trio.lowlevel.checkpoint()
        else:
            await link.wait_receivable(max_bytes or BLOCK_SIZE)
        while True:
            room = min(self._room(), BLOCK_SIZE) if max_bytes is None else max_bytes
            if room <= 0:
                return None
            data = link.try_receive(room)
            if data is not None:
                self._note_asked()
                return data
            if self._generation.woken and not ending:
                return None
            await link.wait_receivable(room)

    # -- the watcher ------------------------------------------------------------------------

    def _listeners_changed(self) -> None:
        self._check_call()
        self._update_watcher()

    def _tell_what_is_so(self, subscription: Subscription[Any]) -> None:
        if self._has_unseen():
            subscription.post(READY_READ)
        if self._missed and not self._pending:
            missed, self._missed = self._missed, ()
            for event in missed:
                subscription.post(event)
        self._pull(len(self._read_buffer) + 1, ahead=True)

    def _listener_waits(self, subscription: Subscription[Any]) -> None:
        """The buffer is full, and who looks at what comes has taken nothing: no more can come, so tell that, once."""
        if self._full_told or self._room() > 0 or self._receiving or self._peer_finished:
            return
        if self._machine.state is not CONNECTED or not subscription.wants(READY_READ):
            return
        if any(other.is_busy() and other.wants(READY_READ) for other in self._subscriptions):
            return  # it may still take some
        self._full_told = True
        self._set_error(ErrorKind.LIMIT_EXCEEDED, self._full())
        self._tell(ErrorOccurred)

    def _full(self) -> str:
        buffer = self._read_buffer
        if buffer.owned is not None and buffer.held >= buffer.owned.max_bytes:
            return f"the transaction is full: its max_bytes is {buffer.owned.max_bytes}"
        return f"the read buffer is full: {self._read_buffer_size} bytes"

    def _watch_end(self, more: int) -> None:
        self._watching += more
        self._update_watcher()

    def _update_watcher(self) -> None:
        """Start the watcher if somebody wants to know sooner, stop it if nobody does."""
        if self._half_open and self._watch_scope is None and not self._subscriptions and not self._watching:
            return  # as of most sockets, whose life is short
        wanted = bool(self._subscriptions) or self._watching > 0 or not (self._half_open or self._pending)
        wanted = wanted and not self._orphaned
        usable = self._link is not None and self._machine.state is CONNECTED and not self._peer_finished
        if self._watch_scope is not None:
            if not (wanted and usable):
                self._watch_scope.cancel(reason="nobody watches")
        elif wanted and usable and self._in_scope():
            self._watch_scope = self._own_scope()
            self._update_direct()
            self._start(self._watch, self._link, self._watch_scope)

    def _own_scope(self) -> trio.CancelScope:
        # Our tasks outlive an outer cancellation until the block has ended the socket, because a shielded goodbye in
        # that block still needs them.  A parent nursery has no such moment: shielded, they would keep it from ending.
        return trio.CancelScope(shield=self._is_shielded())

    async def _watch(self, link: Link, scope: trio.CancelScope) -> None:
        """Read ahead, up to the buffer's bound, while no caller does."""
        generation = self._generation
        try:
            with scope:
                while self._link is link and self._machine.state is CONNECTED and not self._peer_finished:
                    room = self._room()
                    if room <= 0 or self._watcher_waits or (self._receiving and not self._parked):
                        await self._wait_changed()
                        continue
                    self._watcher_waits = True
                    try:
                        await link.wait_receivable(min(room, BLOCK_SIZE))
                    finally:
                        self._watcher_waits = False
                        self._changed()  # if there is no room any more, a receiver that wants more reads on itself
                    if self._machine.state is CONNECTED:
                        # The room may have changed, so this takes what there is under the rules of any sync verb.
                        self._pull(len(self._read_buffer) + 1, ahead=True)
                    elif (data := link.try_receive(room)) is not None:
                        self._came(link, generation, data)  # before an orderly end that was begun in this step
        except BREAKS as exc:
            self._link_failed(link, exc, Input.READ_FAILED)
        except trio.Cancelled:
            # The run ends, or the parent nursery is cancelled.  There a shielded task may still say goodbye, as it may
            # where nobody watches; the socket is closed once the nursery has ended, and who listens must hear of that.
            self._orphaned = True
            if self._parent is not None:
                at_end_of(self._parent, self._in_scope)
            raise
        except BaseException:
            self._close()
            raise
        finally:
            self._watch_scope = None
            self._update_direct()
            self._update_watcher()  # it may be wanted again
            self._changed()

    @contextlib.contextmanager
    def _watching_instead(self) -> Iterator[None]:
        """Wait on the link, where nobody else does, as if this were the watcher."""
        self._watcher_waits = True
        try:
            yield
        finally:
            self._watcher_waits = False
            self._changed()

    # -- bytes leave ------------------------------------------------------------------------

    def _start_drainer(self) -> None:
        link = self._link
        if self._drain_scope is None and link is not None:
            if self._timed is not None:
                self._timed.queue()
            self._drain_scope = self._own_scope()
            self._start(self._drain, link, self._drain_scope)

    async def _drain(self, link: Link, scope: trio.CancelScope) -> None:
        """Send what is queued; then end the connection, if it was only waiting for that."""
        try:
            with scope:
                self._uncork()
                refused, began = bool(self._queue), trio.current_time()
                while self._queue and self._link is link:
                    try:
                        sent = await self._send_block(link)
                    except (OSError, trio.BrokenResourceError):
                        await self._hear_out(link)
                        raise
                    if sent and self._link is link:
                        self._queue.advance(sent)
                        self._sent(sent)
                if refused and self._link is link:
                    self._queue_went(link, trio.current_time() - began)
                if self._ends_itself and self._link is link:
                    self._goodbye_at = trio.current_time()
                    self._changed()
                    try:
                        await link.say_goodbye()
                    finally:
                        if self._link is link:
                            self._end_link(Input.FLUSHED)
        except BREAKS as exc:
            # A watcher that waits finds the same in the same turn; reading comes first then, as in Qt.
            self._link_failed(link, exc, Input.READ_FAILED if self._watcher_waits else Input.WRITE_FAILED)
        except BaseException:
            # The parent nursery is cancelled: what is queued cannot be sent any more.
            if self._link is link:
                self.abort()
            raise
        finally:
            if self._drain_scope is scope:
                self._drain_scope = None

    def _queue_went(self, link: Link, took: float) -> None:
        """All that the kernel had not taken at once is sent, after so many seconds."""

    async def _send_block(self, link: Link) -> int:
        """Wait until bytes can go, hand over what can; how many went."""
        if not link.can_be_asked():
            # In pieces, so that progress is seen while a large message is under way.
            return await link.send(memoryview(self._queue.block())[:BLOCK_SIZE])
        woken = self._generation.woken
        try:
            await link.wait_sendable()
        except trio.ClosedResourceError:
            if woken or not self._generation.woken:
                raise
            return 0  # a receiver was woken, and the system wakes both
        # Only now is it known what is next: flush() may have sent meanwhile what was next before.
        return link.try_send(self._queue.block()) if self._queue and self._link is link else 0

    async def _hear_out(self, link: Link) -> None:
        """A stream takes no more: take what it has brought, which only waiting can tell.  A system tells it at once."""
        if link.can_be_asked():
            return
        before = len(self._read_buffer)
        with trio.move_on_after(LINGER):
            while self._link is link and self._machine.state is CONNECTED and not self._peer_finished:
                if self._watcher_waits or (self._receiving and not self._parked):
                    await self._wait_changed()  # who waits on the link hears of it
                    continue
                if len(self._read_buffer) - before > BLOCK_SIZE * BLOCKS_AT_ONCE:
                    return  # a peer that is not gone at all
                try:
                    with self._watching_instead():
                        data = await self._receive(link, BLOCK_SIZE)
                except ENDS:
                    return
                if self._link is not link:
                    return  # ended in the same step, and what came with it
                if data:
                    self._absorb(data)
                else:
                    self._peer_finished = True

    def _uncork(self) -> None:
        """Ask the kernel to take what was collected; the drainer sends the rest."""
        if self._corked is not None and self._link is not None:
            self._send_queued(self._link)
            if self._queue.size:
                self._start_drainer()

    def _send_queued(self, link: Link) -> None:
        """Hand over what can go at once.  If that finds the connection lost, it has ended."""
        try:
            self._hand_over(link)
        except OSError as exc:
            self._fail(exc, Input.WRITE_FAILED)

    def _hand_over(self, link: Link) -> None:
        queue = self._queue
        self._corked = None
        while queue.size:
            sent = link.try_send(queue.block())
            if not sent:
                break
            queue.advance(sent)
            self._sent(sent)

    def _sent(self, count: int) -> None:
        if self._subscriptions:
            self._post(BytesWritten(count))
        for flushing in self._flushing:
            flushing.scope.deadline = trio.current_time() + flushing.timeout
        self._changed()
