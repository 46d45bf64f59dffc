"""Code of the kind people write on trio: wrong versions, each of which passes an ordinary test, and right ones.

What is wrong stands in the comment beside it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio


class Receiver(Protocol):
    async def receive_some(self) -> bytes: ...


class Sender(Protocol):
    async def send_all(self, data: bytes) -> None: ...


# ---- readers -------------------------------------------------------------------------------------------------------


class LineReader:
    """What the readers below share: a stream, and the bytes that came after the last line."""

    def __init__(self, stream: Receiver) -> None:
        self.stream = stream
        self.rest = b""

    async def fill(self) -> None:
        while b"\n" not in self.rest:
            chunk = await self.stream.receive_some()
            if not chunk:
                raise EOFError
            self.rest += chunk

    def take(self) -> bytes:
        line, _, self.rest = self.rest.partition(b"\n")
        return line


class GreedyReader(LineReader):
    async def readline(self) -> bytes:
        line, self.rest = self.rest, b""  # taken out, and lost if the wait is cancelled
        while b"\n" not in line:
            chunk = await self.stream.receive_some()
            if not chunk:
                raise EOFError
            line += chunk
        line, _, self.rest = line.partition(b"\n")
        return line


class PoliteReader(LineReader):
    async def readline(self) -> bytes:
        await self.fill()
        line = self.take()
        await trio.lowlevel.checkpoint()  # "every async function is a checkpoint", and a line is lost in this one
        return line


class LateReader(LineReader):
    async def readline(self) -> bytes:
        await self.fill()
        line = self.take()
        await trio.lowlevel.checkpoint_if_cancelled()  # never yields, so only a start under cancellation shows it
        return line


class CarefulReader(LineReader):
    async def readline(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.fill()
        return self.take()


# ---- writers -------------------------------------------------------------------------------------------------------


class DirectWriter:
    def __init__(self, stream: Sender) -> None:
        self.stream = stream

    async def run(self) -> None:
        await trio.lowlevel.checkpoint()

    async def write(self, data: bytes) -> None:
        await self.stream.send_all(data)  # cancelled half-way, a part has been sent

    def finish(self) -> None:
        pass


class QueueWriter:
    """A task owns the stream; ``write`` waits for room, and then only touches memory."""

    def __init__(self, stream: Sender) -> None:
        self.stream = stream
        self.queue = bytearray()
        self.finished = False
        self.changed = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        while self.queue or not self.finished:
            if self.queue:
                chunk = bytes(self.queue)
                await self.stream.send_all(chunk)
                del self.queue[: len(chunk)]
                self.changed.unpark_all()
            else:
                await self.changed.park()

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while self.queue:
            await self.changed.park()
        self.queue += data
        self.changed.unpark_all()

    def finish(self) -> None:
        self.finished = True
        self.changed.unpark_all()


# ---- state ---------------------------------------------------------------------------------------------------------


class AwaitingNotifier:
    def __init__(self, events: trio.MemorySendChannel[str]) -> None:
        self.state = "unconnected"
        self.events = events

    async def connect(self, answered: trio.Event) -> None:
        await answered.wait()
        self.state = "connected"
        await self.events.send(self.state)  # cancelled here, the state has changed and nobody is told


class PromptNotifier(AwaitingNotifier):
    async def connect(self, answered: trio.Event) -> None:
        await answered.wait()
        self.state = "connected"
        self.events.send_nowait(self.state)


class TwiceReleased:
    """So many at a time."""

    def __init__(self, slots: int) -> None:
        self.free = slots

    async def work(self) -> None:
        self.free -= 1
        try:
            await trio.sleep(1)
            self.free += 1
            await trio.sleep(1)  # to tell somebody; cancelled here, the slot is given back a second time
        except trio.Cancelled:
            self.free += 1
            raise


class OnceReleased(TwiceReleased):
    async def work(self) -> None:
        self.free -= 1
        try:
            await trio.sleep(1)
        finally:
            self.free += 1
        await trio.sleep(1)


# ---- sockets and descriptors ---------------------------------------------------------------------------------------


async def leaky_connect(port: int) -> trio.SocketStream:
    sock = trio.socket.socket()
    await sock.connect(("127.0.0.1", port))
    stream = trio.SocketStream(sock)
    await stream.send_all(b"hello\n")  # cancelled here or in the next line, nobody closes the socket
    await stream.receive_some()
    return stream


async def tidy_connect(port: int) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    try:
        await stream.send_all(b"hello\n")
        await stream.receive_some()
    except BaseException:
        stream.socket.close()
        raise
    return stream


Handler = Callable[[trio.SocketStream], Awaitable[None]]


async def dropping_accept(listener: trio.SocketListener, nursery: trio.Nursery, handler: Handler) -> None:
    while True:
        stream = await listener.accept()
        await trio.lowlevel.checkpoint()  # cancelled here, the connection belongs to nobody
        nursery.start_soon(handler, stream)


async def keeping_accept(listener: trio.SocketListener, nursery: trio.Nursery, handler: Handler) -> None:
    while True:
        nursery.start_soon(handler, await listener.accept())


async def leaky_read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    await trio.sleep(1)  # cancelled here, the descriptor stays open
    data = os.read(descriptor, 100)
    os.close(descriptor)
    return data


async def tidy_read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        await trio.sleep(1)
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


# ---- tasks ---------------------------------------------------------------------------------------------------------


async def _keep_alive(scope: trio.CancelScope) -> None:
    with scope:
        await trio.sleep_forever()


async def leaky_session() -> None:
    scope = trio.CancelScope()
    trio.lowlevel.spawn_system_task(_keep_alive, scope)
    await trio.sleep(1)  # cancelled here, nobody stops the task
    scope.cancel()
    await trio.sleep(1)


async def tidy_session() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()


async def stubborn_wait(done: trio.Event) -> None:
    while not done.is_set():
        try:
            await trio.sleep(1)
            return
        except trio.Cancelled:  # swallowed, and what follows waits for what never comes
            with trio.CancelScope(shield=True):
                await done.wait()


async def spinning_wait() -> None:
    while True:
        try:
            await trio.sleep(1)
            return
        except trio.Cancelled:  # swallowed: it tries for ever, and never lets the clock move
            pass


async def renaming_wait() -> None:
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        raise ConnectionError("timed out") from None  # the caller's scope waits for Cancelled
