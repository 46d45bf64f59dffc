"""TCP has no messages: what is sent in one piece may arrive in two, and two may arrive as one.

You will see three requests leave the client, each a line.  The first two come out of one ``receive_some``, glued
together; the third is sent in two pieces, and comes out in two.  Both are right: TCP promises the bytes and their
order, and nothing about where a call began or ended.

Exercise: change ``answer`` so that it prints each request once, whole, however the bytes come.
"""

import trio

from trioqt import TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate


def say(text: str) -> None:
    print(f"{trio.current_time():.3f}  {text}")


async def answer(sock: TcpSocket) -> None:
    async for piece in sock:  # that is: receive_some() until the client has finished
        say(f"server: receive_some() gives {piece!r}")
    say("server: the client has finished")


async def ask(address: str) -> None:
    async with TcpSocket() as sock:
        await sock.connect_to_host(address, 4000)
        say("client: sends two whole requests, one after the other")
        await sock.send_all(b"ADD apples\n")
        await sock.send_all(b"ADD pears\n")
        await trio.sleep(1)
        say("client: sends the first half of a request")
        await sock.send_all(b"ADD che")
        await trio.sleep(1)
        say("client: sends the other half")
        await sock.send_all(b"rries\n")


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server") as address:
            await server.listen(address, 4000)
            nursery.start_soon(server.serve, answer)
        with net.host("client"):
            await ask(str(address))
        await trio.sleep(20)  # until all has come to its end; it takes no real time
        print(f"\n{net.ladder()}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main, latency=0.05)
