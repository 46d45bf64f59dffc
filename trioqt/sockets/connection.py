"""One connection's bytes: who reads, who sends, how it is lost or dropped.

The engine under the verbs of ``StreamDevice``, which also ends it in order.  It owns the link, the two buffers and the
two tasks that a connection may have, and it feeds the table when something happens to the connection.

Who reads is one rule: a caller that waits on the link reads, and the watcher stands by meanwhile; while the watcher
waits on the link, a caller waits for what it brings.  Who sends: ``write`` tries the link at once, the drainer sends
what that did not take.  Neither task exists unless it must.

It is long, and whole: reading, sending and losing change the same few fields in one step each, and who reads one of
them alone would not see what another may do in between.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import attrs
import trio
from trio.lowlevel import current_task

from trioqt.core.addresses import HostAddress, from_sockaddr
from trioqt.core.buffers import ReadBuffer, WriteBuffer
from trioqt.core.errors import ErrorKind, SocketError, kind_of, reason_of
from trioqt.core.events import BytesWritten, ErrorOccurred, Event, Nudge, ReadyRead
from trioqt.core.socket_state import SocketState
from trioqt.core.states import Input
from trioqt.links.base import ENDS, Link, NativeSocket, Sockaddr
from trioqt.links.interrupts import protected
from trioqt.links.native import KernelSocket, NativeLink, reset_on_close
from trioqt.links.stream import StreamLink
from trioqt.links.timed import TimedLink
from trioqt.sockets.abstract_socket import AbstractSocket, Generation
from trioqt.sockets.native_options import set_option
from trioqt.sockets.nursery_ends import at_end_of
from trioqt.sockets.subscription import Subscription

__all__ = ["BLOCK_SIZE", "PEER_CLOSED", "Attempt", "Connection", "Flushing"]

# 64 KiB: what trio reads at once (SocketStream's default).  Larger blocks gain nothing measurable up to 512 KiB, and
# above 128 KiB each allocation is a system call of its own.
BLOCK_SIZE = 65536

# A sync verb on an unlimited buffer takes at most this many blocks (1 MiB) from the system in one go, so that a fast
# peer cannot hold the caller in it.
BLOCKS_AT_ONCE = 16

# How long a close waits for the end of a peer that sent bytes we did not read, in seconds.
LINGER = 1.0

# What the error says that Qt makes of a peer's good end.  The command line knows it by that.
PEER_CLOSED = "the peer closed the connection"

READY_READ = ReadyRead()
CONNECTED, CLOSING = SocketState.CONNECTED, SocketState.CLOSING


class Owner(Protocol):
    """The server that accepted a connection."""

    _run: trio.lowlevel.TrioToken | None
    _thread: int

    def _forget(self, sock: Connection) -> None:
        """The connection has ended: its slot is free.  Called once."""


@attrs.frozen(eq=False)
class Flushing:
    """One who ends a connection, and waits for what is queued."""

    timeout: float
    scope: trio.CancelScope


@attrs.define(eq=False)
class Attempt:
    """A ``connect_to_host`` that runs."""

    scope: trio.CancelScope | None = None
    """Once it may wait for long."""
    socks: tuple[NativeSocket | trio.socket.SocketType, ...] = ()
    """What it tries its addresses with; some may be closed already."""
    resets: bool = False

    def tries(self, sock: NativeSocket | trio.socket.SocketType) -> None:
        """One more."""
        self.socks = (*self.socks, sock)
        if self.resets:
            reset_on_close(sock)

    def reset_when_dropped(self) -> None:
        """A peer that is connected already, though we do not know yet, must not take the end for a clean one."""
        if not self.resets:
            self.resets = True
            for sock in self.socks:
                reset_on_close(sock)


@protected
class Connection(AbstractSocket):
    """A socket that has, at times, a link."""

    __slots__ = (
        "_answered",
        "_answers",
        "_answers_until",
        "_attempt",
        "_corked",
        "_cut_off_by",
        "_direct",
        "_drain_scope",
        "_ends_itself",
        "_finish_told",
        "_flush_timeout",
        "_flushing",
        "_full_told",
        "_goodbye_at",
        "_half_open",
        "_handler",
        "_link",
        "_missed",
        "_now",
        "_offered",
        "_owner",
        "_orphaned",
        "_parked",
        "_peer_finished",
        "_pending",
        "_queue",
        "_read_buffer",
        "_read_buffer_size",
        "_receiving",
        "_send_finished",
        "_sending",
        "_task_ends",
        "_timed",
        "_unseen",
        "_was_entered",
        "_watch_scope",
        "_watcher_waits",
        "_watching",
        "_write_buffer_size",
    )

    def __init__(
        self,
        parent: trio.Nursery | None,
        read_buffer_size: int,
        write_buffer_size: int,
        half_open: bool,
        flush_timeout: float,
    ) -> None:
        super().__init__(parent)
        self._read_buffer_size = read_buffer_size
        self._write_buffer_size = write_buffer_size
        self._half_open = half_open
        self._flush_timeout = flush_timeout
        self._link: Link | None = None
        self._timed: TimedLink | None = None  # the link, or what lies below it, if a server has limits of time
        # The link, while a receiver may take from it directly, past the buffer: see _update_direct.
        self._direct: Link | None = None
        self._offered: StreamLink | None = None  # what from_stream was given, until the block is entered
        self._attempt: Attempt | None = None
        self._owner: Owner | None = None  # the server whose slot this connection has
        self._handler: object | None = None  # the task that `serve` gave it to
        self._read_buffer = ReadBuffer()
        self._cut_off_by: trio.lowlevel.Task | None = None  # who dropped an open transaction, until that is told
        self._queue = WriteBuffer()
        self._peer_finished = False  # the peer will send no more; some may be unread
        self._ends_itself = False  # half_open=False: once the queue is sent, the connection ends
        self._finish_told = False  # a receive_... has returned the end
        # What is queued, if write has collected it, and the kernel has not been asked yet.
        self._corked: deque[bytes | memoryview] | None = None
        self._unseen = False  # bytes that a call asked for came since the last read
        self._full_told = False  # that the buffer is full, and nothing was taken since
        self._send_finished = False
        self._receiving = False  # a task is in a receive_... or in wait_for_ready_read
        self._parked = False  # and waits for what the watcher brings, not on the link
        self._sending = False  # a task is in send_all, wait_send_all_might_not_block or send_eof
        self._watching = 0  # tasks in wait_for_disconnected
        self._was_entered = False
        self._task_ends = False  # the block is left by a task of ours that ends with it: others have their turn then
        self._pending = False  # a server has accepted it, and nobody has taken it
        self._missed: tuple[Event, ...] = ()  # facts of that time, for who listens once it is taken
        self._orphaned = False  # the parent nursery is cancelled: nobody can watch any more
        self._watch_scope: trio.CancelScope | None = None  # of the watcher
        self._watcher_waits = False  # the watcher waits on the link, or the drainer of a stream that takes no more
        self._drain_scope: trio.CancelScope | None = None  # of the drainer
        self._flushing: tuple[Flushing, ...] = ()  # those that end it, and wait for the queue
        self._goodbye_at: float | None = None  # when the end had nothing left to do but to say goodbye
        self._answered: trio.lowlevel.Task | None = None  # whom the buffer may answer by the short way
        self._answers = 0  # how many more the buffer may give before other tasks get their turn ...
        self._now = trio.current_time  # the clock that says so; its own method once there have been answers
        self._answers_until = 0.0  # ... and until when

    # -- a connection begins ----------------------------------------------------------------

    def _adopt(self, link: Link, happened: Input, *, is_new: bool = False) -> None:
        """Take ``link`` as the connection.

        Args:
          is_new: The socket was made just now, and nobody knows it: there is nothing to forget.
        """
        if is_new:
            self._open = True
        elif happened is Input.ADOPTED:
            self._forget()  # else the attempt has begun with that, and what it queued is for this connection
        self._timed = link if type(link) is TimedLink else None  # isinstance asks typing, for a class of a Protocol
        self._link = self._cover(link)
        self._generation.connected = True
        self._machine.feed(happened, self._tell)
        if is_new and self._half_open:  # and nothing is queued, nobody listens or waits
            self._direct = self._link
            return
        self._update_direct()
        self._update_watcher()
        if self._queue.size:
            self._start_drainer()
        self._changed()

    def _cover(self, link: Link) -> Link:
        """What is to carry the connection that has come about over ``link``."""
        return link

    def _lay_over(self, over: Link) -> None:
        """``over``, which lies over the link, takes its place.  Nothing is queued, and nobody is in a receive_....

        A watcher that waits on what is below leaves it in its next turn.
        """
        below = self._link
        assert below is not None
        self._link = over
        if self._drain_scope is not None:  # it has sent all, and would end by itself
            self._drain_scope.cancel(reason="another link has taken the place of its own")
            self._drain_scope = None
        if self._watcher_waits:
            below.wake()
        self._update_direct()
        self._changed()

    def _accepted(self, link: Link, home: trio.Nursery, owner: Owner, is_new: bool) -> None:
        """Take a connection that a server accepted; it lives in the server's scope, and tells when it has ended.

        Args:
          is_new: The socket is of no factory of a caller's.
        """
        self._home = home
        self._belongs_with(owner)
        self._owner = owner
        native = link.native()
        if self._options and native is not None:
            for option, value in self._options.items():
                set_option(native, option, value, link.peer_address(), self._kind())
        self._pending = True
        self._adopt(link, Input.ADOPTED, is_new=is_new)
        self._missed = ()

    def _taken(self) -> None:
        # Until now it was read ahead only if somebody listened to it from its making on, so nothing was told to nobody.
        self._pending = False
        self._update_watcher()

    def _lend(self) -> int:
        """The descriptor, for others to read and write.  Raises: SocketError, trio.ClosedResourceError."""
        if self._link is None:
            raise trio.ClosedResourceError("the connection has ended")
        native = self._link.native()
        # Anything between the system and us may hold bytes already.
        if not isinstance(self._link, NativeLink) or not isinstance(native, KernelSocket):
            message = "cannot lend the descriptor of a connection that is not the system's alone"
            raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, message)
        return native.fileno()

    def _post(self, event: Event) -> None:
        if self._pending and not isinstance(event, Nudge):
            self._missed = (*self._missed, event)
        super()._post(event)

    def _forget(self) -> None:
        """Nothing of an earlier connection holds any more."""
        self._generation = Generation()
        self._open = True
        self._drop_unread()
        self._error, self._error_string = None, ""
        self._missed = ()
        self._peer_finished = self._ends_itself = self._finish_told = self._send_finished = False
        self._full_told = False

    def _may_fail(self) -> bool:
        return self._offered is not None

    def _entered(self) -> None:
        self._was_entered = True
        if self._offered is not None:
            assert self._block is not None
            self._offered.home = self._block.nursery
            self._link, self._offered = self._offered, None
            self._generation.connected = True
            self._update_direct()
            self._update_watcher()

    def _update_direct(self) -> None:
        usable = self._machine.state is CONNECTED and not self._peer_finished
        shared = self._watch_scope is not None or self._read_buffer.in_transaction
        self._direct = self._link if usable and not shared else None

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

    def _peer_ended(self) -> None:
        link = self._link
        assert link is not None
        self._peer_finished = True
        if self._machine.state is CONNECTED:  # while CLOSING it is no news
            if self._half_open:
                self._machine.feed(Input.PEER_FINISHED, self._tell)
            else:
                self._set_failure(ErrorKind.REMOTE_HOST_CLOSED, PEER_CLOSED, None)
                self._machine.feed(Input.PEER_CLOSED, self._tell)
                if self._queue or link.has_goodbye():
                    self._ends_itself = True
                    self._start_drainer()
                else:
                    self._end_link(Input.FLUSHED)  # nothing to send, and no goodbye to say
        self._direct = None
        self._changed()

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
        return trio.CancelScope(shield=self._parent is None)

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
        except ENDS as exc:
            self._link_failed(link, exc, Input.READ_FAILED)
        except trio.Cancelled:
            # The parent nursery is cancelled.  A shielded task may still say goodbye, as it may where nobody watches;
            # the socket is closed once the nursery has ended, and who listens must hear of that.
            assert self._parent is not None
            self._orphaned = True
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
        except ENDS as exc:
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

    # -- a connection ends ------------------------------------------------------------------

    def _link_failed(self, link: Link, exc: Exception, found: Input) -> None:
        """A wait on ``link`` ended in ``exc``: act on it, unless that link has ended already."""
        if self._link is link:
            if isinstance(exc, trio.ClosedResourceError):
                if self._machine.state is not CLOSING or self._queue:  # else we do, in order
                    self.abort()  # somebody closed what is below us
            else:
                self._fail(exc, found)

    def _fail(self, exc: Exception, found: Input) -> None:
        """The connection is lost.  What had arrived stays readable; from now on every call raises this."""
        link = self._link
        assert link is not None
        self._read_rest(link, exc)
        if self._machine.state is CLOSING:
            if not self._queue:  # all was sent: what came after is the peer's business
                self._end_link(Input.FLUSHED)
                return
            found = Input.WRITE_FAILED
        self._set_failure(kind_of(exc), f"the connection was lost: {reason_of(exc)}", exc)
        with contextlib.suppress(OSError):  # of closing what is lost
            self._end_link(found, reset=True)

    def _read_rest(self, link: Link, exc: Exception) -> None:
        """Take everything that the system still holds, however much (its own buffer bounds it)."""
        while not self._peer_finished:
            try:
                data = link.try_receive(BLOCK_SIZE)
            except OSError:
                return
            if data:
                self._absorb(data)
            elif data is None:
                return
            else:
                # After a reset the kernel answers b"" too, which is no end: it reports the reset once, to whichever
                # call comes first.  EPIPE says that the peer had finished before.
                self._peer_finished = isinstance(exc, BrokenPipeError)
                return

    def _end_link(self, happened: Input, *, reset: bool = False, waited_on: bool = True) -> None:
        """Tell that the connection has ended, and let go of it."""
        link = self._link
        assert link is not None
        self._machine.feed(happened, self._tell)
        self._drop_link(link, reset=reset, waited_on=waited_on)

    def _drop_link(self, link: Link, *, reset: bool = False, waited_on: bool = True) -> None:
        """Close ``link`` and what belongs to it: its tasks, its queue, its slot in a server."""
        self._link = self._direct = self._timed = None
        self._drop_queue()
        try:
            link.close(reset=reset or self._generation.unsent, waited_on=waited_on)
        finally:  # if somebody has closed the descriptor below us, the rest is to be done all the same
            self._ends_itself = False
            self._goodbye_at = None
            if self._watch_scope is not None:
                self._watch_scope.cancel(reason="the connection has ended")
            if self._drain_scope is not None:
                self._drain_scope.cancel(reason="the connection has ended")
                self._drain_scope = None
            if self._owner is not None:
                owner, self._owner = self._owner, None
                owner._forget(self)
            self._changed()

    def _drop_unread(self) -> None:
        if self._read_buffer.in_transaction:
            self._cut_off_by = trio.lowlevel.current_task()
        self._read_buffer.clear()
        self._unseen = False

    def _drop_queue(self) -> None:
        if self._queue.size:
            self._generation.unsent = True
            self._queue.clear()
        else:
            self._generation.unsent = False
        self._corked = None

    def abort(self, *, reset: bool = False) -> None:
        self._check_run()
        self._abort(reset=reset)

    def _abort(self, *, reset: bool = False) -> None:
        if self._corked is not None and self._link is not None:
            with contextlib.suppress(OSError):  # whatever that finds, the end is made here
                self._hand_over(self._link)
        if self._under_way is not None:
            self._call_off()
        if self._offered is not None:
            self._take_offered()
        # Nothing is left, whatever came before: an end may have left something to read.
        self._open = self._peer_finished = False
        self._drop_unread()
        self._generation.dropped = True
        if self._attempt is not None:
            self._generation.aborted = True
            self._drop_attempt(Input.ABORT, reset=reset)
        elif self._link is not None:
            self._generation.aborted = True
            if not self._queue and not reset:
                self._link.drop_unread()  # a watcher would have taken it before
            self._end_link(Input.ABORT, reset=reset)
        elif self._bound is not None:
            self._machine.feed(Input.ABORT, self._tell)
            self._unbind()
        if self._lot is not None:
            self._lot.unpark_all()

    def _take_offered(self) -> None:
        """The end may come before the block is entered."""
        if self._offered is not None:
            self._link, self._offered = self._offered, None

    def _drop_attempt(self, happened: Input, *, reset: bool = False) -> str:
        """End the connect_to_host that runs, in whatever task, and drop what was queued for its connection.

        Returns: What is wrong with that, if bytes were dropped and no failure says so.
        """
        attempt, self._attempt = self._attempt, None
        assert attempt is not None
        if reset:
            attempt.reset_when_dropped()
        if attempt.scope is not None:
            attempt.scope.cancel(reason="the attempt was dropped")
        self._generation.ended_by = trio.lowlevel.current_task()
        message = ""
        if self._queue and happened is not Input.ATTEMPT_FAILED:
            message = f"{len(self._queue)} bytes were queued for a connection that was not made"
            self._set_error(ErrorKind.UNFINISHED_SOCKET_OPERATION, message)
            happened = Input.QUEUE_DROPPED
        self._drop_queue()
        self._machine.feed(happened, self._tell)
        self._unbind()
        return message

    # -- what it says of itself -------------------------------------------------------------

    def _local(self) -> tuple[HostAddress, int]:
        address = None if self._link is None else self._link.local_address()
        return super()._local() if address is None else (from_sockaddr(address), address[1])

    def _peer(self) -> Sockaddr | None:
        return None if self._link is None else self._link.peer_address()

    def _native(self) -> NativeSocket | trio.socket.SocketType | None:
        return super()._native() if self._link is None else self._link.native()
