"""Back-pressure: who waits for whom.

A client sends blocks as fast as it may; the server takes a nap of ten seconds before it reads.  You will see the first
blocks go at once, into the queues on the way: the client's own, its system's, the server's system's.  Then all of them
are full and the client waits in ``send_all``, without a line of code for it, until the server wakes and reads.

Exercise: ten blocks of 16,384 bytes are handed over when the client has to wait.  Where does each of them lie?  Then
hand them over with ``write``, which never waits: what does it do when all is full?
"""

import trio

from trioqt import TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate

BLOCK = bytes(16384)


def say(text: str) -> None:
    print(f"{trio.current_time():.3f}  {text}")


async def read_late(sock: TcpSocket) -> None:
    say("server: takes a nap, and reads nothing")
    await trio.sleep(10)
    say("server: wakes up, and reads")
    size = 0
    async for piece in sock:
        size += len(piece)
    say(f"server: has read all {size:,} bytes")


async def send(address: str) -> None:
    async with TcpSocket(write_buffer_size=32768) as sock:
        await sock.connect_to_host(address, 4000)
        for number in range(1, 14):
            start = trio.current_time()
            await sock.send_all(BLOCK)
            waited = trio.current_time() - start
            say(f"client: block {number} is handed over{f' after {waited:.1f} s of waiting' if waited else ''}")


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server") as address:
            await server.listen(address, 4000)
            nursery.start_soon(server.serve, read_late)
        with net.host("client"):
            await send(str(address))
        await trio.sleep(20)  # until all has come to its end; it takes no real time
        print(f"\n{net.ladder()}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main, latency=0.05)
