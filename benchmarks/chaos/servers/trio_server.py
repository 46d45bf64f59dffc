"""trio.serve_listeners, with a handler that catches its own exceptions, as trio's tutorial advises.

``--bare`` leaves that out: the same handler code as trioqt's.
It stops as ``serve_listeners`` offers it: the handlers have a nursery of their own, accepting is cancelled, and they
get a deadline.
"""

from __future__ import annotations

import logging
import signal
import sys
from functools import partial
from typing import Any

import trio

from benchmarks.chaos.servers.common import BLOCK, LINE_LIMIT, Bug, Options, missing, read_options, ready

logger = logging.getLogger("server")


class Lines:
    """trio has no lines; this is what its tutorial's readers write."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def receive(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LINE_LIMIT:
                raise ValueError("the line is too long")
            chunk = await self._stream.receive_some()
            if not chunk:
                return b""
            self._buffer += chunk
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line


class Program:
    """One server and its handler."""

    def __init__(self, options: Options, *, bare: bool) -> None:
        self.options = options
        self.context = options.context()
        self.bare = bare

    async def handle(self, stream: trio.SocketStream) -> None:
        if self.bare:
            await self.serve_client(stream)
            return
        try:
            await self.serve_client(stream)
        except (trio.BrokenResourceError, trio.TooSlowError):
            pass
        except Exception:
            logger.exception("a handler failed")

    async def serve_client(self, tcp: trio.SocketStream) -> None:
        async with tcp:
            if self.context is None:
                await self.answer_all(tcp)
                return
            stream = trio.SSLStream(tcp, self.context, server_side=True)
            async with stream:
                try:
                    await self.answer_all(stream)
                finally:
                    if self.options.goodbye:
                        await stream.send_all(b"BYE\n")

    async def answer_all(self, stream: trio.abc.Stream) -> None:
        lines = Lines(stream)
        while True:
            with trio.fail_after(min(self.options.patience, self.options.stall)):
                line = await lines.receive()
            if not line or not await self.answer(stream, line):
                return

    async def answer(self, stream: trio.abc.Stream, line: bytes) -> bool:
        match line.split():
            case [b"ECHO", word]:
                await stream.send_all(word + b"\n")
            case [b"SLEEP", seconds]:
                await stream.send_all(b"BEGUN\n")
                await trio.sleep(float(seconds))
                await stream.send_all(b"DONE\n")
            case [b"SEND", count]:
                await send(stream, int(count))
            case [b"LAST", seconds, count]:
                await trio.sleep(float(seconds))
                await send(stream, int(count))
                return False
            case [b"UPSTREAM", port]:
                async with await trio.open_tcp_stream("127.0.0.1", int(port)):
                    await stream.send_all(b"CONNECTED\n")
            case [b"RAISE"]:
                raise Bug
            case _:
                await stream.send_all(b"WHAT\n")
        return True

    async def main(self) -> None:
        listeners = await trio.open_tcp_listeners(self.options.port, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        if self.options.grace is None:
            ready(self.options, port)
            await trio.serve_listeners(self.handle, listeners)
            return
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as handlers:
                async with trio.open_nursery() as accepting:
                    serve: Any = partial(trio.serve_listeners, handler_nursery=handlers)
                    await accepting.start(serve, self.handle, listeners)
                    ready(self.options, port)
                    await anext(aiter(signals))
                    accepting.cancel_scope.cancel()
                handlers.cancel_scope.deadline = trio.current_time() + self.options.grace


async def send(stream: trio.abc.Stream, count: int) -> None:
    while count > 0:
        await stream.send_all(BLOCK[:count])
        count -= len(BLOCK)


if __name__ == "__main__":
    bare = "--bare" in sys.argv
    if bare:
        sys.argv.remove("--bare")
    options = read_options()
    if options.monitor:
        missing("it tells nobody how connections end")
    try:
        trio.run(Program(options, bare=bare).main)
    except* KeyboardInterrupt:  # it leaves serve_listeners in a group
        sys.exit(130)
