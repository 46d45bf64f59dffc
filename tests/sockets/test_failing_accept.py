"""When accepting fails: peers that are gone already, resources that run out, and storms of both."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network, RawPeer
from tests.sockets.arrivals import accept_queue, open_descriptors, until
from tests.sockets.echoing import ask, echo
from trioqt import AcceptError, DrainReport, ErrorKind, NewConnection, TcpServer, TcpSocket
from trioqt.links.native import NativeListener
from trioqt.sockets.acceptor import ENDED_BEFORE_ACCEPT

ROOT = Path(__file__).parents[2]


class FailingAccept:
    """Between a server and the kernel: fails as it is told, then does what the kernel does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures: list[int] = []  # still to come; 0: none this time
        self.for_ever = 0
        self.fired: list[float] = []  # when it failed
        self.tries = 0
        really_accept = NativeListener.try_accept

        def try_accept(listener: NativeListener) -> Any:
            self.tries += 1
            number = self.for_ever or (self.failures.pop(0) if self.failures else 0)
            if number:
                self.fired.append(trio.current_time())
                raise OSError(number, os.strerror(number))
            return really_accept(listener)

        monkeypatch.setattr(NativeListener, "try_accept", try_accept)


@pytest.fixture
def failing_accept(monkeypatch: pytest.MonkeyPatch) -> FailingAccept:
    """A system whose accept fails."""
    return FailingAccept(monkeypatch)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for two thousand sockets, where the system's usual bound is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"this system allows {hard} descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# accept(2) on Linux, "Error handling", and what POSIX, the BSDs and Windows say of a connection that has ended.
ENDED = [
    "ENETDOWN",
    "EPROTO",
    "ENOPROTOOPT",
    "EHOSTDOWN",
    "ENONET",
    "EHOSTUNREACH",
    "EOPNOTSUPP",
    "ENETUNREACH",
    "ECONNABORTED",
    "ECONNRESET",
    "ETIMEDOUT",
    "EPERM",
    "ENOTCONN",
]


def test_what_the_system_says_of_connections_that_ended_is_known() -> None:
    """The list above, and nothing that is ours to handle."""
    names = {getattr(errno, name) for name in ENDED if hasattr(errno, name)}
    assert names == ENDED_BEFORE_ACCEPT
    assert not ENDED_BEFORE_ACCEPT & {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@pytest.mark.parametrize("name", ENDED)
async def test_a_connection_that_ended_before_it_was_accepted_is_nobodys_business(
    network: Network,
    mock_clock: trio.testing.MockClock,
    failing_accept: FailingAccept,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """The next one is accepted without a pause (the clock stands), without an event, and without a record."""
    failing_accept.failures = [getattr(errno, name)] * 3
    async with TcpServer() as server, server.events() as events:
        server.pause_accepting()
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await until(lambda: accept_queue(server) == 1)
            server.resume_accepting()
            await server.accept()

        assert len(failing_accept.fired) == 3
        assert await anext(events) == NewConnection()
        assert (server.server_error(), server.error_string()) == (None, "")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EMFILE, ErrorKind.SOCKET_RESOURCE),
        (errno.ENFILE, ErrorKind.SOCKET_RESOURCE),
        (errno.ENOBUFS, ErrorKind.SOCKET_RESOURCE),
        (errno.ENOMEM, ErrorKind.SOCKET_RESOURCE),
        (10024, ErrorKind.UNKNOWN),  # WSAEMFILE, WSAENOBUFS: numbers that only a Windows Python knows by name
        (10055, ErrorKind.UNKNOWN),
        (errno.EIO, ErrorKind.UNKNOWN),
        (errno.EINVAL, ErrorKind.UNSUPPORTED_SOCKET_OPERATION),
    ],
    ids=["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "WSAEMFILE", "WSAENOBUFS", "EIO", "EINVAL"],
)
async def test_any_other_failure_is_told_and_tried_again_after_a_tenth_of_a_second(
    network: Network,
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
    failing_accept: FailingAccept,
    caplog: pytest.LogCaptureFixture,
    number: int,
    kind: ErrorKind,
) -> None:
    """P2: no busy loop, no silence; one record, one event, and the waiting client is served when it can be."""
    failing_accept.failures = [number]
    async with TcpServer() as server, server.events(AcceptError) as events:
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        with await network.raw_connect(server.server_port()) as client:
            event = await anext(events)
            await trio.testing.wait_all_tasks_blocked()
            waiting = (failing_accept.tries, server.connection_count())
            mock_clock.jump(0.09)
            await trio.testing.wait_all_tasks_blocked()
            still_waiting = (failing_accept.tries, server.connection_count())
            mock_clock.jump(0.02)
            answered = await ask(client)

    first, *later = [record for record in caplog.records if record.name == "trioqt.server"]
    assert failing_accept.fired == [0.0]
    assert event == AcceptError(kind, f"cannot accept: {os.strerror(number)}")
    assert waiting == still_waiting
    assert waiting[1] == 0
    assert answered
    assert (server.server_error(), server.error_string()) == (kind, f"cannot accept: {os.strerror(number)}")
    assert (first.levelno, later) == (logging.WARNING, [])


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.ENOMEM, "Out of memory")],
    ids=["ENOSPC", "ENOMEM"],
)
async def test_a_system_that_cannot_wait_for_connections_is_asked_every_tenth_of_a_second(
    network: Network,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: OSError,
) -> None:
    """epoll_ctl(2): the limit on watches is the user's, so others can reach it.  That ended the server."""
    fired = 0

    async def wait_acceptable(listener: NativeListener) -> None:
        nonlocal fired
        fired += 1
        raise error

    async with TcpServer() as server, server.events(AcceptError) as events:
        await server.listen(network.host)
        monkeypatch.setattr(NativeListener, "wait_acceptable", wait_acceptable)
        await nursery.start(server.serve, echo)
        event = await anext(events)
        with await network.raw_connect(server.server_port()) as client:
            answered = await ask(client)
        monkeypatch.undo()
        with await network.raw_connect(server.server_port()) as client:
            answered_again = await ask(client)

    assert (answered, answered_again, fired > 0) == (True, True, True)
    assert event.message == f"cannot accept: {error.strerror}"
    assert caplog.records[0].getMessage() == f"cannot accept: {error.strerror}; trying again every 0.1 s"


@pytest.mark.parametrize("name", ["EPERM", "EOPNOTSUPP", "ECONNABORTED"])
async def test_a_system_that_lets_nobody_in_is_told_and_asked_every_tenth_of_a_second(
    network: Network,
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
    failing_accept: FailingAccept,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """Of one connection that has ended nobody hears; when accept says nothing else, a sandbox forbids it, for one.

    That was a loop without a pause, and nothing was said.
    """
    number = failing_accept.for_ever = getattr(errno, name)
    async with TcpServer() as server, server.events(AcceptError) as events:
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        with await network.raw_connect(server.server_port()) as client:
            event = await anext(events)
            await trio.testing.wait_all_tasks_blocked()
            tries = failing_accept.tries
            mock_clock.jump(0.09)
            await trio.testing.wait_all_tasks_blocked()
            still = failing_accept.tries
            failing_accept.for_ever = 0
            mock_clock.jump(0.02)
            answered = await ask(client)

    assert event.message == f"cannot accept: {os.strerror(number)}"
    assert (tries, still, answered) == (64, 64, True)
    (record,) = caplog.records
    assert record.getMessage() == f"cannot accept: {os.strerror(number)}; trying again every 0.1 s"


async def test_a_program_that_waits_for_our_listening_socket_too_ends_no_server(
    network: Network, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Trio lets one task wait for a descriptor: the other is told so, and here that is the one that accepts."""
    async with TcpServer() as server:
        server.pause_accepting()
        await server.listen(network.host)
        with network.socket(server.socket_descriptor()) as sock:
            wait = getattr(sock, "wait_readable", None)  # of a simulated one
            if wait is None:
                wait = functools.partial(trio.lowlevel.wait_readable, server.socket_descriptor())
            async with trio.open_nursery() as waiting:
                waiting.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                server.resume_accepting()
                await nursery.start(server.serve, echo)
                await trio.testing.wait_all_tasks_blocked()
                waiting.cancel_scope.cancel()
        with await network.raw_connect(server.server_port()) as client:
            answered = await ask(client)

    assert answered
    (record,) = caplog.records
    assert record.getMessage().startswith("cannot accept: another task is already")


async def test_a_failure_that_lasts_is_logged_once_a_second_and_told_in_one_nudge(
    network: Network,
    mock_clock: trio.testing.MockClock,
    failing_accept: FailingAccept,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """asyncio wrote 127,128 lines here.  Three seconds at the limit: ten tries a second, one record in each."""
    failing_accept.for_ever = errno.EMFILE
    server = TcpServer()
    async with server.events(AcceptError) as events:
        async with server:
            await server.listen(network.host)
            with await network.raw_connect(server.server_port()):
                await until(lambda: bool(failing_accept.fired))
                for _ in range(24):
                    await trio.testing.wait_all_tasks_blocked()
                    mock_clock.jump(0.125)
                await trio.testing.wait_all_tasks_blocked()
                failing_accept.for_ever = 0
                mock_clock.jump(0.125)
                await server.accept()
        told = [event async for event in events]

    assert failing_accept.fired == [number * 0.125 for number in range(25)]
    assert told == [AcceptError(ErrorKind.SOCKET_RESOURCE, f"cannot accept: {os.strerror(errno.EMFILE)}")]
    *plain, last = [record.getMessage() for record in caplog.records]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert plain == [f"cannot accept: {os.strerror(errno.EMFILE)}; trying again every 0.1 s"] * 4  # at 0, 1, 2, 3 s
    assert last == f"{plain[0]} (the last of 21 records that were left out)"


async def test_a_server_that_waits_to_try_again_can_be_closed_and_left(
    network: Network, mock_clock: trio.testing.MockClock, failing_accept: FailingAccept
) -> None:
    """The pause holds nobody up: the clock stands, and ``close``, listening anew and the exit go through."""
    failing_accept.for_ever = errno.EMFILE
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:
            await until(lambda: bool(failing_accept.fired))
            server.close()
            with pytest.raises(ConnectionResetError):
                await client.receive_to_end()
        failing_accept.for_ever = 0
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await server.accept()
        failing_accept.for_ever = errno.EMFILE
        with await network.raw_connect(server.server_port()) as client:
            await until(lambda: len(failing_accept.fired) == 2)
            started = trio.current_time()

    assert trio.current_time() == started


async def test_a_reset_before_it_was_accepted_harms_nobody(
    network: Network, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Real resets, in the kernel's queue: those who came behind them are served, and what was said can be read."""
    heard = []

    async def handler(sock: TcpSocket) -> None:
        chunk = await sock.receive_some()
        heard.append(chunk)
        await sock.send_all(chunk)
        await echo(sock)

    async with TcpServer() as server:
        server.pause_accepting()
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        for number in range(5):
            client = await network.raw_connect(server.server_port())
            await client.send(b"bad %d" % number)
            await until(lambda count=number + 1: accept_queue(server) == count)  # type: ignore[misc]
            client.reset()
        with await network.raw_connect(server.server_port()) as good:
            server.resume_accepting()

            assert await ask(good)
            await until(lambda: server.connection_count() == 1)
        assert sorted(heard) == [b"?", b"bad 0", b"bad 1", b"bad 2", b"bad 3", b"bad 4"]
        assert server.server_error() is None
    assert caplog.records == []


async def test_good_clients_are_served_through_a_storm_of_resets(
    network: Network, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Three hundred that reset at once or in mid-word, ten that stay: ten answers a head, not one line in the log."""
    ended = 0

    async def handler(sock: TcpSocket) -> None:
        nonlocal ended
        try:
            await echo(sock)
        finally:
            ended += 1

    async def bad(number: int) -> None:
        client = await network.raw_connect(server.server_port())
        if number % 3:
            await client.send(b"x" * number)
        if number % 3 == 2:
            await client.receive(1)
        client.reset()

    async def good() -> None:
        with await network.raw_connect(server.server_port()) as client:
            for _ in range(10):
                answers.append(await ask(client))

    answers: list[bool] = []
    before = open_descriptors()
    async with TcpServer() as server:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        async with trio.open_nursery() as clients:
            for number in range(300):
                clients.start_soon(bad, number)
                if number % 30 == 0:
                    clients.start_soon(good)
        await until(lambda: ended == 310)
        await until(lambda: server.connection_count() == 0)
    after = open_descriptors()

    assert answers == [True] * 100
    assert after == before
    assert caplog.records == []


async def test_a_thousand_at_once_are_accepted_in_batches(network: Network, many_descriptors: None) -> None:
    """64 in a step, then every other task gets its turn; so nobody is starved, neither clients nor handlers."""
    count = min(1000, network.longest_queue())
    steps: list[int] = []

    class Steps(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            steps.append(server.connection_count())

    turns = 0

    async def another_task() -> None:
        nonlocal turns
        while server.connection_count() < count:
            turns += 1
            await trio.lowlevel.checkpoint()

    clients: list[RawPeer] = []

    async def come() -> None:
        clients.append(await network.raw_connect(server.server_port()))

    async with trio.open_nursery() as nursery, TcpServer() as server:
        server.pause_accepting()
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        async with trio.open_nursery() as coming:
            for _ in range(count):
                coming.start_soon(come)
        await until(lambda: accept_queue(server) == count)
        instrument = Steps()
        trio.lowlevel.add_instrument(instrument)
        server.resume_accepting()
        await another_task()
        trio.lowlevel.remove_instrument(instrument)
        accepted = server.connection_count()
        for client in clients:
            client.close()
        nursery.cancel_scope.cancel()

    at_once = [later - earlier for earlier, later in zip([0, *steps], steps, strict=False)]
    assert accepted == count
    assert [size for size in at_once if size] == [64] * (count // 64) + ([count % 64] if count % 64 else [])
    assert turns >= count // 64


AT_THE_LIMIT = """
import functools, json, logging, os, resource, sys
import trio, trio.testing
from trioqt import AcceptError, ConnectionFinished, TcpServer
from trioqt.links.native import NativeListener

failed, logged = [], []
really_accept = NativeListener.try_accept

def try_accept(listener):
    try:
        return really_accept(listener)
    except BlockingIOError:
        raise
    except OSError as exc:
        failed.append((trio.current_time(), exc.errno))
        raise

NativeListener.try_accept = try_accept
class Records(logging.Handler):
    def emit(self, record):
        logged.append((trio.current_time(), record.levelname))
logging.getLogger("trioqt.server").addHandler(Records())

def say(thing):
    print(json.dumps(thing), flush=True)

async def echo(sock):
    async for chunk in sock:
        await sock.send_all(chunk)

async def main():
    clock = trio.lowlevel.current_clock()
    parent = trio.lowlevel.FdStream(os.dup(0))
    async with TcpServer() as server, server.events(AcceptError) as errors, server.events(ConnectionFinished) as ends:
        async with trio.open_nursery() as nursery:
            await server.listen("127.0.0.1")
            await nursery.start(server.serve, echo)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            say(server.server_port())
            error = await anext(errors)
            for _ in range(24):
                await trio.testing.wait_all_tasks_blocked()
                clock.jump(0.125)
            await trio.testing.wait_all_tasks_blocked()
            count = server.connection_count()
            say([count, error.kind.name, server.server_error().name, failed, logged])
            for _ in range(count):  # the parent's business
                assert (await anext(ends)).error is None
            failures = len(failed)
            clock.jump(0.125)
            await parent.receive_some()
            say([server.connection_count(), len(failed) - failures])
            nursery.cancel_scope.cancel()

trio.run(main, clock=trio.testing.MockClock())
"""


# Loopback: the server is a process of its own, with a limit of its own.
async def test_out_of_descriptors_is_survived_and_ends_by_itself(network: Loopback) -> None:
    """P2, with the kernel's own EMFILE: a server with 64 descriptors and 80 clients.

    At the limit it tries eight times a second of the test's clock (once each time the clock moves by more than the
    pause), writes one record a second, and serves those who are in.  When they have left, all others are accepted in
    one go, without any call.
    """
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", AT_THE_LIMIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = b""
    clients: list[RawPeer] = []
    try:

        async def hear() -> Any:
            nonlocal said
            assert process.stdout is not None
            while b"\n" not in said:
                chunk = await process.stdout.receive_some()
                assert chunk, "the server has died"
                said += chunk
            line, _, said = said.partition(b"\n")
            return json.loads(line)

        port = await hear()
        for _ in range(80):
            clients.append(await network.raw_connect(port))
            await clients[-1].send(b"1")
        count, told, kept, failed, logged = await hear()
        inside, waiting = clients[:count], clients[count:]
        answers = [await client.receive(1) for client in inside]
        for client in inside:
            await client.send(b"2")
        answers += [await client.receive(1) for client in inside]
        for client in inside:
            client.close()
        late_answers = [await client.receive(1) for client in waiting]
        await process.stdin.send_all(b"!")
        in_the_end, later_failures = await hear()
        status = await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()
        for client in clients:
            client.close()

    assert 40 < count < 64
    assert (told, kept) == ("SOCKET_RESOURCE", "SOCKET_RESOURCE")
    assert failed == [[number * 0.125, errno.EMFILE] for number in range(25)]
    assert logged == [[float(second), "WARNING"] for second in range(4)]
    assert answers == [b"1"] * count + [b"2"] * count
    assert late_answers == [b"1"] * (80 - count)
    assert (in_the_end, later_failures) == (80 - count, 0)
    assert status == 0


async def test_whom_a_server_that_drains_cannot_accept_is_reset_and_that_is_told(
    network: Network, nursery: trio.Nursery, failing_accept: FailingAccept, caplog: pytest.LogCaptureFixture
) -> None:
    """Out of descriptors it cannot take the one who waits; the other one is answered."""
    async with TcpServer() as server, server.events(AcceptError) as errors:
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        first = await network.raw_connect(server.server_port())
        await until(lambda: server.connection_count() == 1)
        server.pause_accepting()
        with first, await network.raw_connect(server.server_port()) as second:
            await until(lambda: accept_queue(server) == 1)
            failing_accept.failures = [errno.EMFILE]
            reports: list[DrainReport] = []

            async def drain() -> None:
                reports.append(await server.drain(60))

            nursery.start_soon(drain)
            with pytest.raises(ConnectionResetError):
                await second.receive_to_end()
            answered = await ask(first)
            first.finish()
            await until(lambda: bool(reports))
            error = await anext(errors)

    why = "cannot accept: Too many open files"
    assert (answered, reports) == (True, [DrainReport(1, 0)])
    assert error == AcceptError(ErrorKind.SOCKET_RESOURCE, why)
    assert [record.getMessage() for record in caplog.records] == [
        f"{why}; while draining: whoever still waits for it is reset",
    ]
