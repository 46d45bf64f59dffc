"""A client that connects again, and waits longer each time: ``python docs/howto/reconnect.py``."""

import random
from collections.abc import Awaitable, Callable

import trio

from trioqt import SocketError, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


async def stay_connected(host: str, port: int, use: Callable[[TcpSocket], Awaitable[None]]) -> None:
    """Run ``use`` on a new connection whenever the last one was lost, until it returns."""
    pause = FIRST_PAUSE
    while True:
        begun = trio.current_time()
        try:
            async with TcpSocket() as sock:
                with trio.fail_after(10):
                    await sock.connect_to_host(host, port)
                await use(sock)
            return
        except* (SocketError, trio.TooSlowError) as trouble:  # a group, since `use` may have tasks of its own
            print(f"{trio.current_time():4.0f} s: {trouble.exceptions[0]}")
        if trio.current_time() > begun + LONGEST_PAUSE:
            pause = FIRST_PAUSE  # it held, so this trouble is a new one
        # Half of the pause is drawn, so that a thousand clients of a server that comes back do not come at once.
        await trio.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, LONGEST_PAUSE)


async def greet(sock: TcpSocket) -> None:
    await sock.send_all(b"hello\n")
    print(f"{trio.current_time():4.0f} s: {await sock.receive_line()!r}")


async def echo(sock: TcpSocket) -> None:
    async for chunk in sock:
        await sock.send_all(chunk)


async def main(net: VirtualNetwork) -> None:
    random.seed(net.seed)
    with net.host("server"):
        pass  # it is up, and nobody listens yet

    async def start_late() -> None:
        await trio.sleep(20)
        with net.host("server"):
            async with TcpServer() as server:
                await server.listen(port=4000)
                await server.serve(echo)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start_late)
        await stay_connected("server", 4000, greet)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main)
