"""Mistakes that sockets of ours had, or nearly had: each must be noticed by the model."""

from __future__ import annotations

from typing import Any

import trio

from tests.model.plans import Plan
from tests.networks import this_network
from trioqt import SocketState, TcpSocket
from trioqt.core.states import Input

__all__ = ["MUTANTS"]


class EndsTheNext(TcpSocket):
    """disconnect_from_host looks at what there is to end only after its first checkpoint."""

    async def disconnect_from_host(self) -> None:
        await trio.lowlevel.checkpoint()
        await super().disconnect_from_host()


class LosesInSilence(TcpSocket):
    """disconnect_from_host returns as if all were sent, where the connection failed with bytes queued."""

    async def disconnect_from_host(self) -> None:
        try:
            await super().disconnect_from_host()
        except trio.BrokenResourceError:
            if self.state() is not SocketState.UNCONNECTED:
                raise


class LeavesAHole(TcpSocket):
    """aclose drops the buffer, and whoever is in a receive goes on with what comes behind."""

    async def aclose(self) -> None:
        self._read_buffer.clear()
        while self._queue:
            await self._wait_changed()
        await super().aclose()


class GivesUp(TcpSocket):
    """A block exit that joins another task's end resets after flush_timeout, though everything was sent."""

    async def _leave(self) -> None:
        if self._machine.state is SocketState.CLOSING:
            with trio.move_on_after(self._flush_timeout):
                while self._machine.state is SocketState.CLOSING:
                    await self._wait_changed()
            self.abort(reset=True)
        await super()._leave()


class AbortsNothing(TcpSocket):
    """abort after a loss leaves unread bytes, and is_valid."""

    def abort(self, *, reset: bool = False) -> None:
        if self._link is not None or self._attempt is not None or self._offered is not None or self._bound is not None:
            super().abort(reset=reset)


class AnswersNothing(TcpSocket):
    """receive_exactly(0) has always enough, on a closed socket too."""

    async def receive_exactly(self, count: int) -> bytes:
        if count == 0:
            await trio.lowlevel.checkpoint()
            return b""
        return await super().receive_exactly(count)


class EndsCleanly(TcpSocket):
    """A failure that a write finds is a clean end to the reader."""

    def _fail(self, exc: Exception, found: Input) -> None:
        super()._fail(exc, found)
        if found is Input.WRITE_FAILED:
            self._peer_finished = True


class DropsCleanly(TcpSocket):
    """Queued bytes are dropped, and the peer sees a clean end."""

    def _drop_queue(self) -> None:
        super()._drop_queue()
        self._generation.unsent = False


class CannotBeCancelled(TcpSocket):
    """A cancelled send_eof goes on."""

    async def send_eof(self) -> None:
        with trio.CancelScope(shield=True):
            await super().send_eof()


class ResetsUnread(TcpSocket):
    """abort with unread bytes resets, if nobody watches."""

    def abort(self, *, reset: bool = False) -> None:
        native = self._native()
        unread = native is not None and this_network().unread_bytes(native.fileno()) > 0
        super().abort(reset=reset or unread)


class DoesNotLinger(TcpSocket):
    """An orderly end with unread bytes resets, and the last answer is lost."""

    async def _linger(self, *args: Any, **kwargs: Any) -> Any:
        return True


class SeesOtherwise(TcpSocket):
    """A subscriber changes what wait_for_ready_read does: what was read ahead counts as seen."""

    def _absorb(self, data: bytes, *, ahead: bool = False) -> None:
        super()._absorb(data)
        if ahead and data:
            self._unseen = False


class Tears(TcpSocket):
    """A cancelled send_all has sent the first half."""

    async def send_all(self, data: Any) -> None:
        half = len(data) // 2
        await super().send_all(data[:half])
        await super().send_all(data[half:])


class TellsTwice(TcpSocket):
    """The peer's end is told, and told again at the end of the connection."""

    def _tell(self, thing: Any) -> None:
        if thing is SocketState.UNCONNECTED:
            super()._tell(thing)
        super()._tell(thing)


class TakesTooMuch(TcpSocket):
    """The queue takes whatever comes."""

    def write(self, data: Any) -> int:
        size, self._write_buffer_size = self._write_buffer_size, 1 << 40
        try:
            return super().write(data)
        finally:
            self._write_buffer_size = size


class ForgetsTheTransaction(TcpSocket):
    """What was read in a transaction is gone, though it was rolled back."""

    def rollback_transaction(self) -> None:
        super().commit_transaction()


class ReadsTooFarAhead(TcpSocket):
    """The watcher takes more than the buffer's limit."""

    def _room(self) -> int:
        return super()._room() + 100


MUTANTS: dict[type[TcpSocket], Plan] = {
    EndsTheNext: Plan(("a disconnect_from_host", "~ main adopt")),
    LosesInSilence: Plan(("main write 400000", "a disconnect_from_host", "peer reset")),
    LeavesAHole: Plan(("main write 400000", "a receive_line 64", "peer send 3", "b aclose", "peer send_line 10")),
    GivesUp: Plan(
        ("peer send 3", "main write 100000", "a disconnect_from_host", "b leave", "wait 0.5"), flush_timeout=0.2
    ),
    AbortsNothing: Plan(("peer send 3", "peer reset", "a receive_exactly 10", "main abort")),
    AnswersNothing: Plan(("a aclose", "b receive_exactly 0")),
    EndsCleanly: Plan(("peer send 3", "a receive_some", "peer reset", "main write 10", "a receive_some")),
    DropsCleanly: Plan(("main write 400000", "main abort")),
    CannotBeCancelled: Plan(("main write 400000", "a send_eof", "cancel a")),
    ResetsUnread: Plan(("peer send 3", "main abort")),
    DoesNotLinger: Plan(("peer send 400000", "peer send 400000", "peer send 400000", "a leave"), read_buffer_size=10),
    Tears: Plan(("a send_all 10",)),
    TellsTwice: Plan(("main abort",), watched=True),
    ForgetsTheTransaction: Plan(
        ("peer send 10", "main start_transaction", "a receive_some 3", "main rollback_transaction", "a receive_some 3")
    ),
    ReadsTooFarAhead: Plan(("peer send 1000",), watched=True, read_buffer_size=10),
    TakesTooMuch: Plan(("main write 400000", "main write 64"), write_buffer_size=1),
}
"""Each with a short plan by which it is noticed."""
