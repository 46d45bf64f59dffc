"""The epoll that the busy kernel sockets of a run share: nothing is missed, nobody is left waiting, nothing is left."""

from __future__ import annotations

import errno
import os
import queue
import select
import signal
import socket
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import outcome
import pytest
import trio
import trio.testing

from trioqt import TcpServer, TcpSocket
from trioqt.links import poller
from trioqt.links.native import KernelSocket, NativeLink
from trioqt.testing import cancel_everywhere, interrupt_everywhere

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has epoll")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second wait of another socket on, every socket waits in the poller, and stays."""
    monkeypatch.setattr(poller, "FEWEST_CHANGES", 1)
    monkeypatch.setattr(poller, "TRIAL", sys.maxsize)


@attrs.frozen
class Ends:
    """A link, and the other end as a plain socket."""

    link: NativeLink
    peer: socket.socket

    async def receive(self, most: int = 1000) -> bytes:
        """As a reader does that knows of nothing there: wait, then take."""
        while True:
            await self.link.wait_receivable(most)
            data = self.link.try_receive(most)
            if data is not None:
                return data


@contextmanager
def linked(count: int = 1) -> Iterator[list[Ends]]:
    """So many of them, and all closed in the end."""
    ends = []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        for _ in range(count):
            below = socket.create_connection(listener.getsockname())
            peer, _ = listener.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ends.append(Ends(NativeLink(KernelSocket.adopt(below)), peer))
    try:
        yield ends
    finally:
        for each in ends:
            each.link.close()
            each.peer.close()


@contextmanager
def linked_as(descriptor: int) -> Iterator[Ends]:
    """A link that has this descriptor, which is free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        below = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    os.dup2(below.fileno(), descriptor)
    below.close()
    link = NativeLink(KernelSocket.adopt(socket.socket(fileno=descriptor)))
    with peer:
        yield Ends(link, peer)
        link.close()


def the_poller() -> poller.Poller:
    here = poller.poller_of_this_run()
    assert here is not None
    return here


async def share() -> None:
    """Until sockets share."""
    with linked() as (ends,):
        ends.peer.send(b"x")
        await ends.receive()
    assert the_poller().shares


def descriptors() -> set[str]:
    return {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.exists()}


def has_epoll() -> bool:
    """Is there an epoll besides trio's?"""
    links = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink() and path.exists()]
    return links.count("anon_inode:[eventpoll]") > 1


# ---- When they share ---------------------------------------------------------------------------


async def receivable(link: NativeLink) -> None:
    """A task that waits."""
    await link.wait_receivable(10)


async def echo(ends: Ends, times: int) -> None:
    """Answer so many messages."""
    for _ in range(times):
        ends.link.try_send(await ends.receive())


async def ask_all(all_ends: list[Ends], times: int) -> None:
    """So many messages to each at once, one in flight."""
    for _ in range(times):
        for ends in all_ends:
            ends.peer.send(b"question")
        for ends in all_ends:
            ends.peer.settimeout(0)
            while True:
                try:
                    assert ends.peer.recv(100) == b"question"
                    break
                except BlockingIOError:
                    await trio.lowlevel.checkpoint()


async def test_a_socket_that_wakes_alone_waits_by_itself() -> None:
    """The poller's own task would come on top of each wake-up."""
    with linked() as [ends]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, ends, 200)
            await ask_all([ends], 200)
        assert not the_poller().shares
        assert ends.link.descriptor == -1
        assert not has_epoll()


async def test_sockets_that_wake_together_share_one_wait() -> None:
    """And every message is answered."""
    with linked(10) as all_ends:
        async with trio.open_nursery() as nursery:
            for ends in all_ends:
                nursery.start_soon(echo, ends, 100)
            await ask_all(all_ends, 100)
        assert the_poller().shares
        assert all(ends.link.descriptor != -1 for ends in all_ends)


async def test_sockets_that_take_turns_go_back_and_try_less_and_less_often() -> None:
    """Each wakes alone, only not always the same: sharing is tried, and given up."""
    with linked(2) as all_ends:
        shared = []
        async with trio.open_nursery() as nursery:
            for ends in all_ends:
                nursery.start_soon(echo, ends, 1000)
            for _ in range(1000):
                for ends in all_ends:
                    await ask_all([ends], 1)
                    shared.append(the_poller().shares)
        assert not the_poller().shares
        assert True in shared
        assert sum(shared) < len(shared) / 5
        assert all(ends.link.descriptor == -1 for ends in all_ends)


async def test_lives_that_follow_each_other_try_it_less_and_less_often() -> None:
    """Each has ended before the next begins, and so has each trial: that it came to nothing is remembered."""
    kept, shared = [], []
    for _ in range(400):
        with linked() as [ends]:
            kept.append(ends.link)  # a link in its place would look like the same
            ends.peer.send(b"question")
            await ends.receive()
            shared.append(the_poller().shares)
    await trio.testing.wait_all_tasks_blocked()

    assert not the_poller().shares
    assert sum(shared) == 2 * 4, "at the end of 16, 32, 64 and 128 of them, and then in one life"
    assert not has_epoll()


async def test_the_last_that_leaves_ends_it(shared: None) -> None:
    """Its descriptor and its task are there as long as a socket is registered."""
    await share()
    with linked(2) as [one, other]:
        one.peer.send(b"x")
        await one.receive()
        other.peer.send(b"x")
        await other.receive()
        between = has_epoll()
        one.link.close()
        still = has_epoll()
    await trio.testing.wait_all_tasks_blocked()

    assert (between, still, has_epoll()) == (True, True, False)


def test_the_end_of_a_run_closes_it(shared: None) -> None:
    """With sockets that nobody has closed."""
    kept = []

    async def main() -> None:
        await share()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            below = socket.create_connection(listener.getsockname())
            peer, _ = listener.accept()
        ends = Ends(NativeLink(KernelSocket.adopt(below)), peer)
        kept.append(ends)
        peer.send(b"x")
        await ends.receive()
        assert has_epoll()

    before = descriptors()
    trio.run(main)
    kept[0].link.close()
    kept[0].peer.close()

    assert descriptors() == before


def test_elsewhere_every_socket_waits_in_trios_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same behaviour without it."""
    monkeypatch.setattr(sys, "platform", "elsewhere")

    async def main() -> bytes:
        assert poller.poller_of_this_run() is None
        with linked() as [ends]:
            ends.peer.send(b"word")
            return await ends.receive()

    assert trio.run(main) == b"word"


# ---- Nothing is missed -------------------------------------------------------------------------


async def test_what_a_reader_leaves_is_there_at_the_next_wait(shared: None) -> None:
    """An edge is told once; who stops half-way finds the rest all the same."""
    await share()
    with linked() as [ends]:
        ends.peer.send(b"0123456789")
        pieces = [await ends.receive(4) for _ in range(3)]

    assert pieces == [b"0123", b"4567", b"89"]


async def test_a_reader_that_takes_nothing_is_told_again(shared: None) -> None:
    """It may have had no room when it woke."""
    await share()
    with linked() as [ends]:
        ends.peer.send(b"word")
        for _ in range(3):
            await ends.link.wait_receivable(10)

        assert ends.link.try_receive(10) == b"word"


async def test_what_comes_while_nobody_waits_is_noted(shared: None) -> None:
    """A socket that is registered and not waited for is not drained once its edge was told."""
    await share()
    with linked() as [ends]:
        ends.peer.send(b"first")
        first, drained = await ends.receive(), ends.link.is_drained()
        ends.peer.send(b"second")
        await trio.testing.wait_all_tasks_blocked()

        assert (first, drained, ends.link.is_drained()) == (b"first", True, False)
        assert ends.link.try_receive(10) == b"second"


@pytest.mark.parametrize("woken_first", [False, True])
async def test_a_cancelled_wait_loses_nothing(shared: None, woken_first: bool) -> None:
    """Cancelled before the bytes come, or when they are there."""
    await share()
    with linked() as [ends]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receivable, ends.link)
            await trio.testing.wait_all_tasks_blocked()
            if woken_first:
                ends.peer.send(b"word")
            nursery.cancel_scope.cancel()
        if not woken_first:
            ends.peer.send(b"word")

        assert await ends.receive() == b"word"


async def test_a_wait_that_finds_something_noted_is_a_checkpoint(shared: None) -> None:
    """It looks for cancellation, and lets others run."""
    await share()
    with linked() as [ends]:
        ends.peer.send(b"first")
        await ends.receive()
        ends.peer.send(b"second")
        await trio.testing.wait_all_tasks_blocked()
        with trio.testing.assert_checkpoints():
            await ends.link.wait_receivable(10)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ends.link.wait_receivable(10)

        assert scope.cancelled_caught
        assert await ends.receive() == b"second"


@pytest.mark.parametrize("waits", [False, True])
async def test_an_end_that_comes_with_bytes_is_seen_behind_them(shared: None, waits: bool) -> None:
    """One edge tells both, and a short recv takes the bytes alone."""
    await share()
    with linked() as [ends]:
        ends.peer.send(b"first")
        await ends.receive()
        pieces: list[bytes] = []

        async def read() -> None:
            while data := await ends.receive():
                pieces.append(data)
            pieces.append(data)

        async with trio.open_nursery() as nursery:
            if waits:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
            ends.peer.send(b"last")
            ends.peer.shutdown(socket.SHUT_WR)
            if not waits:
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(read)

        assert pieces == [b"last", b""]


async def test_a_reset_is_found_by_who_waits(shared: None) -> None:
    """As by trio's own wait."""
    await share()
    with linked() as [ends]:
        ends.peer.send(b"first")
        await ends.receive()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with pytest.raises(ConnectionResetError):
                    await ends.receive()

            await trio.testing.wait_all_tasks_blocked()
            ends.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            ends.peer.close()


async def test_bytes_behind_urgent_data_come(shared: None) -> None:
    """A recv stops at the mark, so that a short one does not mean that all was taken."""
    await share()
    with linked() as [ends]:
        ends.peer.send(b"first")
        await ends.receive()
        ends.peer.send(b"before")
        ends.peer.send(b"!", socket.MSG_OOB)
        ends.peer.send(b"behind")
        pieces = [await ends.receive(), await ends.receive()]

    assert pieces == [b"before", b"behind"]


@pytest.mark.parametrize("everywhere", [cancel_everywhere, interrupt_everywhere])
def test_no_place_of_a_receive_loses_bytes(shared: None, everywhere: Callable[..., Any]) -> None:
    """Cancelled, or interrupted by a Ctrl-C, anywhere while two sockets share; what came is there for the next."""

    async def scenario(probe: Any) -> None:
        await share()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with TcpSocket() as sock:
                await sock.connect_to_host(*listener.getsockname())
                peer, _ = listener.accept()
                with peer:
                    peer.send(b"one")
                    got = await sock.receive_some()
                    async with trio.open_nursery() as nursery:

                        @nursery.start_soon
                        async def say() -> None:
                            await trio.testing.wait_all_tasks_blocked()
                            peer.send(b"two")

                        got += await probe.subject(sock.receive_some) or b""
                    if got == b"one":
                        got += await sock.receive_some()
                    probe.expect(got == b"onetwo", "every byte is there, once")
                    probe.expect(the_poller().shares, "it waited there")

    report = everywhere(scenario)

    report.raise_if_failed()
    assert report.places > 0


# ---- Nobody is left waiting --------------------------------------------------------------------


@pytest.mark.parametrize("how", [NativeLink.close, NativeLink.wake])
async def test_closing_and_waking_wake_who_waits(shared: None, how: Callable[[NativeLink], None]) -> None:
    """As in trio: with ClosedResourceError."""
    await share()
    with linked() as [ends]:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await ends.link.wait_receivable(10)

            await trio.testing.wait_all_tasks_blocked()
            assert ends.link.descriptor != -1
            how(ends.link)


async def test_two_tasks_cannot_wait_for_one_socket(shared: None) -> None:
    """As in trio."""
    await share()
    with linked() as [ends]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receivable, ends.link)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await ends.link.wait_receivable(10)
            ends.peer.send(b"x")


class Failing:
    """An epoll that takes no socket, or breaks once it is waited for."""

    def __init__(self, register: int, poll: int) -> None:
        self._epoll = select.epoll()
        self._register, self._poll = register, poll
        self.failed = 0

    closed = property(lambda self: self._epoll.closed)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()

    def unregister(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)

    def register(self, descriptor: int, events: int) -> None:
        if self._register:
            self.failed += 1
            raise OSError(self._register, "scripted")
        self._epoll.register(descriptor, events)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        if self._poll:
            self.failed += 1
            raise OSError(self._poll, "scripted")
        return self._epoll.poll(timeout, most)


@pytest.mark.parametrize(("register", "poll"), [(errno.ENOSPC, 0), (errno.ENOMEM, 0), (0, errno.EBADF)])
async def test_where_epoll_fails_trio_waits(
    shared: None, monkeypatch: pytest.MonkeyPatch, register: int, poll: int
) -> None:
    """The system has no room for one more, or somebody has closed the descriptor."""
    await share()
    failing = Failing(register, poll)
    monkeypatch.setattr(select, "epoll", lambda: failing)
    with linked(2) as all_ends:
        got = []
        for ends in all_ends:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def read(ends: Ends = ends) -> None:
                    got.append(await ends.receive())

                await trio.testing.wait_all_tasks_blocked()
                ends.peer.send(b"word")

    assert got == [b"word", b"word"]
    assert failing.failed
    assert failing.closed


async def test_out_of_descriptors_trio_waits(shared: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no epoll at all."""
    refused = []

    def refuse() -> None:
        refused.append(1)
        raise OSError(errno.EMFILE, "scripted")

    await share()
    monkeypatch.setattr(select, "epoll", refuse)
    with linked() as [ends]:
        ends.peer.send(b"word")

        assert await ends.receive() == b"word"
    assert refused


# ---- Descriptors -------------------------------------------------------------------------------


async def test_a_duplicate_that_outlives_its_socket_is_told_nothing(shared: None) -> None:
    """The kernel would go on telling edges of a socket whose other descriptor is open, under a number that is free."""
    await share()
    with linked(2) as [first, other]:
        for ends in (first, other):
            ends.peer.send(b"x")
            await ends.receive()
        number = first.link.fileno()
        duplicate = os.dup(number)
        first.link.close()
        try:
            with linked_as(number) as second:
                second.peer.send(b"y")
                await second.receive()
                first.peer.send(b"for the duplicate")
                await trio.testing.wait_all_tasks_blocked()

                assert second.link.is_drained()
                assert os.read(duplicate, 100) == b"for the duplicate"
        finally:
            os.close(duplicate)


async def test_a_descriptor_that_is_given_on_works_in_both(shared: None) -> None:
    """Two of our sockets on duplicates of one descriptor: each waits, whoever is first takes, and the other goes on."""
    await share()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with TcpSocket() as one, TcpSocket() as two:
            await one.connect_to_host(*listener.getsockname())
            peer, _ = listener.accept()
            with peer:
                peer.send(b"a")
                got = [await one.receive_some()]
                two.set_socket_descriptor(os.dup(one.socket_descriptor()))
                peer.send(b"b")
                got.append(await two.receive_some())
                await one.aclose()
                peer.send(b"c")
                got.append(await two.receive_some())

    assert got == [b"a", b"b", b"c"]


async def test_a_descriptor_that_was_closed_below_does_not_harm_its_successor(shared: None) -> None:
    """Whoever has the number now is registered under it, and stays so when the other is closed."""
    await share()
    with linked(2) as [first, other]:
        for ends in (first, other):
            ends.peer.send(b"x")
            await ends.receive()
        number = first.link.fileno()
        first.link.native().detach()  # type: ignore[attr-defined]
        os.close(number)
        with linked_as(number) as second:
            second.peer.send(b"y")
            await second.receive()
            first.link.close()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(second.receive)
                await trio.testing.wait_all_tasks_blocked()
                second.peer.send(b"z")


async def test_a_socket_that_is_dropped_is_collected(shared: None) -> None:
    """As ever, with a warning; the poller does not keep it."""
    await share()
    with linked() as [other], socket.create_server(("127.0.0.1", 0)) as listener:
        other.peer.send(b"x")
        await other.receive()
        below = socket.create_connection(listener.getsockname())
        links = [NativeLink(KernelSocket.adopt(below))]
        peer, _ = listener.accept()
        with peer:
            peer.send(b"x")
            await Ends(links[0], peer).receive()
            dropped = weakref.ref(links[0])
            with pytest.warns(ResourceWarning):
                links.clear()

            assert dropped() is None
            other.peer.send(b"y")
            assert await other.receive() == b"y"


async def test_a_forked_process_that_closes_its_copies_leaves_ours_alone(shared: None) -> None:
    """The epoll is one for both, and so is what is registered there."""
    await share()
    with linked(2) as [one, other]:
        for ends in (one, other):
            ends.peer.send(b"x")
            await ends.receive()
        child = os.fork()
        if child == 0:
            try:
                the_poller().forget(one.link)
                the_poller().forget(other.link)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222  (it kills itself at once)
        one.peer.send(b"y")

        assert os.WTERMSIG(status) == signal.SIGKILL
        assert await one.receive() == b"y"
        assert one.link.descriptor != -1


# ---- Many, and elsewhere -----------------------------------------------------------------------


@pytest.mark.once
async def test_as_many_sockets_as_the_system_allows(shared: None) -> None:
    """Ten thousand connections of one server, where descriptors are enough for both ends: each is answered, twice."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, (hard - 200) // 2)
    clients: list[socket.socket] = []

    async def answer(sock: TcpSocket) -> None:
        while data := await sock.receive_some():
            sock.write(data)

    try:
        async with TcpServer() as server, trio.open_nursery() as nursery:
            await server.listen("127.0.0.1")
            nursery.start_soon(server.serve, answer)
            address = ("127.0.0.1", server.server_port())
            while len(clients) < count:
                for _ in range(min(200, count - len(clients))):
                    clients.append(socket.create_connection(address))
                await trio.testing.wait_all_tasks_blocked()
            for _ in range(2):
                for client in clients:
                    client.send(b"word")
                await trio.testing.wait_all_tasks_blocked()
                assert [client.recv(10, socket.MSG_DONTWAIT) for client in clients] == [b"word"] * count
            assert the_poller().shares
            nursery.cancel_scope.cancel()
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_in_guest_mode(shared: None) -> None:
    """Another loop runs trio's."""
    todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    results: list[outcome.Outcome[bytes]] = []

    async def main() -> bytes:
        await share()
        with linked() as [ends]:
            got = b""
            for _ in range(10):
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def read() -> None:
                        nonlocal got
                        got += await ends.receive()

                    await trio.testing.wait_all_tasks_blocked()
                    ends.peer.send(b"x")
            return got

    trio.lowlevel.start_guest_run(main, run_sync_soon_threadsafe=todo.put, done_callback=results.append)
    while not results:
        todo.get(timeout=60)()

    assert results[0].unwrap() == b"x" * 10
