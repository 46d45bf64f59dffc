"""A chat: one task reads from each member and writes to all others, without waiting for any of them.

Start it.  In a second and a third terminal type ``trioqt connect 127.0.0.1 4000``.  You will see in each what was typed
in the other.  A member that stops reading is cut off once 64 KiB wait for it, and nobody else notices.
"""

import trio

from trioqt import SocketError, TcpServer, TcpSocket

members: set[TcpSocket] = set()


async def chat(sock: TcpSocket) -> None:
    members.add(sock)
    try:
        async for line in sock.lines(max_bytes=1000):
            for member in members - {sock}:
                tell(member, line)
    finally:
        members.discard(sock)


def tell(member: TcpSocket, line: bytes) -> None:
    try:
        member.write(line)  # goes out whole, between messages, from whatever task
    except trio.WouldBlock:
        member.abort()  # it does not read; its own task ends by this
    except (SocketError, trio.ClosedResourceError):
        pass  # it is gone, which its own task finds too


async def main() -> None:
    async with TcpServer() as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve(chat)


if __name__ == "__main__":
    trio.run(main)
