"""The simulated network's speed, beside what trio itself takes, one command.

``python benchmarks/network.py [--rounds 5] [--trips 1000] [--connections 10000]``

Eight clients echo 64 bytes over jitter and 1 % loss, with the trace on, through our sockets and through trio's streams.
One delivery is a segment (data, SYN, FIN, RST) or a datagram that reaches a host; acknowledgements do not count.
Beside them in the same rounds: ``trio.sleep`` on a mock clock, which is what one jump of the clock costs.
Times are CPU seconds; the median over the rounds counts.  The exit status says nothing about speed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Awaitable, Callable

import trio
import trio.testing

from trioqt import TcpServer, TcpSocket
from trioqt.testing import Conditions, VirtualNetwork

CLIENTS = 8
MESSAGE = bytes(64)
CONDITIONS = Conditions(latency=0.01, jitter=0.002, loss=0.01)
GOAL = 20_000

Scenario = Callable[[VirtualNetwork, trio.Nursery, int], Awaitable[None]]


async def our_sockets(net: VirtualNetwork, nursery: trio.Nursery, trips: int) -> None:
    """The server and the clients write at once, and wait for what comes."""

    async def echo(sock: TcpSocket) -> None:
        async for data in sock:
            sock.write(data)

    async def client(number: int) -> None:
        with net.host(f"client-{number}"):
            async with TcpSocket() as sock:
                await sock.connect_to_host("server", 4000)
                for _ in range(trips):
                    sock.write(MESSAGE)
                    await sock.receive_exactly(len(MESSAGE))

    with net.host("server"):
        async with TcpServer() as server:
            await server.listen("server", 4000)
            nursery.start_soon(server.serve, echo)
            async with trio.open_nursery() as clients:
                for number in range(CLIENTS):
                    clients.start_soon(client, number)
            nursery.cancel_scope.cancel()


async def trio_streams(net: VirtualNetwork, nursery: trio.Nursery, trips: int) -> None:
    """What knows nothing of trioqt."""

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def client(number: int) -> None:
        with net.host(f"client-{number}"):
            stream = await trio.open_tcp_stream("server", 4000)
            async with stream:
                for _ in range(trips):
                    await stream.send_all(MESSAGE)
                    missing = len(MESSAGE)
                    while missing:
                        missing -= len(await stream.receive_some(missing))

    with net.host("server"):
        await nursery.start(trio.serve_tcp, echo, 4000)
    async with trio.open_nursery() as clients:
        for number in range(CLIENTS):
            clients.start_soon(client, number)
    nursery.cancel_scope.cancel()


def run(main: Callable[..., Awaitable[float]], *args: object) -> float:
    return trio.run(main, *args, clock=trio.testing.MockClock(autojump_threshold=0))


async def deliveries(scenario: Scenario, trips: int) -> float:
    """A second."""
    async with VirtualNetwork(conditions=CONDITIONS, seed=1) as net:
        start = time.process_time()
        async with trio.open_nursery() as nursery:
            await scenario(net, nursery, trips)
        return net.deliveries / (time.process_time() - start)


async def jumps(trips: int) -> float:
    """A second."""
    start = time.process_time()
    for _ in range(trips):
        await trio.sleep(0.01)
    return trips / (time.process_time() - start)


async def hold(count: int) -> float:
    """Seconds to open so many connections, with one message there and back on each, all held at once."""
    streams: list[trio.SocketStream] = []

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def client(number: int) -> None:
        with net.host(f"client-{number % 10}"):
            stream = await trio.open_tcp_stream("server", 4000)
        await stream.send_all(MESSAGE)
        await stream.receive_some()
        streams.append(stream)

    async with VirtualNetwork(latency=0.05) as net, trio.open_nursery() as nursery:
        with net.host("server"):
            await nursery.start(trio.serve_tcp, echo, 4000)
        start = time.process_time()
        async with trio.open_nursery() as clients:
            for number in range(count):
                clients.start_soon(client, number)
        seconds = time.process_time() - start
        assert len(streams) == count
        for stream in streams:
            await stream.aclose()
        nursery.cancel_scope.cancel()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trips", type=int, default=1000, help="of each client")
    parser.add_argument("--connections", type=int, default=10_000)
    options = parser.parse_args()
    rows = {"deliveries, our sockets": our_sockets, "deliveries, trio's streams": trio_streams}
    results: dict[str, list[float]] = {"trio.sleep": [], **{name: [] for name in rows}}
    for _ in range(options.rounds):
        results["trio.sleep"].append(run(jumps, options.trips))
        for name, scenario in rows.items():
            results[name].append(run(deliveries, scenario, options.trips))
    base = statistics.median(results["trio.sleep"])
    print(f"{'':28}{'a second':>10}{'x trio.sleep':>14}   least and most")
    for name, values in results.items():
        middle = statistics.median(values)
        print(f"{name:28}{middle:>10,.0f}{middle / base:>14.2f}   {min(values):,.0f} {max(values):,.0f}")
    print(f"goal: {GOAL:,} deliveries a second on one core")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = run(hold, options.connections)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        f"{options.connections:,} connections held at once: {seconds:.1f} s to open them, one echo on each included; "
        f"{grown / options.connections:.1f} KiB for both ends and their tasks"
    )


if __name__ == "__main__":
    main()
