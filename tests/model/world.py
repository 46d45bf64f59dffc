"""What the model knows of one run: the connections there were, what went in and out, what was told, who ended what."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import trio

from tests.model.stream_peers import PipePeer
from tests.networks import RawPeer
from trioqt import SocketState, TcpSocket
from trioqt.core.states import Input, StateMachine, Told

__all__ = ["Line", "Wrong", "World", "modelled"]


class Wrong(AssertionError):
    """trioqt and the model differ."""


def content(number: int, size: int) -> bytes:
    """Bytes that are those of no other message, and no other place in it, as far as a comparison goes."""
    unit = b"<%d>" % number
    return b"".join(b"%s%d." % (unit, index) for index in range(size // 4 + 1))[:size]


@attrs.define(eq=False)
class Line:
    """One connection, or an attempt at one."""

    number: int
    peer: RawPeer | PipePeer | None = None
    accepted: bytearray = attrs.Factory(bytearray)
    """What write and send_all took."""
    got: bytearray = attrs.Factory(bytearray)
    """What the peer received of it."""
    seen: str = ""
    """What the peer saw in the end: end, reset, or nothing of it."""
    sent: bytearray = attrs.Factory(bytearray)
    """What the peer sent."""
    taken: int = 0
    """How much of it the program has taken."""
    stashed: list[bytes] = attrs.Factory(list)
    """Returned while another task was in a receive: before or after what that brings."""
    mark: int | None = None
    """Where the transaction began that is open, or was."""
    most: int = 0
    """How many bytes the buffer may hold: the greatest limit that was, or that a receive has asked for."""
    peer_finished: bool = False
    peer_gone: bool = False
    """The peer has closed or reset it."""
    peer_reset: bool = False
    inputs: list[tuple[Input, trio.lowlevel.Task]] = attrs.Factory(list)
    """What has happened to it, and in which task."""
    replaced_by: trio.lowlevel.Task | None = None
    touched: bool = False
    """Somebody here has tried to end it."""
    orderly: int = 0
    """How many calls have ended it in order, and said so."""
    disturbed: bool = False
    """And something else was done that may end it otherwise."""
    plain: bool = False
    """It was aborted with nothing queued."""
    late: bool = False
    """The peer has sent something when it had ended, which is answered by a reset."""
    lost: bool = False
    """It failed with bytes queued."""
    port: int = 0

    def settles(self) -> None:
        """Nobody is in a receive: what was stashed lies in some order."""
        self.takes(b"", 0)

    def takes(self, data: bytes, waiting: int) -> None:
        """A call returned ``data``; ``waiting`` tasks are in a receive still."""
        if data:
            self.stashed.append(data)
        if waiting or not self.stashed:
            return
        pieces = sorted(self.stashed, key=len, reverse=True)  # a message of one byte begins as any other
        while pieces:
            following = next((piece for piece in pieces if self.sent.startswith(piece, self.taken)), None)
            if following is None:
                beside = f", beside {len(pieces) - 1} other pieces" if pieces[1:] else ""
                raise Wrong(
                    f"received {short(pieces[0])} from line {self.number} behind {self.taken} of "
                    f"{len(self.sent)} bytes (which are at {self.sent.find(pieces[0])}){beside}"
                )
            pieces.remove(following)
            self.taken += len(following)
        self.stashed = []


def short(data: bytes) -> str:
    return repr(bytes(data)) if len(data) <= 24 else f"{bytes(data[:20])!r}... ({len(data)} bytes)"


@attrs.define(eq=False)
class World:
    """One run."""

    lines: list[Line] = attrs.Factory(list)
    told: list[Told] = attrs.Factory(list)
    log: list[str] = attrs.Factory(list)
    numbers: itertools.count[int] = attrs.Factory(lambda: itertools.count(1))
    writes: dict[object, list[bytes]] = attrs.Factory(dict)
    """What each task has written in the call that it is in."""
    disconnects: dict[object, Line] = attrs.Factory(dict)
    """For which line a task has called disconnect_from_host."""
    failed: list[BaseException] = attrs.Factory(list)

    @property
    def line(self) -> Line:
        """The present one."""
        return self.lines[-1]

    def new_line(self) -> Line:
        most = self.lines[-1].most if self.lines else 0
        self.lines.append(Line(len(self.lines), most=most))
        return self.line

    def message(self, size: int) -> bytes:
        return content(next(self.numbers), size)

    def say(self, text: str) -> None:
        self.log.append(text)


class Recorder(StateMachine):
    """The table, and what was put into it."""

    __slots__ = ("sock", "world")

    def __init__(self, world: World, sock: TcpSocket) -> None:
        super().__init__()
        self.world, self.sock = world, sock

    def feed(self, happened: Input, tell: Any) -> None:
        line, task = self.world.line, trio.lowlevel.current_task()
        meant = self.world.disconnects.get(task, line)
        if meant is not line:
            raise Wrong(f"disconnect_from_host, called for line {meant.number}, ends line {line.number}")
        if happened in (Input.READ_FAILED, Input.WRITE_FAILED) and self.sock._queue:
            line.lost = True
        super().feed(happened, tell)
        if happened is Input.LOOK_UP:
            line = self.world.line
        line.inputs.append((happened, task))


def modelled(base: type[TcpSocket], world: World, **options: Any) -> type[TcpSocket]:
    """``base``, whose sockets tell ``world`` what happens to them."""

    class Modelled(base):  # type: ignore[misc, valid-type]
        def __init__(self, parent: trio.Nursery | None = None, **more: Any) -> None:
            super().__init__(parent, **(options | more))
            self._machine = Recorder(world, self)

        def _tell(self, thing: Told) -> None:
            world.told.append(thing)
            if thing is SocketState.HOST_LOOKUP:
                world.new_line()
            super()._tell(thing)
            if thing is SocketState.CONNECTED and self._link is not None:
                local = self._link.local_address()
                world.line.port = local[1] if local else 0

        def write(self, data: Any) -> int:
            before, line = len(self._queue), world.line
            try:
                count: int = super().write(data)
            except trio.WouldBlock:
                if before < self._write_buffer_size:
                    raise Wrong(f"WouldBlock with {before} of {self._write_buffer_size} bytes queued") from None
                raise
            if count != len(data):
                raise Wrong(f"write took {count} of {len(data)} bytes")
            if len(self._queue) > self._write_buffer_size - 1 + len(data):
                raise Wrong(f"{len(self._queue)} bytes are queued, of {self._write_buffer_size} and a message")
            line.accepted += data
            world.writes.setdefault(trio.lowlevel.current_task(), []).append(bytes(data))
            return count

    return Modelled
