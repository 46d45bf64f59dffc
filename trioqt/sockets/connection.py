"""One connection's life: what it knows, how it gets a link, and how that is lost or dropped.

All that a connection knows is here, for each end must forget it all in one step.  Who reads and who sends is
``traffic.py``; how it ends in order, after what is queued, is ``stream_device.py``.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Final, Protocol

import attrs
import trio

from trioqt.core.addresses import HostAddress, from_sockaddr
from trioqt.core.buffers import ReadBuffer, WriteBuffer
from trioqt.core.errors import ErrorKind, SocketError, kind_of, reason_of
from trioqt.core.events import Event, Nudge
from trioqt.core.socket_state import SocketState
from trioqt.core.states import Input
from trioqt.links.base import Link, NativeSocket, Sockaddr
from trioqt.links.interrupts import protected
from trioqt.links.native import KernelSocket, NativeLink, reset_on_close
from trioqt.links.stream import StreamLink
from trioqt.links.timed import TimedLink
from trioqt.sockets.abstract_socket import AbstractSocket
from trioqt.sockets.arguments import check_seconds, check_size
from trioqt.sockets.generation import Generation
from trioqt.sockets.native_options import set_option

__all__ = ["BLOCK_SIZE", "BUFFER_SIZE", "FLUSH_TIMEOUT", "PEER_CLOSED", "Attempt", "Connection", "Flushing"]

# What a socket has that is told nothing else: bytes, and seconds.
BUFFER_SIZE: Final = 65536
FLUSH_TIMEOUT: Final = 10.0

# 64 KiB: what trio reads at once (SocketStream's default).  Larger blocks gain nothing measurable up to 512 KiB, and
# above 128 KiB each allocation is a system call of its own.
BLOCK_SIZE = 65536

# What the error says that Qt makes of a peer's good end.  The command line knows it by that.
PEER_CLOSED = "the peer closed the connection"

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
        parent: trio.Nursery | None = None,
        *,
        read_buffer_size: int = BUFFER_SIZE,
        write_buffer_size: int = BUFFER_SIZE,
        half_open: bool = True,
        flush_timeout: float = FLUSH_TIMEOUT,
    ) -> None:
        # What is left out need not be checked: five calls of the 200 in a short life.
        if read_buffer_size is not BUFFER_SIZE:
            read_buffer_size = check_size(read_buffer_size, "read_buffer_size")
        if write_buffer_size is not BUFFER_SIZE:
            write_buffer_size = check_size(write_buffer_size, "write_buffer_size", least=1)
        if flush_timeout is not FLUSH_TIMEOUT:
            flush_timeout = check_seconds(flush_timeout, "flush_timeout")
        super().__init__(parent)
        self._read_buffer_size = read_buffer_size
        self._write_buffer_size = write_buffer_size
        self._half_open = bool(half_open)
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

    # -- what carries its bytes must do ---------------------------------------------------

    def _absorb(self, data: bytes) -> None:
        """What a link gave goes into the buffer; ``b""`` is the peer's end."""
        raise NotImplementedError

    def _update_watcher(self) -> None:
        """Read ahead if somebody wants to know sooner, else no more."""
        raise NotImplementedError

    def _start_drainer(self) -> None:
        """See to it that what is queued is sent; then end the connection, if it was only waiting for that."""
        raise NotImplementedError

    def _hand_over(self, link: Link) -> None:
        """Have the link take of the queue what can go at once.  Raises: OSError."""
        raise NotImplementedError

    # -- a connection ends ------------------------------------------------------------------

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
