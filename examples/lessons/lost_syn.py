"""Watch a SYN, a loss and a doubled pause: how a connection begins when the network is bad.

Connecting is a question (SYN) and an answer (SYN+ACK).  You will see the first client's question answered within a
tenth of a second.  The second client begins while the network is cut: its SYN is lost, and a second later the next one
too; then TCP waits for two seconds.  Nobody is told: all that the client sees is a connect that takes three seconds.

Exercise: give up after two seconds, with ``trio.move_on_after``.  What is left of the attempt, and is a SYN still sent?
"""

import trio

from trioqt import TcpServer, TcpSocket
from trioqt.testing import FaultPlan, Partition, Planned, VirtualNetwork, simulate

CUT = FaultPlan([Planned(Partition("client", "server"), at=1, until=4)])  # seconds


def say(text: str) -> None:
    print(f"{trio.current_time():.3f}  {text}")


async def idle(sock: TcpSocket) -> None:
    await sock.receive_some()


async def connect(address: str, name: str) -> None:
    async with TcpSocket() as sock:
        start = trio.current_time()
        say(f"{name} begins to connect")
        await sock.connect_to_host(address, 4000)
        say(f"{name} is connected after {trio.current_time() - start:.1f} seconds")


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server") as address:
            await server.listen(address, 4000)
            nursery.start_soon(server.serve, idle)
        with net.host("client"):
            await connect(str(address), "the first client")
            await trio.sleep_until(1.5)
            await connect(str(address), "the second client")
        await trio.sleep(20)  # until all has come to its end; it takes no real time
        print(f"\n{net.ladder()}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main, latency=0.05, faults=CUT)
