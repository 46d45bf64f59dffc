"""asyncio, with its own loop or with uvloop's, both ways that it has: streams, and Protocols.

Streams are what most programs use; a Protocol is what is fastest, with callbacks instead of tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, cast

from benchmarks.speed.peers.common import (
    BACKLOG,
    BLOCK,
    CHUNK,
    REQUEST,
    Counted,
    Held,
    Task,
    check_answer,
    ready,
    udp_socket,
)

Main = Coroutine[Any, Any, None]
Run = Callable[[Main], None]


def run_asyncio(main: Main) -> None:
    asyncio.run(main)


def run_uvloop(main: Main) -> None:
    import uvloop

    uvloop.run(main)


# -- streams --------------------------------------------------------------------------------------


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()


async def lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(BLOCK)
        await writer.drain()


async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    counted = Counted()
    while data := await reader.read(CHUNK):
        if told := counted.add(len(data)):
            writer.write(told)
            await writer.drain()


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    Held.count += 1
    await reader.read(CHUNK)
    Held.count -= 1


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def serve_streams(run: Run, handler: Handler, task: Task, *, tls: bool = False) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            pass

    async def main() -> None:
        context = task.tls() if tls else None
        server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=BACKLOG, ssl=context)
        ready(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    run(main())


def ask_by_streams(run: Run, task: Task) -> None:
    async def client() -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", task.port)
            writer.write(REQUEST)
            check_answer(await reader.readexactly(len(REQUEST)))
            writer.close()
            await writer.wait_closed()

    async def main() -> None:
        ready()
        await asyncio.gather(*(client() for _ in range(task.clients)))

    run(main())


# -- Protocols ------------------------------------------------------------------------------------


class Connection(asyncio.Protocol):
    """Stops reading while the peer does not read."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Echo(Connection):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Lines(Connection):
    rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.transport.write(line + b"\n")


class Send(asyncio.Protocol):
    """Writes until it is told to pause, at each chance."""

    paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.write_on()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.write_on()

    def write_on(self) -> None:
        while not self.paused and not self.transport.is_closing():
            self.transport.write(BLOCK)


class Receive(Connection):
    # data_received, because every other peer too is given bytes; a BufferedProtocol fills a buffer of its own instead.
    def __init__(self) -> None:
        self.counted = Counted()

    def data_received(self, data: bytes) -> None:
        if told := self.counted.add(len(data)):
            self.transport.write(told)


class Idle(Connection):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        Held.count += 1

    def connection_lost(self, exc: Exception | None) -> None:
        Held.count -= 1


def serve_protocol(run: Run, protocol: type[asyncio.Protocol], task: Task, *, tls: bool = False) -> None:
    async def main() -> None:
        loop, context = asyncio.get_running_loop(), task.tls() if tls else None
        server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=BACKLOG, ssl=context)
        ready(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    run(main())


class Asking(Connection):
    """Closes when it is answered; ``ended`` is when the next may begin."""

    def __init__(self, ended: asyncio.Future[None]) -> None:
        self.ended = ended
        self.answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        if len(self.answer) >= len(REQUEST):
            check_answer(self.answer)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


def ask_by_protocol(run: Run, task: Task) -> None:
    async def client() -> None:
        loop = asyncio.get_running_loop()
        while True:
            ended = loop.create_future()
            await loop.create_connection(partial(Asking, ended), "127.0.0.1", task.port)
            await ended

    async def main() -> None:
        ready()
        await asyncio.gather(*(client() for _ in range(task.clients)))

    run(main())


# -- datagrams ------------------------------------------------------------------------------------


class EchoDatagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.transport.sendto(data, addr)


def datagrams(run: Run, task: Task) -> None:
    async def main() -> None:
        sock = udp_socket()
        await asyncio.get_running_loop().create_datagram_endpoint(EchoDatagrams, sock=sock)
        ready(sock.getsockname()[1])
        await asyncio.get_running_loop().create_future()

    run(main())


def streams_on(run: Run) -> dict[str, Callable[[Task], None]]:
    return {
        "echo": partial(serve_streams, run, echo),
        "lines": partial(serve_streams, run, lines),
        "accept": partial(serve_streams, run, echo),
        "client": partial(ask_by_streams, run),
        "send": partial(serve_streams, run, send),
        "receive": partial(serve_streams, run, receive),
        "idle": partial(serve_streams, run, idle),
        "tls-echo": partial(serve_streams, run, echo, tls=True),
        "tls-accept": partial(serve_streams, run, echo, tls=True),
        "tls-send": partial(serve_streams, run, send, tls=True),
        "tls-receive": partial(serve_streams, run, receive, tls=True),
        "tls-idle": partial(serve_streams, run, idle, tls=True),
    }


def protocols_on(run: Run) -> dict[str, Callable[[Task], None]]:
    return {
        "echo": partial(serve_protocol, run, Echo),
        "lines": partial(serve_protocol, run, Lines),
        "accept": partial(serve_protocol, run, Echo),
        "client": partial(ask_by_protocol, run),
        "send": partial(serve_protocol, run, Send),
        "receive": partial(serve_protocol, run, Receive),
        "idle": partial(serve_protocol, run, Idle),
        "datagrams": partial(datagrams, run),
        "tls-echo": partial(serve_protocol, run, Echo, tls=True),
        "tls-accept": partial(serve_protocol, run, Echo, tls=True),
        "tls-send": partial(serve_protocol, run, Send, tls=True),
        "tls-receive": partial(serve_protocol, run, Receive, tls=True),
        "tls-idle": partial(serve_protocol, run, Idle, tls=True),
    }


MODES: dict[str, dict[str, Callable[[Task], None]]] = {
    "asyncio-streams": streams_on(run_asyncio),
    "asyncio-protocol": protocols_on(run_asyncio),
    "uvloop-streams": streams_on(run_uvloop),
    "uvloop-protocol": protocols_on(run_uvloop),
}
