"""The receiving verbs of a datagram socket: Qt's, which take what is there, and trio's, which wait for it."""

from __future__ import annotations

from _thread import get_ident
from typing import Self

import trio
from trio.lowlevel import checkpoint_if_cancelled

from trioqt.core.datagram import NetworkDatagram
from trioqt.core.errors import ErrorKind, SocketError
from trioqt.links.interrupts import protected
from trioqt.sockets.arguments import check_size
from trioqt.sockets.datagrams import BATCH, BOUND, Datagrams

__all__ = ["DatagramReader"]


@protected
class DatagramReader(Datagrams):
    """A socket that receives datagrams."""

    __slots__ = ()

    # -- receiving: what is there (Qt's verbs) ----------------------------------------------

    def has_pending_datagrams(self) -> bool:
        """Has one arrived that nobody has taken?  An empty one counts.  Qt: hasPendingDatagrams()."""
        return self._peek() is not None

    def pending_datagram_size(self) -> int:
        """How many bytes the oldest datagram has that nobody has taken; -1 if there is none.

        Qt: pendingDatagramSize().
        """
        datagram = self._peek()
        return -1 if datagram is None else len(datagram.data)

    def read_datagram(self, max_bytes: int | None = None) -> NetworkDatagram | None:
        """Take the oldest datagram that has arrived, or None.

        Args:
          max_bytes: Take no more of it than so much; the rest is gone, and its ``truncated`` says so.

        Raises: trio.ClosedResourceError if the socket is closed.
        Qt: readDatagram(), receiveDatagram().  There, an invalid one in place of None.
        """
        if (
            max_bytes is None
            and self._arrived
            and not self._closed
            and get_ident() == self._thread
            and self._parent is None
            and not self._subscriptions
        ):  # a shortcut, as in __anext__
            self._news, self._ready_told = True, False
            if self._lot is not None:
                self._lot.unpark_all()
            return self._arrived.popleft()
        limit = None if max_bytes is None else check_size(max_bytes, "max_bytes")
        return None if self._peek() is None else self._take(limit)

    def bytes_available(self) -> int:
        """How many bytes the oldest datagram has that nobody has taken; 0 if there is none, or it is empty.

        Qt: bytesAvailable().
        """
        return max(self.pending_datagram_size(), 0)

    def read(self, max_bytes: int) -> bytes:
        """Take the oldest datagram that the peer has sent, or ``b""`` if there is none.

        Args:
          max_bytes: What does not fit is gone.

        Raises:
          SocketError: OPERATION if it is bound, and has no peer: use ``read_datagram``.
          trio.ClosedResourceError: The socket is closed.
        Qt: read(), on a virtual connection.
        """
        max_bytes = check_size(max_bytes, "max_bytes")
        return self._read_data(max_bytes)

    def read_all(self) -> bytes:
        """``read``, with room for the whole of it.  Qt: readAll(), on a virtual connection."""
        return self._read_data(None)

    def _read_data(self, limit: int | None) -> bytes:
        self._check_thread()
        if self._machine.state is BOUND:
            raise SocketError(ErrorKind.OPERATION, "cannot read without a peer; read_datagram can")
        return b"" if self._peek() is None else self._take(limit).data

    def read_buffer_size(self) -> int:
        """What was set; it has no effect.  Qt: readBufferSize(), which has none either."""
        self._check_call()
        return self._read_buffer_size

    def set_read_buffer_size(self, size: int) -> None:
        """Kept, and without effect: datagrams wait in the system's buffer, ``SocketOption.RECEIVE_BUFFER_SIZE``.

        Qt: setReadBufferSize().
        """
        self._check_call()
        self._read_buffer_size = check_size(size, "size")

    def dropped_datagrams(self) -> int | None:
        """How many datagrams the system has dropped since the socket was made, because its buffer was full.

        Datagrams that are damaged count too.  None where the system does not say (Linux does, with SO_MEMINFO, which
        tells what SO_RXQ_OVFL would tell with the next datagram), and without an address.

        Qt: no counterpart.
        """
        self._check_call()
        return None if self._link is None else self._link.dropped()

    # -- receiving: waits (trio's verbs) ----------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NetworkDatagram:
        arrived = self._arrived
        if (
            arrived
            and self._answers > 1
            and self._now() < self._answers_until
            and not self._receiving
            and get_ident() == self._thread
            and self._parent is None
            and not self._subscriptions
        ):
            # A shortcut for one that is there, with all that is due to it: saves 0.9 us of 12.  Nobody else has a turn
            # in here, so nobody need know that we receive.
            self._answers -= 1
            await checkpoint_if_cancelled()
            self._news, self._ready_told = True, False
            if self._lot is not None:
                self._lot.unpark_all()
            return arrived.popleft()
        return await self._receive(None, deaf=True)

    async def receive_datagram(self, max_bytes: int | None = None) -> NetworkDatagram:
        """Wait for a datagram.  An empty one is one.

        Args:
          max_bytes: Take no more of it than so much; the rest is gone, and its ``truncated`` says so.

        Raises:
          SocketError: What the network says of a datagram that was sent, as CONNECTION_REFUSED when nobody is at the
            peer's port; told once, after what had arrived, and the next call goes on.  OPERATION if the socket has no
            address.
          trio.ClosedResourceError: The socket is closed, or was ended by another task.
          trio.BusyResourceError: Another task is in a call that waits for a datagram.
        Cancelled: no datagram was taken.
        Qt: waitForReadyRead + receiveDatagram.
        """
        return await self._receive(None if max_bytes is None else check_size(max_bytes, "max_bytes"))

    async def _receive(self, limit: int | None, *, deaf: bool = False) -> NetworkDatagram:
        """``receive_datagram``.

        Args:
          deaf: What the network says of others is not to end it.
        """
        if get_ident() != self._thread:
            self._check_run()
        if self._parent is not None:
            self._in_scope()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        self._receiving = True
        generation, owed = self._generation, False
        try:
            link = self._link
            if not self._arrived and self._trouble is None and link is not None and link.is_drained():
                pass  # to wait for one is turn enough
            elif self._has_answers():
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                owed = await self._turn()
                self._check_same(generation, "receive")
                self._refill_answers()
            while not self._arrived:
                if self._trouble is not None and not deaf:
                    self._raise_trouble()
                await self._fill(generation)
            return self._take(limit)
        finally:
            self._receiving = False
            if self._lot is not None:
                self._lot.unpark_all()
            if owed:
                await trio.lowlevel.cancel_shielded_checkpoint()

    def _has_answers(self) -> bool:
        """May what is there answer once more, before others have their turn?"""
        self._answers -= 1
        return self._answers > 0 and self._now() < self._answers_until

    async def wait_for_ready_read(self) -> bool:
        """Wait for a datagram, and return True.

        One that an earlier call of this method has told of does not count, until a read has taken one; so no wake-up is
        lost, and who does not read does not spin.  While looking up or connecting it waits for that first.

        Raises: as ``receive_datagram``; SocketError(LIMIT_EXCEEDED) if 64 have been told, and none was read.
        Cancelled: what came is still to be told.
        Qt: waitForReadyRead().  There, it waits for one that arrives during the call.
        """
        self._check_thread()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        self._receiving = True
        generation, owed = self._generation, False
        try:
            owed = await self._turn() and self._attempt is None
            while self._link is None and self._attempt is not None and self._generation is generation:
                await self._park()
            self._check_same(generation, "receive")
            while not (self._arrived and self._news):
                if self._trouble is not None:
                    self._raise_trouble()
                if len(self._arrived) >= BATCH:
                    raise SocketError(ErrorKind.LIMIT_EXCEEDED, f"{BATCH} datagrams wait unread")
                await self._fill(generation)
            self._news = False
            return True
        finally:
            self._receiving = False
            self._changed()
            if owed:
                await trio.lowlevel.cancel_shielded_checkpoint()
