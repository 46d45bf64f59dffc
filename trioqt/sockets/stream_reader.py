"""The reading verbs of a stream: Qt's, which take what is there, and trio's, which wait for it.

Both with lines and transactions.  What they do to bytes is here; how bytes get here is ``traffic.py``.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import AsyncIterator, Coroutine
from time import perf_counter
from typing import Any, NoReturn, Self

import trio
from trio.lowlevel import current_task

from trioqt.core.buffers import SPLIT_SIZE, Delimiters, OneTransaction
from trioqt.core.errors import ErrorKind, SocketError
from trioqt.links.base import ENDS
from trioqt.links.interrupts import protected
from trioqt.sockets.answers import ANSWERS, ANSWERS_PERIOD, Marks
from trioqt.sockets.arguments import check_char, check_delimiter, check_size
from trioqt.sockets.connection import BLOCK_SIZE, CONNECTED
from trioqt.sockets.generation import Generation, is_another_task
from trioqt.sockets.traffic import BLOCKS_AT_ONCE, Traffic

__all__ = ["StreamReader"]

# What one receive_some takes at most if it is not told.  A block is one allocation, which from 128 KiB on is a system
# call of its own (glibc's M_MMAP_THRESHOLD), header included: 64 KiB gave 1.25 x raw trio in receiving 1 GiB, this
# 2.1, 256 and 512 KiB 2.1 and 1.7.
RECEIVE_SIZE = 127 * 1024


@protected
class StreamReader(Traffic):
    """A connection that can be read.  Qt: QIODevice."""

    __slots__ = ()

    # -- reading: what is there (Qt's verbs) ------------------------------------------------
    #
    # They never fail for the network's sake: what had arrived before an end or a failure is theirs, then nothing is.
    # error() and state() tell why.

    def bytes_available(self) -> int:
        """How many bytes can be read now: those in the buffer, and what the system holds, as far as the buffer may
        take it.

        While there are some, the system is asked once between two of the task's waits, as by all the sync verbs.

        Qt: bytesAvailable().
        """
        self._check_thread()
        self._pull_some()
        return len(self._read_buffer)

    def can_read_line(self) -> bool:
        """Is a whole line there?  Qt: canReadLine()."""
        if get_ident() != self._thread or self._parent is not None:
            self._check_thread()
        buffer = self._read_buffer
        return (buffer.lines is not None and not buffer.ahead) or self._line_size() > 0

    def _line_size(self) -> int:
        buffer = self._read_buffer
        size = buffer.line_size()
        if size == 0 or size > len(buffer) - buffer.ahead:
            self._pull_some()
            size = buffer.line_size()
        return size

    def _pull_some(self) -> None:
        self._pull(len(self._read_buffer) + BLOCK_SIZE * BLOCKS_AT_ONCE)

    def at_end(self) -> bool:
        """Is nothing there to read now?  More may come.  Qt: atEnd()."""
        self._check_thread()
        self._pull(1)
        return len(self._read_buffer) == 0

    def peer_has_finished(self) -> bool:
        """Has the peer's end come, or is the connection lost?  Then no byte will come but those that can be read.

        It looks at what the system holds, as far as the buffer may take it: an end that is behind more unread bytes
        than that is seen once they are read.  A pool of connections asks before it hands one out again.  False before
        there was a connection, and after ``abort``.

        Qt: no counterpart; readChannelFinished tells it.
        """
        self._check_call()
        for _ in range(2):  # bytes, and what is behind them
            self._pull(len(self._read_buffer) + BLOCK_SIZE * BLOCKS_AT_ONCE, end=True)
        return self._peer_finished or (self._generation.failure is not None and self._generation.connected)

    def peek(self, max_bytes: int) -> bytes:
        """Up to ``max_bytes`` that have arrived; they stay.  Qt: peek()."""
        max_bytes = check_size(max_bytes, "max_bytes")
        self._arrived(max_bytes)
        if max_bytes > len(self._read_buffer) - self._read_buffer.ahead:
            self._ask()
        self._unseen = False
        return self._read_buffer.peek(max_bytes)

    def skip(self, max_bytes: int) -> int:
        """Drop up to ``max_bytes`` that have arrived; how many.  Qt: skip()."""
        return len(self.read(max_bytes))

    def read(self, max_bytes: int) -> bytes:
        """Take up to ``max_bytes`` that have arrived; ``b""`` if none have.

        Raises:
          trio.ClosedResourceError: The socket is closed.
          trio.BusyResourceError: Another task is in a ``transaction``.
        Qt: read().
        """
        max_bytes = check_size(max_bytes, "max_bytes")
        self._arrived(max_bytes)
        return self._take(max_bytes)

    def read_all(self) -> bytes:
        """Take what has arrived, as ``bytes_available`` counts it.  Qt: readAll()."""
        buffer, link = self._read_buffer, self._direct
        if (  # a shortcut behind wait_for_ready_read, which has asked for all there was, or filled it: saves 1 us
            link is not None
            and get_ident() == self._thread
            and self._parent is None
            and not buffer.ahead
            and (self._has_asked(link) or self._room() <= 0)
        ):
            self._unseen = False
            if self._lot is not None:
                self._lot.unpark_all()
            return buffer.take(sys.maxsize)
        most = BLOCK_SIZE * BLOCKS_AT_ONCE + len(buffer)
        self._arrived(most)
        return self._take(most)

    def read_line(self, max_bytes: int | None = None) -> bytes:
        """Take a line with its newline; without a newline yet, what there is.

        Args:
          max_bytes: Take no more of it than so much.  None: a line that ``can_read_line`` has seen comes whole.

        Qt: readLine().  There, ``readLine(n)`` gives n - 1 bytes, and 0 means no limit.
        """
        if max_bytes is not None:
            max_bytes = check_size(max_bytes, "max_bytes", least=1)
        buffer = self._read_buffer
        is_plain = self._parent is None and not buffer.ahead and buffer.owned is None
        if max_bytes is None and is_plain and get_ident() == self._thread:
            # A shortcut for a line that is there, and of which nothing was read ahead: no need to measure it first.
            if (lines := buffer.lines) is not None:  # and it was split off already
                line = lines.pop()
                buffer.position += len(line)
                if not lines:
                    buffer.lines_over()
                self._unseen = False
                if self._lot is not None:
                    self._lot.unpark_all()
                return line
            found = buffer.take_through(b"\n", sys.maxsize)
            if found is not None:
                self._took()
                return found
        self._arrived(1)
        size = self._line_size() or len(self._read_buffer)
        return self._take(size if max_bytes is None else min(size, max_bytes))

    def get_char(self) -> bytes:
        """Take one byte; ``b""`` if none has arrived.  Qt: getChar()."""
        return self.read(1)

    def unget_char(self, char: bytes) -> None:
        """Put one byte in front of what is unread.  After the end of a connection that still works.

        Raises:
          SocketError: OPERATION in a transaction, or before a connection was begun, which would drop the byte.
          TypeError, ValueError: Not one byte.
          trio.BusyResourceError: A task is in a ``receive_...``: it would not hear of the byte.
          trio.ClosedResourceError: The socket is closed, or the connection was aborted.
        Qt: ungetChar().
        """
        char = check_char(char)
        self._check_readable("unget")
        if not self._open:
            self._refuse("unget")
        if self._read_buffer.in_transaction:
            raise SocketError(ErrorKind.OPERATION, "cannot unget in a transaction")
        self._check_nobody_receives()
        self._read_buffer.unget(char)
        self._update_direct()

    def is_transaction_started(self) -> bool:
        """Is one open?  Qt: isTransactionStarted()."""
        self._check_call()
        return self._read_buffer.in_transaction

    def start_transaction(self) -> None:
        """From here on what is read can be brought back.

        The bytes kept for that count against ``read_buffer_size``: who receives more than that in one gets
        LIMIT_EXCEEDED.  ``transaction`` is a block that has a bound of its own, and ends by itself.

        Raises:
          SocketError: OPERATION in a transaction.
          trio.BusyResourceError: Another task is in a ``receive_...``: what it takes could not be brought back.
        Qt: startTransaction().
        """
        self._start_transaction(None)

    def _start_transaction(self, owned: OneTransaction | None) -> None:
        self._check_readable("start a transaction")
        self._check_nobody_receives()
        if self._read_buffer.in_transaction:
            raise SocketError(ErrorKind.OPERATION, "cannot start a transaction in a transaction")
        self._read_buffer.start_transaction(owned)
        self._answered = None
        self._cut_off_by = None
        self._update_direct()

    def commit_transaction(self) -> None:
        """What was read is gone for good.

        Raises:
          SocketError: OPERATION outside of a transaction.
          trio.BusyResourceError: It is the ``transaction`` of another task.
          trio.ClosedResourceError: The socket is closed, or another task has cut the transaction off by an end that
            drops what is unread, ``abort`` for one.
        Qt: commitTransaction().
        """
        self._check_transaction("commit")
        self._read_buffer.commit()
        self._transaction_over()

    def rollback_transaction(self) -> None:
        """What was read is there again.

        Raises:
          SocketError: OPERATION outside of a transaction.
          trio.BusyResourceError: A task is in a ``receive_...``: it would not hear of the bytes.  Or as
            ``commit_transaction``.
          trio.ClosedResourceError: As ``commit_transaction``.
        Qt: rollbackTransaction().
        """
        self._check_transaction("roll back")
        self._check_nobody_receives()
        self._read_buffer.rollback()
        self._transaction_over()

    def _transaction_over(self) -> None:
        self._update_direct()
        self._changed()

    def _allowance(self) -> int:
        """How many more bytes may be taken, which the transaction of a task of its own bounds.

        Raises: trio.BusyResourceError: It is another task's.
        """
        owned = self._read_buffer.owned
        if owned is None:
            return sys.maxsize
        if owned.task is not trio.lowlevel.current_task():
            raise trio.BusyResourceError("another task is in a transaction on this socket")
        return owned.max_bytes - self._read_buffer.taken

    def _check_nobody_receives(self) -> None:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")

    def _check_transaction(self, attempted: str) -> None:
        self._check_readable(f"{attempted} a transaction")
        self._allowance()
        if not self._read_buffer.in_transaction:
            cut_off_by, self._cut_off_by = self._cut_off_by, None  # it is over, and that is told once
            if is_another_task(cut_off_by):
                raise trio.ClosedResourceError(f"cannot {attempted} the transaction: its connection was ended here")
            raise SocketError(ErrorKind.OPERATION, f"cannot {attempted} outside of a transaction")

    def read_buffer_size(self) -> int:
        """How many bytes are read ahead at most; 0: no limit.  Qt: readBufferSize()."""
        self._check_call()
        return self._read_buffer_size

    def set_read_buffer_size(self, size: int) -> None:
        """Change it; nothing that is buffered is dropped.  Qt: setReadBufferSize()."""
        self._check_run()
        self._read_buffer_size = check_size(size, "size")
        self._check_call()
        self._changed()

    def _check_readable(self, attempted: str) -> None:
        self._check_run()
        if self._closed or not self._in_scope():
            self._refuse(attempted, ended=False)

    def _arrived(self, wanted: int) -> int:
        """How many bytes are there, after a look at the system if ``wanted`` are not."""
        if get_ident() != self._thread:
            self._check_run()
        if self._closed or (self._parent is not None and not self._in_scope()):
            raise trio.ClosedResourceError("cannot read: the socket is closed")
        if len(self._read_buffer) - self._read_buffer.ahead < wanted:
            self._pull(wanted)
        return len(self._read_buffer)

    def _take(self, max_bytes: int) -> bytes:
        if self._read_buffer.owned is not None:
            self._allowance()
        data = self._read_buffer.take(max_bytes)
        self._took()
        return data

    def _took(self) -> None:
        """Bytes were taken out of the buffer: there is room for the watcher."""
        self._unseen = False
        if self._read_buffer.ahead:
            self._saw()
        if self._lot is not None:
            self._lot.unpark_all()

    # -- receiving: waits (trio's verbs) ----------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = await self.receive_some()
        if not data:
            raise StopAsyncIteration
        return data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for at least one byte.  ``b""`` means the peer finished.

        Args:
          max_bytes: None lets the socket choose: at most 127 KiB.

        Raises:
          SocketError: The connection was lost; what had arrived comes first.  LIMIT_EXCEEDED in a transaction that
            holds all it may, all of it read.
          trio.ClosedResourceError: The socket is closed, or the connection was aborted here, or ended by another task.
          trio.BusyResourceError: Another task is in a ``receive_...``, or in a ``transaction``.
        Cancelled: nothing was taken.
        Qt: waitForReadyRead + read.
        """
        if get_ident() != self._thread:
            self._check_run()
        if self._parent is not None:
            self._in_scope()  # which closes it, if that nursery has ended
        if max_bytes is None:
            limit, link = RECEIVE_SIZE, self._direct
        else:
            # Of a smaller piece the rest belongs in the buffer, where the other verbs look for it; a larger one than
            # this is never there at once, and would cost its memory.
            limit = min(check_size(max_bytes, "max_bytes", least=1), BLOCK_SIZE * BLOCKS_AT_ONCE)
            link = self._direct if limit >= BLOCK_SIZE else None
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        if self._read_buffer.owned is not None:
            self._allowance()
        self._receiving = True
        generation, owed = self._generation, False
        try:
            if link is not None and not self._read_buffer.data:
                # Nothing is buffered and nobody watches: the bytes need not pass through the buffer.
                try:
                    if not link.is_drained():
                        await trio.lowlevel.checkpoint_if_cancelled()
                        if data := link.try_receive(limit):
                            await trio.lowlevel.cancel_shielded_checkpoint()
                            return data
                    await link.wait_receivable(limit)
                    data = link.try_receive(limit)
                except ENDS as exc:
                    self._receiver_woke(link, exc)
                else:
                    if data and self._direct is link:
                        return data
                    if data is not None:
                        self._came(link, generation, data)
            elif self._direct is None or self._read_buffer:  # else the wait for bytes is turn enough
                owed = await self._turn()
            self._check_same(generation, "receive")
            while not self._read_buffer:
                if self._peer_finished:
                    return self._tell_finish()
                await self._fill_up_to(limit, generation)
                self._refill_answers()
            if self._read_buffer.owned is not None and (limit := min(limit, self._allowance())) <= 0:
                raise SocketError(ErrorKind.LIMIT_EXCEEDED, self._full())
            return self._take(limit)
        finally:
            self._receiving = False
            if self._lot is not None:
                self._lot.unpark_all()
            if owed:
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def receive_line(self, max_bytes: int = 65536) -> bytes:
        """Wait for a whole line.  After the peer finished: the unended rest, then ``b""``.

        Raises:
          SocketError: LIMIT_EXCEEDED when ``max_bytes`` arrive without a newline; they stay readable.  The failure,
            when the connection was lost; the unended rest stays readable.
          trio.ClosedResourceError, trio.BusyResourceError: as ``receive_some``.
        Cancelled: nothing was taken.
        Qt: canReadLine, waitForReadyRead and readLine in a loop.
        """
        if type(max_bytes) is not int or max_bytes < 1:
            max_bytes = check_size(max_bytes, "max_bytes", least=1)
        if self._read_buffer.lines is not None or self._read_buffer.next_lines() is not None:
            line = self._next_line(max_bytes)
            if line is not None:
                return line
        return await self._receive_through(b"\n", max_bytes, rest=True)

    async def receive_until(self, delimiter: bytes | tuple[bytes, ...], max_bytes: int = 65536) -> bytes:
        """Wait for bytes up to and with ``delimiter``, ``max_bytes`` with it.

        Args:
          delimiter: Or several, as ``str.endswith`` takes them: the one that begins first ends it, and the longest of
            those that begin there.  What is returned ends with it.  While a longer one may have begun that would win,
            more bytes are waited for; so it is the same one however the network cuts the bytes.

        Raises:
          SocketError: LIMIT_EXCEEDED when that many arrive without it, REMOTE_HOST_CLOSED if the peer finishes before
            it; what came stays readable.
          ValueError: The delimiter is empty, or longer than ``max_bytes``.
          trio.ClosedResourceError, trio.BusyResourceError: as ``receive_some``.
        Cancelled: nothing was taken.
        Qt: no counterpart.
        """
        if isinstance(delimiter, tuple):
            if not delimiter:
                raise ValueError("there must be a delimiter")
            several = Delimiters(tuple(map(check_delimiter, delimiter)))
            return await self._receive_through(several, max_bytes, rest=False)
        return await self._receive_through(check_delimiter(delimiter), max_bytes, rest=False)

    def _next_line(self, max_bytes: int) -> bytes | None:
        """The next of the lines that are split off already, if nothing else is due to its receiver; else None.

        A shortcut past ``_receive_through``, with all that it does for one: nothing is awaited, for trio's marks tell
        without a coroutine whether the task is cancelled.  Of 11,800 instructions for a line and its answer 8,500 are
        left with it, and with the processor's clock.
        """
        buffer, task, answers, now = self._read_buffer, current_task(), self._answers - 1, self._now
        lines = buffer.lines
        if (
            lines is None
            or task is not self._answered  # so it is of this run, and has waited here before
            or answers <= 0
            or now() >= self._answers_until
            or self._receiving
            or max_bytes < SPLIT_SIZE  # no line that was split off is longer
            or task._cancel_status.effectively_cancelled
            or task._runner.ki_pending
        ):
            return None
        self._answers = answers
        line = lines.pop()
        buffer.position += len(line)
        if not lines:
            buffer.lines_over()
        self._unseen = False
        if buffer.ahead:
            self._saw()
        if self._lot is not None:
            self._lot.unpark_all()
        return line

    async def receive_exactly(self, count: int) -> bytes:
        """Wait for ``count`` bytes.

        ``count`` alone bounds what it reads, whatever ``read_buffer_size`` is.  In a transaction there is a bound for
        all that is taken in it: ``max_bytes`` in a ``transaction``; after ``start_transaction`` the larger one of
        ``read_buffer_size`` and ``count``.

        Raises:
          SocketError: REMOTE_HOST_CLOSED if the peer finishes first, or the failure; what came stays readable.
            LIMIT_EXCEEDED in a transaction that may not hold so many; the message names the bound.
          trio.ClosedResourceError, trio.BusyResourceError: as ``receive_some``.
        Cancelled: nothing was taken.
        Qt: no counterpart; QIODevice::read after enough waitForReadyRead.
        """
        count = check_size(count, "count")
        self._begin_receiving()
        generation, owed = self._generation, False
        try:
            if self._direct is None or len(self._read_buffer) >= count:  # else the wait for bytes is turn enough
                owed = await self._look()
                self._check_same(generation, "receive")
            owned = self._read_buffer.owned
            if owned is not None and count > self._allowance():
                message = f"the transaction may take {self._allowance()} more bytes, not {count}"
                raise SocketError(ErrorKind.LIMIT_EXCEEDED, f"{message}; its max_bytes is {owned.max_bytes}")
            while len(self._read_buffer) < count:
                if self._peer_finished:
                    self._refuse_rest(f"the peer finished after {len(self._read_buffer)} of {count} bytes")
                await self._fill_up_to(count, generation)
                self._refill_answers()
            if self._closed or generation.dropped or (count == 0 and self._has_no_more()):  # no bytes are always there
                self._refuse("receive")
            return self._take(count)
        finally:
            self._end_receiving()
            if owed:
                await trio.lowlevel.cancel_shielded_checkpoint()

    def _has_no_more(self) -> bool:
        return not (self._read_buffer or self._peer_finished or self._machine.state is CONNECTED)

    def lines(self, max_bytes: int = 65536) -> AsyncIterator[bytes]:
        """``receive_line`` again and again, until the peer has finished.

        An iterator object, so a cancelled step does not end it.
        """
        self._check_run()
        return _Lines(self, check_size(max_bytes, "max_bytes", least=1))

    async def wait_for_ready_read(self) -> bool:
        """Wait for bytes you have not seen.  True: there are some; False: there will be none.

        Bytes are "seen" once a read or an earlier call of this method has returned after they arrived.  So
        no wake-up is lost between calls, and a half-arrived line does not spin.  While looking up or connecting it
        waits for the connection first.

        Raises:
          SocketError: LIMIT_EXCEEDED when the buffer is full and seen: nothing more can come.  The failure, when the
            connection was lost or the attempt failed.
          trio.ClosedResourceError, trio.BusyResourceError: as ``receive_some``.
        Cancelled: what came is still unseen.
        Qt: waitForReadyRead().  There, it waits for bytes that arrive during the call.
        """
        if get_ident() != self._thread:
            self._check_run()
        if self._parent is not None:
            self._in_scope()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        if self._read_buffer.owned is not None:
            self._allowance()
        self._receiving = True
        buffer, generation, owed = self._read_buffer, self._generation, False
        try:
            # Where the answer is not there yet, and nothing but bytes can bring it, the wait for them is turn enough.
            if self._direct is not None and not buffer:
                await self._fill(None, generation)
                if self._unseen and not buffer.ahead and buffer:
                    self._unseen = False
                    return True
            elif self._direct is None or self._has_unseen() or self._room() <= 0:
                owed = await self._turn() and self._attempt is None  # to wait for that is a turn
                while self._attempt is not None and self._generation is generation:
                    await self._park()
                self._check_same(generation, "receive")
            while not self._has_unseen():
                if self._peer_finished:
                    return self._tell_finish() != b""
                if self._room() <= 0:
                    raise SocketError(ErrorKind.LIMIT_EXCEEDED, self._full())
                await self._fill(None, generation)
            if self._unseen:
                self._unseen = False
            else:
                self._read_buffer.ahead = 0
            return True
        finally:
            self._receiving = False
            if self._lot is not None:
                self._lot.unpark_all()
            if owed:
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def _receive_through(
        self, delimiter: bytes | Delimiters, max_bytes: int, *, rest: bool, iterating: bool = False
    ) -> bytes:
        """What ``receive_line`` and ``receive_until`` do, and the steps of ``lines``.

        Args:
          rest: At the peer's end, what is there will do.
          iterating: And then the end is StopAsyncIteration.
        """
        if type(max_bytes) is not int or max_bytes < len(delimiter):
            max_bytes = check_size(max_bytes, "max_bytes", least=len(delimiter))
        if get_ident() != self._thread:
            self._check_run()
        if self._parent is not None:
            self._in_scope()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        buffer, generation, owed = self._read_buffer, self._generation, False
        if buffer.owned is not None:
            max_bytes = min(max_bytes, self._allowance())
        self._receiving = True
        try:
            link = self._direct
            if link is not None and not buffer.data and not self._watcher_waits:
                # A shortcut past _fill, where nothing but this wait can bring bytes; it is turn enough.
                room = min(max(max_bytes, self._read_buffer_size or BLOCK_SIZE), BLOCK_SIZE)
                try:
                    if link.is_drained():
                        await link.wait_receivable(room)
                    else:
                        await trio.lowlevel.checkpoint()
                    data = link.try_receive(room)
                except ENDS as exc:
                    self._receiver_woke(link, exc)
                else:
                    self._arrived_at_receiver(link, generation, data)
                if self._generation is not generation:
                    self._check_same(generation, "receive")
                self._refill_answers()
            else:
                owed = await self._look()
                self._check_same(generation, "receive")
            while True:
                if isinstance(delimiter, bytes):
                    piece = buffer.take_through(delimiter, max_bytes)
                else:
                    final = self._peer_finished or self._machine.state is not CONNECTED
                    piece = buffer.take_through_any(delimiter, max_bytes, final=final)
                if piece is not None:
                    if iterating and buffer.data:
                        buffer.next_lines()
                    self._unseen = False
                    if buffer.ahead:
                        self._saw()
                    return piece
                if len(buffer) >= max_bytes:
                    message = f"{max_bytes} bytes arrived without {delimiter!r}"
                    if buffer.owned is not None and max_bytes == self._allowance():
                        message = f"{message}, and the transaction may take no more"
                    raise SocketError(ErrorKind.LIMIT_EXCEEDED, message)
                if self._peer_finished:
                    if not rest:
                        self._refuse_rest(f"the peer finished before {delimiter!r}")
                    if buffer:
                        return self._take(max_bytes)
                    end = self._tell_finish()
                    if iterating:
                        raise StopAsyncIteration
                    return end
                await self._fill_up_to(max_bytes, generation)
                self._refill_answers()
        finally:
            self._receiving = False
            if self._lot is not None:
                self._lot.unpark_all()
            if owed:
                await trio.lowlevel.cancel_shielded_checkpoint()

    def _begin_receiving(self) -> None:
        self._check_thread()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        if self._read_buffer.owned is not None:
            self._allowance()
        self._receiving = True

    def _end_receiving(self) -> None:
        self._receiving = False
        if self._lot is not None:
            self._lot.unpark_all()

    async def _turn(self) -> bool:
        """Look for cancellation, and let other tasks run, or say that this is owed: see ``_is_idle``.

        While looking up or connecting it is owed too, because that state refuses a receive.
        """
        if self._link is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            return True
        await trio.lowlevel.checkpoint()
        return False

    async def _look(self) -> bool:
        """Look for cancellation; let other tasks run, or owe it, if the buffer has answered for long enough."""
        self._answers -= 1
        if self._answers > 0 and self._now() < self._answers_until:
            await trio.lowlevel.checkpoint_if_cancelled()
            return False
        owed = await self._turn()
        self._refill_answers()
        return owed

    def _refill_answers(self) -> None:
        # trio's clock, not the processor's: on a mock clock the turns must not depend on the machine's speed.
        if not self._answers_until:
            clock = trio.lowlevel.current_clock()
            # Where that is the processor's own, which trio's class tells by its name, it is asked without a call more.
            self._now = perf_counter if type(clock).__name__ == "SystemClock" else clock.current_time
        self._answers = ANSWERS
        self._answers_until = self._now() + ANSWERS_PERIOD
        is_plain = self._parent is None and self._read_buffer.owned is None
        self._answered = current_task() if is_plain and Marks.are_known() else None

    def _fill_up_to(self, wanted: int, generation: Generation) -> Coroutine[Any, Any, None]:
        """As ``_fill``, reading on up to ``wanted`` bytes even where the buffer's own bound is lower."""
        buffer = self._read_buffer
        # In a transaction of its own bound what was taken is no part of what is wanted.
        room = wanted - buffer.held if buffer.owned is None else min(wanted, self._allowance()) - len(buffer)
        room = max(self._room(), room)
        if room <= 0:
            message = f"the transaction holds {buffer.held} bytes, read_buffer_size is {self._read_buffer_size}"
            raise SocketError(ErrorKind.LIMIT_EXCEEDED, message if buffer.owned is None else self._full())
        return self._fill(min(room, BLOCK_SIZE), generation)

    def _tell_finish(self) -> bytes:
        """The end has been reached.  A failure that came after it is told after it."""
        if self._finish_told and self._generation.failure is not None and self._half_open:
            self._raise_failure()
        if self._closed or self._generation.dropped:
            self._refuse("receive")
        self._finish_told = True
        return b""

    def _refuse_rest(self, message: str) -> NoReturn:
        """The peer finished, or was lost, in the middle."""
        if self._closed or self._generation.dropped:
            self._refuse("receive")
        if self._generation.failure is not None and self._half_open:
            self._raise_failure()
        raise SocketError(ErrorKind.REMOTE_HOST_CLOSED, message)


@protected
class _Lines(AsyncIterator[bytes]):
    __slots__ = ("_max_bytes", "_sock")

    def __init__(self, sock: StreamReader, max_bytes: int) -> None:
        self._sock = sock
        self._max_bytes = max_bytes

    async def __anext__(self) -> bytes:
        sock = self._sock
        if sock._read_buffer.lines is not None:
            line = sock._next_line(self._max_bytes)
            if line is not None:
                return line
        return await sock._receive_through(b"\n", self._max_bytes, rest=True, iterating=True)
