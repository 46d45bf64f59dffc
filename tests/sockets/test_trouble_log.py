"""What a server logs of its troubles is bounded, whatever its clients do, and says how much it left out."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Network
from tests.sockets.arrivals import until
from tests.sockets.echoing import ask, echo
from trioqt import ConnectionFinished, ErrorKind, SocketError, TcpServer, TcpSocket
from trioqt.sockets.trouble_log import KINDS, PERIOD, RECORDS, TroubleLog

LOGGER = logging.getLogger("tests.trouble")


@pytest.fixture
async def log(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> AsyncIterator[TroubleLog]:
    """A log on its own."""
    caplog.set_level(logging.INFO)
    yield TroubleLog(LOGGER, nursery)
    nursery.cancel_scope.cancel()


def texts(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What has been written since the last call."""
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


# ---- the bounds ----------------------------------------------------------------------------------


async def test_ten_records_a_minute_of_each_kind_the_last_with_a_count(
    log: TroubleLog, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nine at once, and what was left out a minute later; another kind has bounds of its own."""
    for number in range(500):
        log.tell("one", logging.INFO, f"one {number}")
    for number in range(3):
        log.tell("two", logging.WARNING, f"two {number}")
    at_once = texts(caplog)
    await trio.sleep(PERIOD - 1)
    before = texts(caplog)
    await trio.sleep(2)
    after = texts(caplog)

    assert at_once == [*(f"one {number}" for number in range(9)), "two 0", "two 1", "two 2"]
    assert before == []
    assert after == ["one 499 (the last of 491 records that were left out)"]


async def test_no_minute_has_more_than_ten_whenever_it_begins(
    log: TroubleLog, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A storm that swells and ebbs for an hour; and every one of it is told or counted."""
    times: list[float] = []

    class Clocked(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            times.append(trio.current_time())

    told = 0
    handler = Clocked()
    LOGGER.addHandler(handler)
    try:
        for step in range(3600):
            for _ in range(step % 7 if step % 100 < 60 else 0):
                log.tell("storm", logging.INFO, "again")
                told += 1
            await trio.sleep(1)
        log.end()
    finally:
        LOGGER.removeHandler(handler)
    counts = [int(text.split("last of ")[1].split()[0].replace(",", "")) for text in texts(caplog) if "last" in text]

    assert told > 6000
    assert max(sum(start <= time < start + 60 for time in times) for start in times[:-1]) <= RECORDS
    assert len(times) - len(counts) + sum(counts) == told


async def test_records_of_a_kind_can_be_spaced(
    log: TroubleLog, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten tries a second tell no more than one."""
    for _ in range(25):
        log.tell("accept", logging.WARNING, "cannot accept", spacing=1.0)
        await trio.sleep(0.125)
    spaced = texts(caplog)
    await trio.sleep(PERIOD)

    assert spaced == ["cannot accept"] * 4
    assert texts(caplog) == ["cannot accept (the last of 21 records that were left out)"]


async def test_what_was_left_out_is_told_at_the_end_at_the_latest(
    log: TroubleLog, caplog: pytest.LogCaptureFixture
) -> None:
    """The end does not wait for the clock; what comes after it is bounded too, and starts no task."""
    for number in range(12):
        log.tell("kind", logging.INFO, f"{number}")
    log.end()
    first = texts(caplog)
    for number in range(12, 20):
        log.tell("kind", logging.INFO, f"{number}")
    late = texts(caplog)
    log.end()
    log.end()

    assert first[-1] == "11 (the last of 3 records that were left out)"
    assert len(first) == 10
    assert late == []
    assert texts(caplog) == ["19 (the last of 8 records that were left out)"]


async def test_the_kinds_are_bounded_too(
    log: TroubleLog, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler can raise a new class each time: beyond a hundred kinds they share one; old ones make room."""
    for number in range(1000):
        log.tell(("kind", number), logging.INFO, f"{number}")
    at_once = texts(caplog)
    held = len(log._kinds)
    await trio.sleep(2 * PERIOD + 1)
    later = texts(caplog)
    log.tell("new", logging.INFO, "new")

    assert at_once == [f"{number}" for number in range(KINDS + 9)]
    assert held == KINDS + 1
    assert later == [f"999 (the last of {1000 - KINDS - 9} records that were left out)"]
    assert texts(caplog) == ["new"]
    assert len(log._kinds) == 1


async def test_nothing_waits_while_nothing_was_left_out(
    log: TroubleLog, autojump_clock: trio.testing.MockClock
) -> None:
    """The task is there only for a count that is to be told."""
    nursery = log._nursery
    assert nursery is not None
    before, tasks = len(nursery.child_tasks), []
    for _ in range(9):
        log.tell("kind", logging.INFO, "told")
    tasks.append(len(nursery.child_tasks))
    log.tell("kind", logging.INFO, "left out")
    tasks.append(len(nursery.child_tasks))
    await trio.sleep(PERIOD + 1)
    tasks.append(len(nursery.child_tasks))

    assert tasks == [before, before + 1, before]


# ---- of a server ---------------------------------------------------------------------------------


class Bug(Exception):
    """Of a handler."""


async def storm(network: Network, nursery: trio.Nursery, server: TcpServer[TcpSocket], count: int) -> None:
    """As many clients whose handlers fail, fifty at a time."""

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_exactly(1)  # its peer has seen that it is connected
        raise Bug

    await server.listen(network.host)
    await nursery.start(server.serve, handler)
    async with server.events(ConnectionFinished) as events:
        for _ in range(count // 50):
            peers = [await network.raw_connect(server.server_port()) for _ in range(50)]
            for peer in peers:
                await peer.send(b"x")
            for _ in range(50):
                assert isinstance((await anext(events)).error, Bug)
            for peer in peers:
                peer.close()


async def test_five_hundred_failing_handlers_write_ten_records(
    network: Network,
    nursery: trio.Nursery,
    mock_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
    handler_failures: Callable[[], list[Exception]],
) -> None:
    """They wrote 3,500 lines; the tenth says at the block's end how many were left out."""
    async with TcpServer() as server:
        await storm(network, nursery, server, 500)
        written = [record.exc_info is not None for record in caplog.records]
    *_, last = caplog.records

    assert written == [True] * 9
    assert len(caplog.records) == 10
    assert last.levelno == logging.ERROR
    assert last.exc_info is None
    assert last.getMessage().endswith(" failed (the last of 491 records that were left out)")
    assert [type(bug) for bug in handler_failures()] == [Bug] * 100  # the others are counted only


async def test_handlers_that_outlive_the_block_without_isolation_are_not_logged(
    network: Network, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """They shield themselves, and fail when the server's nursery has ended: out of ``serve``, so nothing is logged."""
    gate = trio.Event()

    async def handler(sock: TcpSocket) -> None:
        with trio.CancelScope(shield=True):
            await gate.wait()
        raise Bug

    with pytest.RaisesGroup(pytest.RaisesGroup(*[Bug] * 20)):
        async with trio.open_nursery() as outer:
            async with TcpServer() as server:
                await server.listen(network.host)
                peers = [await network.raw_connect(server.server_port()) for _ in range(20)]
                outer.start_soon(lambda: server.serve(handler, isolate=False))
                await until(lambda: server.connection_count() == 20 and not server.has_pending_connections())
                await trio.testing.wait_all_tasks_blocked()
            gate.set()
    for peer in peers:
        peer.close()

    assert caplog.records == []


async def test_isolated_handlers_that_outlive_the_block_are_logged_within_the_bounds(
    network: Network,
    mock_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
    handler_failures: Callable[[], list[Exception]],
) -> None:
    """Nobody is left to wait a minute: the count is told when the last of them has ended."""
    gate = trio.Event()

    async def handler(sock: TcpSocket) -> None:
        with trio.CancelScope(shield=True):
            await gate.wait()
        raise Bug

    async with trio.open_nursery() as outer:
        async with TcpServer() as server:
            await server.listen(network.host)
            peers = [await network.raw_connect(server.server_port()) for _ in range(20)]
            outer.start_soon(server.serve, handler)
            await until(lambda: server.connection_count() == 20 and not server.has_pending_connections())
            await trio.testing.wait_all_tasks_blocked()
        gate.set()
    for peer in peers:
        peer.close()

    assert len(caplog.records) == 10
    assert caplog.records[-1].getMessage().endswith("(the last of 11 records that were left out)")
    assert len(handler_failures()) == 20


@pytest.fixture(params=["raises", "fails to say so, too"])
def full_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """A log handler that raises; what it was given."""
    records: list[logging.LogRecord] = []

    class FullDisk(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)
            raise OSError(28, "No space left on device")

    class BrokenError:
        def write(self, text: str) -> int:
            raise ValueError("I/O operation on closed file")

    if request.param != "raises":
        monkeypatch.setattr("sys.stderr", BrokenError())
    logger, handler = logging.getLogger("trioqt.server"), FullDisk()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


async def test_a_log_handler_that_raises_ends_nothing(
    network: Network,
    nursery: trio.Nursery,
    full_disk: list[logging.LogRecord],
    handler_failures: Callable[[], list[Exception]],
) -> None:
    """Neither for a bug nor for trouble: the next client is served."""
    logging.getLogger("trioqt.server").setLevel(logging.INFO)
    failures: list[Exception] = [Bug(), SocketError(ErrorKind.NETWORK, "gone")]

    async def handler(sock: TcpSocket) -> None:
        if failures:
            await sock.receive_exactly(1)  # its peer has seen that it is connected
            raise failures.pop()
        await echo(sock)

    async with TcpServer() as server, server.events(ConnectionFinished) as events:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        for _ in range(2):
            with await network.raw_connect(server.server_port()) as failing:
                await failing.send(b"x")
                await anext(events)
        with await network.raw_connect(server.server_port()) as client:
            answered = await ask(client)
    logging.getLogger("trioqt.server").setLevel(logging.NOTSET)

    assert answered
    assert [record.levelno for record in full_disk] == [logging.INFO, logging.ERROR]
    assert len(handler_failures()) == 1


def no_answer(error: Exception) -> Any:
    """Asked whether its context is shown, it fails; of notes that fail Python 3.13 prints what it can."""
    raise RuntimeError("no answer")


class Unshowable(Exception):
    """Python can print no traceback of it, nor of what has it as context."""

    __suppress_context__ = property(no_answer)


async def test_a_bug_that_cannot_be_shown_is_logged_without_its_traceback(
    network: Network, nursery: trio.Nursery, handler_failures: Callable[[], list[Exception]]
) -> None:
    """By its class, and the next client is served."""
    told: list[str] = []

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(self.format(record))

    async def handler(sock: TcpSocket) -> None:
        if await sock.receive_exactly(1) == b"x":
            raise Unshowable
        await sock.send_all(b"answer")

    logger, handles = logging.getLogger("trioqt.server"), Told()
    logger.addHandler(handles)
    try:
        async with TcpServer() as server, server.events(ConnectionFinished) as events:
            await server.listen(network.host)
            await nursery.start(server.serve, handler)
            with await network.raw_connect(server.server_port()) as failing:
                await failing.send(b"x")
                finished = await anext(events)
            with await network.raw_connect(server.server_port()) as client:
                await client.send(b"y")
                answer = await client.receive_to_end()
    finally:
        logger.removeHandler(handles)

    assert (type(finished.error), answer) == (Unshowable, b"answer")
    port = finished.peer_port
    assert told == [
        f"the handler of the connection from 127.0.0.1:{port} failed by Unshowable, which cannot be shown",
    ]
    assert [type(bug) for bug in handler_failures()] == [Unshowable]
