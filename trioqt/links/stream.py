"""Bytes over what is nothing but a trio stream: TLS, a memory pair, a unix socket.

A stream cannot be asked without waiting, so ``try_receive`` has only what an earlier wait brought, and ``try_send``
takes nothing: whatever is written is queued and sent by a task.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import trio

from trioqt.core.errors import SocketError, raise_bare
from trioqt.links.base import ENDS, Bytes, Link, NativeSocket, Resettable, Sockaddr
from trioqt.links.interrupts import protected
from trioqt.links.native import drop_unread, reset_on_close

__all__ = ["StreamLink"]

logger: logging.Logger = logging.getLogger("trioqt.stream")

# How much is taken in at once of what nobody will read.
BLOCK_SIZE = 65536


@protected
class StreamLink(Link):
    """A trio stream."""

    __slots__ = (
        "_arrived",
        "_closed",
        "_doubted",
        "_failed",
        "_goodbye",
        "_handshake",
        "_opened",
        "_sending",
        "_stream",
        "_wait",
        "home",
    )

    def __init__(self, stream: trio.abc.Stream, home: trio.Nursery | None = None) -> None:
        self._stream = stream
        self.home: trio.Nursery | None = home  # where the closing task runs; None: nobody has entered the socket yet
        self._closed = False
        self._goodbye = trio.CancelScope()  # of say_goodbye()
        self._wait: trio.CancelScope | None = None  # of wait_receivable()
        self._handshake: trio.CancelScope | None = None  # of the first one of TLS, once that has begun
        self._sending = False
        self._doubted: Exception | None = None  # a send found this, so a clean end is none
        self._failed: Exception | None = None  # how that ended, if not well
        self._opened: trio.Event | None = None  # that it is over; None: there is none to wait for
        if isinstance(stream, trio.SSLStream):
            self._opened = trio.Event()
        self._arrived: bytes | None = None  # what a wait brought and nobody has taken; b"" is the peer's end

    def can_be_asked(self) -> bool:
        return False

    def is_drained(self) -> bool:
        return self._arrived is None

    def look_again(self) -> None:
        """A stream that has nothing must be asked anyway."""

    def try_receive(self, max_bytes: int) -> bytes | None:
        arrived = self._arrived
        if not arrived:
            return arrived
        self._arrived = arrived[max_bytes:] or None
        return arrived[:max_bytes]

    async def wait_receivable(self, max_bytes: int) -> None:
        if self._arrived is not None:
            await trio.lowlevel.checkpoint()
            return
        arrived: bytes | None = None
        try:
            with trio.CancelScope() as self._wait:
                await self._shake_hands()
                data = await self._stream.receive_some(max_bytes)
                # Of an int, which a stream with a bug may give, bytes() would make as many that nobody has sent.
                arrived = data if type(data) is bytes else bytes(memoryview(data))
            if arrived is None:
                raise trio.ClosedResourceError("woken")
            if not arrived:
                # Nobody may have this end before it is known to be one.
                if self._sending:  # which may have failed already, and not know yet
                    for _ in range(2):
                        await trio.lowlevel.cancel_shielded_checkpoint()
                if self._doubted is not None:
                    raise trio.BrokenResourceError from self._doubted
            self._arrived = arrived
        finally:
            self._wait = None

    async def _shake_hands(self) -> None:
        """TLS's, in a task: one that is cancelled breaks the connection, and a cancelled receive must not."""
        opened = self._opened
        if opened is not None:
            if self._handshake is None and self.home is not None:
                self._handshake = trio.CancelScope()
                try:
                    self.home.start_soon(self._open, self._handshake, opened)
                except RuntimeError:
                    return  # that nursery has ended
            await opened.wait()
        if self._failed is not None:  # which the stream tells only once
            raise trio.BrokenResourceError("there was no handshake") from self._failed

    async def _open(self, scope: trio.CancelScope, opened: trio.Event) -> None:
        assert isinstance(self._stream, trio.SSLStream)
        try:
            with scope:
                await self._stream.do_handshake()
        except ENDS as exc:
            self._failed = exc
        finally:
            self._opened = None
            opened.set()

    def wake(self) -> None:
        if self._wait is not None:
            self._wait.cancel(reason="an end was made meanwhile")

    async def look(self) -> None:
        if self._arrived is not None or self._opened is not None:
            return
        found: list[Exception] = []
        try:
            async with trio.open_nursery() as nursery:
                if self._wait is None:  # else somebody has asked it already
                    nursery.start_soon(self._take_in, found)
                # In the first turn it asks the stream, in the second it has what that gave at once, or what a system
                # held; and that one may come after us.
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel(reason="nothing was there")
        except BaseExceptionGroup as group:
            raise_bare(group)
        if found:
            raise found[0]

    async def _take_in(self, found: list[Exception]) -> None:
        if self._wait is not None:
            return  # somebody else looks in the same step
        try:
            await self.wait_receivable(BLOCK_SIZE)
        except ENDS as exc:
            found.append(exc)

    def drop_unread(self) -> None:
        self._arrived = None
        bottom = _bottom(self._stream)
        if isinstance(bottom, trio.SocketStream):  # one of ours does it by itself
            drop_unread(bottom.socket)

    def try_send(self, data: Bytes) -> int:
        return 0

    async def wait_sendable(self) -> None:
        raise NotImplementedError("a stream cannot be asked")

    async def send(self, data: Bytes) -> int:
        await self._shake_hands()
        self._sending = True
        try:
            await self._stream.send_all(data)
        except (OSError, trio.BrokenResourceError) as exc:
            if _rules_out_an_end(exc):
                self._doubted = exc
            raise
        finally:
            self._sending = False
        return len(data)

    async def finish_sending(self) -> None:
        if not isinstance(self._stream, trio.abc.HalfCloseableStream):
            raise NotImplementedError("the stream has no send_eof")
        # If trio's streams and ours are cancelled, it has not happened.  Only a half that can do no more than close
        # would be closed all the same, so that is not cut short.
        stream = self._stream
        closes = isinstance(stream, trio.StapledStream) and not hasattr(stream.send_stream, "send_eof")
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=closes):
            await stream.send_eof()

    def close(self, *, reset: bool = False, waited_on: bool = True) -> None:
        if reset:
            _close_by_reset(self._stream)
        if self._handshake is not None:
            self._handshake.cancel(reason="the link was closed")
        if self._closed:
            # To abort what still says goodbye, which may take for ever: a cancelled aclose closes forcefully.
            self._goodbye.cancel(reason="the link was closed")
            return
        self._closed = True
        # A trio stream has no sync close.  A task does it, which ends within a step or two, as a forceful close never
        # waits; in the socket's nursery, so that the stream is closed when the block is left.
        try:
            if self.home is not None:
                self.home.start_soon(_close_forcefully, self._stream)
                return
        except RuntimeError:
            pass  # that nursery has ended
        trio.lowlevel.spawn_system_task(_close_for_nobody, self._stream)

    def has_goodbye(self) -> bool:
        return True

    async def say_goodbye(self, *, linger: float = 0) -> None:
        if not self._closed:
            stream = self._stream
            if linger and isinstance(stream, trio.SSLStream):
                # TLS says its goodbye and closes what is below at once, and cannot say it while it holds bytes that
                # nobody has read.
                stream.transport_stream = _Lingering(stream.transport_stream, linger)
                with contextlib.suppress(*ENDS):
                    await self.look()
                    while self.try_receive(BLOCK_SIZE):
                        await self.look()
            if self._closed:
                return  # aborted meanwhile
            self._closed = True
            with self._goodbye:
                await stream.aclose()

    def most_unread(self) -> int:
        return BLOCK_SIZE

    def local_address(self) -> Sockaddr | None:
        return None

    def peer_address(self) -> Sockaddr | None:
        return None

    def native(self) -> NativeSocket | None:
        return None


@protected
class _Lingering(trio.abc.Stream):
    """What is below a TLS that says its goodbye over bytes that nobody has read.

    It gives TLS no more of them, takes them for nobody, and closes as a native link does: a reset could take the last
    answer with it.
    """

    def __init__(self, stream: trio.abc.Stream, seconds: float) -> None:
        self.stream = stream
        self._seconds = seconds

    async def send_all(self, data: Bytes | bytearray) -> None:
        # A peer that reads nothing before it has sent all of its own makes no room for the goodbye until that is taken.
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear)
                with contextlib.suppress(*ENDS):  # it is closed next, however that ended
                    await self.stream.send_all(data)
                nursery.cancel_scope.cancel(reason="it was sent")
        except BaseExceptionGroup as group:
            raise_bare(group)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        try:
            if isinstance(self.stream, trio.abc.HalfCloseableStream):
                with contextlib.suppress(*ENDS), trio.move_on_after(self._seconds):
                    await self.stream.send_eof()
                    await self._hear()
        finally:
            await self.stream.aclose()

    async def _hear(self) -> None:
        with contextlib.suppress(*ENDS):  # it has ended otherwise
            while await self.stream.receive_some(BLOCK_SIZE):
                pass


def _bottom(stream: Any) -> object:
    """What carries the bytes that ``stream`` sends."""
    while True:
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        elif isinstance(stream, trio.StapledStream):
            stream = stream.send_stream
        elif isinstance(stream, _Lingering):
            stream = stream.stream
        else:
            return stream


def _close_by_reset(stream: trio.abc.Stream) -> None:
    """Closing ``stream`` shall not look like a clean end, if there is a TCP connection at its bottom.

    A memory pair has no other end than a clean one, and neither has what we do not know.
    """
    bottom = _bottom(stream)
    if isinstance(bottom, trio.SocketStream):
        reset_on_close(bottom.socket)
    elif isinstance(bottom, Resettable):
        bottom.abort(reset=True)


@trio.lowlevel.enable_ki_protection
async def _close_forcefully(stream: trio.abc.Stream) -> None:
    try:
        await trio.aclose_forcefully(stream)
    except ENDS:
        pass  # it is gone, which is all that was wanted


@trio.lowlevel.enable_ki_protection
async def _close_for_nobody(stream: trio.abc.Stream) -> None:
    """The same where there is no block that could fail; what fails among trio's system tasks ends the run."""
    try:
        await _close_forcefully(stream)
    except Exception as exc:
        with contextlib.suppress(Exception):  # of a handler of the program's
            logger.error("a stream of class %s could not be closed", type(stream).__qualname__, exc_info=exc)


def _rules_out_an_end(exc: BaseException) -> bool:
    """Has a write over a stream found that there is no clean end, though a read may give one from now on?

    A system tells a reset once, to whichever call comes first.  EPIPE says that the peer had finished before; and our
    own sockets, and streams without a system below, tell the same to every call.
    """
    teller: BaseException | None = exc
    while teller is not None and not isinstance(teller, SocketError):
        if isinstance(teller, OSError):
            return not isinstance(teller, BrokenPipeError)
        teller = teller.__cause__
    return False
