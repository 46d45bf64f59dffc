"""The other end of a stream that is no socket: of a pipe, and of TLS over one.  They look like a ``RawPeer``."""

from __future__ import annotations

import functools
import ssl
from typing import TYPE_CHECKING

import trio

from tests.cancel.pipes import PipeEnd, pipe_pair

if TYPE_CHECKING:
    from tests.certificates import Contexts

__all__ = ["PipePeer", "TlsPeer", "pipe", "tls"]

CAPACITY = 70_000
"""What a pipe holds, in bytes."""


class PipePeer:
    """The end of a pipe."""

    def __init__(self, end: PipeEnd) -> None:
        self.end = end

    @property
    def sock(self) -> PipePeer:
        """What it can receive from."""
        return self

    def send_now(self, data: bytes) -> int:
        """As a system does: what there is room for.  Raises: OSError."""
        if self.end.outward.ended:
            raise OSError("the pipe is closed")
        size = min(len(data), CAPACITY - len(self.end.outward.data))
        if not size:
            raise BlockingIOError
        self.end.put(data[:size])
        return size

    def receive_now(self, count: int) -> bytes:
        """What is there, up to ``count`` bytes.  Raises: OSError at a reset."""
        flow = self.end.inward
        if flow.reset and not flow.data:
            raise OSError("reset by the peer")
        data = bytes(flow.data[:count])
        del flow.data[: len(data)]
        flow.changed.unpark_all()
        return data

    async def recv(self, count: int) -> bytes:
        """Wait for some.  Raises: OSError at a reset."""
        while not (data := self.receive_now(count)) and not self.at_end():
            await self.end.inward.changed.park()
        return data

    def at_end(self) -> bool:
        """Will no more come?"""
        return self.end.inward.ended and not self.end.inward.data

    def finish(self) -> None:
        """Send no more."""
        self.end.finish()

    def reset(self) -> None:
        """End it with a reset."""
        self.end.close(reset=True)

    def close(self) -> None:
        """End it."""
        self.end.close()


class TlsPeer(PipePeer):
    """The same above TLS, a server; each call is done at once."""

    def __init__(self, end: PipeEnd, context: ssl.SSLContext) -> None:
        super().__init__(end)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.finished = False

    def _flush(self) -> None:
        data = self.outgoing.read()
        if data and not self.end.outward.ended:
            self.end.put(data)

    async def do_handshake(self) -> None:
        """Its side of it."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                while not (data := super().receive_now(65536)):
                    await self.end.inward.changed.park()
                self.incoming.write(data)
            else:
                self._flush()
                return

    def send_now(self, data: bytes) -> int:
        if self.end.outward.ended:
            raise OSError("the pipe is closed")
        if len(self.end.outward.data) >= CAPACITY:
            raise BlockingIOError
        size = self.tls.write(data[:CAPACITY])
        self._flush()
        return size

    def receive_now(self, count: int) -> bytes:
        while True:
            try:
                plain = self.tls.read(count)
            except ssl.SSLWantReadError:
                data = super().receive_now(65536)
                if data:
                    self.incoming.write(data)
                elif super().at_end():
                    raise OSError("an end without TLS's goodbye") from None
                else:
                    return b""
            except ssl.SSLZeroReturnError:
                self.finished = True
                return b""
            except ssl.SSLError as exc:
                raise OSError("TLS is broken") from exc
            else:
                self.finished = not plain  # the goodbye
                return plain

    def at_end(self) -> bool:
        return self.finished

    def finish(self) -> None:
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass  # it has no answer yet
        self._flush()

    def close(self) -> None:
        if not self.end.closed:
            self.finish()
        super().close()


def pipe() -> tuple[trio.abc.Stream, PipePeer]:
    """A stream that can be finished and reset, and its other end."""
    ours, theirs = pipe_pair(CAPACITY)
    return ours, PipePeer(theirs)


async def tls() -> tuple[trio.abc.Stream, TlsPeer]:
    """TLS over such a one; it has been agreed upon."""
    ours, theirs = pipe_pair(CAPACITY)
    known = _contexts()
    stream = trio.SSLStream(ours, known.client, server_hostname="peer.example")
    peer = TlsPeer(theirs, known.server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.do_handshake)
        nursery.start_soon(peer.do_handshake)
    return stream, peer


@functools.cache
def _contexts() -> Contexts:
    from tests.certificates import contexts  # here, for an environment without trustme

    return contexts("peer.example")
