"""Work in threads, and a socket used from one: ``python docs/howto/threads.py``."""

import hashlib
import threading

import trio

from trioqt import TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate

at_once = trio.CapacityLimiter(4)


async def answer(sock: TcpSocket) -> None:
    """What takes long and does not wait goes to a thread; the socket stays here."""
    async for line in sock.lines():
        digest = await trio.to_thread.run_sync(hashlib.sha256, line.strip(), limiter=at_once)
        await sock.send_all(digest.hexdigest()[:16].encode() + b"\n")


def use_from_a_thread(sock: TcpSocket) -> str:
    """A socket belongs to the thread of its trio.run, so another thread asks that one to act."""
    trio.from_thread.run(sock.send_all, b"asked in a thread\n")
    line = trio.from_thread.run(sock.receive_line)
    try:
        sock.write(b"without asking\n")
    except RuntimeError as error:
        print(type(error).__name__, "in", threading.current_thread().name.split()[0])
    return line.decode().strip()


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1", 4000)
        await nursery.start(server.serve, answer)
        async with TcpSocket() as sock:
            await sock.connect_to_host("127.0.0.1", 4000)
            await sock.send_all(b"hello\n")
            print((await sock.receive_line()).decode().strip())
            print(await trio.to_thread.run_sync(use_from_a_thread, sock))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main)
