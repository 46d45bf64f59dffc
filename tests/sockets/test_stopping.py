"""``stop_on_signals``: the first signal drains, the second cuts; and how else serving ends, and begins again."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.cli.commands import read_line, read_rest, running_trioqt
from tests.networks import Loopback, Network, RawPeer
from tests.sockets.arrivals import until
from tests.sockets.echoing import ask, echo
from trioqt import DrainReport, ErrorKind, HostAddress, SocketError, TcpServer, TcpSocket, stop_on_signals

OVER_TLS = True


async def answer(sock: TcpSocket) -> None:
    """One question, one answer."""
    await sock.send_all(b"answer to " + await sock.receive_line())


class Stopping:
    """A server that runs beside ``stop_on_signals``."""

    def __init__(self, nursery: trio.Nursery, server: TcpServer[TcpSocket]) -> None:
        self.nursery = nursery
        self.server = server
        self.reports: list[DrainReport] = []
        self.served = trio.Event()

    async def start(
        self,
        network: Network,
        handler: Callable[[TcpSocket], Awaitable[None]] = answer,
        *,
        grace: float = 60,
        port: int = 0,
        **options: Any,
    ) -> int:
        """Its port."""
        self.served = trio.Event()
        await self.server.listen(network.host, port)
        await self.nursery.start(functools.partial(self._wait, grace, **options))
        self.nursery.start_soon(self._serve, handler)
        await trio.testing.wait_all_tasks_blocked()
        return self.server.server_port()

    async def _wait(self, grace: float, **options: Any) -> None:
        self.reports.append(await stop_on_signals(self.server, grace, **options))

    async def _serve(self, handler: Callable[[TcpSocket], Awaitable[None]]) -> None:
        await self.server.serve(handler)
        self.served.set()

    async def ended(self) -> list[DrainReport]:
        """When both have: the reports."""
        await self.served.wait()
        await until(lambda: bool(self.reports))
        return self.reports


# ---- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("way", ["raise_signal", "kill"])
async def test_the_first_signal_drains(
    network: Network, nursery: trio.Nursery, number: signal.Signals, way: str
) -> None:
    """Who is being served is served, who comes later is refused, then all ends; SIGINT is no KeyboardInterrupt."""
    async with TcpServer() as server:
        stopping = Stopping(nursery, server)
        port = await stopping.start(network)
        with await network.raw_connect(port) as peer:
            await until(lambda: server.connection_count() == 1)
            if way == "kill":
                os.kill(os.getpid(), number)
            else:
                signal.raise_signal(number)
            await until(server.is_draining)
            with pytest.raises(ConnectionRefusedError):
                await network.raw_connect(port)
            await peer.send(b"question\n")
            got = await peer.receive_to_end()
        reports = await stopping.ended()

    assert got == b"answer to question\n"
    assert reports == [DrainReport(1, 0)]


async def test_the_second_signal_cuts(
    network: Network, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """Whichever it is; further ones are swallowed while that is done, and the clock stands."""
    gate = trio.Event()

    async def handler(sock: TcpSocket) -> None:
        with trio.CancelScope(shield=True):
            await gate.wait()

    async with TcpServer() as server:
        stopping = Stopping(nursery, server)
        port = await stopping.start(network, handler)
        with await network.raw_connect(port) as peer:
            await until(lambda: server.connection_count() == 1)
            signal.raise_signal(signal.SIGTERM)
            await until(server.is_draining)
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(ConnectionResetError):
                await peer.receive_to_end()
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)
                await trio.testing.wait_all_tasks_blocked()
            gate.set()
        reports = await stopping.ended()

    assert reports == [DrainReport(0, 1)]


async def test_the_grace_is_that_of_drain(
    network: Network, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """When it is over, who is left is cut."""
    async with TcpServer() as server:
        stopping = Stopping(nursery, server)
        port = await stopping.start(network, grace=10)
        with await network.raw_connect(port) as peer:
            await until(lambda: server.connection_count() == 1)
            signal.raise_signal(signal.SIGTERM)
            await until(server.is_draining)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(10)
            with pytest.raises(ConnectionResetError):
                await peer.receive_to_end()
        reports = await stopping.ended()

    assert reports == [DrainReport(0, 1)]


async def test_other_signals_can_be_chosen(network: Loopback, nursery: trio.Nursery) -> None:
    """Then these two do what they do."""
    async with TcpServer() as server:
        stopping = Stopping(nursery, server)
        await stopping.start(network, signals=[signal.SIGUSR1])
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        before = server.is_draining()
        signal.raise_signal(signal.SIGUSR1)
        reports = await stopping.ended()

    assert (before, reports) == (False, [DrainReport(0, 0)])


async def test_it_ends_when_somebody_else_has_drained_the_server(network: Network, nursery: trio.Nursery) -> None:
    """A stop by command: the program must not wait for a signal that nobody needs to send."""

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_some()
        await server.drain(60)

    async with TcpServer() as server:
        stopping = Stopping(nursery, server)
        port = await stopping.start(network, handler)
        with await network.raw_connect(port) as peer:
            await peer.send(b"stop")
            end = await peer.receive_to_end()
        reports = await stopping.ended()

    assert (end, reports) == (b"", [DrainReport(0, 0)])


async def test_a_signal_hurries_a_drain_that_somebody_else_has_begun(
    network: Network, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """The first one brings its own grace, which is shorter."""
    async with TcpServer() as server:
        stopping = Stopping(nursery, server)
        port = await stopping.start(network, grace=5)
        with await network.raw_connect(port):
            await until(lambda: server.connection_count() == 1)
            nursery.start_soon(server.drain, 600)
            await until(server.is_draining)
            signal.raise_signal(signal.SIGTERM)
            await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(5)
            reports = await stopping.ended()

    assert reports == [DrainReport(0, 1)]
    assert trio.current_time() == 5


async def test_it_ends_when_the_server_was_closed_and_its_handlers_have_ended(
    network: Network, nursery: trio.Nursery
) -> None:
    """For good: there is nothing left to stop."""
    async with TcpServer() as server:
        stopping = Stopping(nursery, server)
        port = await stopping.start(network)
        with await network.raw_connect(port) as peer:
            await until(lambda: server.connection_count() == 1)
            await server.aclose()
            await trio.testing.wait_all_tasks_blocked()
            early = list(stopping.reports)
            await peer.send(b"question\n")
            got = await peer.receive_to_end()
        reports = await stopping.ended()

    assert (early, got) == ([], b"answer to question\n")
    assert reports == [DrainReport(1, 0)]


async def test_cancelled_it_leaves_the_signals_as_they_were(network: Network, nursery: trio.Nursery) -> None:
    """And the server alone."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with TcpServer() as server:
        await server.listen(network.host)
        async with trio.open_nursery() as inner:
            await inner.start(stop_on_signals, server, 10)
            during = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
            inner.cancel_scope.cancel()
        after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

        assert (server.is_draining(), server.is_listening()) == (False, True)
    assert before == after
    assert all(handler not in before for handler in during)


async def test_a_signal_stops_every_server_that_waits_for_one(network: Network, nursery: trio.Nursery) -> None:
    """Each with its own grace, and its own report."""
    async with TcpServer() as one, TcpServer() as other:
        both = [Stopping(nursery, one), Stopping(nursery, other)]
        ports = [await stopping.start(network) for stopping in both]
        peers = [await network.raw_connect(port) for port in ports]
        await until(lambda: one.connection_count() == other.connection_count() == 1)
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: one.is_draining() and other.is_draining())
        answers = []
        for peer in peers:
            await peer.send(b"question\n")
            answers.append(await peer.receive_to_end())
            peer.close()
        reports = [await stopping.ended() for stopping in both]

    assert answers == [b"answer to question\n"] * 2
    assert reports == [[DrainReport(1, 0)]] * 2


@pytest.mark.parametrize("first", [0, 1])
async def test_who_leaves_first_takes_no_signal_from_the_other(
    network: Network, nursery: trio.Nursery, first: int
) -> None:
    """In whichever order they came; and when both have left, signals do what they did."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with TcpServer() as one, TcpServer() as other:
        servers = [one, other]
        both = [Stopping(nursery, server) for server in servers]
        for stopping in both:
            await stopping.start(network)
        await servers[first].drain(0)
        reports = [await both[first].ended()]
        signal.raise_signal(signal.SIGINT)
        reports.append(await both[1 - first].ended())
        after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    assert reports == [[DrainReport(0, 0)]] * 2
    assert after == before


async def test_a_signal_that_nobody_has_obeyed_yet_does_what_it_did_before(
    network: Loopback, nursery: trio.Nursery
) -> None:
    """It comes in the step in which the wait for it is cancelled."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        async with TcpServer() as server:
            await server.listen(network.host)
            async with trio.open_nursery() as inner:
                wait = functools.partial(stop_on_signals, server, 10, signals=[signal.SIGUSR1])
                await inner.start(wait)
                signal.raise_signal(signal.SIGUSR1)
                inner.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            draining = server.is_draining()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert (seen, draining) == ([signal.SIGUSR1], False)


async def test_a_signal_does_what_it_does_though_somebody_else_put_our_hand_back(
    network: Loopback, nursery: trio.Nursery
) -> None:
    """A receiver of trio's came later and stayed longer: what it found is not there any more.  SIGURG does nothing."""
    before = signal.getsignal(signal.SIGURG)
    async with TcpServer() as server:
        await server.listen(network.host)
        async with trio.open_nursery() as inner:
            await inner.start(functools.partial(stop_on_signals, server, 10, signals=[signal.SIGURG]))
            receiver = trio.open_signal_receiver(signal.SIGURG)
            receiver.__enter__()
            inner.cancel_scope.cancel()
        receiver.__exit__(None, None, None)
        found = signal.getsignal(signal.SIGURG)
        signal.raise_signal(signal.SIGURG)
        draining = server.is_draining()
    after = signal.signal(signal.SIGURG, before)

    assert (before, after, draining) == (signal.SIG_DFL, signal.SIG_DFL, False)
    assert found is not signal.SIG_DFL


@pytest.mark.parametrize(
    ("signals", "error"),
    [([], TypeError), ([signal.SIGTERM, signal.SIGKILL], OSError), ([signal.SIGTERM, 1000], ValueError)],
)
async def test_signals_that_cannot_be_caught_are_refused(signals: list[int], error: type[Exception]) -> None:
    """And then none is."""
    before = signal.getsignal(signal.SIGTERM)
    async with TcpServer() as server:
        with pytest.raises(error):
            await stop_on_signals(server, 10, signals=signals)

    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("server", "grace"), [("server", 10), (None, 10), (TcpServer(), -1), (TcpServer(), "10")])
async def test_wrong_arguments_are_refused_and_no_signal_is_caught(server: Any, grace: Any) -> None:
    """TypeError or ValueError."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises((TypeError, ValueError)):
        await stop_on_signals(server, grace)

    assert signal.getsignal(signal.SIGTERM) is before


def test_it_needs_the_thread_that_gets_signals() -> None:
    """RuntimeError anywhere else."""

    async def main() -> str:
        async with TcpServer() as server:
            with pytest.raises(RuntimeError):
                await stop_on_signals(server, 10)
        return "refused"

    async def run() -> str:
        return await trio.to_thread.run_sync(trio.run, main)

    assert trio.run(run) == "refused"


PROGRAM = """
import trio
from trioqt import TcpServer, stop_on_signals

async def answer(sock):
    line = await sock.receive_line()
    print("asked", flush=True)
    await sock.send_all(b"answer to " + await sock.receive_line())

async def main():
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        await nursery.start(server.serve, answer)
        print(server.server_port(), flush=True)
        report = await stop_on_signals(server, grace=60)
        print("cut off:", report.cancelled)

trio.run(main)
"""


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_process_that_gets_a_signal_ends_well(network: Loopback, signals: int) -> None:
    """As a service manager stops it: with status 0, and the answer that is due; or at once at the second signal."""
    async with running_trioqt("-c", PROGRAM, command=[sys.executable, "-W", "error"]) as process:
        port = int(await read_line(process.stdout))
        with await network.raw_connect(port) as peer:
            await peer.send(b"first\n")
            await read_line(process.stdout)
            process.send_signal(signal.SIGTERM)
            await until_refused(network, port)
            if signals == 2:
                process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionResetError):
                    await peer.receive_to_end()
            else:
                await peer.send(b"question\n")
                assert await peer.receive_to_end() == b"answer to question\n"
            said = [await read_rest(process.stdout), await read_rest(process.stderr)]
            status = await process.wait()

    assert (said, status) == ([b"cut off: %d\n" % (signals - 1), b""], 0)


async def until_refused(network: Network, port: int) -> None:
    """The signal is on its way; who gets in until it is there was never a client, so it may be gone at once."""
    while True:
        try:
            (await network.raw_connect(port)).reset()
        except ConnectionRefusedError:
            return
        await trio.lowlevel.checkpoint()


# ---- nobody is lost, on real sockets too ---------------------------------------------------------


@pytest.mark.once
@pytest.mark.plain("so many handshakes take a minute")
async def test_a_hundred_requests_in_flight_survive_twenty_stops(network: Network, nursery: trio.Nursery) -> None:
    """At each signal a hundred handlers have half of their question; all get the other half, and all answer."""
    heard: list[bytes] = []

    async def handler(sock: TcpSocket) -> None:
        half = await sock.receive_exactly(5)
        heard.append(half)
        await sock.send_all(half + await sock.receive_line())

    port, lost = 0, 0
    async with TcpServer() as server:
        stopping = Stopping(nursery, server)
        for _ in range(20):
            heard.clear()
            port = await stopping.start(network, handler, port=port)
            peers = [await network.raw_connect(port) for _ in range(100)]
            for peer in peers:
                await peer.send(b"quest")
            await until(lambda: len(heard) == 100)
            signal.raise_signal(signal.SIGTERM)
            await until(server.is_draining)
            for peer in peers:
                await peer.send(b"ion\n")
            for peer in peers:
                lost += await peer.receive_to_end() != b"question\n"
                peer.close()
            await stopping.ended()

    assert lost == 0
    assert stopping.reports == [DrainReport(100, 0)] * 20


@pytest.mark.plain("so many handshakes take a minute")
async def test_clients_that_come_and_go_survive_five_stops_in_a_row(network: Network, nursery: trio.Nursery) -> None:
    """Sixty that connect, ask once and close, for ever: each is answered or refused, nothing in between."""
    answered = refused = 0
    lost: list[str] = []

    async def client(port: int) -> None:
        nonlocal answered, refused
        while True:
            try:
                peer = await network.raw_connect(port)
            except ConnectionRefusedError:
                refused += 1
                return
            with peer:
                try:
                    await peer.send(b"question\n")
                    got = await peer.receive_to_end()
                except OSError as exc:
                    lost.append(str(exc))
                    continue
            if got == b"answer to question\n":
                answered += 1
            else:
                lost.append(repr(got))

    async with TcpServer() as server:
        stopping = Stopping(nursery, server)
        port = 0
        for number in range(5):
            port = await stopping.start(network, port=port)
            async with trio.open_nursery() as clients:
                for _ in range(60):
                    clients.start_soon(client, port)
                before = answered
                await until(lambda before=before: answered > before + 100)  # type: ignore[misc]
                signal.raise_signal(signal.SIGTERM)
            await stopping.ended()
            await until(lambda number=number: len(stopping.reports) == number + 1)  # type: ignore[misc]

    assert lost == []
    assert refused == 5 * 60
    assert answered > 500
    assert {report.cancelled for report in stopping.reports} == {0}


# ---- a cancelled serve, and the next one ---------------------------------------------------------


async def test_a_cancelled_serve_refuses_at_once_whatever_its_handlers_do(
    network: Network, nursery: trio.Nursery
) -> None:
    """One of them says goodbye under a shield; meanwhile clients can turn elsewhere."""
    gate, entered = trio.Event(), trio.Event()

    async def handler(sock: TcpSocket) -> None:
        entered.set()
        with trio.CancelScope(shield=True):
            await gate.wait()

    async def serve(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await server.serve(handler)

    async with TcpServer() as server:
        await server.listen(network.host)
        port = server.server_port()
        scope = await nursery.start(serve)
        with await network.raw_connect(port):
            await entered.wait()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            said = (server.is_listening(), server.connection_count())
            with pytest.raises(ConnectionRefusedError):
                await network.raw_connect(port)
            gate.set()

    assert said == (False, 1)


async def test_it_listens_and_serves_anew_while_old_clients_are_served_on(
    network: Network, nursery: trio.Nursery
) -> None:
    """On the same port, as often as one likes: each client stays with the handler that it began with."""

    def handler(name: bytes) -> Callable[[TcpSocket], Awaitable[None]]:
        async def handle(sock: TcpSocket) -> None:
            async for chunk in sock:
                await sock.send_all(name + chunk)

        return handle

    peers: list[RawPeer] = []
    port = 0
    async with TcpServer() as server:
        for name in (b"1", b"2", b"3"):
            await server.listen(network.host, port)
            port = server.server_port()
            await nursery.start(server.serve, handler(name))
            peers.append(await network.raw_connect(port))
            await peers[-1].send(b"?")
            assert await peers[-1].receive(2) == name + b"?"
            server.close()
        said = []
        for peer in peers:
            await peer.send(b"!")
            said.append(await peer.receive(2))
            peer.close()
        await until(lambda: server.connection_count() == 0)

    assert said == [b"1!", b"2!", b"3!"]


@pytest.mark.plain("a client speaks before it is accepted")
async def test_max_connections_counts_old_clients_and_new_ones(network: Network, nursery: trio.Nursery) -> None:
    """It is the server's limit, not that of one ``serve``."""
    async with TcpServer(max_connections=2) as server:
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        old = await network.raw_connect(server.server_port())
        assert await ask(old)
        server.close()
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        first, second = [await network.raw_connect(server.server_port()) for _ in range(2)]
        assert await ask(first)
        await second.send(b"?")
        await trio.testing.wait_all_tasks_blocked()
        counts = [server.connection_count()]
        old.close()
        answered = await second.receive(1)
        counts.append(server.connection_count())
        for peer in (first, second):
            peer.close()

    assert (counts, answered) == ([2, 2], b"?")


# ---- several addresses, and several servers on one -----------------------------------------------


@pytest.mark.plain("its clients are bare sockets")
async def test_one_server_listens_on_several_addresses_with_one_port(network: Network, nursery: trio.Nursery) -> None:
    """A random one, and a given one; each is served, and one close closes all."""
    addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    async with TcpServer() as server:
        await server.listen(addresses)
        port = server.server_port()
        await nursery.start(server.serve, echo)
        for _ in range(2):
            for address in addresses:
                assert await answers(address, port)
            said = (str(server.server_address()), server.server_port())
            server.close()
            for address in addresses:
                with pytest.raises(ConnectionRefusedError):
                    await answers(address, port)
            await server.listen(addresses, port)
            await nursery.start(server.serve, echo)

    assert said == ("127.0.0.1", port)


async def answers(address: str, port: int) -> bool:
    """Does an echo server there?"""
    with trio.socket.socket() as sock:
        await sock.connect((address, port))
        return await ask(RawPeer(sock))


async def test_of_several_addresses_it_has_all_or_none(network: Network) -> None:
    """One is in use: the others are free again; the message names them all."""
    async with TcpServer() as other, TcpServer() as server:
        await other.listen("127.0.0.2")
        port = other.server_port()
        with pytest.raises(SocketError) as caught:
            await server.listen(["127.0.0.3", "127.0.0.2"], port)
        await server.listen("127.0.0.3", port)

    assert caught.value.kind is ErrorKind.ADDRESS_IN_USE
    assert caught.value.message.startswith(f"cannot listen on 127.0.0.3, 127.0.0.2 port {port}: ")


@pytest.mark.parametrize(
    ("hosts", "error"),
    [([], ValueError), (["127.0.0.1", 5], TypeError), ([b"127.0.0.1"], TypeError), ({"127.0.0.1"}, TypeError)],
    ids=["none", "a number", "bytes", "a set"],
)
async def test_addresses_that_are_none_are_refused(network: Network, hosts: Any, error: type[Exception]) -> None:
    """Before anything is bound."""
    async with TcpServer() as server:
        with pytest.raises(error):
            await server.listen(hosts)
        assert (server.is_listening(), server.server_error()) == (False, None)


async def test_the_same_address_twice_is_once(network: Network) -> None:
    """A name and an address may well be the same."""
    async with TcpServer() as server:
        await server.listen(["127.0.0.1", HostAddress.LOCAL_HOST, "127.0.0.1"])
        assert server.is_listening()


async def test_two_servers_share_a_port_if_both_ask_for_it(network: Network, nursery: trio.Nursery) -> None:
    """Each client is served by one of them; when one has drained, the other one serves all."""
    served: list[int] = []

    def handler(number: int) -> Callable[[TcpSocket], Awaitable[None]]:
        async def handle(sock: TcpSocket) -> None:
            served.append(number)
            await sock.send_all(b"hello")

        return handle

    async with TcpServer() as one, TcpServer() as two:
        await one.listen(network.host, reuse_port=True)
        port = one.server_port()
        await two.listen(network.host, port, reuse_port=True)
        await nursery.start(one.serve, handler(1))
        await nursery.start(two.serve, handler(2))
        got = [await hello(network, port) for _ in range(50)]
        both = len(served)
        await one.drain(60)
        got += [await hello(network, port) for _ in range(20)]

    assert got == [b"hello"] * 70
    assert both == 50
    assert served[50:] == [2] * 20


async def hello(network: Network, port: int) -> bytes:
    """What a server says to who comes."""
    with await network.raw_connect(port) as peer:
        return await peer.receive_to_end()


async def test_a_port_is_not_shared_with_who_did_not_ask(network: Network) -> None:
    """ADDRESS_IN_USE, whichever of the two did."""
    for first, second in ((True, False), (False, True), (False, False)):
        async with TcpServer() as one, TcpServer() as two:
            await one.listen(network.host, reuse_port=first)
            with pytest.raises(SocketError) as caught:
                await two.listen(network.host, one.server_port(), reuse_port=second)
            assert caught.value.kind is ErrorKind.ADDRESS_IN_USE


@pytest.mark.parametrize("backlog", [2**31 - 1, 2**31, 2**63, 2**70])
async def test_a_backlog_may_be_as_large_as_one_likes(network: Network, nursery: trio.Nursery, backlog: int) -> None:
    """The system cuts it to what it has; it need not fit in a C int."""
    async with TcpServer() as server:
        await server.listen(network.host, backlog=backlog)
        await nursery.start(server.serve, echo)
        with await network.raw_connect(server.server_port()) as peer:
            assert await ask(peer)


@pytest.mark.parametrize("descriptor", [-1, 2**31, 2**63, 2**70, -(2**70)])
async def test_a_descriptor_that_is_no_number_of_the_system_is_refused(network: Network, descriptor: int) -> None:
    """As one that is not open: it need not fit in a C int."""
    async with TcpServer() as server:
        with pytest.raises(SocketError) as caught:
            server.set_socket_descriptor(descriptor)
        await server.listen(network.host)

    assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
