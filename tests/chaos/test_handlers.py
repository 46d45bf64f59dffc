"""What a handler meets ends its own connection and no other: bugs, silence, an upstream that is not there.

Each of these is an ordinary thing for a client to cause, and each has ended whole servers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import trio
import trio.testing

from tests.networks import Network, RawPeer
from tests.sockets.arrivals import open_descriptors, until
from trioqt import ConnectionFinished, ErrorKind, SocketError, TcpServer, TcpSocket

OVER_TLS = True

Failures = Callable[[], list[Exception]]


class Work:
    """A handler of lines: ``work`` is answered once the test lets it; anything else happens at once."""

    def __init__(self, network: Network, nobody: int) -> None:
        self.network = network
        self.nobody = nobody
        self.at_work = 0
        self.done = trio.Event()

    async def __call__(self, sock: TcpSocket) -> None:
        async for line in sock.lines():
            match line.split():
                case [b"work"]:
                    self.at_work += 1
                    await self.done.wait()
                    await sock.send_all(b"done\n")
                case [b"number", text]:
                    await sock.send_all(b"%d\n" % int(text))
                case [b"group"]:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(fail, ValueError("one"))
                        nursery.start_soon(fail, KeyError("two"))
                case [b"upstream"]:
                    await trio.open_tcp_stream(self.network.host, self.nobody)


async def fail(error: Exception) -> None:
    await trio.lowlevel.checkpoint()
    raise error


async def ending_of(client: RawPeer) -> str:
    """How the connection ends: ``end`` or ``reset``."""
    try:
        await client.receive_to_end()
    except ConnectionResetError:
        return "reset"
    return "end"


async def test_ten_handlers_that_raise_cost_a_hundred_others_nothing(
    network: Network, nursery: trio.Nursery, handler_failures: Failures, caplog: pytest.LogCaptureFixture
) -> None:
    """A line that is no number, a group of exceptions, an upstream that refuses: each ends its own connection.

    It is never silent: an event for each, and a record, with the traceback if it is a bug.  A client whose handler
    failed sees a reset and not an end that it could take for a whole answer.
    """
    caplog.set_level(logging.INFO)
    before = open_descriptors()
    handler = Work(network, await network.unused_port())
    lines = [b"number seven\n", b"group\n", b"upstream\n"] * 3 + [b"number x\n"]
    async with TcpServer() as server, server.events(ConnectionFinished) as endings:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        workers = [await network.raw_connect(server.server_port()) for _ in range(100)]
        for worker in workers:
            await worker.send(b"work\n")
        await until(lambda: handler.at_work == 100)

        ends = []
        for line in lines:
            with await network.raw_connect(server.server_port()) as client:
                await client.send(line)
                ends.append(await ending_of(client))
        errors = [(await anext(endings)).error for _ in lines]
        handler.done.set()
        answers = [await worker.receive(5) for worker in workers]
        for worker in workers:
            worker.close()
        await until(lambda: server.connection_count() == 0)

    assert answers == [b"done\n"] * 100
    assert ends == ["reset"] * 10
    told = [type(error).__name__ for error in errors]
    assert [name for name in told if name != "ExceptionGroup"].count("ValueError") == 4
    assert told.count("ExceptionGroup") == 3
    assert sum(isinstance(error, OSError) for error in errors) == 3
    assert sorted(type(bug).__name__ for bug in handler_failures()) == ["ExceptionGroup"] * 3 + ["ValueError"] * 4
    records = [(record.levelname, record.exc_info is not None) for record in caplog.records]
    assert records.count(("ERROR", True)) == 7
    assert records.count(("INFO", False)) == 3
    assert open_descriptors() == before


async def test_silent_clients_end_their_own_handlers(
    network: Network, nursery: trio.Nursery, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """``with trio.fail_after(5): await sock.receive_line()`` is what everybody writes, and silence is not a bug."""
    caplog.set_level(logging.INFO)

    async def handler(sock: TcpSocket) -> None:
        while True:
            with trio.fail_after(5):
                line = await sock.receive_line()
            if not line:
                return
            await sock.send_all(line)

    async with TcpServer() as server, server.events(ConnectionFinished) as endings:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        silent = [await network.raw_connect(server.server_port()) for _ in range(50)]
        await until(lambda: server.connection_count() == 50)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(4)
        with await network.raw_connect(server.server_port()) as good:
            await good.send(b"hello\n")
            answer = await good.receive(6)
            mock_clock.jump(1)
            errors = [(await anext(endings)).error for _ in range(50)]
            await good.send(b"still here\n")
            second = await good.receive(11)
        ends = [await ending_of(client) for client in silent]
        for client in silent:
            client.close()

    assert (answer, second) == (b"hello\n", b"still here\n")
    assert {type(error) for error in errors} == {trio.TooSlowError}
    assert set(ends) == {"reset"}
    assert {(record.levelname, record.exc_info) for record in caplog.records} == {("INFO", None)}
    assert 1 <= len(caplog.records) <= 11


class BrokenHandler(logging.Handler):
    """A log whose disk is full."""

    fired = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.fired += 1
        raise OSError("no space left on device")


@contextmanager
def broken_log() -> Iterator[BrokenHandler]:
    """Whoever logs for trioqt gets an exception."""
    logger = logging.getLogger("trioqt")
    handler = BrokenHandler()
    level, logger.propagate = logger.level, False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = True


async def test_a_log_handler_that_raises_ends_nothing(
    network: Network, nursery: trio.Nursery, handler_failures: Failures, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither at a bug nor at a peer's trouble; the disk is full, and the server answers."""
    handler = Work(network, await network.unused_port())
    with broken_log() as log:
        async with TcpServer() as server:
            await server.listen(network.host)
            await nursery.start(server.serve, handler)
            for line in (b"number seven\n", b"upstream\n"):
                with await network.raw_connect(server.server_port()) as client:
                    await client.send(line)
                    await ending_of(client)
            with await network.raw_connect(server.server_port()) as client:
                await client.send(b"number 7\n")
                answer = await client.receive(2)

    assert log.fired == 2
    assert answer == b"7\n"
    assert [type(bug) for bug in handler_failures()] == [ValueError]
    assert "no space left on device" in capsys.readouterr().err


@pytest.mark.plain("so many handshakes take a minute")
@pytest.mark.parametrize("ending", ["end", "reset"])
async def test_a_monitor_hears_of_thousands_that_hang_up_in_one_turn(
    network: Network, nursery: trio.Nursery, ending: str
) -> None:
    """It does nothing but count, so it never falls behind, however many connections end before it has a turn."""
    count = 1500
    seen: list[ConnectionFinished] = []

    async def monitor(server: TcpServer[TcpSocket], *, task_status: trio.TaskStatus[None]) -> None:
        async with server.events(ConnectionFinished) as endings:
            task_status.started()
            async for event in endings:
                seen.append(event)

    async def handler(sock: TcpSocket) -> None:
        while await sock.receive_some():
            pass

    async with TcpServer() as server:
        await server.listen(network.host)
        await nursery.start(monitor, server)
        await nursery.start(partial(server.serve, handler))
        clients = [await network.raw_connect(server.server_port()) for _ in range(count)]
        await until(lambda: server.connection_count() == count)
        for client in clients:  # no checkpoint in between: all of it is one turn of the server
            client.close() if ending == "end" else client.reset()
        await until(lambda: len(seen) == count)

    kinds = {None if event.error is None else error_kind(event.error) for event in seen}
    assert kinds == ({None} if ending == "end" else {ErrorKind.REMOTE_HOST_CLOSED})


def error_kind(error: BaseException) -> ErrorKind:
    assert isinstance(error, SocketError)
    return error.kind
