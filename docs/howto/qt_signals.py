"""The signals of a connection as values: what slots of Qt would be called with, one after the other."""

import trio

from trioqt import Connected, Disconnected, ErrorOccurred, TcpServer, TcpSocket


async def show(sock: TcpSocket, port: int) -> None:
    async with sock.events(Connected, Disconnected, ErrorOccurred) as events:
        await sock.connect_to_host("127.0.0.1", port)
        async for event in events:
            match event:
                case Connected():
                    print("connected")
                case ErrorOccurred(kind=kind):
                    print("error:", kind.name)
                case Disconnected():
                    print("disconnected")
                    break


async def greet(sock: TcpSocket) -> None:
    await sock.send_all(b"hello\n")


async def main() -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        await nursery.start(server.serve, greet)
        async with TcpSocket(half_open=False) as sock:  # as in Qt, the peer's end is ours
            await show(sock, server.server_port())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
