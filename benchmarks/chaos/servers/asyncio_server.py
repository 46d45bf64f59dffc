"""asyncio streams: ``drain`` after each write, ``wait_for`` around each read, the writer closed in ``finally``.

What networks do is caught; a bug goes to the loop's exception handler, which logs it.
It stops by closing the server, and by waiting for the tasks of the handlers, which it knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from benchmarks.chaos.servers.common import BLOCK, Bug, Options, missing, read_options, ready


class Program:
    """One server and its handler."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.patience = min(options.patience, options.stall)
        self.tasks: set[asyncio.Task[object]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            try:
                await self.answer_all(reader, writer)
            finally:
                if self.options.goodbye:
                    writer.write(b"BYE\n")
                    await writer.drain()
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        patience = None if self.patience == float("inf") else self.patience
        while line := await asyncio.wait_for(reader.readline(), patience):
            if not await self.answer(writer, line):
                return

    async def answer(self, writer: asyncio.StreamWriter, line: bytes) -> bool:
        match line.split():
            case [b"ECHO", word]:
                writer.write(word + b"\n")
            case [b"SLEEP", seconds]:
                writer.write(b"BEGUN\n")
                await writer.drain()
                await asyncio.sleep(float(seconds))
                writer.write(b"DONE\n")
            case [b"SEND", count]:
                await send(writer, int(count))
            case [b"LAST", seconds, count]:
                await asyncio.sleep(float(seconds))
                await send(writer, int(count))
                return False
            case [b"UPSTREAM", port]:
                _, upstream = await asyncio.open_connection("127.0.0.1", int(port))
                upstream.close()
                writer.write(b"CONNECTED\n")
            case [b"RAISE"]:
                raise Bug
            case _:
                writer.write(b"WHAT\n")
        await writer.drain()
        return True

    async def main(self) -> None:
        stop = asyncio.Event()
        if self.options.grace is not None:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = await asyncio.start_server(self.handle, "127.0.0.1", self.options.port, ssl=self.options.context())
        ready(self.options, server.sockets[0].getsockname()[1])
        await stop.wait()
        server.close()
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=self.options.grace)
            for task in late:
                task.cancel()


async def send(writer: asyncio.StreamWriter, count: int) -> None:
    while count > 0:
        writer.write(BLOCK[:count])
        await writer.drain()
        count -= len(BLOCK)


if __name__ == "__main__":
    options = read_options()
    if options.monitor:
        missing("it tells nobody how connections end")
    try:
        asyncio.run(Program(options).main())
    except KeyboardInterrupt:
        sys.exit(130)
