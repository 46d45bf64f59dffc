"""Twenty hosts on a bad day: the program that must go the same way in every process.

Five servers, one of which calls the next for every answer, and fifteen clients that try again; jitter and loss on all
links, partitions, crashes, a pause, resets and a name server that is away, from a plan that the seed draws.
"""

from __future__ import annotations

import random

import trio

from trioqt import SocketError, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork
from trioqt.testing.network.fabric import Conditions
from trioqt.testing.network.fault_plan import FaultPlan, Planned
from trioqt.testing.network.faults import Crash, Fault, Loss, NameServerDown, Partition, Pause, ResetConnections

SERVERS = [f"server-{number}" for number in range(5)]
CLIENTS = [f"client-{number}" for number in range(15)]
DURATION = 20.0


def network(seed: int) -> VirtualNetwork:
    return VirtualNetwork(
        conditions=Conditions(latency=0.01, jitter=0.01, loss=0.02), seed=seed, name_latency=0.005, trace_limit=200_000
    )


def plan(seed: int) -> FaultPlan:
    """Sixteen faults, each over after some seconds."""
    dice = random.Random(seed)

    def fault() -> Fault:
        server, client = dice.choice(SERVERS), dice.choice(CLIENTS)
        return dice.choice(
            [
                Partition(server, client),
                Partition(client, server, one_way=True),
                Loss(server, client, 0.5),
                Crash(server),
                Pause(server),
                ResetConnections(server, None),
                NameServerDown(client),
            ]
        )

    planned = []
    for _ in range(16):
        at, what = round(dice.uniform(0, DURATION), 3), fault()
        planned.append(Planned(what, at, at + dice.randrange(1, 5) if what.lasts else None))
    return FaultPlan(tuple(planned))


async def serve(number: int, *, task_status: trio.TaskStatus[None]) -> None:
    """Answer each line; servers with an odd number ask the next one first, through trio's own streams."""

    async def answer(sock: TcpSocket) -> None:
        async for line in sock.lines():
            if number % 2:
                line = await ask_next(line)
            await sock.send_all(line.upper() + b"\n")

    async def ask_next(line: bytes) -> bytes:
        try:
            with trio.fail_after(2):
                stream = await trio.open_tcp_stream(f"server-{(number + 1) % len(SERVERS)}", 4000)
                async with stream:
                    await stream.send_all(line.rstrip() + b"\n")
                    return b"next: " + (await stream.receive_some()).rstrip()
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as exc:
            return type(exc).__name__.encode()

    async with TcpServer() as server:
        await server.listen(f"server-{number}", 4000)
        task_status.started()
        await server.serve(answer)


async def ask(number: int, tally: dict[str, int]) -> None:
    """A line every second or so, to one server after the other."""
    round_ = 0
    while trio.current_time() < DURATION:
        round_ += 1
        try:
            with trio.fail_after(5):
                async with TcpSocket() as sock:
                    await sock.connect_to_host(f"server-{(number + round_) % len(SERVERS)}", 4000)
                    for word in range(3):
                        await sock.send_all(f"client {number} word {word}\n".encode())
                        await sock.receive_line()
                        await trio.sleep(0.3)
            outcome = "ok"
        except SocketError as exc:
            outcome = exc.kind.name
        except trio.TooSlowError:
            outcome = "too slow"
        tally[outcome] = tally.get(outcome, 0) + 1
        await trio.sleep(0.5 + 0.1 * (number % 7))


async def main(net: VirtualNetwork) -> dict[str, int]:
    tally: dict[str, int] = {}
    async with trio.open_nursery() as servers:
        for number, name in enumerate(SERVERS):
            await servers.start(net.run_on, name, serve, number)
        async with trio.open_nursery() as clients:
            for number, name in enumerate(CLIENTS):
                with net.host(name):
                    clients.start_soon(ask, number, tally)
            with net.begin(plan(net.seed)):
                await trio.sleep(DURATION)
        servers.cancel_scope.cancel()
    return dict(sorted(tally.items()))
