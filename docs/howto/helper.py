"""A helper that opens a socket for its caller: ``python docs/howto/helper.py``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trioqt import TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate


@asynccontextmanager
async def logged_in(host: str, name: str) -> AsyncIterator[TcpSocket]:
    """A connection on which the greeting is done; it ends with the caller's block."""
    async with TcpSocket() as sock:
        with trio.fail_after(5):
            await sock.connect_to_host(host, 4000)
            await sock.send_all(f"I am {name}\n".encode())
            if await sock.receive_line() != b"welcome\n":
                raise PermissionError(name)
        yield sock


async def open_logged_in(nursery: trio.Nursery, host: str, name: str) -> TcpSocket:
    """The same, returned: its tasks are in the caller's nursery, and the caller closes it."""
    sock = TcpSocket(nursery)
    try:
        await sock.connect_to_host(host, 4000)
        await sock.send_all(f"I am {name}\n".encode())
        if await sock.receive_line() != b"welcome\n":
            raise PermissionError(name)
    except BaseException:
        sock.abort()  # also if it was cancelled: nobody else knows of it
        raise
    return sock


async def door(sock: TcpSocket) -> None:
    name = (await sock.receive_line()).removeprefix(b"I am ")
    await sock.send_all(b"welcome\n" if name == b"Ada\n" else b"who?\n")
    await sock.send_all(await sock.receive_line())


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1", 4000)
        await nursery.start(server.serve, door)

        async with logged_in("127.0.0.1", "Ada") as sock:
            await sock.send_all(b"one\n")
            print(await sock.receive_line())

        sock = await open_logged_in(nursery, "127.0.0.1", "Ada")
        await sock.send_all(b"two\n")
        print(await sock.receive_line())
        await sock.aclose()

        try:
            async with logged_in("127.0.0.1", "Eve"):
                raise AssertionError("she is not let in")
        except PermissionError as error:
            print("not let in:", error)
        print(server.connection_count(), "connections are left")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main)
