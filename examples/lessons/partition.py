"""A partition and a time-out: silence says nothing, and giving up waiting costs nothing.

The network between client and server is cut for six seconds, and half a second later the client asks.  You will see
TCP send the question again and again, with pauses that double, and tell nobody.  The client waits for three seconds at
a time, and each time knows only that nothing has come.  A receive that is cancelled has taken nothing, so the last one
gets the whole answer; but not when the cable is back: only when TCP tries again.

Exercise: let the network be whole again after three seconds, and not six.  How long after that does the answer
come, and what decides it?
"""

import trio

from trioqt import TcpServer, TcpSocket
from trioqt.testing import FaultPlan, Partition, Planned, VirtualNetwork, simulate

CUT = FaultPlan([Planned(Partition("client", "server"), at=1, until=7)])  # seconds


def say(text: str) -> None:
    print(f"{trio.current_time():.3f}  {text}")


async def echo(sock: TcpSocket) -> None:
    async for line in sock.lines():
        say(f"server: hears {line!r}")
        await sock.send_all(line)


async def ask(address: str) -> None:
    async with TcpSocket() as sock:
        await sock.connect_to_host(address, 4000)
        await trio.sleep_until(1.5)
        say("client: asks, and cannot know that the network is cut")
        await sock.send_all(b"are you there?\n")
        answer = b""
        while not answer:
            with trio.move_on_after(3):
                answer = await sock.receive_line()
            say(f"client: hears {answer!r}" if answer else "client: has heard nothing in three seconds")


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server") as address:
            await server.listen(address, 4000)
            nursery.start_soon(server.serve, echo)
        with net.host("client"):
            await ask(str(address))
        await trio.sleep(20)  # until all has come to its end; it takes no real time
        print(f"\n{net.ladder()}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main, latency=0.05, faults=CUT)
