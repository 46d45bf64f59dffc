"""The verbs of a TCP connection: Qt's, which are sync, and trio's, which wait.

What they do to bytes is here; how bytes move and connections end is ``connection.py``.
"""

from __future__ import annotations

import errno
import math
import operator
import socket
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, NoReturn, Self

import trio

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, from_sockaddr
from trioqt.core.errors import ErrorKind, SocketError, kind_of, reason_of
from trioqt.core.events import BytesWritten
from trioqt.core.options import SocketType
from trioqt.core.socket_state import SocketState
from trioqt.core.states import Input
from trioqt.links.base import Link
from trioqt.links.bind import bind_socket
from trioqt.links.connect import AttemptsFailed, Target, connect, link_over, look_up, race
from trioqt.links.native import KernelSocket, NativeLink
from trioqt.links.stream import StreamLink
from trioqt.sockets.abstract_socket import Bound, Failure, Generation
from trioqt.sockets.arguments import Host, check_char, check_host, check_port, check_size
from trioqt.sockets.connection import BLOCK_SIZE, BLOCKS_AT_ONCE, CONNECTED, Connection
from trioqt.sockets.descriptors import open_connection

__all__ = ["TcpSocket"]

# How long the buffer may answer a task before others get their turn.  64 answers were as fast as 1,024 (9.3 and 9.2 x
# raw trio's lines), and eight times as fast as yielding each time; the millisecond is for handlers that are slow
# between them.
ANSWERS = 64
ANSWERS_PERIOD = 0.001

# What one receive_some takes at most if it is not told.  A block is one allocation, which from 128 KiB on is a system
# call of its own (glibc's M_MMAP_THRESHOLD), header included: 64 KiB gave 1.25 x raw trio in receiving 1 GiB, this
# 2.1, 256 and 512 KiB 2.1 and 1.7.
RECEIVE_SIZE = 127 * 1024

# Answers are collected up to so many bytes.  A send of one short line costs 4.6 us, and all of trioqt's own work on
# the line 3: with a send for each, a server of pipelined lines did 2.4 x raw trio, collecting it does more than 4.
CORK_SIZE = 16384

# What a wait on a link can end with.
ENDS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class TcpSocket(Connection, trio.abc.HalfCloseableStream):
    """A TCP connection with Qt's buffers and signals, which is also an ordinary trio stream.

    ``async for chunk in sock`` and ``async for line in sock.lines()`` receive until the peer finishes.

    Args:
      parent: As for ``AbstractSocket``.
      read_buffer_size: Bounds what is read ahead; then TCP slows the peer.  A waiting ``receive_...`` may read on up
        to its own limit.  0 means no limit, which is Qt's default and not ours.
      write_buffer_size: ``write`` raises ``trio.WouldBlock``, and ``send_all`` waits, once this many bytes are queued;
        so the queue holds at most this and one message more.
      half_open: True (trio): when the peer finishes, you may still send; your block ends the connection.
        False (Qt): such a socket always reads ahead, and at the peer's end does as ``disconnect_from_host``.
      flush_timeout: How long leaving the block goes on while the peer takes nothing, in seconds; every byte that the
        kernel takes starts it anew.  Then it aborts and raises SocketError(SOCKET_TIMEOUT).

    Qt: QTcpSocket.
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
        if not flush_timeout >= 0:  # nan too
            raise ValueError(f"flush_timeout must be at least 0, not {flush_timeout}")
        super().__init__(
            parent,
            check_size(read_buffer_size, "read_buffer_size"),
            check_size(write_buffer_size, "write_buffer_size", least=1),
            bool(half_open),
            flush_timeout,
        )

    @classmethod
    def from_stream(cls, stream: trio.abc.Stream, parent: trio.Nursery | None = None) -> Self:
        """A socket over any trio stream: TLS, a memory pair, a unix socket.  State: CONNECTED.

        The stream is the socket's from now on, and is closed with it.  It has no addresses, no options and no
        descriptor.  Where the stream has no ``send_eof``, ours raises SocketError(UNSUPPORTED_SOCKET_OPERATION).

        Raises: TypeError if it is no ``trio.abc.Stream``.
        Qt: no counterpart.
        """
        if not isinstance(stream, trio.abc.Stream):
            raise TypeError(f"not a trio.abc.Stream: {type(stream).__name__}")
        sock = cls(parent)
        link = StreamLink(stream, parent)
        if parent is None:
            sock._offered = link
            sock._open = True
            sock._machine.feed(Input.ADOPTED, sock._tell)
        else:
            sock._adopt(link, Input.ADOPTED)
        return sock

    def socket_type(self) -> SocketType:
        return SocketType.TCP

    def _system_type(self) -> int:
        return socket.SOCK_STREAM

    # -- connecting and disconnecting -------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def connect_to_host(
        self, host: Host, port: int, *, protocol: NetworkLayerProtocol = NetworkLayerProtocol.ANY_IP
    ) -> None:
        """Look up ``host``, try its addresses (RFC 8305), return when CONNECTED.

        Args:
          protocol: IPV4 or IPV6 uses only such addresses.

        Raises:
          SocketError: HOST_NOT_FOUND, CONNECTION_REFUSED, NETWORK, SOCKET_TIMEOUT, SOCKET_ACCESS, SOCKET_RESOURCE, or
            OPERATION if the socket is not UNCONNECTED or BOUND.  When every address failed: the kind of the last
            attempt that ended, all of them in the cause.
          trio.ClosedResourceError: Another task aborted or disconnected it meanwhile.
        Cancelled: the attempt is dropped; the socket is UNCONNECTED.  A bind and old unread bytes are gone either way.
        Qt: connectToHost + waitForConnected (whose timeout also drops the attempt).
        """
        name = str(host)
        host, port = check_host(host), check_port(port)
        if not isinstance(protocol, NetworkLayerProtocol):
            raise TypeError(f"a protocol is a NetworkLayerProtocol, not {type(protocol).__name__}")
        if protocol is NetworkLayerProtocol.UNKNOWN:
            raise ValueError("connecting needs a protocol that is known")
        self._begin_attempt(name)
        bound, options = self._bound, self._options
        link: NativeLink | None = None
        try:
            with trio.CancelScope() as attempt:
                self._attempt = attempt
                await trio.lowlevel.checkpoint_if_cancelled()
                targets = await look_up(host, port, protocol)
                if self._attempt is not attempt:  # dropped in this step; another one may have begun
                    raise trio.ClosedResourceError("cannot connect: another task ended the attempt")
                self._machine.feed(Input.FOUND, self._tell)
                link = await (race(targets, self._prepare) if bound is None else self._connect_bound(bound, targets))
                if self._options is not options:  # set meanwhile, when some of the race's sockets were made already
                    self._prepare(link.native(), link.peer_address())
            if self._attempt is attempt and link is not None and self._in_scope():
                self._attempt = self._bound = None
                self._adopt(link, Input.ESTABLISHED)
                return
        except (OSError, UnicodeError, AttemptsFailed) as exc:
            if self._attempt is attempt:
                failure = self._attempt_failed(host, port, exc)
                await trio.lowlevel.cancel_shielded_checkpoint()  # what is wrong with an address is known at once
                raise failure.error() from failure.cause
        except BaseException:
            if self._attempt is attempt:
                self._drop_attempt(Input.ATTEMPT_DROPPED)
            raise
        finally:
            if link is None and bound is not None:
                bound.sock.close()
            elif link is not None and self._link is not link:
                link.close()
        raise trio.ClosedResourceError("cannot connect: another task ended the attempt")

    def _begin_attempt(self, name: str) -> None:
        if self._closed or not self._in_scope():
            self._refuse("connect", ended=False)
        if self._machine.state not in (SocketState.UNCONNECTED, SocketState.BOUND):
            self._refuse_aloud("connect", Input.LOOK_UP)
        self._forget()
        self._peer_name = name
        self._machine.feed(Input.LOOK_UP, self._tell)

    async def _connect_bound(self, bound: Bound, targets: list[Target]) -> NativeLink:
        """One address after the other, each from the local address that was bound; that leaves no room for a race."""
        failures: list[OSError] = []
        local, tried = Target(bound.sock.family, bound.sockaddr), False
        for target in targets:
            try:
                reachable = _reachable(target, local.family, bound.is_any)
                if tried:  # a socket whose attempt failed cannot be used again on every system
                    bound.sock.close()
                    bound.sock = await bind_socket(local, bound.options, dual_stack=bound.is_any)
                tried = True
                self._prepare(bound.sock, reachable.address)
                await connect(bound.sock, reachable)
                return link_over(bound.sock, reachable.address)
            except OSError as exc:
                exc.add_note(f"while connecting to {target}")
                failures.append(exc)
        raise AttemptsFailed("no address could be connected", failures)

    def _attempt_failed(self, host: HostAddress | str, port: int, exc: Exception) -> Failure:
        attempts: Sequence[Exception] = exc.exceptions if isinstance(exc, AttemptsFailed) else (exc,)
        cause = exc if len(attempts) > 1 else attempts[0]
        last = attempts[-1]
        for failed in attempts:
            failed.__traceback__ = None  # as _set_failure does for the whole
        message = f"cannot connect to {str(host) or 'an empty name'} port {port}: {reason_of(last)}"
        self._set_failure(kind_of(last), message, cause)
        self._drop_attempt(Input.ATTEMPT_FAILED)
        assert self._failure is not None
        self._failure.told = True
        return self._failure

    async def disconnect_from_host(self) -> None:
        """Send what is queued, close, return when UNCONNECTED.  No effect if already so.

        While looking up or connecting it drops the attempt.  If the peer sent bytes that we did not read, waits at
        most 1 s for its end, so that the last answer arrives; what had arrived can still be read after.

        Raises:
          SocketError: Queued bytes could not be sent; UNFINISHED_SOCKET_OPERATION if they were queued for the
            connection of the attempt that it drops.
          trio.ClosedResourceError: Another task aborted it meanwhile.
        Cancelled: as ``abort()``.
        Qt: disconnectFromHost + waitForDisconnected.  There, while connecting, it connects first.
        """
        ended = await self._disconnect(math.inf, keep=True)
        if ended and self._aborted:
            raise trio.ClosedResourceError("cannot disconnect: another task aborted the connection")
        self._check_sent(again=ended)

    async def aclose(self) -> None:
        """``disconnect_from_host``, and every later call raises ``trio.ClosedResourceError``.

        Raises: SocketError if queued bytes could not be sent, as ``disconnect_from_host``.
        Cancelled: closed all the same, as by ``abort()``.
        Qt: close().
        """
        self._open = False
        try:
            self._check_sent(again=await self._disconnect(math.inf, drop=True))
        finally:
            self._close()

    async def _leave(self) -> None:
        await self._disconnect(self._flush_timeout)
        self._check_sent(again=False)

    def set_socket_descriptor(self, descriptor: int, state: SocketState = SocketState.CONNECTED) -> None:
        descriptor = operator.index(descriptor)
        if state not in (CONNECTED, SocketState.BOUND, SocketState.UNCONNECTED):
            raise ValueError(f"a descriptor is adopted CONNECTED, BOUND or UNCONNECTED, not {state}")
        happened = Input.ADOPTED if state is CONNECTED else Input.BIND
        self._need(happened, "adopt a descriptor")
        try:
            if descriptor == self.socket_descriptor() != -1:
                message = f"descriptor {descriptor} is this socket's own"
                raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, message)
            sock, peer = open_connection(descriptor, state)
        except SocketError as error:
            self._set_error(error.kind, error.message)
            raise
        if state is not CONNECTED:
            is_any = sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            address = sock.getsockname()
            is_any = is_any and from_sockaddr(address) == HostAddress.ANY_IPV6
            bound = Bound(trio.socket.from_stdlib_socket(sock), address, is_any, ())
            if not bound.is_spare():
                self._took_address(bound)
            else:
                self._unbind()
                self._bound, self._open = bound, True
            return
        self._unbind()
        self._uncork()
        if self._link is not None:
            owner, self._owner = self._owner, None  # the slot in a server goes over to the new connection
            self._drop_link(self._link)
            self._ends += 1
            self._owner = owner
        self._peer_name = ""
        self._adopt(NativeLink(KernelSocket.adopt(sock), peer), Input.ADOPTED)

    # -- reading: what is there (Qt's verbs) ------------------------------------------------
    #
    # They never fail for the network's sake: what had arrived before an end or a failure is theirs, then nothing is.
    # error() and state() tell why.

    def bytes_available(self) -> int:
        """How many bytes can be read now: those in the buffer, and what the system holds, as far as the buffer may
        take it.  Qt: bytesAvailable().
        """
        self._pull(BLOCK_SIZE * BLOCKS_AT_ONCE)
        return len(self._read_buffer)

    def can_read_line(self) -> bool:
        """Is a whole line there?  Qt: canReadLine()."""
        buffer = self._read_buffer
        if buffer.has_line():
            return True
        self._pull(BLOCK_SIZE * BLOCKS_AT_ONCE)
        return buffer.has_line()

    def at_end(self) -> bool:
        """Is nothing there to read now?  More may come.  Qt: atEnd()."""
        self._pull(1)
        return len(self._read_buffer) == 0

    def peek(self, max_bytes: int) -> bytes:
        """Up to ``max_bytes`` that have arrived; they stay.  Qt: peek()."""
        max_bytes = check_size(max_bytes, "max_bytes")
        self._arrived(max_bytes)
        self._unseen = False
        return self._read_buffer.peek(max_bytes)

    def skip(self, max_bytes: int) -> int:
        """Drop up to ``max_bytes`` that have arrived; how many.  Qt: skip()."""
        return len(self.read(max_bytes))

    def read(self, max_bytes: int) -> bytes:
        """Take up to ``max_bytes`` that have arrived; ``b""`` if none have.

        Raises: trio.ClosedResourceError after the socket is closed.
        Qt: read().
        """
        max_bytes = check_size(max_bytes, "max_bytes")
        self._arrived(max_bytes)
        return self._take(max_bytes)

    def read_all(self) -> bytes:
        """Take what has arrived, as ``bytes_available`` counts it.  Qt: readAll()."""
        return self.read(BLOCK_SIZE * BLOCKS_AT_ONCE + len(self._read_buffer))

    def read_line(self, max_bytes: int = 65536) -> bytes:
        """Take a line with its newline, at most ``max_bytes`` of it; without a newline yet, what there is.

        See ``can_read_line``.
        Qt: readLine().  There, ``readLine(n)`` gives n - 1 bytes, and 0 means no limit.
        """
        max_bytes = check_size(max_bytes, "max_bytes", least=1)
        if not self._read_buffer.has_line():
            self._arrived(max_bytes)
        line = self._read_buffer.take_through(b"\n", max_bytes)
        if line is None:
            return self._take(max_bytes)
        self._took()
        return line

    def get_char(self) -> bytes:
        """Take one byte; ``b""`` if none has arrived.  Qt: getChar()."""
        return self.read(1)

    def unget_char(self, char: bytes) -> None:
        """Put one byte in front of what is unread.

        Raises:
          SocketError: OPERATION in a transaction.
          TypeError, ValueError: Not one byte.
          trio.BusyResourceError: A task is in a ``receive_...``: it would not hear of the byte.
          trio.ClosedResourceError: The socket is closed.
        Qt: ungetChar().
        """
        char = check_char(char)
        self._check_readable("unget")
        if self._read_buffer.in_transaction:
            raise SocketError(ErrorKind.OPERATION, "cannot unget in a transaction")
        self._check_nobody_receives()
        self._read_buffer.unget(char)
        self._update_direct()

    def is_transaction_started(self) -> bool:
        """Is one open?  Qt: isTransactionStarted()."""
        return self._read_buffer.in_transaction

    def start_transaction(self) -> None:
        """From here on what is read can be brought back.

        The bytes kept for that count against ``read_buffer_size``.

        Raises:
          SocketError: OPERATION in a transaction.
          trio.BusyResourceError: Another task is in a ``receive_...``: what it takes could not be brought back.
        Qt: startTransaction().
        """
        self._check_readable("start a transaction")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        if self._read_buffer.in_transaction:
            raise SocketError(ErrorKind.OPERATION, "cannot start a transaction in a transaction")
        self._read_buffer.start_transaction()
        self._update_direct()

    def commit_transaction(self) -> None:
        """What was read is gone for good.  Raises: SocketError(OPERATION) outside one.  Qt: commitTransaction()."""
        self._check_transaction("commit")
        self._read_buffer.commit()
        self._transaction_over()

    def rollback_transaction(self) -> None:
        """What was read is there again.

        Raises:
          SocketError: OPERATION outside of a transaction.
          trio.BusyResourceError: A task is in a ``receive_...``: it would not hear of the bytes.
          trio.ClosedResourceError: The socket is closed.
        Qt: rollbackTransaction().
        """
        self._check_transaction("roll back")
        self._check_nobody_receives()
        self._read_buffer.rollback()
        self._transaction_over()

    def _transaction_over(self) -> None:
        self._update_direct()
        self._changed()

    def _check_nobody_receives(self) -> None:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")

    def _check_transaction(self, attempted: str) -> None:
        self._check_readable(f"{attempted} a transaction")
        if not self._read_buffer.in_transaction:
            raise SocketError(ErrorKind.OPERATION, f"cannot {attempted} outside of a transaction")

    def read_buffer_size(self) -> int:
        """How many bytes are read ahead at most; 0: no limit.  Qt: readBufferSize()."""
        return self._read_buffer_size

    def set_read_buffer_size(self, size: int) -> None:
        """Change it; nothing that is buffered is dropped.  Qt: setReadBufferSize()."""
        self._read_buffer_size = check_size(size, "size")
        self._changed()

    def _check_readable(self, attempted: str) -> None:
        if self._closed or not self._in_scope():
            self._refuse(attempted, ended=False)

    def _arrived(self, wanted: int) -> int:
        """How many bytes are there, after a look at the system if ``wanted`` are not."""
        if self._closed or (self._parent is not None and not self._in_scope()):
            raise trio.ClosedResourceError("cannot read: the socket is closed")
        if len(self._read_buffer) < wanted:
            self._pull(wanted)
        return len(self._read_buffer)

    def _take(self, max_bytes: int) -> bytes:
        data = self._read_buffer.take(max_bytes)
        self._took()
        return data

    def _took(self) -> None:
        """Bytes were taken out of the buffer: there is room for the watcher."""
        self._unseen = False
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

    @trio.lowlevel.enable_ki_protection
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for at least one byte.  ``b""`` means the peer finished.

        Args:
          max_bytes: None lets the socket choose: at most 127 KiB.

        Raises:
          SocketError: The connection was lost; what had arrived comes first.
          trio.ClosedResourceError: The socket is closed, or the connection was aborted here.
          trio.BusyResourceError: Another task is in a ``receive_...``.
        Cancelled: nothing was taken.
        Qt: waitForReadyRead + read.
        """
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
        self._receiving = True
        self._waited = False
        generation = self._generation
        try:
            if link is not None and not self._read_buffer:
                # Nothing is buffered and nobody watches: the bytes need not pass through the buffer.
                self._waited = True
                try:
                    if not link.is_drained():
                        await trio.lowlevel.checkpoint_if_cancelled()
                        if data := link.try_receive(limit):
                            await trio.lowlevel.cancel_shielded_checkpoint()
                            return data
                    await link.wait_receivable(limit)
                    data = link.try_receive(limit)
                except ENDS as exc:
                    self._link_failed(link, exc, Input.READ_FAILED)
                else:
                    if data and self._direct is link:
                        return data
                    if data is not None:
                        self._came(link, generation, data)
            else:
                await trio.lowlevel.checkpoint()
            self._check_same(generation, "receive")
            while not self._read_buffer:
                if self._peer_finished:
                    return self._tell_finish()
                await self._fill_up_to(limit, generation)
            return self._take(limit)
        finally:
            self._receiving = False
            if self._lot is not None:
                self._lot.unpark_all()

    async def receive_line(self, max_bytes: int = 65536) -> bytes:
        """Wait for a whole line.  After the peer finished: the unended rest, then ``b""``.

        Raises:
          SocketError: LIMIT_EXCEEDED when ``max_bytes`` arrive without a newline; they stay readable.  The failure,
            when the connection was lost; the unended rest stays readable.
          trio.ClosedResourceError, trio.BusyResourceError: as ``receive_some``.
        Cancelled: nothing was taken.
        Qt: canReadLine, waitForReadyRead and readLine in a loop.
        """
        return await self._receive_through(b"\n", max_bytes, rest=True)

    async def receive_until(self, delimiter: bytes, max_bytes: int = 65536) -> bytes:
        """Wait for bytes up to and with ``delimiter``, ``max_bytes`` with it.

        Raises:
          SocketError: LIMIT_EXCEEDED when that many arrive without it, REMOTE_HOST_CLOSED if the peer finishes before
            it; what came stays readable.
          ValueError: The delimiter is empty, or longer than ``max_bytes``.
          trio.ClosedResourceError, trio.BusyResourceError: as ``receive_some``.
        Cancelled: nothing was taken.
        Qt: no counterpart.
        """
        if not isinstance(delimiter, (bytes, bytearray)):
            raise TypeError(f"a delimiter is bytes, not {type(delimiter).__name__}")
        if not delimiter:
            raise ValueError("a delimiter must not be empty")
        return await self._receive_through(bytes(delimiter), max_bytes, rest=False)

    @trio.lowlevel.enable_ki_protection
    async def receive_exactly(self, count: int) -> bytes:
        """Wait for ``count`` bytes.

        Raises:
          SocketError: REMOTE_HOST_CLOSED if the peer finishes first, or the failure; what came stays readable.
          trio.ClosedResourceError, trio.BusyResourceError: as ``receive_some``.
        Cancelled: nothing was taken.
        Qt: no counterpart; QIODevice::read after enough waitForReadyRead.
        """
        count = check_size(count, "count")
        self._begin_receiving()
        generation = self._generation
        try:
            await self._look()
            self._check_same(generation, "receive")
            while len(self._read_buffer) < count:
                if self._peer_finished:
                    self._refuse_rest(f"the peer finished after {len(self._read_buffer)} of {count} bytes")
                await self._fill_up_to(count, generation)
            return self._take(count)
        finally:
            self._end_receiving()

    def lines(self, max_bytes: int = 65536) -> AsyncIterator[bytes]:
        """``receive_line`` again and again, until the peer has finished.

        An iterator object, so a cancelled step does not end it.
        """
        return _Lines(self, check_size(max_bytes, "max_bytes", least=1))

    @trio.lowlevel.enable_ki_protection
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
        self._begin_receiving()
        generation = self._generation
        try:
            await trio.lowlevel.checkpoint()
            while self._attempt is not None and self._generation is generation:
                await self._park()
            self._check_same(generation, "receive")
            while not (self._unseen and self._read_buffer):
                if self._peer_finished:
                    return self._tell_finish() != b""
                if self._room() <= 0:
                    message = f"the read buffer is full: {self._read_buffer_size} bytes"
                    raise SocketError(ErrorKind.LIMIT_EXCEEDED, message)
                await self._fill(None, generation)
            self._unseen = False
            return True
        finally:
            self._end_receiving()

    @trio.lowlevel.enable_ki_protection
    async def _receive_through(self, delimiter: bytes, max_bytes: int, *, rest: bool, iterating: bool = False) -> bytes:
        """What ``receive_line`` and ``receive_until`` do, and the steps of ``lines``.

        Args:
          rest: At the peer's end, what is there will do.
          iterating: And then the end is StopAsyncIteration.
        """
        if type(max_bytes) is not int or max_bytes < len(delimiter):
            max_bytes = check_size(max_bytes, "max_bytes", least=len(delimiter))
        if self._parent is not None:
            self._in_scope()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        self._receiving = True
        self._waited = False
        buffer, generation = self._read_buffer, self._generation
        try:
            # _look(), spelled out: this is the path of every line that is there already.
            self._answers -= 1
            if self._answers > 0 and self._now() < self._answers_until:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await trio.lowlevel.checkpoint()
                self._check_same(generation, "receive")
                self._refill_answers()
            while True:
                piece = buffer.take_through(delimiter, max_bytes)
                if piece is not None:
                    self._unseen = False
                    return piece
                if len(buffer) >= max_bytes:
                    message = f"{max_bytes} bytes arrived without {delimiter!r}"
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
        finally:
            self._receiving = False
            if self._lot is not None:
                self._lot.unpark_all()

    def _begin_receiving(self) -> None:
        if self._parent is not None:
            self._in_scope()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this socket")
        self._receiving = True
        self._waited = False

    def _end_receiving(self) -> None:
        self._receiving = False
        if self._lot is not None:
            self._lot.unpark_all()

    async def _look(self) -> None:
        """Look for cancellation; let other tasks run if the buffer has answered for long enough."""
        self._answers -= 1
        if self._answers > 0 and self._now() < self._answers_until:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
            self._refill_answers()

    def _refill_answers(self) -> None:
        # trio's clock, not the processor's: on a mock clock the turns must not depend on the machine's speed.
        self._now = trio.lowlevel.current_clock().current_time
        self._answers = ANSWERS
        self._answers_until = self._now() + ANSWERS_PERIOD

    async def _fill_up_to(self, wanted: int, generation: Generation) -> None:
        """As ``_fill``, reading on up to ``wanted`` bytes even where the buffer's own bound is lower."""
        buffer = self._read_buffer
        room = max(self._room(), wanted - buffer.held)
        if room <= 0:
            raise SocketError(ErrorKind.LIMIT_EXCEEDED, f"the transaction holds {buffer.held} bytes")
        await self._fill(min(room, BLOCK_SIZE), generation)
        self._refill_answers()

    def _tell_finish(self) -> bytes:
        """The end has been reached.  A failure that came after it is told after it."""
        if self._finish_told and self._failure is not None and self._half_open:
            self._raise_failure()
        if self._closed or self._aborted:
            self._refuse("receive")
        self._finish_told = True
        return b""

    def _refuse_rest(self, message: str) -> NoReturn:
        """The peer finished, or was lost, in the middle."""
        if self._closed or self._aborted:
            self._refuse("receive")
        if self._failure is not None and self._half_open:
            self._raise_failure()
        raise SocketError(ErrorKind.REMOTE_HOST_CLOSED, message)

    # -- writing: queue only / sending: waits -----------------------------------------------
    #
    # write may be called at any time from any task: it goes out whole, between messages.

    @trio.lowlevel.enable_ki_protection
    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send ``data`` now as far as the kernel takes it, queue the rest.  Returns ``len(data)``, in bytes.

        The unsent rest of anything but ``bytes`` is copied before this returns.  While you work through bytes that have
        arrived, as when one block brought many lines, short answers are collected, and go out together: with the answer
        to the last of them, when 16 KiB are there, or at the latest when other tasks get their turn.

        While looking up or connecting it is queued, and sent once CONNECTED.  If there will be no connection, because
        the attempt failed or was dropped, neither it nor anything else of that queue is ever sent; the failure, or the
        orderly end that dropped the attempt, tells so by its SocketError.  While CLOSING it is queued behind what is
        still to be sent, and refused if there is nothing.

        Raises:
          trio.WouldBlock: ``write_buffer_size`` bytes are queued already; nothing was taken.
          SocketError: The failure that ended the connection or the attempt; OPERATION only if there was none.
          trio.ClosedResourceError: The socket is closed, sending is finished, or the connection was aborted here.
          TypeError: Not bytes.
        Qt: write().  There, nothing is sent before control returns to the event loop, and the queue has no limit.
        """
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
        queue = self._queue
        sent = 0
        more = not self._unseen and len(self._read_buffer) > 0  # to be read, so more is likely to be written
        if queue.size:
            if not self._corked and queue.size >= self._write_buffer_size:
                raise trio.WouldBlock
        elif more and size < CORK_SIZE:
            self._corked = True
        else:
            try:
                sent = link.try_send(data)
            except OSError as exc:
                self._fail(exc, Input.WRITE_FAILED)
                self._raise_failure()
            if sent and self._subscriptions:
                self._post(BytesWritten(sent))
        if sent < size:
            rest = data if type(data) is bytes else bytes(data)
            queue.append(memoryview(rest)[sent:] if sent else rest)
            if self._corked and (not more or queue.size >= CORK_SIZE or queue.size >= self._write_buffer_size):
                self.flush()
            if self._drain_scope is None:
                self._start_drainer()
        return size

    def _write_early(self, data: bytes | memoryview) -> int:
        """``write`` before or after CONNECTED: queue ``data`` if it will be sent, else say why not."""
        # An end that waits for the queue waits for this too, as Qt's does.  But send_all is refused then: a task that
        # sends on and on would keep the connection from ever ending.
        joins = self._link is not None and self._queue.size > 0 and self._failure is None and not self._send_finished
        if not self._in_scope() or not (self._attempt is not None or joins):
            self._refuse_sending("write")
        if self._queue.size >= self._write_buffer_size:
            raise trio.WouldBlock
        if data:
            self._queue.append(bytes(data))
        return len(data)

    def put_char(self, char: bytes) -> None:
        """``write`` one byte.  Raises: as ``write``; ValueError.  Qt: putChar()."""
        self.write(check_char(char))

    @trio.lowlevel.enable_ki_protection
    def flush(self) -> bool:
        """Try the kernel with what is queued; True if it took any.  The rest goes out by itself.

        Raises: SocketError if that finds the connection lost.
        Qt: flush().  There, while connecting with something queued, it ends the attempt; here it is False.
        """
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
        self._uncork()
        return len(self._queue)

    @trio.lowlevel.enable_ki_protection
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
            if self._queue or self._link is None:
                await self._room_to_send(early=True)
                self.write(data)
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
            the attempt.
        Cancelled: nothing has happened; the queue goes on.
        Qt: waitForBytesWritten().  There, some bytes are enough, and an empty queue is a failure.
        """
        if self._parent is not None:
            self._in_scope()
        generation = self._generation
        waited = self._link is not None or self._attempt is not None
        await trio.lowlevel.checkpoint()
        while (self._attempt is not None or self._queue) and self._generation is generation:
            await self._wait_changed()
        # Its bytes may be sent though another attempt has begun meanwhile.
        if not waited or generation.unsent or not generation.connected:
            self._check_same(generation, "wait for bytes to be written")
            self._refuse("wait for bytes to be written", waited=waited)

    @trio.lowlevel.enable_ki_protection
    async def send_eof(self) -> None:
        """Send what is queued, then finish sending; you can still receive.  Again: no effect.

        Raises:
          SocketError: As ``write``; UNSUPPORTED_SOCKET_OPERATION if it is a stream that cannot.
          trio.ClosedResourceError: The socket is closed, or the connection was aborted here.
          trio.BusyResourceError: As ``send_all``.
        Cancelled: sending is not finished.
        Qt: no counterpart; its sockets have no half-close.
        """
        self._begin_sending()
        try:
            generation, waited = self._generation, self._machine.state is CONNECTED
            await trio.lowlevel.checkpoint()
            self._check_same(generation, "finish sending")
            if self._send_finished and self._machine.state is CONNECTED:
                return
            while True:
                link = self._link
                if link is None or self._machine.state is not CONNECTED:
                    self._refuse("finish sending", waited=waited)
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
            self._send_finished = False
            message = "cannot finish sending: the stream has no send_eof"
            raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, message) from exc
        except ENDS as exc:
            self._link_failed(link, exc, Input.WRITE_FAILED)
            self._check_same(generation, "finish sending")
            self._refuse("finish sending")

    def _begin_sending(self) -> None:
        if self._parent is not None:
            self._in_scope()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this socket")
        self._sending = True

    async def _room_to_send(self, *, early: bool = False) -> None:
        """Wait until the queue has room, and until there is a connection unless ``early``."""
        # It could send when it was called; if that is not so any more later, it is no mistake of the caller's.
        generation, waited = self._generation, self._takes_bytes()
        await trio.lowlevel.checkpoint()
        while True:
            if self._generation is not generation or not self._takes_bytes() or self._send_finished:
                self._refuse_sending("send", waited=waited)
            if len(self._queue) < self._write_buffer_size and (early or self._attempt is None):
                return
            await self._wait_changed()

    def _takes_bytes(self) -> bool:
        """Is there a connection, or an attempt at one that they can be queued for?"""
        return self._attempt is not None or (self._link is not None and self._machine.state is CONNECTED)

    def _refuse_sending(self, attempted: str, *, waited: bool = False) -> NoReturn:
        if self._send_finished and self._machine.state is CONNECTED:
            raise trio.ClosedResourceError(f"cannot {attempted}: sending is finished")
        self._refuse(attempted, waited=waited)


class _Lines(AsyncIterator[bytes]):
    __slots__ = ("_max_bytes", "_sock")

    def __init__(self, sock: TcpSocket, max_bytes: int) -> None:
        self._sock = sock
        self._max_bytes = max_bytes

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        return self._sock._receive_through(b"\n", self._max_bytes, rest=True, iterating=True)


def _view(data: bytes | bytearray | memoryview) -> memoryview:
    """Any bytes as a flat view.  Raises: TypeError."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"only bytes can be sent, not {type(data).__name__}")
    view = memoryview(data)
    if view.ndim == 1 and view.format == "B" and view.contiguous:
        return view
    return memoryview(view.tobytes())


def _reachable(target: Target, family: int, dual_stack: bool) -> Target:
    """The target as a socket of ``family`` has to be told it.  Raises: OSError if it cannot get there."""
    if target.family == family:
        return target
    if dual_stack and family == socket.AF_INET6:
        return Target(family, (f"::ffff:{target.address[0]}", target.address[1], 0, 0))
    raise OSError(errno.ECONNREFUSED, "not reachable from the address that was bound")  # Qt's kind for it
