"""A cancelled accept lost no connection, a cancelled ``serve`` leaves none behind, and slots are exact."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import attrs
import trio

from tests.cancel.connecting import REFUSING, Resolver
from tests.cancel.kit import (
    GOOD,
    NETWORKS,
    Case,
    Medium,
    Play,
    Seen,
    Situation,
    SocketPeer,
    Trial,
    connect_now,
    listen_now,
    read_to_end,
    turn,
)
from tests.cancel.watching import all_steps
from trioqt import ConnectionFinished, Event, NewConnection, ProxyKind, SocketError, SocketState, TcpServer, TcpSocket
from trioqt.testing import ScriptedProxy

__all__ = ["CASES", "NAMES", "Client", "Echo", "Manner", "cancelled_twice", "come", "serve_two_more"]

T = TypeVar("T")

NAMES = (b"alice", b"bob", b"carol", b"dave")

Manner = Literal["asks", "finishes", "resets"]


@attrs.define(eq=False)
class Client:
    """It connects, says its name, and reads to the end."""

    name: bytes
    seen: Seen = attrs.Factory(Seen)
    port: int = 0

    async def run(self, server_port: int, manner: Manner) -> None:
        try:
            peer = SocketPeer(connect_now(GOOD, server_port))
        except ConnectionRefusedError:
            self.seen.over.set()  # the server was closed meanwhile
            return
        self.port = peer.sock.getsockname()[1]
        peer.send_now(self.name)
        if manner == "resets":
            peer.reset()
            self.seen.over.set()
        else:
            if manner == "finishes":
                peer.finish()
            await read_to_end(peer, self.seen)


async def come(trial: Trial, port: int, clients: Sequence[Client], manner: Manner = "asks") -> None:
    """One client a turn; two come together at last."""
    for number, client in enumerate(clients):
        if number < len(clients) - 1:
            await turn()
        trial.nursery.start_soon(client.run, port, manner)


Step = Callable[[TcpServer[TcpSocket]], Callable[[], Awaitable[TcpSocket]]]


def by_waiting(server: TcpServer[TcpSocket]) -> Callable[[], Awaitable[TcpSocket]]:
    async def wait_for_new_connection() -> TcpSocket:
        await server.wait_for_new_connection()
        sock = server.next_pending_connection()
        assert sock is not None
        return sock

    return wait_for_new_connection


STEPS: dict[str, Step] = {
    "accept": lambda server: server.accept,
    "__aiter__": lambda server: aiter(server).__anext__,
    "wait_for_new_connection": by_waiting,
}

Beside = Callable[[Trial, TcpServer[TcpSocket]], Awaitable[None]]


def accepting(
    step: Step,
    *,
    waiting: bool = False,
    manner: Manner = "asks",
    beside: Beside | None = None,
    limit: int | None = None,
    twice: bool = False,
) -> Play:
    """Every client is served once, whatever was cancelled.

    Args:
      waiting: All of them are in the pending queue, or in the kernel's, when it begins.
      beside: What another task does meanwhile.
      twice: A second cancellation follows the first one.
    """

    async def play(trial: Trial) -> None:
        clients = [Client(name) for name in NAMES]
        served: list[bytes] = []
        async with trial.server(max_connections=limit) as server:
            server.set_max_pending_connections(2)
            await server.listen(GOOD)
            if waiting:
                await come(trial, server.server_port(), clients, manner)
                await turn()
            else:
                trial.nursery.start_soon(come, trial, server.server_port(), clients, manner)
            if beside is not None:
                trial.nursery.start_soon(beside, trial, server)
            while len(served) < len(clients):
                first = twice and not trial.probe.injected
                sock = await (cancelled_twice(trial, step(server)) if first else trial.call(step(server)))
                if sock is None:
                    continue
                try:
                    async with sock:
                        served.append(await sock.receive_exactly(1))
                        served[-1] += sock.read_all()  # a peer that has reset is found by the send at the latest
                        await sock.send_all(b"welcome")
                except SocketError as error:
                    trial.equal("kind", (manner, error.kind.name), ("resets", "REMOTE_HOST_CLOSED"))
                trial.equal("slots taken", server.connection_count(), len(server._pending))
            trial.equal("pending", server.has_pending_connections(), False)
            trial.equal("connections", server.connection_count(), 0)
        trial.equal("served", sorted(served), sorted(NAMES))
        for client in clients:
            await client.seen.over.wait()
            if manner != "resets":
                view = (bytes(client.seen.data), client.seen.end)
                trial.equal(f"what {client.name.decode()} saw", view, (b"welcome", "clean"))

    return play


def stopped(step: Step, *, aclose: bool) -> Play:
    """Another task stops listening while one waits for a connection: it is told, and the pending ones are aborted."""

    async def play(trial: Trial) -> None:
        client = Client(b"late")
        ends: list[str] = []

        async def stop() -> None:
            await turn(2)
            if aclose:
                await server.aclose()
            else:
                server.close()

        async with trial.server() as server:
            await server.listen(GOOD)
            trial.nursery.start_soon(stop)
            while not ends:
                try:
                    await trial.call(step(server))
                except (trio.ClosedResourceError, StopAsyncIteration):
                    ends.append("told")
            trial.equal("listening", server.is_listening(), False)
            trial.equal("connections", server.connection_count(), 0)
            if not aclose:
                await server.listen(GOOD)
                trial.nursery.start_soon(client.run, server.server_port(), "asks")
                async with await server.accept() as sock:
                    trial.equal("received", await sock.receive_exactly(4), b"late")

    return play


async def busy(trial: Trial, server: TcpServer[TcpSocket]) -> None:
    """A second one is refused while one accepts, and disturbs nothing."""
    try:
        await server.serve(TcpSocket.aclose)
    except (trio.BusyResourceError, trio.ClosedResourceError) as exc:
        trial.expect(isinstance(exc, trio.BusyResourceError) or trial.probe.injected, "the first one goes on")
        return
    trial.expect(False, "the second one is refused")


async def watcher(trial: Trial, server: TcpServer[TcpSocket]) -> None:
    """Others look on: a subscriber, and one who waits for a connection without taking it."""
    trial.nursery.start_soon(server.wait_for_new_connection)
    async with server.events() as events:
        async for _ in events:
            pass


# ---- serve -------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Echo:
    """A handler, and what it knows of its connections by their ports."""

    server: TcpServer[TcpSocket]
    cleans_up: bool = False
    started: list[int] = attrs.Factory(list)
    cut: list[int] = attrs.Factory(list)
    running: int = 0
    most: int = 0

    async def __call__(self, sock: TcpSocket) -> None:
        port = sock.peer_port()
        self.started.append(port)
        self.running += 1
        self.most = max(self.most, self.running, self.server.connection_count())
        try:
            while data := await sock.receive_some():
                await sock.send_all(data)
                await sock.send_eof()
        except trio.Cancelled:
            self.cut.append(port)
            if self.cleans_up:
                with trio.CancelScope(shield=True):
                    await turn(3)
            raise
        finally:
            self.running -= 1


# Of an address and in seconds; nobody reaches them, so nothing may differ.
BOUNDS = {"max_connections_per_peer": len(NAMES), "idle_limit": 3600, "stall_limit": 3600}


def serving(
    *,
    waiting: bool = False,
    manner: Manner = "asks",
    limit: int | None = None,
    beside: Beside | None = None,
    twice: bool = False,
    bounds: dict[str, int] | None = None,
) -> Play:
    """Every connection has one handler; who was not cut off has been served; no slot is left taken.

    A cancelled ``serve`` lets nobody in any more, and the server can listen and serve again.

    Args:
      twice: The handlers shield their clean-up, and in that another cancellation comes.
    """

    async def play(trial: Trial) -> None:
        clients = [Client(name) for name in NAMES]
        async with trial.server(max_connections=limit, **(bounds or {})) as server:
            echo = Echo(server, cleans_up=twice)
            server.set_max_pending_connections(2)
            await server.listen(GOOD)
            port = server.server_port()
            close_at_last = functools.partial(close_behind, server, clients)

            if waiting:
                await come(trial, port, clients, manner)
                await turn()
            else:
                trial.nursery.start_soon(come, trial, port, clients, manner)
            if not twice:
                trial.nursery.start_soon(close_at_last)
            if beside is not None:
                trial.nursery.start_soon(beside, trial, server)
            if twice:
                await cancelled_twice(trial, functools.partial(server.serve, echo), close_at_last)
            else:
                await trial.call(server.serve, echo)
            trial.equal("handlers", echo.running, 0)
            trial.equal("connections", server.connection_count(), 0)
            trial.equal("listening", server.is_listening(), False)
            if server._peer_limit is not None:
                trial.equal("addresses that count", dict(server._peer_limit._counts), {})
            if server._time_limits is not None:
                trial.equal("connections that are watched", server._time_limits._watched, {})
            for client in clients:
                await client.seen.over.wait()
            if trial.cancelled:
                await turn(2)  # until it has been closed
                await serve_two_more(trial, server, limit)
        trial.expect(limit is None or echo.most <= limit, f"{echo.most} at once are within the limit")
        for client in clients:
            if manner == "resets":
                continue
            began = echo.started.count(client.port)
            trial.expect(began == 1 or (began == 0 and trial.probe.injected), f"{client} has one handler")
            if began and client.port not in echo.cut:
                view = (bytes(client.seen.data), client.seen.end)
                trial.equal(f"what {client.name.decode()} saw", view, (client.name, "clean"))
            elif client.port and not began:
                trial.equal(f"what {client.name.decode()} saw", client.seen.end, "reset")
        trial.expect(trial.probe.injected or not echo.cut, "nobody is cut off without a cancellation")

    return play


def lending(*, waiting: bool = False) -> Play:
    """A descriptor is lent, and is the server's again; a cancelled ``serve_descriptors`` has cut off whom it served."""

    async def play(trial: Trial) -> None:
        clients = [Client(name) for name in NAMES]
        running, cut = 0, 0

        async def handler(descriptor: int) -> None:
            nonlocal running, cut
            running += 1
            try:
                with trio.socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as sock:
                    await sock.send(await sock.recv(100))
            except trio.Cancelled:
                cut += 1
                raise
            finally:
                running -= 1

        async with TcpServer() as server:  # of sockets that are the kernel's alone
            await server.listen(GOOD)
            if waiting:
                await come(trial, server.server_port(), clients)
                await turn()
            else:
                trial.nursery.start_soon(come, trial, server.server_port(), clients)
            trial.nursery.start_soon(close_behind, server, clients)
            await trial.call(server.serve_descriptors, handler)
            trial.equal("handlers", running, 0)
            trial.equal("connections", server.connection_count(), 0)
            trial.equal("listening", server.is_listening(), False)
            for client in clients:
                await client.seen.over.wait()
            if trial.cancelled:
                await turn(2)  # until it has been closed
                await serve_two_more(trial, server)
        trial.expect(trial.probe.injected or not cut, "nobody is cut off without a cancellation")
        for client in clients:
            view = (bytes(client.seen.data), client.seen.end)
            trial.expect(trial.probe.injected or view == (client.name, "clean"), f"{client} was answered")

    return play


async def close_behind(server: TcpServer[TcpSocket], clients: Sequence[Client]) -> None:
    """Stop listening once each of them has seen its end."""
    for client in clients:
        await client.seen.over.wait()
    await turn()
    server.close()


async def serve_two_more(trial: Trial, server: TcpServer[TcpSocket], limit: int | None = None) -> None:
    """It listens anew, and serves two who come together, within the limit."""
    clients = [Client(b"again"), Client(b"twice")]
    counts: list[int] = []

    async def handler(sock: TcpSocket) -> None:
        counts.append(server.connection_count())
        await turn()
        await sock.send_all(await sock.receive_exactly(5))
        if len(counts) == len(clients):
            server.close()

    await server.listen(GOOD)
    for client in clients:
        trial.nursery.start_soon(client.run, server.server_port(), "asks")
    await turn()
    await server.serve(handler)
    for client in clients:
        await client.seen.over.wait()
        trial.equal("what one saw who came then", (bytes(client.seen.data), client.seen.end), (client.name, "clean"))
    trial.expect(max(counts) <= (limit or len(clients)), f"{counts} are within the limit")


async def cancelled_twice(
    trial: Trial, call: Callable[[], Awaitable[T]], otherwise: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
) -> T | None:
    """The first cancellation is the walk's; the second one comes from outside, in what the first one brought about.

    Args:
      otherwise: What ends the call if there is no first one.
    """
    result: T | None = None
    with trio.CancelScope() as outer:
        async with trio.open_nursery() as nursery:

            async def cancel_again() -> None:
                await turn()
                while not trial.probe.injected:
                    await turn()
                outer.cancel()

            nursery.start_soon(cancel_again)
            nursery.start_soon(otherwise)
            result = await trial.call(call)
            nursery.cancel_scope.cancel()
    return result


async def finished_events(trial: Trial, server: TcpServer[TcpSocket]) -> None:
    """A subscriber hears of the end of each handler."""
    async with server.events(ConnectionFinished) as events:
        finished = [event.peer_port async for event in events]
    trial.equal("handlers told of, each once", len(set(finished)), len(finished))
    if not trial.probe.injected:
        trial.equal("handlers told of", len(finished), len(NAMES))


async def pause_for_a_while(trial: Trial, server: TcpServer[TcpSocket]) -> None:
    """Accepts nothing for two turns; whoever comes meanwhile waits in the kernel's queue."""
    server.pause_accepting()
    await turn(2)
    server.resume_accepting()


def stopped_serving(*, aclose: bool) -> Play:
    """Another task stops the server: handlers go on, then ``serve`` returns."""

    async def play(trial: Trial) -> None:
        clients = [Client(b"alice")]

        async def stop() -> None:
            await turn(3)
            if aclose:
                await server.aclose()
            else:
                server.close()

        async def handler(sock: TcpSocket) -> None:
            await turn(6)
            await sock.send_all(b"welcome")
            await sock.receive_exactly(5)

        async with trial.server() as server:
            await server.listen(GOOD)
            await come(trial, server.server_port(), clients)
            trial.nursery.start_soon(stop)
            await trial.call(server.serve, handler)
            trial.equal("connections", server.connection_count(), 0)
            trial.equal("listening", server.is_listening(), False)
        await clients[0].seen.over.wait()
        if not trial.cancelled:
            trial.equal("what alice saw", bytes(clients[0].seen.data), b"welcome")

    return play


# ---- listening and ending ----------------------------------------------------------------------------------------


@attrs.define(eq=False)
class SlowToGiveUp(Resolver):
    """A look-up that shields its clean-up."""

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().getaddrinfo(*args, **options)
        finally:
            with trio.CancelScope(shield=True):
                await turn(3)


def listening(host: str, addresses: tuple[str, ...] = (), *, beside: Beside | None = None, twice: bool = False) -> Play:
    """Cancelled: it does not listen, and can.

    Args:
      twice: The look-up of the name shields its clean-up, and in that another cancellation comes.
    """

    async def play(trial: Trial) -> None:
        trio.socket.set_custom_hostname_resolver(SlowToGiveUp(addresses) if twice else Resolver(addresses))
        client = Client(b"alice")
        async with trial.server() as server:
            if beside is not None:
                trial.nursery.start_soon(beside, trial, server)
            try:
                if twice:
                    await cancelled_twice(trial, functools.partial(server.listen, host))
                else:
                    await trial.call(server.listen, host)
            except (SocketError, trio.ClosedResourceError):
                # Another task was faster, and listens, or has closed the server.
                trial.expect(beside is not None, "nobody disturbs it")
                return
            if (trial.cancelled or (twice and trial.probe.injected)) and not server.is_listening():
                trial.equal("port", server.server_port(), 0)
                trial.equal("descriptor", server.socket_descriptor(), -1)
                try:
                    await server.listen(host)
                except (SocketError, trio.ClosedResourceError):
                    trial.expect(beside is not None, "nobody disturbs it")
                    return
            trial.nursery.start_soon(client.run, server.server_port(), "asks")
            async with await server.accept() as sock:
                trial.equal("received", await sock.receive_exactly(5), b"alice")

    return play


async def listen_called_off(trial: Trial) -> None:
    """Another task's close ends it while it looks up its name; cancelled or not, it does not listen, and can."""
    trio.socket.set_custom_hostname_resolver(Resolver((GOOD,)))
    async with trio.open_nursery() as nursery, trial.server() as server:

        async def close() -> None:
            await turn()
            server.close()

        nursery.start_soon(close)
        try:
            await trial.call(server.listen, "some.host")
        except trio.ClosedResourceError:
            pass
        else:
            trial.expect(trial.probe.injected, "the close calls it off")
        if server.is_listening():  # before the close, which was late then
            trial.expect(trial.probe.injected, "nothing else is in its way")
            server.close()
        trial.equal("port", server.server_port(), 0)
        await turn(2)
        await server.listen("some.host")
        trial.equal("listening", server.is_listening(), True)


async def listen_by_proxy(trial: Trial) -> None:
    """Cancelled, the proxy does not listen either; then it does, and what comes there is taken."""
    client = Client(b"alice")
    async with trio.open_nursery() as nursery:
        proxy = await nursery.start(ScriptedProxy(ProxyKind.SOCKS5).serve)
        async with trial.server() as server:
            server.set_proxy(proxy.network_proxy())
            await trial.call(server.listen, "0.0.0.0")
            if trial.cancelled:
                trial.equal("listening", server.is_listening(), False)
                await server.listen("0.0.0.0")
            trial.nursery.start_soon(client.run, server.server_port(), "asks")
            async with await server.accept() as sock:
                trial.equal("received", await sock.receive_exactly(5), b"alice")
        await turn(2)
        nursery.cancel_scope.cancel()


async def listen_in_use(trial: Trial) -> None:
    with listen_now(GOOD) as taken:
        async with trial.server() as server:
            try:
                await trial.call(server.listen, GOOD, taken.getsockname()[1])
            except SocketError as error:
                trial.equal("kind", error.kind.name, "ADDRESS_IN_USE")
            else:
                trial.expect(trial.cancelled, "the address is in use")
            trial.equal("listening", server.is_listening(), False)
            await server.listen(GOOD)


async def listen_too(trial: Trial, server: TcpServer[TcpSocket]) -> None:
    await turn()
    try:
        await server.listen(GOOD)
    except SocketError as error:
        trial.equal("kind", error.kind.name, "OPERATION")
    except trio.ClosedResourceError:
        pass  # the block was left meanwhile


async def close_it(trial: Trial, server: TcpServer[TcpSocket]) -> None:
    await server.aclose()


def ending(
    how: Literal["aclose", "block", "nested", "exception"],
    *,
    manner: Manner = "asks",
    serve: bool = False,
    twice: bool = False,
) -> Play:
    """A server with a connection that was taken and two that are pending; or all in handlers, which never end.

    ``aclose`` leaves the one that was taken alone, the block ends it.

    Args:
      twice: The handlers shield their clean-up, and in that another cancellation comes.
    """

    async def play(trial: Trial) -> None:
        clients = [Client(name) for name in NAMES]
        taken: list[TcpSocket] = []

        async def never_end(sock: TcpSocket) -> None:
            taken.append(sock)
            try:
                await trio.sleep_forever()
            finally:
                if twice:
                    with trio.CancelScope(shield=True):
                        await turn(3)

        async def body(server: TcpServer[TcpSocket], nursery: trio.Nursery) -> None:
            server.set_max_pending_connections(2)
            await server.listen(GOOD)
            if serve:
                await nursery.start(server.serve, never_end)
            await come(trial, server.server_port(), clients, manner)
            if not serve:
                taken.append(await server.accept())
            await turn()

        server = trial.server()
        if how == "aclose":
            async with server, trio.open_nursery() as nursery:
                await body(server, nursery)
                await (cancelled_twice(trial, server.aclose) if twice else trial.call(server.aclose))
                trial.equal("listening", server.is_listening(), False)
                trial.equal("pending", server.has_pending_connections(), False)
                trial.equal("connections", server.connection_count(), sum(sock.is_valid() for sock in taken))
                trial.expect(manner == "resets" or len(taken) == server.connection_count(), "who was taken goes on")
                nursery.cancel_scope.cancel()
        else:

            async def block() -> None:
                async with trio.open_nursery() as nursery:
                    async with server:
                        if how == "nested":
                            async with server:
                                await body(server, nursery)
                            trial.equal("listening between the exits", server.is_listening(), False)
                        else:
                            await body(server, nursery)
                        if how == "exception":
                            raise ZeroDivisionError

            with contextlib.suppress(ExceptionGroup) if how == "exception" else contextlib.nullcontext():
                await (cancelled_twice(trial, block) if twice else trial.call(block))
        trial.equal("listening", server.is_listening(), False)
        trial.equal("connections", server.connection_count(), 0)
        for sock in taken:
            trial.equal("state of an accepted socket", sock.state(), SocketState.UNCONNECTED)
        for client in clients:
            if client.port:  # else it never came
                await client.seen.over.wait()

    return play


def server_events(*, waiting: bool = False, manner: Manner = "asks", listeners: int = 1) -> Play:
    """Each handler's end is told once to each listener, and a nudge for the connections."""

    async def play(trial: Trial) -> None:
        clients = [Client(name) for name in NAMES]
        others: list[int] = []

        async with trial.server() as server, trio.open_nursery() as nursery:
            await server.listen(GOOD)
            echo = Echo(server)

            async def live() -> None:
                trial.nursery.start_soon(come, trial, server.server_port(), clients, manner)
                for client in clients:
                    await client.seen.over.wait()
                while len(echo.started) < len(clients):
                    await turn()
                await turn()
                server.close()

            async def listen() -> None:
                async with server.events(ConnectionFinished) as events:
                    async for _ in events:
                        others.append(1)

            for _ in range(listeners - 1):
                nursery.start_soon(listen)
            async with server.events() as subscription:
                nursery.start_soon(server.serve, echo)
                if waiting:
                    await live()
                else:
                    nursery.start_soon(live)
                events: list[Event] = []
                while sum(isinstance(event, ConnectionFinished) for event in events) < len(clients):
                    event = await trial.call(subscription.__anext__)
                    if event is not None:
                        events.append(event)
            nursery.cancel_scope.cancel()
        finished = sorted(event.peer_port for event in events if isinstance(event, ConnectionFinished))
        trial.equal("handlers told of", finished, sorted(echo.started))
        trial.expect(any(isinstance(event, NewConnection) for event in events), "connections are told of")

    return play


async def events_end(trial: Trial) -> None:
    """The iteration ends with the server's block, after what was posted."""
    client = Client(b"alice")
    async with trial.server() as server:
        await server.listen(GOOD)
        cm = server.events(NewConnection)
        subscription = await cm.__aenter__()
        trial.nursery.start_soon(client.run, server.server_port(), "asks")
        await turn()
    trial.equal("events", await all_steps(trial, subscription), [NewConnection()])
    await cm.__aexit__(None, None, None)


# fmt: off
ACCEPTS: tuple[tuple[Situation, str, Callable[[Step], Play]], ...] = (
    ("answered at once", "",          functools.partial(accepting, waiting=True)),
    ("has to wait",      "",          accepting),
    ("has to wait",      "limit",     functools.partial(accepting, waiting=True, limit=1)),
    ("has to wait",      "twice",     functools.partial(accepting, twice=True)),
    ("peer finishes",    "",          functools.partial(accepting, manner="finishes")),
    ("peer resets",      "",          functools.partial(accepting, manner="resets")),
    ("second task",      "watched",   functools.partial(accepting, beside=watcher)),
    ("second task",      "close()",   functools.partial(stopped, aclose=False)),
    ("second task",      "aclose()",  functools.partial(stopped, aclose=True)),
)
SERVES: tuple[tuple[Situation, str, Play], ...] = (
    ("answered at once", "",          serving(waiting=True)),
    ("has to wait",      "",          serving()),
    ("has to wait",      "limit",     serving(limit=1)),
    ("has to wait",      "limit, all waiting", serving(limit=2, waiting=True)),
    ("has to wait",      "twice",     serving(twice=True)),
    ("has to wait",      "bounds",    serving(bounds=BOUNDS)),
    ("answered at once", "bounds",    serving(bounds=BOUNDS, waiting=True)),
    ("peer finishes",    "",          serving(manner="finishes")),
    ("peer resets",      "",          serving(manner="resets")),
    ("second task",      "busy",      serving(beside=busy)),
    ("second task",      "watched",   serving(beside=finished_events)),
    ("second task",      "paused",    serving(beside=pause_for_a_while)),
    ("second task",      "close()",   stopped_serving(aclose=False)),
    ("second task",      "aclose()",  stopped_serving(aclose=True)),
)
LISTENS: tuple[tuple[Situation, str, Play], ...] = (
    ("answered at once", "address",   listening(GOOD)),
    ("answered at once", "in use",    listen_in_use),
    ("has to wait",      "name",      listening("some.host", (GOOD, REFUSING))),
    ("has to wait",      "twice",     listening("some.host", (GOOD, REFUSING), twice=True)),
    ("has to wait",      "proxy",     listen_by_proxy),
    ("second task",      "listen()",  listening("some.host", (GOOD,), beside=listen_too)),
    ("second task",      "called off", listen_called_off),
    ("second task",      "aclose()",  listening("some.host", (GOOD,), beside=close_it)),
)
ENDS: tuple[tuple[str, Situation, str, Play], ...] = (
    ("aclose",     "answered at once", "",          ending("aclose")),
    ("aclose",     "peer finishes",    "",          ending("aclose", manner="finishes")),
    ("aclose",     "peer resets",      "",          ending("aclose", manner="resets")),
    ("aclose",     "second task",      "serving",   ending("aclose", serve=True)),
    ("aclose",     "second task",      "twice",     ending("aclose", serve=True, twice=True)),
    ("__aenter__", "answered at once", "",          ending("block")),
    ("__aexit__",  "answered at once", "",          ending("block")),
    ("__aexit__",  "answered at once", "nested",    ending("nested")),
    ("__aexit__",  "answered at once", "exception", ending("exception")),
    ("__aexit__",  "peer finishes",    "",          ending("block", manner="finishes")),
    ("__aexit__",  "peer resets",      "",          ending("block", manner="resets")),
    ("__aexit__",  "second task",      "serving",   ending("block", serve=True)),
    ("__aexit__",  "second task",      "twice",     ending("block", serve=True, twice=True)),
)
EVENTS: tuple[tuple[Situation, str, Play], ...] = (
    ("answered at once", "",          server_events(waiting=True)),
    ("answered at once", "end",       events_end),
    ("has to wait",      "",          server_events()),
    ("peer finishes",    "",          server_events(manner="finishes")),
    ("peer resets",      "",          server_events(manner="resets")),
    ("second task",      "listeners", server_events(listeners=3)),
)
# fmt: on


def _cases(medium: Medium) -> list[Case]:
    return [
        *(
            Case(
                f"TcpServer.{name}",
                situation,
                make(step),
                medium,
                variant,
                through="__anext__" if name == "__aiter__" else "",
            )
            for name, step in STEPS.items()
            for situation, variant, make in ACCEPTS
            if not (name == "__aiter__" and variant in ("limit", "watched"))  # its steps are accept()
        ),
        Case("TcpServer.accept", "second task", accepting(STEPS["accept"], beside=busy), medium, "busy"),
        *(Case("TcpServer.serve", situation, play, medium, variant) for situation, variant, play in SERVES),
        *(Case("TcpServer.listen", situation, play, medium, variant) for situation, variant, play in LISTENS),
        *(
            Case(f"TcpServer.{name}", situation, play, medium, variant, through="" if name == "aclose" else "block")
            for name, situation, variant, play in ENDS
        ),
        *(
            Case("TcpServer.events", situation, play, medium, variant, through="__anext__")
            for situation, variant, play in EVENTS
        ),
    ]


CASES = [case for medium in NETWORKS for case in _cases(medium)] + [
    Case("TcpServer.serve_descriptors", "answered at once", lending(waiting=True), "loopback"),
    Case("TcpServer.serve_descriptors", "has to wait", lending(), "loopback"),
]
