"""A server in Qt's style: wait for newConnection, take what is pending, and own what you took.

Start it.  In a second terminal type ``trioqt connect 127.0.0.1 4000``, a few times.  You will see a number each time,
and the connection end.  ``serve`` does all of this for you; this is for programs that want to decide themselves when
a connection is taken, and by whom.
"""

import itertools

import trio

from trioqt import NewConnection, SocketError, TcpServer, TcpSocket


async def take_connections(server: TcpServer[TcpSocket]) -> None:
    numbers = itertools.count(1)
    async with server.events(NewConnection) as news, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1", 4000)
        async for _ in news:
            # One NewConnection may stand for several, so take all there are.
            while (sock := server.next_pending_connection()) is not None:
                nursery.start_soon(greet, sock, next(numbers))


async def greet(sock: TcpSocket, number: int) -> None:
    try:
        async with sock:
            sock.write(b"You are number %d.\n" % number)  # leaving the block sends it
    except SocketError as error:
        print("number", number, "has gone:", error)  # the task is yours, and so is its failure


async def main() -> None:
    async with TcpServer() as server:
        await take_connections(server)


if __name__ == "__main__":
    trio.run(main)
