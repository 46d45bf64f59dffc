"""Programs that tests replay in another process: sound ones, and ones that go another way there.

Each talks to a server once for each of some names; in which order is what differs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable

import trio

from trioqt.testing.network.fault_plan import FaultPlan, Planned
from trioqt.testing.network.faults import Latency
from trioqt.testing.network.virtual_network import VirtualNetwork

NAMES = [f"name-{number}" for number in range(30)]


async def echo(stream: trio.SocketStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def say(net: VirtualNetwork, words: Iterable[str]) -> list[str]:
    """Send each word to a server on another host, and give what came back."""
    answers = []
    async with trio.open_nursery() as nursery:
        with net.host("server"):
            await nursery.start(trio.serve_tcp, echo, 4000)
        async with await trio.open_tcp_stream("server", 4000) as stream:
            for word in words:
                await stream.send_all(word.encode())
                answers.append((await stream.receive_some()).decode())
        nursery.cancel_scope.cancel()
    return answers


async def in_order(net: VirtualNetwork, count: int = 30) -> list[str]:
    """Sound."""
    return await say(net, NAMES[:count])


async def in_the_order_of_a_set(net: VirtualNetwork) -> int:
    """The order of strings in a set depends on the hash seed."""
    return len(await say(net, {"x" * number for number in range(1, 30)}))


async def in_the_order_of_addresses(net: VirtualNetwork) -> int:
    """The order of objects in a set depends on where they are, so on everything that was made before."""
    things = [object() for _ in range(400)]
    numbers = {thing: number for number, thing in enumerate(things)}
    return len(await say(net, ["x" * (numbers[thing] + 1) for thing in set(things)][:30]))


def is_elsewhere() -> bool:
    """Whether this is the process that `assert_replays` starts when the hash seed here is random."""
    return os.environ.get("PYTHONHASHSEED") == "4242"


async def one_event_less_elsewhere(net: VirtualNetwork) -> list[str]:
    """The same up to the end."""
    answers = await say(net, NAMES)
    if not is_elsewhere():
        await trio.socket.getaddrinfo("server", 80)
    return answers


async def a_result_that_differs(net: VirtualNetwork) -> int:
    """Nothing differs on the network."""
    await say(net, ["x"])
    return hash("x")


async def a_result_that_only_reads_differently(net: VirtualNetwork) -> object:
    """Sets and addresses are no difference."""
    return {"set": set(NAMES), "nested": [(frozenset(NAMES), object())]}


async def failing_elsewhere(net: VirtualNetwork) -> None:
    """A bug that only the other process has."""
    if is_elsewhere():
        raise KeyError("only here")


async def failing(net: VirtualNetwork) -> None:
    """A bug."""
    await trio.sleep(3)
    raise KeyError("everywhere")


async def by_many_tasks(net: VirtualNetwork) -> list[str]:
    """Twenty clients over a slow, lossy, jittery link: all that a seed decides."""
    answers: list[str] = []

    async def client(name: str) -> None:
        with net.host(name):
            async with await trio.open_tcp_stream("server", 4000) as stream:
                for round in range(3):
                    await stream.send_all(name.encode())
                    answers.append(f"{(await stream.receive_some()).decode()} {round}")

    async with trio.open_nursery() as nursery:
        with net.host("server"):
            await nursery.start(trio.serve_tcp, echo, 4000)
        for number in range(20):
            with net.host(f"client-{number}"):
                pass
            net.set_link(f"client-{number}", "server", latency=0.05, jitter=0.03, loss=0.05)
        async with trio.open_nursery() as clients:
            for number in range(20):
                clients.start_soon(client, f"client-{number}")
        nursery.cancel_scope.cancel()
    return answers


def slow_network(seed: int) -> VirtualNetwork:
    """A network of one's own."""
    return VirtualNetwork(latency=0.5, seed=seed)


SLOW = FaultPlan([Planned(Latency("default", "server", 2.0), 0.0)])
"""The link is slow from the beginning, for ever."""


class NotForPickle:
    """Refuses to go to another process."""

    def __reduce__(self) -> str:
        raise TypeError("not for pickle")


async def the_time(net: VirtualNetwork) -> float:
    """Says what time it is."""
    now = time.time()
    print(now, file=sys.stderr)
    return now
