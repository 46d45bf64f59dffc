"""One server process: one peer in one mode, told what to do by run.py.

``python benchmarks/servers.py MODE NAME [--core N] [--package FOLDER]``

It prints ``listening PORT`` (or ``missing REASON``) and answers on stdin, a line each:

* ``memory`` -> its resident bytes after a garbage collection, and how many connections the idle handlers hold,
* ``profile FILE`` -> starts cProfile in the main thread, and at the second call ends it and writes FILE.

The end of stdin ends the process, so no server outlives run.py.
The thread that answers sleeps in a read while a benchmark runs and costs nothing then.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import ctypes
import gc
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trioqt import TcpSocket

CHUNK = 65536

# Byte i of what the send servers send; load.c makes the same and checks it.
BLOCK = bytes((at * 31 + at // 256) & 0xFF for at in range(65536))

BACKLOG = 4096


class Held:
    """How many connections the handlers of the idle mode hold."""

    count = 0


def ready(port: int) -> None:
    print("listening", port, flush=True)


# -- raw trio: what a careful programmer writes on SocketStream ---------------------------------


async def trio_echo(stream: trio.SocketStream) -> None:
    while data := await stream.receive_some(CHUNK):
        await stream.send_all(data)


async def trio_lines(stream: trio.SocketStream) -> None:
    buffer = bytearray()
    searched = 0
    while data := await stream.receive_some(CHUNK):
        buffer += data
        while (end := buffer.find(b"\n", searched)) >= 0:
            line = bytes(buffer[: end + 1])
            del buffer[: end + 1]
            searched = 0
            await stream.send_all(line)
        searched = len(buffer)


async def trio_send(stream: trio.SocketStream) -> None:
    while True:
        await stream.send_all(BLOCK)


async def trio_receive(stream: trio.SocketStream) -> None:
    total = 0
    while data := await stream.receive_some(CHUNK):
        total += len(data)
    await stream.send_all(total.to_bytes(8, "big"))


async def trio_idle(stream: trio.SocketStream) -> None:
    Held.count += 1
    await stream.receive_some(CHUNK)
    Held.count -= 1


def run_trio(handler: Callable[[trio.SocketStream], Awaitable[object]]) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        # The generator ends some modes with a reset; serve_tcp closes the stream.
        try:
            await handler(stream)
        except trio.BrokenResourceError:
            pass

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1", backlog=BACKLOG))
            ready(listeners[0].socket.getsockname()[1])

    trio.run(main)


# -- trioqt ---------------------------------------------------------------------------------------


async def put(sock: TcpSocket, data: bytes) -> None:
    """What a handler does whose ``write`` found the queue full."""
    await sock.wait_send_all_might_not_block()
    sock.write(data)


async def trioqt_echo_write(sock: TcpSocket) -> None:
    while data := await sock.receive_some():
        try:
            sock.write(data)
        except trio.WouldBlock:
            await put(sock, data)


async def trioqt_echo_send_all(sock: TcpSocket) -> None:
    while data := await sock.receive_some():
        await sock.send_all(data)


async def trioqt_lines(sock: TcpSocket) -> None:
    async for line in sock.lines():
        try:
            sock.write(line)
        except trio.WouldBlock:
            await put(sock, line)


async def trioqt_lines_sync(sock: TcpSocket) -> None:
    while await sock.wait_for_ready_read():
        while sock.can_read_line():
            line = sock.read_line()
            try:
                sock.write(line)
            except trio.WouldBlock:
                await put(sock, line)


async def trioqt_send_write(sock: TcpSocket) -> None:
    while True:
        try:
            sock.write(BLOCK)
        except trio.WouldBlock:
            await sock.wait_send_all_might_not_block()


async def trioqt_send_send_all(sock: TcpSocket) -> None:
    while True:
        await sock.send_all(BLOCK)


async def trioqt_receive(sock: TcpSocket) -> None:
    total = 0
    while data := await sock.receive_some():
        total += len(data)
    sock.write(total.to_bytes(8, "big"))


async def trioqt_idle(sock: TcpSocket) -> None:
    Held.count += 1
    await sock.receive_some()
    Held.count -= 1


def run_trioqt(handler: Callable[[TcpSocket], Awaitable[object]]) -> None:
    from trioqt import TcpServer

    async def main() -> None:
        async with TcpServer() as server:
            await server.listen("127.0.0.1", backlog=BACKLOG)
            ready(server.server_port())
            await server.serve(handler)

    trio.run(main)


def trioqt_is_missing() -> str | None:
    try:
        import trioqt
    except ModuleNotFoundError as error:
        if error.name != "trioqt":
            raise
        return str(error)
    return None if hasattr(trioqt, "TcpServer") else "trioqt has no TcpServer yet"


# -- asyncio streams ------------------------------------------------------------------------------


async def asyncio_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()


async def asyncio_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


async def asyncio_send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(BLOCK)
        await writer.drain()


async def asyncio_receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    total = 0
    while data := await reader.read(CHUNK):
        total += len(data)
    writer.write(total.to_bytes(8, "big"))


async def asyncio_idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    Held.count += 1
    await reader.read(CHUNK)
    Held.count -= 1


def run_asyncio(handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            pass

    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=BACKLOG)
        ready(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


# -- bare select.epoll: what Python costs without a framework; no backpressure worth the name ----------

# A handler is called when its socket is readable (send: writable), and returns False at the end.
Step = Callable[[], bool]


def send_whole(sock: socket.socket, data: bytes) -> None:
    """Send what fits in the kernel; wait for the rest, which no mode but a big batch of lines ever needs."""
    try:
        sent = sock.send(data)
    except BlockingIOError:
        sent = 0
    while sent < len(data):
        select.select([], [sock], [])
        sent += sock.send(data[sent:])


def epoll_echo(sock: socket.socket) -> Step:
    def step() -> bool:
        if data := sock.recv(CHUNK):
            send_whole(sock, data)
        return bool(data)

    return step


def epoll_lines(sock: socket.socket) -> Step:
    rest = b""

    def step() -> bool:
        nonlocal rest
        if not (data := sock.recv(CHUNK)):
            return False
        *lines, rest = (rest + data).split(b"\n")
        answers = [line + b"\n" for line in lines]
        if answers:
            send_whole(sock, b"".join(answers))
        return True

    return step


def epoll_send(sock: socket.socket) -> Step:
    rest = memoryview(BLOCK)

    def step() -> bool:
        nonlocal rest
        rest = rest[sock.send(rest) :] or memoryview(BLOCK)
        return True

    return step


def epoll_receive(sock: socket.socket) -> Step:
    total = 0

    def step() -> bool:
        nonlocal total
        if data := sock.recv(CHUNK):
            total += len(data)
            return True
        send_whole(sock, total.to_bytes(8, "big"))
        return False

    return step


def epoll_idle(sock: socket.socket) -> Step:
    Held.count += 1

    def step() -> bool:
        Held.count -= 1
        return False

    return step


def run_epoll(handler: Callable[[socket.socket], Step]) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listener.setblocking(False)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    connections: dict[int, tuple[socket.socket, Step]] = {}
    events = select.EPOLLOUT if handler is epoll_send else select.EPOLLIN
    ready(listener.getsockname()[1])
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == listener.fileno():
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[sock.fileno()] = sock, handler(sock)
                poller.register(sock, events)
                continue
            sock, step = connections[descriptor]
            try:
                goes_on = step()
            except BlockingIOError:
                goes_on = True
            except ConnectionError:
                goes_on = False
            if not goes_on:
                del connections[descriptor]
                sock.close()


# -- the table ------------------------------------------------------------------------------------

SERVERS: dict[str, dict[str, Callable[[], None]]] = {
    "echo": {
        "trio": partial(run_trio, trio_echo),
        "trioqt-write": partial(run_trioqt, trioqt_echo_write),
        "trioqt-send_all": partial(run_trioqt, trioqt_echo_send_all),
        "asyncio": partial(run_asyncio, asyncio_echo),
        "epoll": partial(run_epoll, epoll_echo),
    },
    "lines": {
        "trio": partial(run_trio, trio_lines),
        "trioqt-lines": partial(run_trioqt, trioqt_lines),
        "trioqt-sync": partial(run_trioqt, trioqt_lines_sync),
        "asyncio": partial(run_asyncio, asyncio_lines),
        "epoll": partial(run_epoll, epoll_lines),
    },
    "send": {
        "trio": partial(run_trio, trio_send),
        "trioqt-write": partial(run_trioqt, trioqt_send_write),
        "trioqt-send_all": partial(run_trioqt, trioqt_send_send_all),
        "asyncio": partial(run_asyncio, asyncio_send),
        "epoll": partial(run_epoll, epoll_send),
    },
    "receive": {
        "trio": partial(run_trio, trio_receive),
        "trioqt": partial(run_trioqt, trioqt_receive),
        "asyncio": partial(run_asyncio, asyncio_receive),
        "epoll": partial(run_epoll, epoll_receive),
    },
    "idle": {
        "trio": partial(run_trio, trio_idle),
        "trioqt": partial(run_trioqt, trioqt_idle),
        "asyncio": partial(run_asyncio, asyncio_idle),
        "epoll": partial(run_epoll, epoll_idle),
    },
}


# -- the side channel -----------------------------------------------------------------------------


def resident_bytes() -> int:
    """After a collection, and after the C library has given back what it can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        pass
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Profiler:
    """cProfile sees only the thread that enables it, so a signal does it, in the main thread."""

    def __init__(self) -> None:
        self.file = ""
        self.profile: cProfile.Profile | None = None

    def toggle(self, *_: object) -> None:
        if self.profile is None:
            self.profile = cProfile.Profile()
            self.profile.enable()
        else:
            self.profile.disable()
            self.profile.dump_stats(self.file)
            self.profile = None
        print("profile", self.file, flush=True)


def answer_questions(profiler: Profiler) -> None:
    for question in sys.stdin:
        verb, _, argument = question.strip().partition(" ")
        if verb == "memory":
            print("memory", resident_bytes(), Held.count, flush=True)
        elif verb == "profile":
            profiler.file = argument
            os.kill(os.getpid(), signal.SIGUSR1)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="One benchmark server; run.py starts it.")
    parser.add_argument("mode", choices=SERVERS)
    parser.add_argument("name")
    parser.add_argument("--core", type=int, default=-1)
    parser.add_argument(
        "--package", help="folder to import trioqt from (default: the installed one, else this checkout)"
    )
    options = parser.parse_args()
    if options.package:
        sys.path.insert(0, options.package)
    else:
        sys.path.append(str(Path(__file__).resolve().parent.parent))
    if options.core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.core})
    if options.name.startswith("trioqt") and (reason := trioqt_is_missing()):
        print("missing", reason, flush=True)
        return
    profiler = Profiler()
    signal.signal(signal.SIGUSR1, profiler.toggle)
    # Ctrl-C is for run.py, which then closes our stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=answer_questions, args=(profiler,), daemon=True).start()
    SERVERS[options.mode][options.name]()


if __name__ == "__main__":
    main()
