"""Tasks that no nursery of the program's holds, as trio's DTLS endpoint has one, wait on simulated sockets.

What such a task raises ends the run with TrioInternalError, so a host or network that is gone must not tell it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing

from trioqt.testing import VirtualNetwork, simulate

Clock = trio.testing.MockClock


@attrs.define
class Calls:
    """A call of each kind that waits, on sockets of one host."""

    sockets: dict[str, trio.socket.SocketType]
    told: dict[str, str] = attrs.Factory(dict)

    @classmethod
    async def on(cls, net: VirtualNetwork, host: str) -> Calls:
        with net.host("elsewhere") as elsewhere:
            peer = trio.socket.socket()
            await peer.bind(("0.0.0.0", 1))
            peer.listen()
        with net.host(host):
            names = ["accept", "connect", "wait_readable", "read", "write", "read_into"]
            sockets = {name: trio.socket.socket() for name in names}
            sockets["datagram"] = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
            await sockets["accept"].bind(("0.0.0.0", 2))
            sockets["accept"].listen()
            await sockets["datagram"].bind(("0.0.0.0", 3))
            for name in names[2:]:
                await sockets[name].connect((str(elsewhere), 1))
        net.partition(host, "elsewhere")
        return cls({**sockets, "peer": peer})

    def call(self, name: str) -> Awaitable[object]:
        sock = self.sockets[name]
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "accept": sock.accept,
            "connect": lambda: sock.connect(("10.0.0.2", 1)),
            "wait_readable": sock.wait_readable,  # type: ignore[attr-defined]
            "read": lambda: sock.recv(1),
            "read_into": lambda: sock.recv_into(bytearray(1)),
            "write": lambda: trio.SocketStream(sock).send_all(bytes(1_000_000)),
            "datagram": lambda: sock.recvfrom(1),
        }
        return calls[name]()

    async def wait(self, name: str) -> None:
        """In a system task: how its call ends."""
        try:
            await self.call(name)
        except trio.ClosedResourceError:
            self.told[name] = "closed"
        except trio.Cancelled:
            self.told[name] = "cancelled"
            raise
        else:
            self.told[name] = "returned"

    async def wait_in_a_nursery(self, name: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.wait, name)

    def start(self) -> None:
        for number, name in enumerate(self.names):
            trio.lowlevel.spawn_system_task(self.wait_in_a_nursery if number % 2 else self.wait, name)

    @property
    def names(self) -> list[str]:
        return [name for name in self.sockets if name != "peer"]

    def close(self) -> None:
        for sock in self.sockets.values():
            sock.close()


@pytest.fixture
async def net(autojump_clock: Clock) -> AsyncIterator[VirtualNetwork]:
    async with VirtualNetwork() as net:
        yield net


@pytest.mark.parametrize("begins", ["before", "after"])
async def test_a_system_task_on_a_host_that_crashes_waits_until_its_socket_is_closed(
    net: VirtualNetwork, autojump_clock: Clock, begins: str
) -> None:
    """Whether its call began before the crash or after it; and the restarted host does not wake it either."""
    calls = await Calls.on(net, "server")
    if begins == "before":
        calls.start()
        await trio.testing.wait_all_tasks_blocked()
    with net.crash("server"):
        if begins == "after":
            calls.start()
        await trio.sleep(10)
    await trio.sleep(10)
    told_nothing = dict(calls.told)
    calls.close()
    await trio.testing.wait_all_tasks_blocked()

    assert told_nothing == {}
    assert calls.told == dict.fromkeys(calls.names, "closed")


def test_a_system_task_that_waits_when_the_network_ends_is_cancelled_with_the_run() -> None:
    """As on the real network: the run ends well."""
    waiting: list[Calls] = []

    async def main(net: VirtualNetwork) -> str:
        calls = await Calls.on(net, "server")
        waiting.append(calls)
        calls.start()
        await trio.testing.wait_all_tasks_blocked()
        return "well"

    assert simulate(main) == "well"
    assert waiting[0].told == dict.fromkeys(waiting[0].names, "cancelled")
    waiting[0].close()
