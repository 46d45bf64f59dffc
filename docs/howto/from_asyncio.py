"""A client and a server on asyncio's streams, and the same on trioqt: ``python docs/howto/from_asyncio.py``."""

import asyncio

import trio

from trioqt import TcpServer, TcpSocket


async def before_handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def before() -> None:
    server = await asyncio.start_server(before_handler, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"hello\n")
        print(await asyncio.wait_for(reader.readline(), 5))
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()


async def after_handler(sock: TcpSocket) -> None:
    async for line in sock.lines():
        await sock.send_all(line.upper())


async def after() -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        await nursery.start(server.serve, after_handler)
        async with TcpSocket() as sock:
            await sock.connect_to_host("127.0.0.1", server.server_port())
            await sock.send_all(b"hello\n")
            with trio.fail_after(5):
                print(await sock.receive_line())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    asyncio.run(before())
    trio.run(after)
