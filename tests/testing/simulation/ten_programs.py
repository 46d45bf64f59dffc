"""Ten programs that would go another way in each process, if nothing held what they ask for.

Each sends to a server what it got, so it is in the digest.  Started as a program, this prints a digest for each of
those that are to have one, after it has filled the heap with what no other process has.
"""

from __future__ import annotations

import datetime
import gc
import hashlib
import json
import os
import random
import secrets
import tempfile
import time
import uuid
import weakref
from collections.abc import Awaitable, Callable

import trio

from tests.testing.simulation.replayed import echo
from trioqt.testing import VirtualNetwork, simulate


async def say(net: VirtualNetwork, *words: object) -> str:
    """Send them to a server, each in 32 bytes, and give the network's digest."""
    async with trio.open_nursery() as nursery:
        with net.host("server"):
            await nursery.start(trio.serve_tcp, echo, 4000)
        net.set_link("default", "server", latency=0.05, jitter=0.01, loss=0.05)
        async with await trio.open_tcp_stream("server", 4000) as stream:
            for word in words:
                await stream.send_all(hashlib.sha256(repr(word).encode()).digest())
                await stream.receive_some()
        nursery.cancel_scope.cancel()
    return net.digest()


# ---- what is simulated ---------------------------------------------------------------------------------------------


async def the_time(net: VirtualNetwork) -> str:
    await trio.sleep(1.5)
    return await say(net, time.time(), time.monotonic_ns(), datetime.datetime.now(datetime.UTC), time.ctime())


async def identifiers(net: VirtualNetwork) -> str:
    return await say(net, uuid.uuid4(), uuid.uuid1(), uuid.getnode())


async def the_systems_entropy(net: VirtualNetwork) -> str:
    return await say(net, os.urandom(16), secrets.token_hex(), random.SystemRandom().random(), random.Random().random())


async def random_numbers(net: VirtualNetwork) -> str:
    words = list(range(50))
    random.shuffle(words)
    return await say(net, random.random(), words, random.gauss(0, 1), random.getrandbits(64))


async def threads(net: VirtualNetwork) -> str:
    """Five that write and sync, and take unlike long really."""
    done: list[int] = []

    def write(number: int) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(trio.to_thread.run_sync, write, number)
    return await say(net, done)


async def order_of_a_dict(net: VirtualNetwork) -> str:
    return await say(net, *{f"name-{number}": number for number in range(30)})


async def end_of_what_nobody_holds(net: VirtualNetwork) -> str:
    """Counted references go at once, so a weak one does too."""
    ended: list[int] = []

    class Thing: ...

    for number in range(5):
        thing = Thing()
        weakref.finalize(thing, ended.append, number)
    del thing
    return await say(net, ended)


STEADY: tuple[Callable[[VirtualNetwork], Awaitable[str]], ...] = (
    the_time,
    identifiers,
    the_systems_entropy,
    random_numbers,
    threads,
    order_of_a_dict,
    end_of_what_nobody_holds,
)


# ---- what nobody can hold ------------------------------------------------------------------------------------------


async def order_of_a_set(net: VirtualNetwork) -> str:
    return await say(net, *{f"name-{number}" for number in range(30)})


async def addresses(net: VirtualNetwork) -> str:
    return await say(net, id(object()))


async def the_garbage_collector(net: VirtualNetwork) -> str:
    """A cycle goes when the collector comes by, which depends on what was made before."""
    ended: list[int] = []

    class Node:
        def __init__(self, number: int) -> None:
            self.me = self
            self.number = number

        def __del__(self) -> None:
            ended.append(self.number)

    for number in range(2000):
        Node(number)
    return await say(net, len(ended))


def main() -> None:
    dice = random.SystemRandom()
    junk: list[object] = [bytes(dice.randrange(500)) for _ in range(dice.randrange(20_000))]
    del junk[:: dice.randrange(2, 5)]
    for _ in range(dice.randrange(700)):
        cycle: list[object] = []
        cycle.append(cycle)
    print(json.dumps({program.__name__: simulate(program, seed=3) for program in STEADY}))


if __name__ == "__main__":
    gc.collect()
    main()
