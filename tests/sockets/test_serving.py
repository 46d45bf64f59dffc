"""TcpServer.serve: a child task per connection, and how each of their ends is taken."""

from __future__ import annotations

import contextvars
import functools
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.networks import Loopback, Network, RawPeer
from tests.sockets.echoing import echo
from trioqt import (
    ConnectionFinished,
    ErrorKind,
    HostAddress,
    NewConnection,
    SocketError,
    SocketState,
    TcpServer,
    TcpSocket,
)

OVER_TLS = True

Handler = Callable[[TcpSocket], Awaitable[object]]
Failures = Callable[[], list[Exception]]


async def start(
    nursery: trio.Nursery, server: TcpServer[Any], network: Network, handler: Handler, *, isolate: bool = False
) -> None:
    """Listen, and serve in ``nursery``."""
    await server.listen(network.host)
    await nursery.start(functools.partial(server.serve, handler, isolate=isolate))


async def answers(network: Network, server: TcpServer[Any]) -> bool:
    """Does a new client of an echo server get its answer?"""
    with await network.raw_connect(server.server_port()) as client:
        await client.send(b"hello")
        return await client.receive(5) == b"hello"


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions themselves; trio may have rebuilt the groups around them."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


async def serve_until(
    entered: trio.Event, server: TcpServer[Any], handler: Handler, *, isolate: bool = False
) -> trio.CancelScope:
    """Serve until a handler has set ``entered``, and then be cancelled; by this scope."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(server.serve, handler, isolate=isolate))
            await entered.wait()
            scope.cancel()
    return scope


def failing_when_cancelled(error: Exception, entered: trio.Event) -> Handler:
    """A handler with a nursery, which ends by ``error`` and the cancellation at once."""

    async def fails() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    async def handler(sock: TcpSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fails)
            await trio.testing.wait_all_tasks_blocked()
            entered.set()
            await trio.sleep_forever()

    return handler


async def raise_beside_another(
    network: Network, server: TcpServer[Any], events: AsyncIterator[ConnectionFinished]
) -> tuple[int, str, ConnectionFinished, bytes]:
    """One client lets its handler raise, another one goes on.

    | the port of the one | how it ended for it | the event of its end | what the other one received |
    """
    with await network.raw_connect(server.server_port()) as other:
        with await network.raw_connect(server.server_port()) as client:
            port = client.sock.getsockname()[1]
            await client.send(b"raise")
            end = await client.how_it_ends()
        finished = await anext(events)
        await other.send(b"hello")
        return port, end, finished, await other.receive(5)


# ---- A task for each -----------------------------------------------------------------------------


async def test_each_connection_gets_a_child_task_of_serve(network: Network) -> None:
    """Three clients are served at once, by three tasks whose parent is the one that serves."""
    parents = []

    async def handler(sock: TcpSocket) -> None:
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        parents.append(nursery.parent_task)
        await echo(sock)

    async def serve(task_status: trio.TaskStatus[trio.lowlevel.Task]) -> None:
        async with TcpServer() as server:
            await server.listen(network.host)
            server_port.append(server.server_port())
            task_status.started(trio.lowlevel.current_task())
            await server.serve(handler)

    server_port: list[int] = []
    async with trio.open_nursery() as nursery:
        task = await nursery.start(serve)
        clients = [await network.raw_connect(server_port[0]) for _ in range(3)]
        got = []
        for number in (2, 0, 1):  # in another order than they came
            await clients[number].send(b"%d" % number)
            got.append(await clients[number].receive(1))
        for client in clients:
            client.close()
        nursery.cancel_scope.cancel()

    assert got == [b"2", b"0", b"1"]
    assert parents == [task] * 3


async def test_the_server_is_told_to_whoever_started_serve(network: Network, nursery: trio.Nursery) -> None:
    """``await nursery.start(server.serve, handler)`` gives the server, once it serves."""
    async with TcpServer() as server:
        await server.listen(network.host)
        told = await nursery.start(server.serve, echo)

        assert told is server
        assert await answers(network, server)


async def test_connections_that_came_before_serve_are_served_in_their_order(network: Network) -> None:
    """They wait in the pending queue, some in the kernel's, and none is forgotten."""
    served: list[int] = []
    done = trio.Event()

    async def handler(sock: TcpSocket) -> None:
        served.append(sock.peer_port())
        if len(served) == 5:
            done.set()
        await echo(sock)

    async with trio.open_nursery() as nursery, TcpServer() as server:
        server.set_max_pending_connections(2)
        await server.listen(network.host)
        clients = [await network.raw_connect(server.server_port()) for _ in range(5)]
        came = [client.sock.getsockname()[1] for client in clients]
        await trio.testing.wait_all_tasks_blocked()
        pending = server.connection_count()
        nursery.start_soon(server.serve, handler)
        await done.wait()
        counts = (server.connection_count(), server.has_pending_connections())
        for client in clients:
            client.close()

    assert pending == 2
    # The first two were pending, in their order; trio runs tasks that begin together in any order.
    assert set(served) == set(came)
    assert set(served[:2]) == set(came[:2])
    assert counts == (5, False)


async def test_a_handler_sees_the_context_of_who_serves(network: Network, nursery: trio.Nursery) -> None:
    """Not that of who listened, nor of who accepted; and what it sets there stays its own."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")
    seen = []

    async def handler(sock: TcpSocket) -> None:
        seen.append(variable.get())
        variable.set("a handler's")
        await sock.send_all(variable.get().encode())

    async def serve(task_status: trio.TaskStatus[Any]) -> None:
        variable.set("the server's")
        await server.serve(handler, task_status=task_status)

    async with TcpServer() as server:
        variable.set("the listener's")
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as early:
            await server.wait_for_new_connection()
            await nursery.start(serve)
            first = await early.receive_to_end()
        with await network.raw_connect(server.server_port()) as late:
            second = await late.receive_to_end()

    assert seen == ["the server's", "the server's"]
    assert [first, second] == [b"a handler's", b"a handler's"]
    assert variable.get() == "the listener's"


async def test_a_connection_can_be_given_to_serve(network: Network, nursery: trio.Nursery) -> None:
    """``add_pending_connection``: from elsewhere, over any stream; it is no connection of the server's own."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpServer() as server, server.events() as events:
        await start(nursery, server, network, echo)
        server.add_pending_connection(TcpSocket.from_stream(ours))
        await theirs.send_all(b"hello")
        got = await theirs.receive_some()
        counted = server.connection_count()
        await theirs.send_eof()
        end = await theirs.receive_some()

        assert (got, end, counted) == (b"hello", b"", 0)
        assert [await anext(events), await anext(events)] == [
            NewConnection(),
            ConnectionFinished(HostAddress.NULL, 0, None),
        ]
        with pytest.raises(TypeError):
            server.add_pending_connection(theirs)  # type: ignore[arg-type]


async def test_a_handler_can_be_interrupted_and_serve_cannot_be_torn(network: Network, nursery: trio.Nursery) -> None:
    """Ctrl-C lands in the user's code, as everywhere in trio, and never between two lines of ours."""
    protected: dict[str, bool] = {}

    class Status(trio.TaskStatus[Any]):
        def started(self, value: object = None) -> None:
            protected["serve"] = trio.lowlevel.currently_ki_protected()

    class Told(TcpSocket):
        def _accepted(self, *args: Any) -> None:
            protected["accepting"] = trio.lowlevel.currently_ki_protected()
            super()._accepted(*args)

    def make() -> TcpSocket:
        protected["factory"] = trio.lowlevel.currently_ki_protected()
        return Told()

    async def handler(sock: TcpSocket) -> None:
        protected["handler"] = trio.lowlevel.currently_ki_protected()

    async with TcpServer(make) as server:
        await server.listen(network.host)
        nursery.start_soon(functools.partial(server.serve, handler, task_status=Status()))
        with await network.raw_connect(server.server_port()) as client:
            assert await client.receive_to_end() == b""

    assert protected == {"serve": True, "factory": False, "accepting": True, "handler": False}


# ---- Ends ----------------------------------------------------------------------------------------


async def test_what_a_handler_queued_is_sent_after_it_returned(network: Network, nursery: trio.Nursery) -> None:
    """Its block ends normally, which flushes; the peer gets everything, then a clean end."""
    data = bytes(range(256)) * 40_000  # 10 MB: more than any kernel buffer on the way
    queued = []

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_exactly(3)
        sock.write(data)
        queued.append(sock.bytes_to_write())

    async with TcpServer() as server:
        await start(nursery, server, network, handler)
        with await network.raw_connect(server.server_port()) as client:
            await client.send(b"get")
            got = await client.receive_to_end()

    assert queued[0] > 0
    assert got == data


def broken_by(cause: BaseException) -> trio.BrokenResourceError:
    """What a trio stream raises that is laid over a socket."""
    error = trio.BrokenResourceError("of a stream over the socket")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        broken_by(ssl.SSLEOFError(8, "no goodbye")),
        SocketError(ErrorKind.REMOTE_HOST_CLOSED, "gone"),
        SocketError(ErrorKind.LIMIT_EXCEEDED, "too long a line"),
        trio.ClosedResourceError("ended by a watchdog"),
        ExceptionGroup("of a nursery", [SocketError(ErrorKind.NETWORK, "gone"), trio.ClosedResourceError()]),
        ExceptionGroup("of two nurseries", [ExceptionGroup("inner", [SocketError(ErrorKind.NETWORK, "gone")])]),
    ],
    ids=["broken TLS", "socket error", "limit", "closed", "group", "nested group"],
)
async def test_a_vanished_peer_is_no_bug(
    network: Network, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, error: Exception, isolate: bool
) -> None:
    """P1: it ends its handler and no more; nothing is logged, it is told to who asked, and the others are served."""

    async def handler(sock: TcpSocket) -> None:
        if await sock.receive_exactly(5) == b"raise":
            raise error
        await sock.send_all(b"hello")

    async with TcpServer() as server, server.events(ConnectionFinished) as events:
        await start(nursery, server, network, handler, isolate=isolate)
        port, end, finished, got = await raise_beside_another(network, server, events)

        assert (end, got) == ("reset", b"hello")
        assert finished == ConnectionFinished(HostAddress.LOCAL_HOST, port, error)
        assert finished.error is error
        assert await answers(network, server)
    assert caplog.records == []


async def test_thirty_peers_that_reset_end_thirty_handlers_and_no_more(
    network: Network, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """The same with real resets, in the middle of a message, among clients that stay."""
    async with TcpServer() as server, server.events(ConnectionFinished) as events:
        await start(nursery, server, network, lambda sock: sock.receive_exactly(1 << 20))
        bad = [await network.raw_connect(server.server_port()) for _ in range(30)]
        good = await network.raw_connect(server.server_port())
        for client in bad:
            await client.send(b"half a mess")
        for client in bad:
            client.reset()
        kinds = []
        for _ in range(30):
            error = (await anext(events)).error
            assert isinstance(error, SocketError)
            kinds.append(error.kind)
        with good:
            await good.send(bytes(1 << 20))
            finished = await anext(events)
            end = await good.receive_to_end()

        assert kinds == [ErrorKind.REMOTE_HOST_CLOSED] * 30
        assert (finished.error, end) == (None, b"")
        assert server.connection_count() == 0
    assert caplog.records == []


BUGS = [
    ValueError("a bug"),
    OSError("of a file"),
    broken_by(SocketError(ErrorKind.OPERATION, "a mistake below TLS")),
    trio.BusyResourceError("two receivers"),
    SocketError(ErrorKind.OPERATION, "a mistake of the program's"),
    ExceptionGroup("mixed", [SocketError(ErrorKind.NETWORK, "gone"), ValueError("a bug")]),
    ExceptionGroup("nested", [ExceptionGroup("inner", [SocketError(ErrorKind.OPERATION, "a mistake")])]),
]
BUG_NAMES = [
    "value",
    "os",
    "broken by a mistake",
    "busy",
    "operation",
    "mixed group",
    "nested operation",
]


@pytest.mark.parametrize("bug", BUGS, ids=BUG_NAMES)
async def test_a_bug_goes_out_of_serve_in_a_group_and_cancels_the_other_handlers(
    network: Network, bug: Exception
) -> None:
    """As in any nursery.  Its peer sees a reset, those of the cancelled ones the end, and every slot is free."""
    cancelled = []

    async def handler(sock: TcpSocket) -> None:
        try:
            if await sock.receive_some() == b"raise":
                raise bug
        except trio.Cancelled:
            cancelled.append(sock)
            raise

    caught: BaseException | None = None
    async with TcpServer() as server:
        await server.listen(network.host)
        clients = [await network.raw_connect(server.server_port()) for _ in range(3)]
        await clients[1].send(b"raise")
        try:
            await server.serve(handler, isolate=False)
        except BaseException as exc:
            caught = exc
        ends = [await client.how_it_ends() for client in clients]
        for client in clients:
            client.close()

        assert isinstance(caught, ExceptionGroup)
        assert len(caught.exceptions) == 1
        assert leaves(caught) == leaves(bug)
        assert len(cancelled) == 2
        assert ends == ["end", "reset", "end"]
        assert server.connection_count() == 0
        assert not server.is_listening()  # nobody serves, so nobody is let in


@pytest.mark.parametrize("bug", BUGS, ids=BUG_NAMES)
async def test_isolate_keeps_a_bug_to_its_connection(
    network: Network,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    handler_failures: Failures,
    bug: Exception,
) -> None:
    """It is logged with its traceback and told as an event; its peer sees a reset; the others notice nothing."""

    async def handler(sock: TcpSocket) -> None:
        async for chunk in sock:
            if chunk == b"raise":
                raise bug
            await sock.send_all(chunk)

    async with TcpServer() as server, server.events(ConnectionFinished) as events:
        await start(nursery, server, network, handler, isolate=True)
        port, end, finished, got = await raise_beside_another(network, server, events)

        assert (end, got) == ("reset", b"hello")
        assert finished == ConnectionFinished(HostAddress.LOCAL_HOST, port, bug)
        assert finished.error is bug
        assert await answers(network, server)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trioqt.server", logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[1] is bug
    assert "in handler" in caplog.text  # the traceback's
    assert handler_failures() == [bug]


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=["Ctrl-C", "exit"])
async def test_an_interrupt_and_an_exit_always_go_out(network: Network, error: BaseException, isolate: bool) -> None:
    """They are meant for the program, so ``isolate`` does not keep them, and ``except`` finds them as what they are."""

    async def handler(sock: TcpSocket) -> None:
        await sock.receive_some()
        raise error

    caught: BaseException | None = None
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:
            await client.send(b"now")
            try:
                await server.serve(handler, isolate=isolate)
            except BaseException as exc:
                caught = exc

            assert caught is error
            assert await client.how_it_ends() == "reset"


@pytest.mark.parametrize("isolate", [False, True])
async def test_cancelling_serve_cancels_every_handler(
    network: Network, caplog: pytest.LogCaptureFixture, isolate: bool
) -> None:
    """Their sockets are aborted, the cancellation goes out, it listens no more, and could listen and serve again."""
    entered = trio.Event()
    errors: list[BaseException | None] = []

    async def handler(sock: TcpSocket) -> None:
        sock.write(bytes(16 << 20))
        entered.set()
        await trio.sleep_forever()

    async with TcpServer() as server, server.events(ConnectionFinished) as events:
        await server.listen(network.host)
        client = await network.raw_connect(server.server_port())
        scope = await serve_until(entered, server, handler, isolate=isolate)
        errors.append((await anext(events)).error)
        with client, pytest.raises(ConnectionResetError):  # bytes were dropped
            await client.receive_to_end()

        assert scope.cancelled_caught
        assert isinstance(errors[0], trio.Cancelled)
        assert (server.connection_count(), server.is_listening()) == (0, False)
        async with trio.open_nursery() as nursery:
            await start(nursery, server, network, echo)
            assert await answers(network, server)
            server.close()
    assert caplog.records == []


@pytest.mark.parametrize("isolate", [False, True])
async def test_a_group_of_a_cancellation_and_a_vanished_peer_is_a_cancellation(
    network: Network, caplog: pytest.LogCaptureFixture, isolate: bool
) -> None:
    """A handler with a nursery of its own may end by both at once.

    The SocketError in such a group used to go out of a cancelled ``serve`` as if it were a bug.
    """
    gone = SocketError(ErrorKind.REMOTE_HOST_CLOSED, "gone meanwhile")
    entered = trio.Event()
    errors: list[BaseException | None] = []

    async with TcpServer() as server, server.events(ConnectionFinished) as events:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            scope = await serve_until(entered, server, failing_when_cancelled(gone, entered), isolate=isolate)
            errors.append((await anext(events)).error)

    assert scope.cancelled_caught
    assert isinstance(errors[0], BaseExceptionGroup)  # the fault did happen
    assert errors[0].subgroup(SocketError) is not None
    assert errors[0].subgroup(trio.Cancelled) is not None
    assert caplog.records == []


async def test_isolate_keeps_a_bug_that_comes_with_a_cancellation(
    network: Network, caplog: pytest.LogCaptureFixture, handler_failures: Failures
) -> None:
    """The bug is logged, the cancellation goes out, alone."""
    bug = ValueError("a bug in the clean-up")
    entered = trio.Event()

    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            scope = await serve_until(entered, server, failing_when_cancelled(bug, entered), isolate=True)

    assert scope.cancelled_caught
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ExceptionGroup)
    assert record.exc_info[1].subgroup(ValueError) is not None
    assert handler_failures() == [record.exc_info[1]]


async def test_without_isolate_a_bug_that_comes_with_a_cancellation_goes_out(network: Network) -> None:
    """Then it is as loud as any other bug."""
    entered = trio.Event()

    async def handler(sock: TcpSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.testing.wait_all_tasks_blocked()
                entered.set()
                await trio.sleep_forever()
            finally:
                raise ValueError("a bug in the clean-up")

    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
                await serve_until(entered, server, handler)


async def test_an_interrupt_goes_out_of_a_mixed_group_alone_if_isolated(
    network: Network, caplog: pytest.LogCaptureFixture, handler_failures: Failures
) -> None:
    """The bug beside it stays here, logged."""
    bug = ValueError("a bug")

    async def handler(sock: TcpSocket) -> None:
        raise BaseExceptionGroup("both", [KeyboardInterrupt(), bug])

    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            with pytest.raises(KeyboardInterrupt):
                await server.serve(handler, isolate=True)

    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ExceptionGroup)
    assert record.exc_info[1].exceptions == (bug,)
    assert handler_failures() == [record.exc_info[1]]


async def test_a_handler_that_gives_nothing_to_await_is_a_bug(network: Network) -> None:
    """A lambda may give an awaitable, so what it gives can be judged only when it is called."""
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:
            with pytest.RaisesGroup(TypeError):
                await server.serve(lambda sock: sock.peer_port(), isolate=False)  # type: ignore[arg-type, return-value]
            assert await client.how_it_ends() == "reset"


async def test_a_peer_that_takes_nothing_is_cut_after_flush_timeout(
    network: Network, nursery: trio.Nursery, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler has returned; its connection holds a slot for ``flush_timeout`` and no longer, and that is no bug."""

    async def handler(sock: TcpSocket) -> None:
        sock.write(bytes(16 << 20))

    async with TcpServer(lambda: TcpSocket(flush_timeout=7)) as server, server.events(ConnectionFinished) as events:
        await start(nursery, server, network, handler)
        with await network.raw_connect(server.server_port()) as client:
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(6.5)
            await trio.testing.wait_all_tasks_blocked()
            before = server.connection_count()
            mock_clock.jump(8)
            error = (await anext(events)).error
            with pytest.raises(ConnectionResetError):
                await client.receive_to_end()

        assert (before, server.connection_count()) == (1, 0)
        assert isinstance(error, SocketError)
        assert error.kind is ErrorKind.SOCKET_TIMEOUT
        with await network.raw_connect(server.server_port()):
            pass  # still listening
    assert caplog.records == []


async def test_a_handler_may_enter_its_socket_and_may_end_it_itself(network: Network, nursery: trio.Nursery) -> None:
    """The inner exit ends the connection, ``abort`` and ``aclose`` do; serve's own exit finds nothing to do."""
    states = []

    async def handler(sock: TcpSocket) -> None:
        match await sock.receive_exactly(1):
            case b"e":
                async with sock:
                    await sock.send_all(b"entered")
            case b"c":
                await sock.send_all(b"closed")
                await sock.aclose()
            case b"d":
                await sock.send_all(b"disconnected")
                await sock.disconnect_from_host()
            case b"a":
                sock.abort()
        states.append((sock.state(), server.connection_count()))

    async with TcpServer() as server, server.events(ConnectionFinished) as events:
        await start(nursery, server, network, handler)
        got, errors = [], []
        for way in b"ecda":
            with await network.raw_connect(server.server_port()) as client:
                await client.send(bytes([way]))
                got.append(await client.receive_to_end())
            errors.append((await anext(events)).error)

    assert got == [b"entered", b"closed", b"disconnected", b""]
    assert states == [(SocketState.UNCONNECTED, 0)] * 4
    assert errors == [None] * 4


# ---- The end of serving --------------------------------------------------------------------------


async def test_close_lets_the_handlers_finish_and_then_serve_returns(network: Network) -> None:
    """A soft stop: nobody new is served, who is being served is served to the end."""
    returned = trio.Event()

    async def serve() -> None:
        await server.serve(echo)
        returned.set()

    async with trio.open_nursery() as nursery, TcpServer() as server:
        await server.listen(network.host)
        port = server.server_port()
        nursery.start_soon(serve)
        with await network.raw_connect(port) as client:
            await client.send(b"one")
            first = await client.receive(3)
            server.close()
            await trio.testing.wait_all_tasks_blocked()
            early = returned.is_set()
            with pytest.raises(ConnectionRefusedError):
                await network.raw_connect(port)
            await client.send(b"two")
            second = await client.receive(3)
            client.finish()
            end = await client.receive_to_end()
        await returned.wait()

    assert (first, second, end) == (b"one", b"two", b"")
    assert not early


async def test_a_handler_may_close_the_server(network: Network) -> None:
    """Then serve, in the server's own body, returns once that handler has."""
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as client:

            async def handler(sock: TcpSocket) -> None:
                server.close()
                await sock.send_all(b"the last one")

            await server.serve(handler)

            assert await client.receive_to_end() == b"the last one"
        assert not server.is_listening()


async def test_leaving_the_block_cancels_a_serve_that_runs_elsewhere(network: Network) -> None:
    """Law 3: the server's scope ends serve and every handler, in whatever nursery they are."""
    ended = []

    async def handler(sock: TcpSocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("handler")

    async def serve() -> None:
        await server.serve(handler)
        ended.append("serve")

    async with trio.open_nursery() as outer:
        async with TcpServer() as server:
            await server.listen(network.host)
            outer.start_soon(serve)
            clients = [await network.raw_connect(server.server_port()) for _ in range(2)]
            while server.connection_count() < 2 or server.has_pending_connections():
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
        counted = server.connection_count()
        ends = [await client.receive_to_end() for client in clients]
        for client in clients:
            client.close()

    assert ended == ["handler", "handler", "serve"]
    assert (counted, ends) == (0, [b"", b""])


async def test_a_server_can_serve_again_after_close(network: Network) -> None:
    """Listen, serve, close, as often as one likes."""
    async with trio.open_nursery() as nursery, TcpServer() as server:
        for _ in range(3):
            await start(nursery, server, network, echo)
            assert await answers(network, server)
            server.close()
            await trio.testing.wait_all_tasks_blocked()

    assert not server.is_listening()


# Loopback: a descriptor is handed over.
async def test_a_serve_that_is_ending_gets_no_connection_of_the_next_listening(network: Loopback) -> None:
    """Closed and listening again in one step, while a handler of the old serve still runs: that one waits for its
    handler only, and the new connection is for whoever takes it, at once.
    """
    handled = []

    async def handler(sock: TcpSocket) -> None:
        handled.append(sock.peer_port())
        await echo(sock)

    handed = socket.socket()
    handed.bind((network.host, 0))
    handed.listen()
    port = handed.getsockname()[1]
    async with trio.open_nursery() as nursery, TcpServer() as server:
        with await network.raw_connect(port) as new:
            await start(nursery, server, network, handler)
            with await network.raw_connect(server.server_port()) as old:
                await old.send(b"x")
                await old.receive(1)
                server.close()
                server.set_socket_descriptor(handed.detach())
                sock = await server.accept()
                await old.send(b"y")
                still_served = await old.receive(1)

            assert still_served == b"y"
            assert len(handled) == 1
            assert sock.peer_port() == new.sock.getsockname()[1]


# ---- Refused -------------------------------------------------------------------------------------


async def test_only_one_task_takes_connections(network: Network, nursery: trio.Nursery) -> None:
    """serve, accept and ``async for`` exclude each other; the refused one has changed nothing."""
    async with TcpServer() as server:
        await start(nursery, server, network, echo)
        with pytest.raises(trio.BusyResourceError):
            await server.serve(echo)
        with pytest.raises(trio.BusyResourceError):
            await server.accept()
        with pytest.raises(trio.BusyResourceError):
            async for _ in server:
                pass

        assert await answers(network, server)


async def test_serve_is_refused_while_a_task_accepts_and_not_after_it_was_cancelled(
    network: Network, nursery: trio.Nursery
) -> None:
    """Busy only while the other one really waits."""

    async def accept(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await server.accept()

    async with TcpServer() as server:
        await server.listen(network.host)
        scope = await nursery.start(accept)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await server.serve(echo)
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await nursery.start(server.serve, echo)

        assert await answers(network, server)


async def test_serving_needs_a_server_that_listens(network: Network) -> None:
    """OPERATION if it never did, closed if it has stopped; and serving is possible afterwards."""
    async with TcpServer() as server:
        with pytest.raises(SocketError) as caught:
            await server.serve(echo)
        await server.listen(network.host)
        server.close()
        with pytest.raises(trio.ClosedResourceError):
            await server.serve(echo)
        async with trio.open_nursery() as nursery:
            await start(nursery, server, network, echo)
            assert await answers(network, server)
            server.close()

    assert caught.value.kind is ErrorKind.OPERATION
    with pytest.raises(trio.ClosedResourceError):
        await server.serve(echo)


async def test_a_bad_peer_and_a_good_one_end_in_the_order_they_ended(network: Network, nursery: trio.Nursery) -> None:
    """ConnectionFinished is a fact: one for each handler, in order, with the peer that it was, even a vanished one."""
    peers: list[RawPeer] = []
    async with TcpServer() as server, server.events() as events:
        await start(nursery, server, network, echo)
        finished = []
        for ending in ("finish", "reset"):
            peers.append(await network.raw_connect(server.server_port()))
            port = peers[-1].sock.getsockname()[1]
            await peers[-1].send(b"x")
            await peers[-1].receive(1)
            assert await anext(events) == NewConnection()
            getattr(peers[-1], ending)()
            event = await anext(events)
            assert isinstance(event, ConnectionFinished)
            finished.append((event.peer, event.peer_port == port, type(event.error)))
        peers[0].close()

    assert finished == [(HostAddress.LOCAL_HOST, True, type(None)), (HostAddress.LOCAL_HOST, True, SocketError)]
