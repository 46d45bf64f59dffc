import trio
from store import answer

from trioqt import ErrorKind, SocketError, TcpServer, TcpSocket, stop_on_signals

IDLE = 60


async def talk(sock: TcpSocket) -> None:
    while line := await next_line(sock):
        await sock.send_all(answer(line))


async def next_line(sock: TcpSocket) -> bytes:
    """The next line; nothing if the conversation is over, whoever ended it."""
    with trio.move_on_after(IDLE) as idle:
        try:
            return await sock.receive_line(max_bytes=1000)
        except SocketError as error:
            if error.kind is not ErrorKind.LIMIT_EXCEEDED:
                raise  # the peer has vanished: serve knows what to do
            await sock.send_all(b"ERROR that line is too long\n")
    if idle.cancelled_caught:
        await sock.send_all(b"BYE\n")
    return b""


async def main() -> None:
    async with TcpServer(max_connections=100) as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1", 4000)
        await nursery.start(server.serve, talk)
        await stop_on_signals(server, 10)


if __name__ == "__main__":
    trio.run(main)
