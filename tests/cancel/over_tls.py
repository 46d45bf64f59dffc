"""Over TLS: what is cancelled in its first handshake, and an end that lingers over bytes that nobody has read."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
import trio

from tests.cancel.kit import Case, Play, Seen, Trial, turn
from tests.cancel.pipes import PipeEnd, pipe_pair
from trioqt import SocketState, TcpSocket

if TYPE_CHECKING:
    from tests.certificates import Contexts

__all__ = ["CASES"]

# What a pipe holds: a flight of the handshake, but not what a peer sends that does not read.
CAPACITY = 8000
UNREAD = b"who reads this?" * 4000

LINE = b"hello\n"


@functools.cache
def contexts() -> Contexts:
    from tests.certificates import contexts  # here, for an environment without trustme

    return contexts("peer.example")


@attrs.define(eq=False)
class TlsPeer:
    """The other end."""

    stream: trio.SSLStream[PipeEnd]
    seen: Seen = attrs.Factory(Seen)

    async def run(self, *, says: bytes = b"") -> None:
        """After a turn it makes its side of the handshake and says something; then it reads to the end."""
        try:
            await turn()
            await self.stream.do_handshake()
            if says:
                await self.stream.send_all(says)
            while piece := await self.stream.receive_some():
                self.seen.data += piece
            self.seen.end = "clean"
        except trio.BrokenResourceError:
            self.seen.end = "reset"
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self.stream)
            self.seen.over.set()


def pair(trial: Trial, parent: trio.Nursery) -> tuple[TcpSocket, TlsPeer]:
    ours, theirs = pipe_pair(CAPACITY)
    tls = contexts()
    sock = trial.over(trio.SSLStream(ours, tls.client, server_hostname="peer.example"), parent)
    return sock, TlsPeer(trio.SSLStream(theirs, tls.server, server_side=True))


async def receive_in_handshake(trial: Trial) -> None:
    """The handshake goes on, and the next receive has the line."""
    async with trio.open_nursery() as parent:
        sock, peer = pair(trial, parent)
        trial.nursery.start_soon(functools.partial(peer.run, says=LINE))
        line = await trial.call(sock.receive_line)
        if trial.cancelled:
            line = await sock.receive_line()
        await sock.aclose()
        await peer.seen.over.wait()
        trial.equal("the line, and how it ended for the peer", (line, peer.seen.end), (LINE, "clean"))


def send_in_handshake(name: str) -> Play:
    """It is queued whole, or not one byte of it; what is sent after that is whole."""

    async def play(trial: Trial) -> None:
        async with trio.open_nursery() as parent:
            sock, peer = pair(trial, parent)
            trial.nursery.start_soon(peer.run)
            if name == "send_all":
                await trial.call(sock.send_all, b"first\n")
                expected = [b"second\n"] if trial.cancelled and not trial.interrupted else [b"first\nsecond\n"]
                if trial.interrupted:
                    expected.append(b"second\n")
            else:
                sock.write(b"first\n")
                await trial.call(getattr(sock, name))
                expected = [b"first\nsecond\n"]
            sock.write(b"second\n")
            await sock.aclose()
            await peer.seen.over.wait()
            trial.equal("how it ended", peer.seen.end, "clean")
            trial.expect(bytes(peer.seen.data) in expected, f"the peer got {bytes(peer.seen.data)!r}")

    return play


def end(name: str, *, unread: bytes = b"") -> Play:
    """Everything, and TLS's goodbye behind it; cancelled, perhaps less, and then no goodbye.

    Args:
      name: What ends it.
      unread: The peer sends this and reads nothing before it is taken; else the end is called for in the handshake.
    """

    async def play(trial: Trial) -> None:
        async with trio.open_nursery() as parent:
            sock, peer = pair(trial, parent)
            trial.nursery.start_soon(functools.partial(peer.run, says=unread))
            if unread:
                trial.equal("received", await sock.receive_exactly(10), unread[:10])
            answer = bytes(CAPACITY - 40) if unread else b"bye\n"  # and no room for the goodbye behind it
            sock.write(answer)
            await trial.call(_leaving(sock) if name == "__aexit__" else getattr(sock, name))
            trial.equal("state", sock.state(), SocketState.UNCONNECTED)
            await peer.seen.over.wait()
            data = bytes(peer.seen.data)
            if not trial.cancelled:
                trial.equal("what the peer saw", (data, peer.seen.end), (answer, "clean"))
            elif peer.seen.end == "clean":
                trial.equal("before a clean end", data, answer)
            await sock.aclose()

    return play


def _leaving(sock: TcpSocket) -> Callable[[], Awaitable[None]]:
    async def block() -> None:
        async with sock:
            pass

    return block


CASES: tuple[Case, ...] = (
    Case("TcpSocket.receive_line", "has to wait", receive_in_handshake, "memory", "TLS handshake"),
    *(
        Case(f"TcpSocket.{name}", "has to wait", send_in_handshake(name), "memory", "TLS handshake")
        for name in ("send_all", "wait_for_bytes_written")
    ),
    *(
        Case(f"TcpSocket.{name}", "has to wait", end(name, unread=unread), "memory", variant, through)
        for name, through in (("aclose", ""), ("disconnect_from_host", ""), ("__aexit__", "block"))
        for unread, variant in ((b"", "TLS handshake"), (UNREAD, "TLS, unread"))
    ),
)
