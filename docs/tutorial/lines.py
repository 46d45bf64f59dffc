import trio

from trioqt import TcpServer, TcpSocket


async def count(sock: TcpSocket) -> None:
    async for line in sock.lines():
        await sock.send_all(b"%d bytes\n" % len(line.rstrip()))


async def main() -> None:
    async with TcpServer() as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve(count)


if __name__ == "__main__":
    trio.run(main)
