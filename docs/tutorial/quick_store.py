import trio
from store import answer

from trioqt import TcpServer, TcpSocket


async def talk(sock: TcpSocket) -> None:
    async for line in sock.lines():
        reply = answer(line)
        try:
            sock.write(reply)
        except trio.WouldBlock:  # the peer has 64 KiB to read
            await sock.send_all(reply)


async def main() -> None:
    async with TcpServer() as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve(talk)


if __name__ == "__main__":
    trio.run(main)
