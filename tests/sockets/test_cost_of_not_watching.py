"""Nobody watching costs nothing: no task, no event."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
import trio.testing

from tests.networks import Network
from trioqt import Event, TcpServer, TcpSocket
from trioqt.core import events as events_module
from trioqt.links.poller import POLLER_TASK

OPERATIONS = 100_000

pytestmark = pytest.mark.unwatched("it is about nothing else")


def all_tasks() -> Counter[str]:
    """Every task of this run, by name."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found: Counter[str] = Counter()
    unseen = [root]
    while unseen:
        task = unseen.pop()
        found[task.name] += 1
        unseen += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


class Spawned(trio.abc.Instrument):
    """Counts the tasks that begin; but the poller's is nobody's, it is there while sockets are busy together."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if task.name != POLLER_TASK:
            self.names.append(task.name)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many objects of each event class have been built since the test began."""
    count: Counter[str] = Counter()

    def counted(kind: type[Event]) -> None:
        really_init = kind.__init__

        def init(self: Event, *args: object) -> None:
            count[type(self).__name__] += 1
            really_init(self, *args)

        monkeypatch.setattr(kind, "__init__", init)

    for kind in vars(events_module).values():
        if isinstance(kind, type) and issubclass(kind, Event):
            counted(kind)
    return count


async def idle(sock: TcpSocket) -> None:
    """A handler that waits for a client that says nothing."""
    await sock.receive_some()


async def test_an_idle_accepted_connection_has_no_task_but_its_handler(network: Network, nursery: trio.Nursery) -> None:
    """Read off trio's tree of tasks, with ten connections: ten tasks more, each a handler."""
    async with TcpServer() as server:
        await server.listen(network.host)
        await nursery.start(server.serve, idle)
        await trio.testing.wait_all_tasks_blocked()
        before = all_tasks()
        clients = [await network.raw_connect(server.server_port()) for _ in range(10)]
        while server.connection_count() < 10:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        more = all_tasks() - before

        assert more == {f"{__name__}.idle": 10}
        for client in clients:
            client.close()
        while server.connection_count():
            await trio.lowlevel.checkpoint()
        assert all_tasks() == before


async def test_a_connection_that_was_accepted_by_hand_or_waits_has_no_task_at_all(network: Network) -> None:
    """Qt's style: pending, taken, written to and read from, and not one task for it."""
    async with TcpServer() as server:
        await server.listen(network.host)
        await trio.testing.wait_all_tasks_blocked()
        before = all_tasks()
        with await network.raw_connect(server.server_port()) as client:
            await server.wait_for_new_connection()
            pending = all_tasks()
            sock = server.next_pending_connection()
            assert sock is not None
            sock.write(b"hello")
            await client.receive(5)
            await client.send(b"hello")
            await sock.receive_exactly(5)
            taken = all_tasks()

        assert pending == taken == before


async def test_a_connected_client_has_no_task(network: Network) -> None:
    """Once it is connected: the tasks that looked up and raced are gone."""
    with await network.raw_listener() as listener:
        before = all_tasks()
        async with TcpSocket() as sock:
            entered = all_tasks()
            await sock.connect_to_host(network.host, listener.port)
            with await listener.accept() as peer:
                sock.write(b"hello")
                await peer.receive(5)
                connected = all_tasks()

    assert entered == connected == before


async def test_the_counters_work(network: Network, nursery: trio.Nursery, built: Counter[str]) -> None:
    """What the next test relies on: with a listener, events are built, and a task watches."""
    sock, peer = await network.connected(nursery)
    spawned = Spawned()
    trio.lowlevel.add_instrument(spawned)
    with peer:
        async with sock.events() as events:
            sock.write(b"hello")
            await peer.send(await peer.receive(5))
            seen = [await anext(events), await anext(events)]
            got = await sock.receive_exactly(5)
        sock.abort()
    trio.lowlevel.remove_instrument(spawned)

    assert len(seen) == 2
    assert got == b"hello"
    assert built["BytesWritten"] == 1
    assert [name.rpartition(".")[2] for name in spawned.names] == ["_watch"]


async def test_operations_that_nobody_watches_build_no_event_and_start_no_task(
    network: Network, built: Counter[str]
) -> None:
    """A hundred thousand of them, on a socket that connected and on one that was accepted, in every usual form."""
    message = b"x" * 63 + b"\n"
    done = 0

    async def one_way(sender: TcpSocket, receiver: TcpSocket) -> None:
        nonlocal done
        for _ in range(10):
            sender.write(message)
            await sender.send_all(message)
        assert await receiver.receive_exactly(64) == message
        for _ in range(19):
            assert await receiver.receive_line() == message
        sender.write(message)
        assert await receiver.receive_some() == message
        sender.write(message)
        assert await receiver.wait_for_ready_read()
        assert receiver.read_line() == message
        done += 45

    spawned = Spawned()
    async with TcpServer() as server, TcpSocket() as ours:
        await server.listen(network.host)
        await ours.connect_to_host(network.host, server.server_port())
        theirs = await server.accept()
        built.clear()
        trio.lowlevel.add_instrument(spawned)
        while done < OPERATIONS:
            await one_way(ours, theirs)
            await one_way(theirs, ours)
        trio.lowlevel.remove_instrument(spawned)

    assert built == {}
    assert spawned.names == []


async def test_a_listener_that_has_left_costs_nothing_any_more(
    network: Network, nursery: trio.Nursery, built: Counter[str]
) -> None:
    """Neither its task nor its events stay behind."""
    sock, peer = await network.connected(nursery)
    before = all_tasks()
    with peer:
        async with sock.events():
            await trio.testing.wait_all_tasks_blocked()
            watched = all_tasks()
        await trio.testing.wait_all_tasks_blocked()
        after = all_tasks()
        built.clear()
        sock.write(b"hello")
        await peer.send(await peer.receive(5))
        got = await sock.receive_exactly(5)
        sock.abort()

    assert sum((watched - before).values()) == 1
    assert after == before
    assert (got, built) == (b"hello", {})


async def test_a_server_that_nobody_watches_builds_no_event(
    network: Network, nursery: trio.Nursery, built: Counter[str]
) -> None:
    """Connections come, are served, and go; with a listener, each of them builds one."""
    async with TcpServer() as server:
        await server.listen(network.host)
        await nursery.start(server.serve, idle)

        async def come_and_go() -> None:
            for _ in range(20):
                with await network.raw_connect(server.server_port()) as client:
                    client.finish()
                    assert await client.receive_to_end() == b""
            while server.connection_count():
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()

        await come_and_go()
        unwatched = dict(built)
        async with server.events():
            await come_and_go()
        watched = dict(built)

    assert unwatched == {}
    assert watched == {"ConnectionFinished": 20}
