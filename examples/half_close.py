"""A server that cannot answer before it has heard all: it sorts lines.

Start it.  In a second terminal type ``printf 'pear\\napple\\nfig\\n' | trioqt connect 127.0.0.1 4000``.  You will see
the three lines in order.  The client finishes sending and goes on receiving, which TCP can do and Qt's sockets cannot:
there, the end of one direction is the end of both.
"""

import trio

from trioqt import TcpServer, TcpSocket

MAX_BYTES = 1_000_000


async def sort(sock: TcpSocket) -> None:
    lines: list[bytes] = []
    size = 0
    async for line in sock.lines():  # until the peer has finished
        lines.append(line)
        size += len(line)
        if size > MAX_BYTES:
            return
    for line in sorted(lines):
        await sock.send_all(line)


async def main() -> None:
    async with TcpServer() as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve(sort)


if __name__ == "__main__":
    trio.run(main)
