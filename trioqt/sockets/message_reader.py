"""Messages: several pieces that are taken together or not at all.

By a function that reads them out of a ``DataStream``, or in a block that may wait between them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import CoroutineType, TracebackType
from typing import TypeVar

import trio

from trioqt.core.buffers import OneTransaction
from trioqt.core.data_stream import DataStream
from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.hints import AsyncBlock
from trioqt.core.raw_stream import DataStreamError, DataStreamVersion, Incomplete
from trioqt.links.interrupts import call_interruptible, protected
from trioqt.sockets.arguments import check_size
from trioqt.sockets.stream_reader import StreamReader

__all__ = ["MessageReader"]

T = TypeVar("T")

# 16 MiB: what a message or a transaction may hold, unless it is told.
MESSAGE_SIZE = 1 << 24

# A message that is read item by item, or of which all that has come is looked at, is read from its beginning each time
# that a little more has come, so a peer that sends it bit by bit could keep this run busy for ever.  After a try that
# was long the next one waits for as long as that took: half of the time is then the other tasks'.  A read takes about
# 1 us, and a thousand are not long.
READ_TIME, FEW_READS = 1e-6, 1000


@protected
class MessageReader(StreamReader):
    """A connection whose bytes are messages.  Qt: QDataStream on a QIODevice."""

    __slots__ = ()

    async def receive_message(
        self,
        read: Callable[[DataStream], T],
        max_bytes: int = MESSAGE_SIZE,
        *,
        version: int = DataStreamVersion.QT_5_15,
    ) -> T:
        """Wait until ``read(stream)`` can finish, and take just the bytes it read.

        ``read`` is tried on what has arrived, and again when as many bytes are there as it asked for; so it must have
        no side effects, and a long message is better read as one list or block than item by item.  No other task runs
        while it does, and an item takes 1 to 2 us: let ``max_bytes`` be what your messages need, and no more.
        ``receive_message(DataStream.read_q_string)`` is the shortest.

        Args:
          read: What reads the message.  It may call ``set_byte_order`` and the like first.
          max_bytes: Of one message.
          version: Of the stream, a ``DataStreamVersion``.

        Raises:
          SocketError: LIMIT_EXCEEDED when ``max_bytes`` do not suffice, as soon as that is known; CORRUPT_DATA when
            ``read`` raises ``DataStreamError``; REMOTE_HOST_CLOSED if the peer finishes first, or the failure.
          trio.ClosedResourceError, trio.BusyResourceError: as ``receive_some``.
          TypeError: ``read`` cannot be called, or is an async function.
          Exception: What else ``read`` raises.
        After any of them all bytes stay readable.
        Cancelled: nothing was taken.
        Qt: QDataStream::startTransaction, then commitTransaction, at each readyRead.
        """
        max_bytes = check_size(max_bytes, "max_bytes", least=1)
        if not callable(read):
            raise TypeError(f"a message is read by a function, as DataStream.read_q_string, not {type(read).__name__}")
        DataStream(version=version)  # a version that is none is told before anything is waited for
        self._begin_receiving()
        generation, owed = self._generation, False
        buffer = self._read_buffer
        try:
            if self._direct is None or buffer:  # else the wait for bytes is turn enough
                owed = await self._look()
                self._check_same(generation, "receive")
            most = min(max_bytes, self._allowance())
            needed = 1
            while True:
                while len(buffer) < needed:
                    if self._peer_finished:
                        there = f"after {len(buffer)} bytes of a message" if buffer else "before a message"
                        self._refuse_rest(f"the peer finished {there}")
                    # As many again may come at once, or a long message would come in the pieces that it asks for.
                    await self._fill_up_to(min(most, max(needed, 2 * len(buffer))), generation)
                    self._refill_answers()
                data, begin = buffer.stretch()
                # Another one each time: ``read`` may have changed its byte order on the way.
                stream = DataStream(version=version)
                stream._look_at(data, begin, min(begin + len(buffer), begin + most))
                try:
                    value = call_interruptible(read, stream)
                except DataStreamError as exc:
                    # Out of what has arrived there may be a smaller stream that has ended: that one will not go on.
                    if not isinstance(exc, Incomplete) or stream._needed == 0:
                        raise SocketError(ErrorKind.CORRUPT_DATA, f"a message cannot be read: {exc}") from exc
                    needed, reads = stream._needed, stream._reads
                else:
                    if isinstance(value, CoroutineType):
                        value.close()
                        raise TypeError("what reads a message is an ordinary function, for it may be called again")
                    self._check_same(generation, "receive")
                    self._take(stream._position - begin)
                    return value
                finally:
                    stream._look_away()
                if needed > most:
                    message = f"a message needs {needed} bytes, and may have {most}"
                    raise SocketError(ErrorKind.LIMIT_EXCEEDED, message)
                if reads > FEW_READS:
                    await trio.sleep(reads * READ_TIME)
                    self._check_same(generation, "receive")
        finally:
            self._end_receiving()
            if owed:
                await trio.lowlevel.cancel_shielded_checkpoint()

    def transaction(self, max_bytes: int = MESSAGE_SIZE) -> AbstractAsyncContextManager[None]:
        """``async with sock.transaction():`` what is received in the block is taken together, or not at all.

        At the block's end it is gone for good; if the block is left by an exception or a cancellation, all of it is
        there again.  ``read_buffer_size`` does not bound it: ``await sock.receive_exactly(100_000)`` works in one.
        Only the task that is in the block may receive or read meanwhile.  ``commit_transaction`` and
        ``rollback_transaction`` may end it before.

        Args:
          max_bytes: How many bytes may be received in it; a ``receive_...`` that needs more raises
            SocketError(LIMIT_EXCEEDED).  The verbs that do not wait take what has arrived.

        Raises, when it is entered:
          SocketError: OPERATION in a transaction.
          trio.BusyResourceError: Another task is in a ``receive_...``.
          trio.ClosedResourceError: The socket is closed.
        Cancelled: nothing was taken.
        Qt: startTransaction, and commitTransaction or rollbackTransaction.
        """
        self._check_readable("start a transaction")
        return _Transaction(self, check_size(max_bytes, "max_bytes", least=1))

    async def _enter_transaction(self, owned: OneTransaction) -> None:
        self._check_readable("start a transaction")
        owed = await self._look()
        try:
            owned.task = trio.lowlevel.current_task()
            self._start_transaction(owned)
        finally:
            if owed:
                await trio.lowlevel.cancel_shielded_checkpoint()

    def _leave_transaction(self, owned: OneTransaction, *, keep: bool) -> None:
        """End it, unless it has been: by the program, or with the connection."""
        buffer = self._read_buffer
        if buffer.owned is owned:
            if keep:
                buffer.rollback()
            else:
                buffer.commit()
            self._transaction_over()


@protected
class _Transaction(AbstractAsyncContextManager[None], AsyncBlock):
    __slots__ = ("_max_bytes", "_owned", "_sock")

    def __init__(self, sock: MessageReader, max_bytes: int) -> None:
        self._sock = sock
        self._max_bytes = max_bytes
        self._owned: OneTransaction | None = None

    async def __aenter__(self) -> None:
        owned = OneTransaction(None, self._max_bytes)
        await self._sock._enter_transaction(owned)
        self._owned = owned

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # No checkpoint: cancelled here, it would have to take back what the block has got.
        owned, self._owned = self._owned, None
        if owned is not None:
            self._sock._leave_transaction(owned, keep=exc is not None)
