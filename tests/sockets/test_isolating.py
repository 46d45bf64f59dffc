"""Whatever a handler raises ends its own connection and no more; what it was decides how loud the log is."""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import outcome
import pytest
import trio
import trio.testing

from tests.certificates import Contexts
from tests.networks import Network, RawPeer
from tests.sockets.arrivals import until
from tests.sockets.echoing import ask, echo
from trioqt import ConnectionFinished, ErrorKind, HostAddress, SocketError, SocketOption, TcpServer, TcpSocket

OVER_TLS = True

Failures = Callable[[], list[Exception]]


def because_of(error: Exception, cause: BaseException) -> Exception:
    """``raise error from cause``."""
    error.__cause__ = cause
    return error


def system(number: int) -> OSError:
    """What the system says by this number."""
    return OSError(number, os.strerror(number))


def all_attempts_failed(*attempts: OSError) -> OSError:
    """What ``trio.open_tcp_stream`` raises: an OSError without a number."""
    message = "all attempts to connect to upstream:80 failed"
    cause = attempts[0] if len(attempts) == 1 else ExceptionGroup(message, attempts)
    error = OSError(message)
    error.__cause__ = cause
    return error


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions themselves; trio may have rebuilt the groups around them."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


GONE = SocketError(ErrorKind.REMOTE_HOST_CLOSED, "the peer is gone")
MISTAKE = SocketError(ErrorKind.OPERATION, "cannot send while unconnected")

TROUBLES: dict[str, Exception] = {
    **{f"SocketError {kind.name}": SocketError(kind, "it failed") for kind in ErrorKind if kind.name != "OPERATION"},
    "too slow": trio.TooSlowError(),
    "closed": trio.ClosedResourceError("by a watchdog"),
    "broken": trio.BrokenResourceError(),
    "broken by the system": because_of(trio.BrokenResourceError(), system(errno.EPIPE)),
    "broken by TLS": because_of(trio.BrokenResourceError(), ssl.SSLEOFError(8, "no goodbye")),
    "broken by a socket of ours": because_of(trio.BrokenResourceError(), GONE),
    **{
        errno.errorcode[number]: system(number)
        for number in (
            *(errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN, errno.ETIMEDOUT),
            *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL),
            *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS),
        )
    },
    "reset without a number": ConnectionResetError("gone"),
    "time-out without a number": TimeoutError(),
    "no such name": socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    "no name server": socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    "TLS end": ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
    "TLS closed": ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed (EOF)"),
    "TLS certificate": ssl.SSLCertVerificationError(1, "certificate verify failed"),
    "one dead upstream": all_attempts_failed(system(errno.ECONNREFUSED)),
    "two dead upstreams": all_attempts_failed(system(errno.ECONNREFUSED), system(errno.EHOSTUNREACH)),
    "an upstream of a family that we have not": all_attempts_failed(
        system(errno.EAFNOSUPPORT), system(errno.ECONNREFUSED)
    ),
    "group": ExceptionGroup("of a nursery", [GONE, trio.ClosedResourceError(), trio.TooSlowError()]),
    "nested group": ExceptionGroup("outer", [ExceptionGroup("inner", [system(errno.EPIPE)]), trio.TooSlowError()]),
}

BUGS: dict[str, Exception] = {
    "value": ValueError("invalid literal for int() with base 10: 'x'"),
    "encoding": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "assertion": AssertionError(),
    "end of a channel": trio.EndOfChannel(),
    "busy": trio.BusyResourceError("another task receives"),
    "mistake": MISTAKE,
    "broken by a mistake": because_of(trio.BrokenResourceError(), MISTAKE),
    "no such file": system(errno.ENOENT),
    "no permission": system(errno.EACCES),
    "no number, no cause": OSError("of something"),
    "no number, a file as cause": because_of(OSError("of something"), system(errno.ENOENT)),
    "a program's own": because_of(RuntimeError("cannot go on"), GONE),
    "mixed group": ExceptionGroup("both", [GONE, ValueError("a bug")]),
    "nested mistake": ExceptionGroup("outer", [ExceptionGroup("inner", [MISTAKE])]),
}


@attrs.frozen
class Failed:
    """What was seen of a handler that raised, beside one that did not."""

    port: int
    error: BaseException | None
    served: bool  # the others were, and a new one too
    listening: bool


async def fail(network: Network, nursery: trio.Nursery, error: BaseException, *, isolate: bool = True) -> Failed:
    """One client's handler raises ``error``, another client goes on, a third one comes."""

    async def handler(sock: TcpSocket) -> None:
        async for chunk in sock:
            if chunk == b"raise":
                raise error
            await sock.send_all(chunk)

    async with TcpServer() as server, server.events(ConnectionFinished) as events:
        await server.listen(network.host)
        await nursery.start(functools.partial(server.serve, handler, isolate=isolate))
        with await network.raw_connect(server.server_port()) as other:
            served = [await ask(other)]
            with await network.raw_connect(server.server_port()) as client:
                port = client.sock.getsockname()[1]
                await client.send(b"raise")
                finished = await anext(events)
            served.append(await ask(other))
        with await network.raw_connect(server.server_port()) as third:
            served.append(await ask(third))
        listening = server.is_listening()
    assert (finished.peer, finished.peer_port) == (HostAddress.LOCAL_HOST, port)
    return Failed(port, finished.error, all(served), listening)


# ---- what networks and peers do ------------------------------------------------------------------


@pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "not isolated"])
@pytest.mark.parametrize("error", TROUBLES.values(), ids=TROUBLES)
async def test_trouble_ends_its_connection_and_is_one_line_at_info(
    network: Network,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    handler_failures: Failures,
    error: Exception,
    isolate: bool,
) -> None:
    """With the peer's address, without a traceback; told as an event; and no test fails of it."""
    caplog.set_level(logging.INFO, "trioqt.server")
    failed = await fail(network, nursery, error, isolate=isolate)

    (record,) = caplog.records
    assert failed == Failed(failed.port, error, True, True)
    assert (record.name, record.levelno, record.exc_info) == ("trioqt.server", logging.INFO, None)
    assert record.getMessage().startswith(f"the connection from 127.0.0.1:{failed.port} ended: ")
    assert "\n" not in record.getMessage()
    assert handler_failures() == []


async def test_what_is_logged_of_a_peer_is_short_and_printable(
    network: Network, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer may have had a hand in the text: it cannot make lines of its own, colour a terminal, or fill a disk."""
    caplog.set_level(logging.INFO, "trioqt.server")
    text = "too long a line: first\r\nsecond\x1b[31m\u202e" + "x" * 10_000
    failed = await fail(network, nursery, SocketError(ErrorKind.LIMIT_EXCEEDED, text))

    message = caplog.records[0].getMessage()
    start = f"the connection from 127.0.0.1:{failed.port} ended: SocketError: too long a line: first second [31m x"
    assert message.startswith(start)
    assert len(message) < 300


# ---- bugs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", BUGS.values(), ids=BUGS)
async def test_a_bug_ends_its_connection_and_is_logged_with_its_traceback(
    network: Network,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    handler_failures: Failures,
    error: Exception,
) -> None:
    """At ERROR, with the peer's address; told as an event; and a test that does not take it fails."""
    failed = await fail(network, nursery, error)

    (record,) = caplog.records
    assert failed == Failed(failed.port, error, True, True)
    assert (record.name, record.levelno) == ("trioqt.server", logging.ERROR)
    assert record.getMessage() == f"the handler of the connection from 127.0.0.1:{failed.port} failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert "in handler" in caplog.text  # the traceback's
    assert handler_failures() == [error]


@pytest.mark.parametrize("error", BUGS.values(), ids=BUGS)
async def test_without_isolate_a_bug_goes_out_and_nobody_is_let_in_any_more(
    network: Network, caplog: pytest.LogCaptureFixture, handler_failures: Failures, error: Exception
) -> None:
    """In a group, as out of any nursery; it is not logged, for it is not survived."""

    async def handler(sock: TcpSocket) -> None:
        raise error

    caught: BaseException | None = None
    async with TcpServer() as server:
        await server.listen(network.host)
        port = server.server_port()
        with await network.raw_connect(port):
            try:
                await server.serve(handler, isolate=False)
            except ExceptionGroup as exc:
                caught = exc
        with pytest.raises(ConnectionRefusedError):
            await network.raw_connect(port)

    assert isinstance(caught, ExceptionGroup)
    assert leaves(caught) == leaves(error)
    assert caplog.records == []
    assert handler_failures() == []


# ---- what is hard to judge -----------------------------------------------------------------------


class Failing:
    """Every method of an exception's class that is asked to tell something may fail."""

    def fails(self, *args: object) -> Any:
        raise RuntimeError("it fails when it is asked")


class Textless(Failing, Exception):
    """Nothing to print."""

    __str__ = __repr__ = Failing.fails


class Numberless(Failing, OSError):
    """An ``OSError`` without a usable number."""

    errno = property(Failing.fails)


class Kindless(SocketError):
    """Derived from ours, by somebody who has forgotten ``super().__init__``."""

    def __init__(self) -> None:
        pass


class Indivisible(Failing, ExceptionGroup[Exception]):
    """``split`` fails."""

    derive = Failing.fails


class Unhashable(type):
    """Its classes are in no set, and know no ABC."""

    __hash__ = Failing.fails


class OfUnhashableClass(Exception, metaclass=Unhashable):
    """An exception of such a class."""


def nested(depth: int, error: Exception) -> Exception:
    """In as many groups."""
    for _ in range(depth):
        error = ExceptionGroup("of a nursery", [error])
    return error


def circle(first: Exception, second: Exception) -> Exception:
    """Each is the other's cause."""
    first.__cause__, second.__cause__ = second, first
    return first


def caused(times: int) -> Exception:
    """By another one, and that by another."""
    error: Exception = KeyError()
    for _ in range(times):
        error = because_of(KeyError(), error)
    return error


ODD: dict[str, tuple[int, Callable[[], Exception]]] = {
    "without a text": (logging.ERROR, lambda: Textless()),
    "without a number": (logging.ERROR, lambda: Numberless()),
    "with a list as number": (logging.ERROR, lambda: OSError([errno.EPIPE], "broken")),
    "of an unhashable class": (logging.ERROR, lambda: OfUnhashableClass()),
    "indivisible": (logging.ERROR, lambda: Indivisible("a group", [ValueError(), trio.TooSlowError()])),
    "indivisible trouble": (logging.INFO, lambda: Indivisible("a group", [trio.TooSlowError()])),
    "in 700 groups": (logging.ERROR, lambda: nested(700, ValueError())),
    "in 3,000 groups": (logging.ERROR, lambda: nested(3000, ValueError())),
    "trouble in 3,000 groups": (logging.INFO, lambda: nested(3000, trio.TooSlowError())),
    "of 3,000 causes": (logging.ERROR, lambda: caused(3000)),
    "its own cause": (logging.INFO, lambda: circle(*[trio.BrokenResourceError()] * 2)),
    "the cause of its cause": (logging.INFO, lambda: circle(trio.BrokenResourceError(), trio.BrokenResourceError())),
    "the system's, the cause of its cause": (logging.ERROR, lambda: circle(OSError("one"), OSError("two"))),
    "without a kind": (logging.INFO, lambda: Kindless()),
}


@pytest.mark.parametrize(("level", "make"), ODD.values(), ids=ODD)
async def test_what_can_hardly_be_judged_or_shown_ends_its_own_connection_too(
    network: Network,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    handler_failures: Failures,
    level: int,
    make: Callable[[], Exception],
) -> None:
    """By a reset, as any; it is told as it is, logged in one record, with a traceback if it is a bug that has one."""
    caplog.set_level(logging.INFO, "trioqt.server")
    error = make()

    async def handler(sock: TcpSocket) -> None:
        if await sock.receive_line() == b"raise\n":
            raise error
        await sock.send_all(b"answer")

    async with serving(network, nursery, handler) as (server, events):
        with await network.raw_connect(server.server_port()) as client:
            await client.send(b"raise\n")
            end = await client.how_it_ends()
            finished = await anext(events)
        with await network.raw_connect(server.server_port()) as client:
            await client.send(b"ask\n")
            answer = await client.receive_to_end()

    (record,) = [record for record in caplog.records if record.levelno == level]
    assert (finished.error, end, answer) == (error, "reset", b"answer")
    assert ("connection from 127.0.0.1" in record.getMessage(), len(caplog.records)) == (True, 1)
    assert handler_failures() == ([error] if level == logging.ERROR else [])


class Undeclared(BaseExceptionGroup[BaseException]):
    """A program's own, which does not become an ``Exception`` though nothing else is in it."""


class Closed(Failing, ExceptionGroup[Exception]):
    """What is in it cannot be asked."""

    exceptions = property(Failing.fails)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Undeclared("a group", [Undeclared("inner", [ValueError("a bug")])]),
        lambda: Closed("a group", [ValueError("a bug")]),
    ],
    ids=["of a class that is no Exception", "of a class that fails"],
)
async def test_a_group_of_the_programs_own_ends_its_own_connection_too(
    network: Network,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    handler_failures: Failures,
    make: Callable[[], BaseException],
) -> None:
    """By a reset; the next client is served; and it is a bug that is logged, and that a test hears of."""

    async def handler(sock: TcpSocket) -> None:
        if await sock.receive_line() == b"raise\n":
            raise make()
        await sock.send_all(b"answer")

    async with serving(network, nursery, handler) as (server, events):
        with await network.raw_connect(server.server_port()) as client:
            await client.send(b"raise\n")
            end = await client.how_it_ends()
            await anext(events)
        with await network.raw_connect(server.server_port()) as client:
            await client.send(b"ask\n")
            answer = await client.receive_to_end()

    *_, record = caplog.records  # one that cannot be shown is told once more, without its traceback
    assert (end, answer, record.levelno) == ("reset", b"answer", logging.ERROR)
    (failure,) = handler_failures()
    assert (isinstance(failure, ExceptionGroup), failure.message) == (True, "a group")  # type: ignore[attr-defined]


async def cancelled_before() -> trio.Cancelled:
    """A cancellation that is over, as a result keeps it that was captured in a task that somebody cancelled."""
    with trio.CancelScope() as scope:
        scope.cancel()
        result = await outcome.acapture(trio.sleep_forever)
    assert isinstance(result, outcome.Error)
    assert isinstance(result.error, trio.Cancelled)
    return result.error


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: BaseExceptionGroup("of a nursery", [error])])
async def test_a_cancellation_that_is_nobodys_ends_its_own_connection_and_is_a_bug(
    network: Network,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    handler_failures: Failures,
    wrap: Callable[[BaseException], BaseException],
) -> None:
    """The nursery of ``serve`` took it for its own: all handlers were cancelled, and ``serve`` returned in silence."""
    failed = await fail(network, nursery, wrap(await cancelled_before()))

    (record,) = caplog.records
    (failure,) = handler_failures()
    assert failed == Failed(failed.port, failure, True, True)
    assert isinstance(failure, RuntimeError)
    assert str(failure) == "the handler raised trio.Cancelled, and nobody had cancelled it"
    assert record.getMessage() == f"the handler of the connection from 127.0.0.1:{failed.port} failed"


async def test_without_isolate_a_cancellation_that_is_nobodys_goes_out_as_a_bug(network: Network) -> None:
    """It is not lost on the way."""
    error = await cancelled_before()

    async def handler(sock: TcpSocket) -> None:
        raise error

    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            with pytest.raises(ExceptionGroup) as caught:
                await server.serve(handler, isolate=False)

    (failure,) = leaves(caught.value)
    assert isinstance(failure, RuntimeError)
    assert failure.__cause__ is error


# ---- the same from programs as they are ----------------------------------------------------------


@asynccontextmanager
async def serving(
    network: Network, nursery: trio.Nursery, handler: Callable[[TcpSocket], Any]
) -> AsyncIterator[tuple[TcpServer[TcpSocket], AsyncIterator[ConnectionFinished]]]:
    """A server that runs it, and how its handlers end."""
    async with TcpServer() as server, server.events(ConnectionFinished) as events:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        yield server, events


async def lives(network: Network, server: TcpServer[TcpSocket]) -> bool:
    """Can a new client still connect?"""
    with await network.raw_connect(server.server_port()):
        return server.is_listening()


async def test_a_silent_client_ends_no_server(
    network: Network, nursery: trio.Nursery, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """``trio.fail_after`` around a receive, as our own pages advise."""
    caplog.set_level(logging.INFO, "trioqt.server")

    async def handler(sock: TcpSocket) -> None:
        with trio.fail_after(5):
            await sock.receive_line()

    async with serving(network, nursery, handler) as (server, events):
        with await network.raw_connect(server.server_port()) as client:
            await until(lambda: server.connection_count() == 1)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(5)
            finished = await anext(events)
            port = client.sock.getsockname()[1]
        assert await lives(network, server)

    assert isinstance(finished.error, trio.TooSlowError)
    (record,) = caplog.records
    assert record.getMessage() == f"the connection from 127.0.0.1:{port} ended: trio.TooSlowError"


async def test_a_dead_upstream_ends_no_server(
    network: Network, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """``trio.open_tcp_stream`` raises an OSError without a number."""
    caplog.set_level(logging.INFO, "trioqt.server")
    nowhere = await network.unused_port()

    async def proxy(sock: TcpSocket) -> None:
        async with await trio.open_tcp_stream(network.host, nowhere) as upstream:
            await upstream.send_all(await sock.receive_some())

    async with serving(network, nursery, proxy) as (server, events):
        with await network.raw_connect(server.server_port()):
            finished = await anext(events)
        assert await lives(network, server)

    assert isinstance(finished.error, OSError)
    assert finished.error.errno is None
    assert [record.levelno for record in caplog.records if "all attempts" in record.getMessage()] == [logging.INFO]


@pytest.mark.plain("it is over TLS already")
async def test_a_tls_client_that_leaves_without_a_goodbye_ends_no_server(
    network: Network,
    nursery: trio.Nursery,
    tls: Contexts,
    caplog: pytest.LogCaptureFixture,
    handler_failures: Failures,
) -> None:
    """After a loss ``trio.SSLStream`` raises a ``BrokenResourceError`` without a cause."""
    caplog.set_level(logging.INFO, "trioqt.server")
    broken: list[trio.BrokenResourceError] = []

    async def handler(sock: TcpSocket) -> None:
        stream = trio.SSLStream(sock, tls.server, server_side=True)
        try:
            while await stream.receive_some():
                pass
        finally:
            try:
                await stream.send_all(b"goodbye")
            except trio.BrokenResourceError as exc:
                broken.append(exc)
                raise

    async with serving(network, nursery, handler) as (server, events):
        peer = await network.raw_connect(server.server_port())
        client = trio.SSLStream(trio.SocketStream(peer.sock), tls.client, server_hostname="peer.example")
        await client.do_handshake()
        peer.close()
        finished = await anext(events)
        assert await lives(network, server)

    assert finished.error is broken[0]
    assert broken[0].__cause__ is None
    assert [record.levelno for record in caplog.records] == [logging.INFO] * len(caplog.records)
    assert handler_failures() == []


async def test_an_unreadable_number_ends_no_server(
    network: Network, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, handler_failures: Failures
) -> None:
    """``int(line)`` of what a stranger sent."""

    async def handler(sock: TcpSocket) -> None:
        await sock.send_all(b"%d" % (2 * int(await sock.receive_line())))

    async with serving(network, nursery, handler) as (server, events):
        with await network.raw_connect(server.server_port()) as client:
            await client.send(b"seven\n")
            finished = await anext(events)
        assert await lives(network, server)

    assert isinstance(finished.error, ValueError)
    assert handler_failures() == [finished.error]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# ---- what always goes out ------------------------------------------------------------------------

STOPS: dict[str, BaseException] = {"Ctrl-C": KeyboardInterrupt(), "exit": SystemExit(3)}


@pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "not isolated"])
@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
async def test_what_ends_a_program_leaves_serve_and_the_servers_block_bare(
    network: Network, stop: BaseException, isolate: bool
) -> None:
    """Out of the handler, whatever that has around it, with others running: ``except KeyboardInterrupt`` finds it."""
    others = []

    async def handler(sock: TcpSocket) -> None:
        try:
            if await sock.receive_some() == b"stop":
                async with trio.open_nursery():
                    raise stop
        except trio.Cancelled:
            others.append(sock)
            raise

    caught: BaseException | None = None
    peers: list[RawPeer] = []
    try:
        async with TcpServer() as server:
            await server.listen(network.host)
            peers += [await network.raw_connect(server.server_port()) for _ in range(3)]
            await peers[0].send(b"stop")
            await until(lambda: server.connection_count() == 3)
            await server.serve(handler, isolate=isolate)
    except (KeyboardInterrupt, SystemExit) as exc:
        caught = exc
    for peer in peers:
        peer.close()

    assert caught is stop
    assert len(others) == 2


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
async def test_a_cancellation_at_the_same_time_does_not_wrap_it(network: Network, stop: BaseException) -> None:
    """The handler answers a cancellation from outside with it, and others are just cancelled."""
    entered = trio.Event()

    async def handler(sock: TcpSocket) -> None:
        try:
            entered.set()
            await trio.sleep_forever()
        finally:
            if stops.pop():
                raise stop

    stops = [False, True]
    caught: BaseException | None = None
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()), await network.raw_connect(server.server_port()):
            try:
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:

                        async def cancel() -> None:
                            await until(lambda: server.connection_count() == 2)
                            await trio.testing.wait_all_tasks_blocked()
                            scope.cancel()

                        nursery.start_soon(cancel)
                        try:
                            await server.serve(handler)
                        except BaseException as exc:
                            caught = exc
                            raise
            except BaseExceptionGroup:
                pass  # of the test's own nursery

    assert caught is stop


async def test_a_second_exception_beside_it_makes_a_group(network: Network) -> None:
    """Two handlers end the program at once; neither may hide the other."""
    gate = trio.Event()

    async def handler(sock: TcpSocket) -> None:
        await gate.wait()
        raise raised.pop()

    raised: list[BaseException] = [SystemExit(3), KeyboardInterrupt()]
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(network.host)

        async def open_gate() -> None:
            await until(lambda: server.connection_count() == 2)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()

        with await network.raw_connect(server.server_port()), await network.raw_connect(server.server_port()):
            nursery.start_soon(open_gate)
            with pytest.RaisesGroup(SystemExit, KeyboardInterrupt):
                await server.serve(handler)


# ---- a handler that is none ----------------------------------------------------------------------


def ordinary(sock: TcpSocket) -> None:
    """Not async."""


def gives_a_number(sock: TcpSocket) -> int:
    """Neither."""
    return 5


def generator(sock: TcpSocket) -> Any:
    """Not async either."""
    yield


async def async_generator(sock: TcpSocket) -> Any:
    """Async, and not to be awaited."""
    yield


def forgetful(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that does not give back what it got."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> None:
        function(*args)

    return wrapper


def plain_decorator(function: Callable[..., Any]) -> Callable[..., Any]:
    """One that does."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def give_name(function: Callable[..., Any]) -> Callable[..., Any]:
    """One that knows the first argument; ``inspect`` is told of the function within."""

    @functools.wraps(function)
    async def wrapper(sock: TcpSocket) -> Any:
        return await function(b"me", sock)

    return wrapper


async def of_default(sock: TcpSocket, text: bytes = b"hello") -> None:
    """With something that need not be given."""
    await sock.send_all(text)


class Greeter:
    """Methods, and a callable object."""

    async def greet(self, sock: TcpSocket) -> None:
        """As a handler."""
        await sock.send_all(b"hello")

    @staticmethod
    async def static(sock: TcpSocket) -> None:
        """Likewise."""
        await sock.send_all(b"hello")

    @classmethod
    async def of_class(cls, sock: TcpSocket) -> None:
        """Likewise."""
        await sock.send_all(b"hello")

    async def __call__(self, sock: TcpSocket) -> None:
        await sock.send_all(b"hello")

    def note(self, sock: TcpSocket) -> None:
        """Not async."""


class Noter:
    """A callable object that is not async."""

    def __call__(self, sock: TcpSocket) -> None:
        """Nothing."""


class Awaitable:
    """Made with the socket, and awaited."""

    def __init__(self, sock: TcpSocket) -> None:
        self.sock = sock

    def __await__(self) -> Any:
        return self.sock.send_all(b"hello").__await__()


async def greet(sock: TcpSocket) -> None:
    """As a handler should be."""
    await sock.send_all(b"hello")


async def greet_as(name: bytes, sock: TcpSocket) -> None:
    """With something before the socket."""
    await sock.send_all(b"hello")


async def of_streams(reader: object, writer: object) -> None:
    """As asyncio has it."""


async def of_nothing() -> None:
    """Nobody tells it which connection it is for."""


async def of_more(sock: TcpSocket, *, database: object) -> None:
    """A partial was forgotten."""


WRONG: dict[str, Any] = {
    "ordinary": ordinary,
    "gives a number": gives_a_number,
    "lambda": lambda sock: None,
    "generator": generator,
    "async generator": async_generator,
    "method": Greeter().note,
    "object": Noter(),
    "class": Greeter,
    "partial": functools.partial(ordinary),
    "partial of an object": functools.partial(Noter()),
    "decorated": forgetful(greet),
    "built-in": print,
    "of two": of_streams,
    "of none": of_nothing,
    "of a keyword too": of_more,
    "method of the class": Greeter.greet,
    "partial of too much": functools.partial(greet, TcpSocket()),
    "lambda of none": lambda: greet(TcpSocket()),
    "number": 5,
    "text": "greet",
    "nothing": None,
}

RIGHT: dict[str, Any] = {
    "function": greet,
    "lambda": lambda sock: greet(sock),
    "one of two": lambda sock: greet(sock) if sock.peer_port() else None,
    "method": Greeter().greet,
    "static method": Greeter.static,
    "class method": Greeter.of_class,
    "object": Greeter(),
    "awaitable class": Awaitable,
    "partial": functools.partial(greet_as, b"me"),
    "partial of a partial": functools.partial(functools.partial(greet_as), b"me"),
    "partial of a method": functools.partial(Greeter().greet),
    "decorated": plain_decorator(greet),
    "decorated twice": plain_decorator(plain_decorator(greet)),
    "decorated with more": plain_decorator(functools.partial(greet_as, b"me")),
    "gives what is missing": give_name(greet_as),
    "with a default": of_default,
}


@pytest.mark.parametrize("handler", WRONG.values(), ids=WRONG)
async def test_what_is_no_async_function_is_refused_before_the_first_client(network: Network, handler: Any) -> None:
    """TypeError, at once; nothing is served, and the server can be."""
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        with pytest.raises(TypeError, match=r"a handler is (an async function|called with one socket)"):
            await server.serve(handler)
        await nursery.start(server.serve, echo)
        with await network.raw_connect(server.server_port()) as client:
            assert await ask(client)
        nursery.cancel_scope.cancel()


async def test_a_coroutine_in_place_of_its_function_is_refused_and_leaves_no_warning(network: Network) -> None:
    """``serve(handler(...))``: it says what is wrong, and Python does not complain that nobody awaited it."""
    sock = TcpSocket()
    async with TcpServer() as server:
        await server.listen(network.host)
        with pytest.raises(TypeError, match="give the function, do not call it"):
            await server.serve(greet(sock))  # type: ignore[arg-type]


class Speechless:
    """Who prints it, fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


async def greet_for(owner: object, sock: TcpSocket) -> None:
    """With something before the socket that cannot be printed."""
    name = trio.lowlevel.current_task().name
    await sock.send_all(name.rpartition(".")[2].encode())


@pytest.mark.plain("the task begins with the handshake")
async def test_the_tasks_of_a_partial_are_named_for_what_it_calls(network: Network, nursery: trio.Nursery) -> None:
    """Whatever was given to it: its text may be long, or fail."""
    async with TcpServer() as server:
        await server.listen(network.host)
        await nursery.start(server.serve, functools.partial(greet_for, Speechless()))
        with await network.raw_connect(server.server_port()) as client:
            assert await client.receive_to_end() == b"greet_for"


@pytest.mark.parametrize("handler", RIGHT.values(), ids=RIGHT)
async def test_what_gives_something_to_await_is_a_handler(
    network: Network, nursery: trio.Nursery, handler: Any
) -> None:
    """Function, method, object, partial, lambda, decorated or not."""
    async with TcpServer() as server:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        with await network.raw_connect(server.server_port()) as client:
            assert await client.receive_to_end() == b"hello"


# ---- sockets of the user's classes ---------------------------------------------------------------


class Equal(TcpSocket):
    """All of them are equal, and so cannot be hashed."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    __hash__ = None  # type: ignore[assignment]


class SameHash(TcpSocket):
    """All of them are equal, and are the same key."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameHash)

    def __hash__(self) -> int:
        return 1


class Empty(TcpSocket):
    """It has a length, and that is 0: it is false."""

    def __len__(self) -> int:
        return 0


@pytest.mark.plain("its sockets are of classes of their own")
@pytest.mark.parametrize("kind", [Equal, SameHash, Empty])
async def test_the_books_are_kept_by_identity(network: Network, nursery: trio.Nursery, kind: type[TcpSocket]) -> None:
    """Served or pending, each has its slot; ended ones give it back; and the block ends what is left."""
    async with TcpServer(kind, max_connections=3) as server:
        await server.listen(network.host)
        peers = [await network.raw_connect(server.server_port()) for _ in range(3)]
        await until(lambda: server.connection_count() == 3)
        first = server.next_pending_connection()
        assert first is not None
        first.abort()
        counts = [server.connection_count()]
        await nursery.start(server.serve, echo)
        answered = [await ask(peer) for peer in peers[1:]]
        peers[1].close()
        await until(lambda: server.connection_count() == 1)
        counts.append(server.connection_count())
    ends = [await peers[0].receive_to_end(), await peers[2].receive_to_end()]
    for peer in peers:
        peer.close()

    assert (counts, answered, ends) == ([2, 1], [True, True], [b"", b""])
    assert server.connection_count() == 0


# ---- who meddles with what is ours ---------------------------------------------------------------


class NoBeginning(TcpSocket):
    """Its block cannot be entered."""

    async def __aenter__(self) -> NoBeginning:
        await trio.testing.wait_all_tasks_blocked()  # so that the peer knows that it is connected
        raise LookupError("no beginning")


class NoEnd(TcpSocket):
    """Its block fails before ours has ended the connection."""

    async def __aexit__(self, *exc_info: object) -> None:
        raise LookupError("no end")


class Forgetful(TcpSocket):
    """Its block has forgotten ``super()``, and swallows what is raised."""

    async def __aexit__(self, *exc_info: object) -> bool:  # type: ignore[override]
        return True


@pytest.mark.plain("its sockets are of classes of their own")
@pytest.mark.parametrize("kind", [NoBeginning, NoEnd, Forgetful])
async def test_a_class_with_a_bug_in_its_block_keeps_no_connection_open(
    network: Network, nursery: trio.Nursery, handler_failures: Failures, kind: type[TcpSocket]
) -> None:
    """The handler is over, so its peer sees a reset, and its slot is free: it waited for ever, and so did the next."""

    async def handler(sock: TcpSocket) -> None:
        await sock.send_all(b"answer")

    async with TcpServer(kind, max_connections=1) as server:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        ends = []
        for _ in range(3):
            with await network.raw_connect(server.server_port()) as client:
                ends.append(await client.how_it_ends())
        count = server.connection_count()

    assert (ends, count) == (["reset"] * 3, 0)
    assert [str(failure) for failure in handler_failures()] == {
        NoBeginning: ["no beginning"] * 3,
        NoEnd: ["no end"] * 3,
        Forgetful: [],
    }[kind]


@pytest.mark.unwatched("where somebody watches it is our task that waits first, and the handler that is told")
@pytest.mark.plain("what is below TLS is not the handler's to wait for")
@pytest.mark.parametrize("way", ["to receive", "to send"])
async def test_a_handler_that_waits_for_its_descriptor_itself_ends_no_server(
    network: Network, nursery: trio.Nursery, handler_failures: Failures, way: str
) -> None:
    """Trio lets one task wait for a descriptor.  Where the other one is ours that connection ends, by OPERATION."""
    kinds: list[ErrorKind | None] = []

    async def wait(sock: TcpSocket) -> None:
        native = sock._native()
        assert native is not None
        with pytest.raises(trio.ClosedResourceError):
            await (native.wait_readable() if way == "to receive" else native.wait_writable())  # type: ignore[union-attr]

    async def handler(sock: TcpSocket) -> None:
        if (await sock.receive_line()) != b"wait\n":
            await sock.send_all(b"answer")
            return
        sock.set_socket_option(SocketOption.SEND_BUFFER_SIZE, 4096)
        async with trio.open_nursery() as waiting:
            if way == "to receive":
                waiting.start_soon(wait, sock)
                await trio.testing.wait_all_tasks_blocked()
                async with sock.events():
                    await sock.wait_for_disconnected()
            else:
                link = sock._link
                assert link is not None
                while link.try_send(bytes(65536)):
                    pass
                waiting.start_soon(wait, sock)
                await trio.testing.wait_all_tasks_blocked()
                sock.write(bytes(65536))
                await sock.wait_for_disconnected()
            kinds.append(sock.error())

    async with serving(network, nursery, handler) as (server, events):
        with await network.raw_connect(server.server_port()) as client:
            await client.send(b"wait\n")
            await anext(events)
        with await network.raw_connect(server.server_port()) as client:
            await client.send(b"ask\n")
            answer = await client.receive_to_end()

    assert (kinds, answer) == ([ErrorKind.OPERATION], b"answer")
    failures = [failure.kind for failure in handler_failures() if isinstance(failure, SocketError)]
    assert failures == ([] if way == "to receive" else [ErrorKind.OPERATION])  # bytes that were queued are lost
