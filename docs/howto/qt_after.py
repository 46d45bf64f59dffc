"""The same server and client: ``python docs/howto/qt_after.py``."""

import trio

from trioqt import TcpServer, TcpSocket


async def answer(sock: TcpSocket) -> None:
    async for line in sock.lines():
        await sock.send_all(line.upper())


async def client(port: int) -> None:
    async with TcpSocket() as sock:
        await sock.connect_to_host("127.0.0.1", port)
        await sock.send_all(b"hello\n")
        print(await sock.receive_line())


async def main() -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        await nursery.start(server.serve, answer)
        await client(server.server_port())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
