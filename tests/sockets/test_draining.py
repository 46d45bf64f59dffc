"""``drain``: nobody who had come is lost, nobody else is let in, and who does not end is cut when the grace is over."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.networks import Network, RawPeer
from tests.sockets.arrivals import accept_queue, until
from tests.sockets.echoing import ask, echo
from trioqt import AcceptError, Draining, DrainReport, ErrorKind, SocketError, TcpServer, TcpSocket
from trioqt.sockets.acceptor import HANDSHAKES_PAUSE
from trioqt.sockets.serving import HARD_LIMIT
from trioqt.testing import DescriptorsExhausted, VirtualNetwork, simulate
from trioqt.testing.network.fabric import Conditions

OVER_TLS = True

Clock = trio.testing.MockClock

# ---- zero lost, exactly --------------------------------------------------------------------------
#
# A small program, stopped at every place that it has: clients in all phases, each of which is either refused, or told
# that it is connected and then answered in whole.

ANSWER = bytes(range(256)) * 300  # more than a segment, and more than a client's window in one go
PORT = 4000
LATENCY = 0.05


@attrs.define
class Client:
    """It asks once; what became of that."""

    number: int
    told: float | None = None  # when it knew that it is connected
    answer: bytes = b""
    lost: str = ""

    async def run(self, address: str) -> None:
        """Connect, ask in two pieces, some with more that nobody will read; receive to the end."""
        with trio.socket.socket() as sock:
            try:
                await sock.connect((address, PORT))
            except OSError:
                return  # refused, or reset in the middle of the handshake
            self.told = trio.current_time()
            try:
                await sock.send(b"quest")
                await trio.lowlevel.checkpoint()
                await sock.send(b"ion\n" + b"and more\n" * (self.number % 2))
                while piece := await sock.recv(65536):
                    self.answer += piece
            except OSError as exc:
                self.lost = str(exc)


@attrs.frozen
class Stopped:
    """How it went."""

    was_over: bool  # everybody had been served before it was told to stop
    clients: list[Client]
    started: int
    ended_before: int
    report: DrainReport


async def answer(sock: TcpSocket) -> None:
    """One question."""
    await sock.receive_line()
    await trio.lowlevel.checkpoint()
    await sock.send_all(ANSWER)


async def take(server: TcpServer[TcpSocket], handler: Callable[[TcpSocket], Awaitable[None]]) -> None:
    """As a program does without ``serve``."""

    async def run(sock: TcpSocket) -> None:
        async with sock:
            await handler(sock)

    async with trio.open_nursery() as nursery:
        async for sock in server:
            nursery.start_soon(run, sock)


async def stop_within(net: VirtualNetwork, style: str, wait: float, steps: int) -> Stopped:
    """Seven clients come one after another; after ``wait`` seconds and ``steps`` passes of the scheduler it drains."""
    started = ended = 0
    clients = [Client(number) for number in range(7)]

    async def handler(sock: TcpSocket) -> None:
        nonlocal started, ended
        started += 1
        await answer(sock)
        ended += 1

    async def come(client: Client) -> None:
        if wait:
            await trio.sleep(client.number * LATENCY / 2)
        else:
            for _ in range(2 * client.number + 3):
                await trio.lowlevel.checkpoint()
        await client.run(address)

    with net.host("server") as host:
        address = host.text
        async with TcpServer() as server, trio.open_nursery() as nursery:
            await server.listen(host, PORT)
            if style == "serve":
                await nursery.start(server.serve, handler)
            else:
                nursery.start_soon(take, server, handler)
            with net.host("client"):
                for client in clients:
                    nursery.start_soon(come, client)
            await trio.sleep(wait)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            was_over = not any(task.name.endswith("come") for task in nursery.child_tasks)
            ended_before = ended
            report = await server.drain(60)
    assert server.connection_count() == 0
    return Stopped(was_over, clients, started, ended_before, report)


def check(stopped: Stopped) -> int:
    """Nobody was lost; how many were answered."""
    answered = 0
    for client in stopped.clients:
        if client.told is not None:
            assert (client.lost, len(client.answer)) == ("", len(ANSWER)), client
        if client.answer:
            assert client.answer == ANSWER
            answered += 1
    assert stopped.report.cancelled == 0
    return answered


@pytest.mark.parametrize("style", ["serve", "accept"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_stop_at_any_pass_of_a_program_loses_no_request(style: str, seed: int) -> None:
    """At every one until the program is over: who was told that it is connected has all of its answer, to the byte."""
    answered: set[int] = set()
    for steps in range(1000):
        stopped = simulate(stop_within, style, 0.0, steps, seed=seed)
        answered.add(check(stopped))
        told = sum(client.told is not None for client in stopped.clients)
        assert told == sum(client.answer == ANSWER for client in stopped.clients) == stopped.started
        if stopped.was_over:
            break

    assert steps > 20
    assert {0, 1, 4, 7} <= answered  # it was stopped before the first, after the last, and in between


@pytest.mark.once
@pytest.mark.parametrize("style", ["serve", "accept"])
def test_a_stop_at_any_time_of_a_program_far_away_loses_no_request(style: str) -> None:
    """With a latency a client knows of its connection before the server does; it counts from then on."""
    answered: set[int] = set()
    for moment in range(1000):
        for steps in range(3):
            stopped = simulate(stop_within, style, (moment + 1) * LATENCY / 8, steps, seed=moment, latency=LATENCY)
            answered.add(check(stopped))
        if stopped.was_over:
            break

    assert moment > 20
    assert {0, 1, 4, 7} <= answered


# ---- what it takes, and what it refuses ----------------------------------------------------------


@pytest.mark.plain("a client speaks before it is accepted")
async def test_what_the_kernel_has_queued_is_taken_and_who_comes_later_is_refused(
    network: Network, nursery: trio.Nursery
) -> None:
    """Five waited there, because the server was paused; all are answered, though some have not asked yet."""
    async with TcpServer() as server:
        server.pause_accepting()
        await server.listen(network.host)
        port = server.server_port()
        await nursery.start(server.serve, answer)
        peers = [await network.raw_connect(port) for _ in range(5)]
        await peers[0].send(b"question\n")
        await until(lambda: accept_queue(server) == 5)
        reports: list[DrainReport] = []

        async def drain() -> None:
            reports.append(await server.drain(60))

        nursery.start_soon(drain)
        await until(server.is_draining)
        said = (server.is_listening(), server.server_port(), server.connection_count())
        with pytest.raises(ConnectionRefusedError):
            await network.raw_connect(port)
        for peer in peers[1:]:
            await peer.send(b"question\n")
        answers = [await peer.receive_to_end() for peer in peers]
        await until(lambda: bool(reports))
        for peer in peers:
            peer.close()

    assert said == (False, 0, 5)
    assert answers == [ANSWER] * 5
    assert reports == [DrainReport(5, 0)]


async def test_no_more_are_taken_than_max_connections_allows(
    network: Network, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Two are answered; the three behind them are reset, and can turn elsewhere; each is told and logged."""
    async with TcpServer(max_connections=2) as server, server.events(AcceptError) as errors:
        server.pause_accepting()
        await server.listen(network.host)
        await nursery.start(server.serve, answer)
        peers = [await network.raw_connect(server.server_port()) for _ in range(5)]
        await until(lambda: accept_queue(server) == 5)
        reports: list[DrainReport] = []

        async def drain() -> None:
            reports.append(await server.drain(60))

        nursery.start_soon(drain)
        await until(server.is_draining)
        counted = server.connection_count()
        for peer in peers[:2]:
            await peer.send(b"question\n")
        answers = [await peer.receive_to_end() for peer in peers[:2]]
        for peer in peers[2:]:
            with pytest.raises(ConnectionResetError):
                await peer.receive_to_end()
        await until(lambda: bool(reports))
        error = await anext(errors)
        ports = [peer.sock.getsockname()[1] for peer in peers]
        for peer in peers:
            peer.close()

    said = [f"refused a connection from 127.0.0.1:{port}, while draining with 2 connections" for port in ports[2:]]
    assert (counted, answers, reports) == (2, [ANSWER] * 2, [DrainReport(2, 0)])
    assert [record.getMessage() for record in caplog.records] == said
    assert error == AcceptError(ErrorKind.LIMIT_EXCEEDED, said[-1])


async def test_the_last_answer_arrives_whole_though_the_peer_says_more_than_is_read(
    network: Network, nursery: trio.Nursery
) -> None:
    """A close over unread bytes is a reset, which may take the answer with it; so the connection lingers."""
    big = bytes(range(256)) * 4000  # 1 MB: most of it is still to be sent when the handler ends
    got: list[bytes] = []
    more: list[str] = []

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_line()
        sock.write(big)

    async def receive() -> None:
        got.append(await peer.receive_to_end())
        more.append("has its answer")

    async def say_more() -> None:
        try:
            while not got:
                await peer.send(bytes(1000))
                await trio.lowlevel.checkpoint()
            peer.finish()
        except OSError:
            more.append("is reset")

    async with TcpServer() as server:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        with await network.raw_connect(server.server_port()) as peer:
            await peer.send(b"question\n")
            async with trio.open_nursery() as talking:
                talking.start_soon(say_more)
                talking.start_soon(receive)
                await until(lambda: server.connection_count() == 1)
                await server.drain(60)

    assert got == [big]
    assert more[0] == "has its answer"


async def test_there_may_be_nobody_to_wait_for(network: Network, mock_clock: trio.testing.MockClock) -> None:
    """No time passes: before it ever listened, while it listens in vain, again, and after it was closed."""
    async with TcpServer() as server:
        reports = [await server.drain(60)]
        draining = [server.is_draining()]
        await server.listen(network.host)
        draining.append(server.is_draining())
        reports += [await server.drain(60), await server.drain(0)]
        await server.aclose()
        reports.append(await server.drain(60))

    assert draining == [True, False]
    assert reports == [DrainReport(0, 0)] * 4


# ---- the grace -----------------------------------------------------------------------------------


class Grace:
    """A server whose handlers end when they are told to, and drains of it, on a clock that a test turns."""

    def __init__(self, network: Network, nursery: trio.Nursery, clock: trio.testing.MockClock, **options: Any) -> None:
        self.network = network
        self.nursery = nursery
        self.clock = clock
        self.server: TcpServer[TcpSocket] = TcpServer(**options)
        self.peers: list[RawPeer] = []
        self.reports: list[tuple[float, DrainReport]] = []
        self.cancelled: list[float] = []
        self.served = trio.Event()

    async def handle(self, sock: TcpSocket) -> None:
        """Until the peer says something."""
        try:
            await sock.receive_some()
        except trio.Cancelled:
            self.cancelled.append(trio.current_time())
            raise

    async def start(self, count: int, handler: Callable[[TcpSocket], Awaitable[None]] | None = None) -> None:
        """With so many clients, each in its handler."""
        before = self.server.connection_count()
        await self.server.listen(self.network.host)
        self.nursery.start_soon(self._serve, handler or self.handle)
        self.peers = [await self.network.raw_connect(self.server.server_port()) for _ in range(count)]
        await until(lambda: self.server.connection_count() == before + count)
        await trio.testing.wait_all_tasks_blocked()

    async def _serve(self, handler: Callable[[TcpSocket], Awaitable[None]]) -> None:
        await self.server.serve(handler)
        self.served.set()

    async def drain(self, grace: float) -> None:
        """And note when it returned, and what."""
        report = await self.server.drain(grace)
        self.reports.append((trio.current_time(), report))

    async def begin(self, grace: float) -> None:
        """In a task."""
        self.nursery.start_soon(self.drain, grace)
        await trio.testing.wait_all_tasks_blocked()

    async def pass_time(self, seconds: float) -> None:
        """And let everybody do what is due."""
        self.clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()

    async def end(self, number: int) -> None:
        """One client is content."""
        await self.peers[number].send(b"x")
        assert await self.peers[number].receive_to_end() == b""
        await trio.testing.wait_all_tasks_blocked()

    async def is_reset(self, number: int) -> bool:
        """Does that client see a reset?"""
        try:
            await self.peers[number].receive_to_end()
        except ConnectionResetError:
            return True
        return False

    def close(self) -> None:
        """All clients go."""
        for peer in self.peers:
            peer.close()


@pytest.fixture
def grace(network: Network, nursery: trio.Nursery, mock_clock: trio.testing.MockClock) -> Any:
    """Such a server, to be entered."""
    made = Grace(network, nursery, mock_clock)
    yield made
    made.close()


async def test_who_is_left_when_the_grace_is_over_is_cut(grace: Grace, mock_clock: trio.testing.MockClock) -> None:
    """One ends within it, two do not: their peers see a reset, their handlers a cancellation, and ``serve`` returns."""
    async with grace.server:
        await grace.start(3)
        await grace.begin(5)
        await grace.pass_time(2)
        await grace.end(0)
        await grace.pass_time(2.5)
        before = (list(grace.reports), list(grace.cancelled), grace.server.connection_count())
        await grace.pass_time(1)
        resets = [await grace.is_reset(1), await grace.is_reset(2)]
        await grace.served.wait()

    assert before == ([], [], 2)
    assert grace.reports == [(5.5, DrainReport(1, 2))]
    assert grace.cancelled == [5.5, 5.5]
    assert resets == [True, True]


async def test_it_ends_with_the_last_handler_and_not_with_the_grace(
    grace: Grace, mock_clock: trio.testing.MockClock
) -> None:
    """Ten minutes are allowed, and two seconds needed."""
    async with grace.server:
        await grace.start(2)
        await grace.begin(600)
        await grace.pass_time(1)
        await grace.end(0)
        await grace.pass_time(1)
        await grace.end(1)
        await grace.served.wait()

    assert grace.reports == [(2, DrainReport(2, 0))]


async def test_without_a_grace_all_are_cut_at_once(grace: Grace, mock_clock: trio.testing.MockClock) -> None:
    """What they had begun to say is dropped, and the clock stands."""
    async with grace.server:
        await grace.start(2)
        await grace.drain(0)
        resets = [await grace.is_reset(0), await grace.is_reset(1)]

    assert grace.reports == [(0, DrainReport(0, 2))]
    assert resets == [True, True]


async def test_an_endless_grace_waits_as_long_as_it_takes(grace: Grace, mock_clock: trio.testing.MockClock) -> None:
    """Infinity is a number of seconds."""
    async with grace.server:
        await grace.start(1)
        await grace.begin(math.inf)
        await grace.pass_time(1e6)
        await grace.end(0)

    assert grace.reports == [(1e6, DrainReport(1, 0))]


@pytest.mark.parametrize("wrong", [-1, math.nan, "5", None, True])
async def test_a_grace_that_is_no_time_is_refused_and_nothing_begins(
    grace: Grace, mock_clock: trio.testing.MockClock, wrong: Any
) -> None:
    """TypeError or ValueError; it serves on."""
    async with grace.server:
        await grace.start(1)
        with pytest.raises((TypeError, ValueError)):
            await grace.server.drain(wrong)
        assert (grace.server.is_draining(), grace.server.is_listening()) == (False, True)
        await grace.end(0)


async def test_a_handler_that_shields_itself_cannot_hold_it(grace: Grace, mock_clock: trio.testing.MockClock) -> None:
    """A second after the cut it returns; ``serve`` cannot, as nothing in trio can."""
    gate = trio.Event()

    async def stubborn(sock: TcpSocket) -> None:
        with trio.CancelScope(shield=True):
            await gate.wait()

    async with grace.server:
        await grace.start(2, stubborn)
        await grace.begin(5)
        await grace.pass_time(5)
        cut = (list(grace.reports), await grace.is_reset(0), await grace.is_reset(1))
        await grace.pass_time(HARD_LIMIT)
        held = grace.served.is_set()
        gate.set()
        await grace.served.wait()

    assert cut == ([], True, True)
    assert grace.reports == [(5 + HARD_LIMIT, DrainReport(0, 2))]
    assert not held


# ---- several at once -----------------------------------------------------------------------------


async def test_the_earlier_deadline_holds_and_everybody_gets_the_same_report(
    grace: Grace, mock_clock: trio.testing.MockClock
) -> None:
    """A second call joins the first; a later deadline does not put it off."""
    async with grace.server:
        await grace.start(2)
        await grace.begin(60)
        await grace.pass_time(1)
        await grace.begin(3)
        await grace.begin(100)
        await grace.end(0)
        await grace.pass_time(2.5)
        early = list(grace.reports)
        await grace.pass_time(1)

    assert early == []
    assert grace.reports == [(4.5, DrainReport(1, 1))] * 3


async def test_a_second_call_without_a_grace_cuts(grace: Grace, mock_clock: trio.testing.MockClock) -> None:
    """As the second signal does."""
    async with grace.server:
        await grace.start(1)
        await grace.begin(60)
        await grace.begin(0)
        reset = await grace.is_reset(0)

    assert grace.reports == [(0, DrainReport(0, 1))] * 2
    assert reset


async def test_one_of_two_that_is_cancelled_cuts_for_both(grace: Grace, mock_clock: trio.testing.MockClock) -> None:
    """In that step; the other one gets the report."""
    async with grace.server:
        await grace.start(1)
        await grace.begin(60)
        with trio.move_on_after(1):
            async with trio.open_nursery() as inner:
                inner.start_soon(grace.server.drain, 60)
                await grace.pass_time(2)
        reset = await grace.is_reset(0)
        await trio.testing.wait_all_tasks_blocked()

    assert grace.reports == [(2, DrainReport(0, 1))]
    assert reset


async def test_a_cancelled_drain_cuts_in_that_step_and_is_over(
    grace: Grace, mock_clock: trio.testing.MockClock, network: Network
) -> None:
    """Whatever the handlers do: nobody is served any more, and the server can listen and serve again at once."""
    gate = trio.Event()

    async def stubborn(sock: TcpSocket) -> None:
        with trio.CancelScope(shield=True):
            await gate.wait()

    async with grace.server as server:
        await grace.start(1, stubborn)
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.drain(60)
        said = (scope.cancelled_caught, server.is_listening(), server.connection_count(), server.is_draining())
        reset = await grace.is_reset(0)
        await server.listen(network.host)
        await grace.nursery.start(server.serve, echo)
        with await network.raw_connect(server.server_port()) as peer:
            answered = await ask(peer)
        gate.set()

    assert said == (True, False, 0, True)
    assert (reset, answered) == (True, True)


# ---- in a handler --------------------------------------------------------------------------------


async def test_a_handler_that_drains_is_not_waited_for_and_can_say_a_last_word(
    grace: Grace, mock_clock: trio.testing.MockClock
) -> None:
    """A stop by command, over a connection of the server: it is not counted, and it has the report to tell."""

    async def handler(sock: TcpSocket) -> None:
        if await sock.receive_some() == b"stop":
            report = await grace.server.drain(60)
            await sock.send_all(b"%d finished" % report.finished)

    async with grace.server:
        await grace.start(3, handler)
        await grace.peers[0].send(b"stop")
        await until(grace.server.is_draining)
        await grace.end(1)
        await grace.end(2)
        last_word = await grace.peers[0].receive_to_end()
        await grace.served.wait()

    assert last_word == b"2 finished"


@pytest.mark.parametrize("ends", [True, False])
async def test_a_handler_that_drains_has_a_second_when_others_had_to_be_cut(
    grace: Grace, mock_clock: trio.testing.MockClock, ends: bool
) -> None:
    """Their peers are reset at once.  The handlers share a nursery with this one, so they are cancelled when it has
    ended, and it with them if it does not.
    """
    reports: list[DrainReport] = []
    ended: list[tuple[str, float]] = []

    async def handler(sock: TcpSocket) -> None:
        name = "other"
        try:
            if await sock.receive_some() == b"sleep":
                await trio.sleep_forever()
            name = "this"
            reports.append(await grace.server.drain(5))
            await sock.send_all(b"a last word")
            await trio.sleep(0.5 if ends else math.inf)
        finally:
            ended.append((name, trio.current_time()))

    async with grace.server:
        await grace.start(2, handler)
        await grace.peers[1].send(b"sleep")
        await trio.testing.wait_all_tasks_blocked()
        await grace.peers[0].send(b"stop")
        await until(grace.server.is_draining)
        await trio.testing.wait_all_tasks_blocked()
        await grace.begin(60)  # somebody outside, too
        await grace.pass_time(5)
        reset = await grace.is_reset(1)
        assert reports == [DrainReport(0, 1)]
        await grace.pass_time(0.5)
        await grace.pass_time(0.5)
        last_word = await grace.peers[0].receive(11)
        await grace.served.wait()

    assert (reset, last_word) == (True, b"a last word")
    assert sorted(ended) == [("other", 5.5 if ends else 6.0), ("this", 5.5 if ends else 6.0)]
    assert [report for _, report in grace.reports] == [DrainReport(0, 1)]


async def test_two_handlers_that_drain_do_not_wait_for_each_other(
    grace: Grace, mock_clock: trio.testing.MockClock
) -> None:
    """Nor does anybody count them."""

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_some()
        report = await grace.server.drain(60)
        await sock.send_all(repr(report).encode())

    async with grace.server:
        await grace.start(2, handler)
        for peer in grace.peers:
            await peer.send(b"stop")
        words = [await peer.receive_to_end() for peer in grace.peers]
        await grace.served.wait()

    assert words == [b"DrainReport(finished=0, cancelled=0)"] * 2
    assert trio.current_time() == 0


async def test_a_task_of_a_handler_that_drains_counts_as_the_handler(
    grace: Grace, mock_clock: trio.testing.MockClock
) -> None:
    """It has a nursery of its own, and the call is made in there."""

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_some()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(grace.drain, 60)

    async with grace.server:
        await grace.start(1, handler)
        await grace.peers[0].send(b"stop")
        await grace.served.wait()

    assert grace.reports == [(0, DrainReport(0, 0))]


# ---- connections without a handler ---------------------------------------------------------------


@pytest.mark.plain("a connection is pending once it is encrypted")
async def test_pending_connections_are_taken_before_accepting_ends(network: Network, nursery: trio.Nursery) -> None:
    """Two are pending and one is in the kernel's queue: each is still given out, then the iteration ends."""
    async with TcpServer() as server:
        server.set_max_pending_connections(2)
        await server.listen(network.host)
        peers = [await network.raw_connect(server.server_port()) for _ in range(3)]
        await until(lambda: accept_queue(server) == 1)
        reports: list[DrainReport] = []

        async def drain() -> None:
            reports.append(await server.drain(60))

        nursery.start_soon(drain)
        await until(server.is_draining)
        counted = (server.connection_count(), server.has_pending_connections(), server.is_listening())
        taken = []
        async for sock in server:
            taken.append(sock.peer_port())
            early = list(reports)
            async with sock:
                await sock.send_all(b"hello")
        with pytest.raises(trio.ClosedResourceError):
            await server.accept()
        got = [await peer.receive_to_end() for peer in peers]
        await until(lambda: bool(reports))
        ports = [peer.sock.getsockname()[1] for peer in peers]
        for peer in peers:
            peer.close()

    assert counted == (3, True, False)
    assert (taken, got) == (ports, [b"hello"] * 3)
    assert (early, reports) == ([], [DrainReport(3, 0)])


async def test_who_waits_for_a_connection_hears_that_there_will_be_none(
    network: Network, nursery: trio.Nursery
) -> None:
    """``accept`` and ``wait_for_new_connection`` were waiting when it began."""
    ends: list[str] = []

    async def wait(call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except trio.ClosedResourceError:
            ends.append("closed")

    async with TcpServer() as server:
        await server.listen(network.host)
        nursery.start_soon(wait, server.accept)
        nursery.start_soon(wait, server.wait_for_new_connection)
        await trio.testing.wait_all_tasks_blocked()
        await server.drain(60)
        await trio.testing.wait_all_tasks_blocked()

    assert ends == ["closed", "closed"]


async def test_a_connection_that_nobody_ends_is_cut_whether_taken_or_not(
    grace: Grace, mock_clock: trio.testing.MockClock, network: Network
) -> None:
    """One was taken by ``accept`` and forgotten, one is pending."""
    async with grace.server as server:
        await server.listen(network.host)
        grace.peers = [await network.raw_connect(server.server_port()) for _ in range(2)]
        await until(lambda: server.connection_count() == 2)
        sock = await server.accept()
        await grace.begin(5)
        await grace.pass_time(4)
        before = (list(grace.reports), server.connection_count())
        await grace.pass_time(1)
        resets = [await grace.is_reset(0), await grace.is_reset(1)]
        with pytest.raises(trio.ClosedResourceError):
            await sock.receive_some()
        left = (server.connection_count(), server.has_pending_connections())

    assert before == ([], 2)
    assert grace.reports == [(5, DrainReport(0, 2))]
    assert (resets, left) == ([True, True], (0, False))


async def test_an_added_connection_that_nobody_took_is_waited_for(
    grace: Grace, mock_clock: trio.testing.MockClock, network: Network
) -> None:
    """It came from elsewhere, and can still be taken."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with grace.server as server:
        await server.listen(network.host)
        server.add_pending_connection(TcpSocket.from_stream(ours))
        await grace.begin(60)
        early = list(grace.reports)
        async with await server.accept() as sock:
            await sock.send_all(b"hello")
            got = await theirs.receive_some()
        await trio.testing.wait_all_tasks_blocked()

    assert (early, got) == ([], b"hello")
    assert [time for time, _ in grace.reports] == [0]


# ---- being told ----------------------------------------------------------------------------------


async def test_handlers_are_told_in_three_ways(grace: Grace, mock_clock: trio.testing.MockClock) -> None:
    """``wait_for_draining`` wakes, ``is_draining`` says so, and ``Draining`` is a fact, told once."""
    told: list[str] = []

    async def handler(sock: TcpSocket) -> None:
        told.append(f"before: {grace.server.is_draining()}")
        await grace.server.wait_for_draining()
        told.append(f"after: {grace.server.is_draining()}")
        await grace.server.wait_for_draining()  # at once

    async with grace.server as server:
        async with server.events(Draining) as events:
            await grace.start(2, handler)
            await grace.drain(60)
            await grace.drain(60)
            told.append(str(await anext(events)))
            with trio.move_on_after(1) as scope:
                await grace.nursery.start(lapse, grace)
                await anext(events)

    assert told == ["before: False"] * 2 + ["after: True"] * 2 + ["Draining()"]
    assert scope.cancelled_caught  # there is no second one
    assert grace.reports == [(0, DrainReport(2, 0))] * 2


async def lapse(grace: Grace, *, task_status: trio.TaskStatus[None]) -> None:
    """Time passes once everybody waits."""
    task_status.started()
    await trio.testing.wait_all_tasks_blocked()
    grace.clock.jump(2)


async def test_waiting_for_it_ends_when_the_server_is_closed_for_good(
    grace: Grace, mock_clock: trio.testing.MockClock, network: Network
) -> None:
    """It will never drain; ``close`` alone says nothing, for it may listen again."""
    ended: list[str] = []

    async def wait() -> None:
        try:
            await grace.server.wait_for_draining()
        except trio.ClosedResourceError:
            ended.append("closed")

    async with grace.server as server:
        await server.listen(network.host)
        grace.nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        server.close()
        await trio.testing.wait_all_tasks_blocked()
        after_close = list(ended)
        await server.aclose()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            await server.wait_for_draining()

    assert (after_close, ended) == ([], ["closed"])


async def test_who_waits_for_it_is_not_woken_by_other_news(
    grace: Grace, mock_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A thousand handlers may wait for it while others come and go."""
    woken: list[str] = []

    class Count(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task.name.endswith("wait_for_draining"):
                woken.append(task.name)

    async with grace.server as server:
        await grace.start(3)
        nursery.start_soon(server.wait_for_draining)
        await trio.testing.wait_all_tasks_blocked()
        instrument = Count()
        trio.lowlevel.add_instrument(instrument)
        for number in range(3):
            await grace.end(number)
        before = len(woken)
        await grace.drain(60)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(instrument)

    assert (before, len(woken)) == (0, 1)


# ---- before and after ----------------------------------------------------------------------------


async def test_it_listens_and_serves_again_afterwards_and_not_meanwhile(
    grace: Grace, mock_clock: trio.testing.MockClock, network: Network
) -> None:
    """OPERATION while it drains; then it does, and is not draining any more."""
    async with grace.server as server:
        for _ in range(3):
            await grace.start(1)
            await grace.begin(60)
            with pytest.raises(SocketError) as caught:
                await server.listen(network.host)
            with pytest.raises(trio.ClosedResourceError):
                await server.serve(echo)
            draining = server.is_draining()
            await grace.end(0)
            grace.close()
            await grace.served.wait()
            grace.served = trio.Event()
        await server.listen(network.host)

        assert (caught.value.kind, draining, server.is_draining()) == (ErrorKind.OPERATION, True, False)
    assert [report for _, report in grace.reports] == [DrainReport(1, 0)] * 3


async def test_it_waits_for_the_handlers_of_a_server_that_was_closed_before(
    grace: Grace, mock_clock: trio.testing.MockClock
) -> None:
    """``close`` lets them run; then somebody loses patience."""
    async with grace.server as server:
        await grace.start(2)
        server.close()
        await grace.begin(5)
        await grace.end(0)
        await grace.pass_time(5)

    assert grace.reports == [(5, DrainReport(1, 1))]


async def test_it_waits_for_the_handlers_of_every_serve(grace: Grace, mock_clock: trio.testing.MockClock) -> None:
    """An old one that is not done, and the one that has followed it."""
    async with grace.server as server:
        await grace.start(1)
        old = grace.peers
        server.close()
        await grace.start(2)
        grace.peers = [*old, *grace.peers]
        server.close()
        await grace.begin(5)
        await grace.end(0)
        await grace.end(1)
        await grace.pass_time(5)

    assert grace.reports == [(5, DrainReport(2, 1))]


async def test_a_serve_that_is_cancelled_meanwhile_has_not_finished(
    grace: Grace, mock_clock: trio.testing.MockClock, network: Network
) -> None:
    """Its handlers ended, and not by themselves."""
    async with grace.server as server:
        async with trio.open_nursery() as serving:
            await server.listen(network.host)
            await serving.start(server.serve, grace.handle)
            grace.peers = [await network.raw_connect(server.server_port()) for _ in range(2)]
            await until(lambda: server.connection_count() == 2)
            await trio.testing.wait_all_tasks_blocked()
            await grace.begin(60)
            await grace.end(0)
            serving.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    assert grace.reports == [(0, DrainReport(1, 1))]


async def test_leaving_the_block_cuts_what_is_left(grace: Grace, mock_clock: trio.testing.MockClock) -> None:
    """Somebody outside drains; the server's block is left before everybody has ended."""
    async with grace.server:
        await grace.start(2)
        await grace.begin(60)
        await grace.end(0)
    await trio.testing.wait_all_tasks_blocked()
    reset = await grace.is_reset(1)

    assert grace.reports == [(0, DrainReport(1, 1))]
    assert reset


async def test_a_socket_that_cannot_be_cut_keeps_no_other_alive(
    network: Network, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """The user's class raises in ``abort``: that comes out of the drain, after all others have been reset."""

    class Stubborn(TcpSocket):
        def abort(self, *, reset: bool = False) -> None:
            super().abort(reset=reset)
            if reset and self is socks[1]:
                raise LookupError("a bug of the program's")

    socks: list[TcpSocket] = []

    def make() -> TcpSocket:
        socks.append(Stubborn())
        return socks[-1]

    grace = Grace(network, nursery, mock_clock, socket_factory=make)
    async with grace.server:
        await grace.start(3)
        with pytest.raises(LookupError):
            await grace.server.drain(0)
        resets = [await grace.is_reset(number) for number in range(3)]
        await grace.served.wait()
    grace.close()

    assert resets == [True] * 3


async def test_a_factory_that_ends_the_program_ends_the_drain_too(network: Network) -> None:
    """SystemExit comes out bare, what had been taken is cut, and it listens no more."""
    made = 0

    def make() -> TcpSocket:
        nonlocal made
        made += 1
        if made == 2:
            raise SystemExit(3)
        return TcpSocket()

    async with TcpServer(make) as server:
        server.pause_accepting()
        await server.listen(network.host)
        peers = [await network.raw_connect(server.server_port()) for _ in range(2)]
        await until(lambda: accept_queue(server) == 2)
        with pytest.raises(SystemExit):
            await server.drain(60)
        said = (server.is_listening(), server.connection_count())
        with pytest.raises(ConnectionResetError):
            await peers[0].receive_to_end()
        assert await peers[1].receive_to_end() == b""
        for peer in peers:
            peer.close()

    assert said == (False, 0)


# ---- handshakes that are half done ---------------------------------------------------------------
#
# The server's answer takes 0.1 s to the client, which is told that it is connected, and the client's takes as long to
# the server, which does not know of it until then.

FAR = Conditions(latency=0.1)


async def in_time(condition: Callable[[], bool]) -> None:
    """Until it holds, while virtual time passes."""
    with trio.fail_after(100):
        while not condition():  # noqa: ASYNC110  (nobody tells of it)
            await trio.sleep(0.01)


@attrs.define
class Far:
    """A server, and a client far away that is told at 0.2 that it is connected, of which the server hears at 0.3."""

    net: VirtualNetwork
    nursery: trio.Nursery
    server: TcpServer[TcpSocket]
    client: Client
    reports: list[DrainReport] = attrs.Factory(list)
    drained_at: list[float] = attrs.Factory(list)

    def come(self, client: Client) -> None:
        with self.net.host("client"):
            self.nursery.start_soon(client.run, str(self.net.hosts["server"].addresses[0]))

    async def drain(self, grace: float = 60) -> None:
        self.reports.append(await self.server.drain(grace))
        self.drained_at.append(round(trio.current_time(), 6))


@asynccontextmanager
async def far_away(serving: bool = True, **limits: Any) -> AsyncIterator[Far]:
    """At 0.25: the client has been told, and the server has not heard of it."""
    async with VirtualNetwork(conditions=FAR) as net, trio.open_nursery() as nursery:
        with net.host("server") as host:
            async with TcpServer(**limits) as server:
                await server.listen(host, PORT)
                if serving:
                    await nursery.start(server.serve, answer)
                far = Far(net, nursery, server, Client(0))
                far.come(far.client)
                await trio.sleep(0.25)
                assert (far.client.told, server.connection_count()) == (0.2, 0)
                yield far


@pytest.mark.parametrize("style", ["serve", "accept", "paused"])
async def test_a_handshake_that_is_half_done_is_waited_for(autojump_clock: Clock, style: str) -> None:
    """Who has been told is answered; who asks then has no answer until it is refused; it listens no more meanwhile."""
    late = Client(1)
    async with far_away(style != "accept") as far:
        if style == "accept":
            far.nursery.start_soon(take, far.server, answer)
        elif style == "paused":
            far.server.pause_accepting()
        far.come(late)
        far.nursery.start_soon(far.drain)
        await trio.sleep(0.04)
        said = (far.server.is_listening(), far.server.server_port(), far.server.socket_descriptor(), repr(far.server))
        with pytest.raises(SocketError, match="cannot listen while draining"):
            await far.server.listen("127.0.0.1")
        await in_time(lambda: bool(far.reports))

    assert said == (False, 0, -1, "<TcpServer not listening, 0 connections>")
    assert (far.client.answer, far.client.lost) == (ANSWER, "")
    assert far.reports == [DrainReport(1, 0)]
    assert late.told is None


async def test_a_handshake_that_is_never_done_is_waited_for_a_second(autojump_clock: Clock) -> None:
    """Its client is not reached any more; then the server closes."""
    async with far_away() as far:
        with far.net.partition("server", "client"):
            await far.drain()

    assert far.reports == [DrainReport(0, 0)]
    assert 1.25 <= far.drained_at[0] <= 1.25 + HANDSHAKES_PAUSE


@pytest.mark.parametrize("how", ["close", "aclose", "cancel", "cut", "leave"])
async def test_an_end_that_is_made_meanwhile_ends_that_wait(autojump_clock: Clock, how: str) -> None:
    """At once: the client that is half in is reset, and nothing is left."""
    async with far_away() as far:
        with trio.CancelScope() as scope:
            far.nursery.start_soon(far.drain)
            await trio.lowlevel.checkpoint()
            if how == "close":
                far.server.close()
            elif how == "aclose":
                await far.server.aclose()
            elif how == "cut":
                await far.server.drain(0)
            elif how == "cancel":
                scope.cancel()
                await far.server.drain(60)
        ended_at = trio.current_time()
        if how != "leave":
            await in_time(lambda: bool(far.client.lost))

    assert ended_at == 0.25
    assert "reset" in far.client.lost
    assert far.client.answer == b""


async def test_a_full_server_has_no_place_for_who_is_half_in(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reset, told and logged, as those are who wait in the kernel's queue."""
    gate = trio.Event()

    async def handler(sock: TcpSocket) -> None:
        await gate.wait()
        await answer(sock)

    async with VirtualNetwork(conditions=FAR) as net, trio.open_nursery() as nursery:
        with net.host("server") as host:
            async with TcpServer(max_connections=1) as server:
                await server.listen(host, PORT)
                await nursery.start(server.serve, handler)
                served = Client(0)
                far = Far(net, nursery, server, Client(1))
                far.come(served)
                await trio.sleep(1)
                far.come(far.client)
                await trio.sleep(0.25)
                nursery.start_soon(far.drain)
                await in_time(lambda: bool(far.client.lost))
                gate.set()
                await in_time(lambda: bool(far.reports))

    (record,) = caplog.records
    assert (served.answer, far.reports) == (ANSWER, [DrainReport(1, 0)])
    assert record.getMessage().endswith(", while draining with 1 connections")


@pytest.mark.parametrize("lasts", [0.5, 5.0])
async def test_descriptors_that_are_free_within_a_second_are_used(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, lasts: float
) -> None:
    """Who waits for one is answered; after a second it is reset, told and logged."""
    async with far_away() as far:
        lack = far.net.begin(DescriptorsExhausted("server"))
        await trio.sleep(1)
        far.nursery.start_soon(far.drain)
        await trio.sleep(lasts)
        lack.end()
        await in_time(lambda: bool(far.reports))
        await in_time(lambda: bool(far.client.answer or far.client.lost))

    messages = [record.getMessage() for record in caplog.records]
    was_reset = "cannot accept: Too many open files; while draining: whoever still waits for it is reset" in messages
    assert (bool(far.client.answer), bool(far.client.lost), was_reset) == (lasts < 1, lasts > 1, lasts > 1)
    assert far.reports == [DrainReport(int(lasts < 1), 0)]
