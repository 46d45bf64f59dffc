"""anyio on trio: its TCP listener, its socket streams, its UDP socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSListener, TLSStream

from benchmarks.speed.peers.common import BACKLOG, BLOCK, REQUEST, Counted, Held, Task, check_answer, ready


async def echo(stream: ByteStream) -> None:
    async for data in stream:
        await stream.send(data)


async def lines(stream: ByteStream) -> None:
    # By hand, as for raw trio; BufferedByteReceiveStream.receive_until is a coroutine more for each line.
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            await stream.send(line + b"\n")


async def send(stream: ByteStream) -> None:
    while True:
        await stream.send(BLOCK)


async def receive(stream: ByteStream) -> None:
    counted = Counted()
    async for data in stream:
        if told := counted.add(len(data)):
            await stream.send(told)


async def idle(stream: ByteStream) -> None:
    Held.count += 1
    try:
        await stream.receive()
    except anyio.EndOfStream:
        pass
    Held.count -= 1


def serve(handler: Callable[[ByteStream], Awaitable[None]], task: Task) -> None:
    async def handle(stream: SocketStream) -> None:
        try:
            async with stream:
                await handler(stream)
        except anyio.BrokenResourceError:
            pass

    async def main() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0, backlog=BACKLOG)
        ready(listener.extra(SocketAttribute.local_port))
        await listener.serve(handle)

    anyio.run(main, backend="trio")


def serve_tls(handler: Callable[[ByteStream], Awaitable[None]], task: Task) -> None:
    async def handle(stream: TLSStream) -> None:
        try:
            await handler(stream)
            await stream.aclose()
        except anyio.BrokenResourceError:
            # Its aclose says goodbye, which then fails in another way.
            await anyio.aclose_forcefully(stream)

    async def main() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0, backlog=BACKLOG)
        ready(listener.extra(SocketAttribute.local_port))
        await TLSListener(listener, task.tls()).serve(handle)

    anyio.run(main, backend="trio")


def ask(task: Task) -> None:
    async def client() -> None:
        while True:
            async with await anyio.connect_tcp("127.0.0.1", task.port) as stream:
                await stream.send(REQUEST)
                answer = b""
                while len(answer) < len(REQUEST):
                    answer += await stream.receive()
                check_answer(answer)

    async def main() -> None:
        ready()
        async with anyio.create_task_group() as tasks:
            for _ in range(task.clients):
                tasks.start_soon(client)

    anyio.run(main, backend="trio")


def datagrams(task: Task) -> None:
    async def main() -> None:
        async with await anyio.create_udp_socket(local_host="127.0.0.1", local_port=0) as sock:
            ready(sock.extra(SocketAttribute.local_port))
            async for data, (host, port) in sock:
                await sock.sendto(data, host, port)

    anyio.run(main, backend="trio")


MODES: dict[str, dict[str, Callable[[Task], None]]] = {
    "anyio": {
        "echo": partial(serve, echo),
        "lines": partial(serve, lines),
        "accept": partial(serve, echo),
        "client": ask,
        "send": partial(serve, send),
        "receive": partial(serve, receive),
        "idle": partial(serve, idle),
        "datagrams": datagrams,
        "tls-echo": partial(serve_tls, echo),
        "tls-accept": partial(serve_tls, echo),
        "tls-send": partial(serve_tls, send),
        "tls-receive": partial(serve_tls, receive),
        "tls-idle": partial(serve_tls, idle),
    }
}
