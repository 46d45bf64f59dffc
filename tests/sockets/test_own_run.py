"""A socket or server is called in its own ``trio.run``; from anywhere else it says so, and is as it was."""

from __future__ import annotations

import contextlib
import copy
import inspect
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import attrs
import pytest
import trio

from tests.networks import Network
from tests.sockets.every_call import SERVER_CALLS, SOCKET_CALLS
from tests.sockets.pairs import connection
from trioqt import DrainReport, SocketState, SslSocket, StateChanged, TcpServer, TcpSocket, UdpSocket

ELSEWHERE = "belongs to another trio.run"

Calls = Mapping[str, tuple[Any, ...]]


# ---- how a call is made elsewhere ----------------------------------------------------------------


def call(thing: object, name: str, args: tuple[Any, ...]) -> None:
    """Without any run; what waits is begun, as far as to its first wait."""
    result = getattr(thing, name)(*args)
    if inspect.iscoroutine(result):
        try:
            result.send(None)
        finally:
            result.close()


def call_in_another_run(thing: object, name: str, args: tuple[Any, ...]) -> None:
    async def main() -> None:
        result = getattr(thing, name)(*args)
        if inspect.isawaitable(result):
            with trio.move_on_after(0):
                await result

    trio.run(main)


def what_comes_of(calls: Calls, thing: object, make: Callable[[object, str, tuple[Any, ...]], None]) -> dict[str, str]:
    """For each call, the exception."""
    found = {}
    for name, args in calls.items():
        try:
            make(thing, name, args)
        except BaseException as exc:
            found[name] = f"{type(exc).__name__}: {exc}"
        else:
            found[name] = "nothing"
    return found


def in_a_thread(fn: Callable[..., object], *args: Any) -> None:
    """Run it in a thread that trio knows nothing of, and wait for that, as a program that is wrong would."""
    thread = threading.Thread(target=fn, args=args)
    thread.start()
    thread.join()


def inside(thing: object) -> dict[str, object]:
    """All that an object is made of, in a form that shows any change."""
    slots = [slot for kind in type(thing).__mro__ for slot in getattr(kind, "__slots__", ())]
    parts = {slot: getattr(thing, slot) for slot in slots if slot != "__weakref__"}
    return {slot: (id(part), looks(part)) for slot, part in parts.items()}


def looks(part: object) -> str:
    if attrs.has(type(part)) or not hasattr(type(part), "__slots__"):
        return repr(part)
    return repr({slot: getattr(part, slot, None) for slot in getattr(type(part), "__slots__", ())})


# What can afford no more than a look at the thread.
WHERE_BYTES_PASS = {
    *("at_end", "bytes_available", "can_read_line", "get_char", "peek", "read", "read_all", "read_line", "skip"),
    *("receive_some", "receive_line", "receive_until", "receive_exactly", "receive_message"),
    *("__anext__", "wait_for_ready_read"),
    *("send_all", "send_eof", "wait_send_all_might_not_block"),
}

MAKERS = [call, call_in_another_run]


# ---- from elsewhere ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS)
async def test_a_socket_refuses_every_call_from_another_thread(
    make: Callable[[object, str, tuple[Any, ...]], None], network: Network
) -> None:
    """Getters too.  Nothing has changed: what had arrived, what is queued, the options, and the connection works."""
    outcomes: list[dict[str, str]] = []
    async with connection(network) as pair:
        sock, peer = pair.sock, pair.peer
        await pair.arrive(b"hello\n")
        assert sock.bytes_available() == 6
        before = inside(sock)
        in_a_thread(lambda: outcomes.append(what_comes_of(SOCKET_CALLS, sock, make)))
        assert inside(sock) == before

        await sock.send_all(b"later\n")
        assert await peer.receive(6) == b"later\n"
        assert await sock.receive_line() == b"hello\n"

    [outcome] = outcomes
    assert {name: text for name, text in outcome.items() if ELSEWHERE not in text} == {}
    assert {text.partition(":")[0] for text in outcome.values()} == {"RuntimeError"}


@pytest.mark.parametrize("make", MAKERS)
async def test_a_server_refuses_every_call_from_another_thread(
    make: Callable[[object, str, tuple[Any, ...]], None], network: Network
) -> None:
    """Its pending connection is still there, and it accepts on."""
    outcomes: list[dict[str, str]] = []
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await server.wait_for_new_connection()
            before = inside(server)
            in_a_thread(lambda: outcomes.append(what_comes_of(SERVER_CALLS, server, make)))
            assert inside(server) == before

            async with await server.accept():
                pass
        with await network.raw_connect(server.server_port()):
            async with await server.accept():
                pass

    [outcome] = outcomes
    assert {name: text for name, text in outcome.items() if ELSEWHERE not in text} == {}


async def test_an_accepted_socket_belongs_to_the_run_of_its_server(network: Network) -> None:
    """Before anybody has entered it."""
    outcomes: list[dict[str, str]] = []
    async with TcpServer() as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            sock = await server.accept()
            in_a_thread(lambda: outcomes.append(what_comes_of(SOCKET_CALLS, sock, call)))
            sock.abort()

    assert {name: text for name, text in outcomes[0].items() if ELSEWHERE not in text} == {}


async def test_so_does_the_socket_of_a_parent(nursery: trio.Nursery) -> None:
    outcomes: list[dict[str, str]] = []
    sock = TcpSocket(nursery)

    in_a_thread(lambda: outcomes.append(what_comes_of(SOCKET_CALLS, sock, call)))

    assert {name: text for name, text in outcomes[0].items() if ELSEWHERE not in text} == {}
    sock.abort()


async def test_a_parent_must_be_of_the_run_that_makes_the_socket(nursery: trio.Nursery) -> None:
    """Else its tasks would be started from another thread."""
    refused: list[str] = []

    def make() -> None:
        try:
            TcpSocket(nursery)
        except RuntimeError as exc:
            refused.append(str(exc))

    async def make_in_another_run() -> None:
        make()

    in_a_thread(make)
    in_a_thread(trio.run, make_in_another_run)

    assert refused == ["the parent is a nursery of another trio.run"] * 2


@contextlib.contextmanager
def left_alive() -> Iterator[tuple[TcpSocket, TcpServer[TcpSocket]]]:
    """A socket and a server whose run ended without ending them, which trio calls a bug of the program."""
    sock, server = TcpSocket(), TcpServer()

    async def main() -> NoReturn:
        await sock.__aenter__()
        await server.__aenter__()
        raise LookupError("the blocks are not left")

    with pytest.raises(BaseException, match=r"Nursery stack|blocks are not left"):
        trio.run(main)
    yield sock, server


@pytest.mark.parametrize("make", MAKERS)
def test_after_its_run_nothing_works_that_was_not_closed(make: Callable[[object, str, tuple[Any, ...]], None]) -> None:
    """In the same thread: neither without a run, nor in another one.

    What only passes bytes on looks at the thread alone, because that is all that it can afford; it has no connection.
    """
    with left_alive() as (sock, server):
        found = {**what_comes_of(SERVER_CALLS, server, make), **what_comes_of(SOCKET_CALLS, sock, make)}

    told = {name for name, text in found.items() if ELSEWHERE in text}
    assert {*SERVER_CALLS, *SOCKET_CALLS} - told == WHERE_BYTES_PASS


# ---- before and after its life -------------------------------------------------------------------


async def test_before_it_has_a_home_it_may_be_called_from_anywhere() -> None:
    """Made in one thread, looked at in another, entered in a third: nothing of it runs yet."""
    states: list[object] = []
    sock, server = TcpSocket(), TcpServer()

    in_a_thread(lambda: states.append((sock.state(), sock.read_buffer_size(), server.is_listening())))

    assert states == [(SocketState.UNCONNECTED, 65536, False)]
    async with sock, server:
        assert sock.state() is SocketState.UNCONNECTED


def test_it_belongs_to_the_run_that_it_is_entered_in_wherever_it_was_made() -> None:
    sock = TcpSocket()

    async def main() -> SocketState:
        async with sock:
            return sock.state()

    states: list[SocketState] = []
    in_a_thread(lambda: states.append(trio.run(main)))

    assert states == [SocketState.UNCONNECTED]
    assert sock.state() is SocketState.UNCONNECTED


async def test_what_is_closed_may_be_asked_from_anywhere(network: Network) -> None:
    """And says what it says here: that it is closed."""
    async with connection(network) as pair:
        sock = pair.sock
        await sock.aclose()
    async with TcpServer() as server:
        await server.listen(network.host)
    told: list[object] = []

    def ask() -> None:
        told.append((sock.state(), sock.error(), sock.local_port(), server.is_listening(), server.connection_count()))
        sock.abort()
        server.close()
        for use in (lambda: sock.write(b"x"), lambda: sock.read(1)):
            try:
                use()
            except trio.ClosedResourceError:
                told.append("closed")

    in_a_thread(ask)

    assert told == [(SocketState.UNCONNECTED, None, 0, False, 0), "closed", "closed"]


async def test_the_socket_of_a_parent_that_has_ended_is_closed_for_who_asks_later(network: Network) -> None:
    """Nobody has told it, so the first call finds out."""
    async with trio.open_nursery() as parent:
        sock = TcpSocket(parent)

    assert sock.state() is SocketState.UNCONNECTED
    with pytest.raises(trio.ClosedResourceError):
        sock.write(b"x")


def test_nor_does_it_matter_that_the_run_is_over_too() -> None:
    async def main() -> TcpSocket:
        async with trio.open_nursery() as parent:
            return TcpSocket(parent)

    sock = trio.run(main)

    assert sock.state() is SocketState.UNCONNECTED
    with pytest.raises(trio.ClosedResourceError):
        sock.write(b"x")


# ---- the right way -------------------------------------------------------------------------------


async def test_a_thread_that_trio_has_started_can_ask_it_to_call(network: Network) -> None:
    """``from_thread`` calls in the run."""
    async with connection(network) as pair:
        sock, peer = pair.sock, pair.peer

        def work() -> bytes:
            trio.from_thread.run_sync(sock.write, b"one\n")
            trio.from_thread.run(sock.send_all, b"two\n")
            return trio.from_thread.run(sock.receive_line)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, b"three\n")
            got = await trio.to_thread.run_sync(work)

        assert await peer.receive(8) == b"one\ntwo\n"
        assert got == b"three\n"


@pytest.mark.unwatched("it counts who listens")
async def test_a_listener_cannot_come_from_elsewhere_either() -> None:
    """A subscription that was made before is entered in the wrong run."""
    refused: list[str] = []
    sock = TcpSocket()
    subscribing = sock.events(StateChanged)

    async def enter() -> None:
        try:
            await subscribing.__aenter__()
        except RuntimeError as exc:
            refused.append(str(exc))

    async with sock:
        in_a_thread(trio.run, enter)
        assert sock._subscriptions == ()

    assert [ELSEWHERE in text for text in refused] == [True]


def test_the_message_says_what_to_do() -> None:
    """And names the class."""

    class Line(TcpSocket):
        pass

    async def main() -> str:
        caught: list[str] = []

        def ask() -> None:
            with pytest.raises(RuntimeError) as refused:
                line.state()
            caught.append(str(refused.value))

        async with Line() as line:
            in_a_thread(ask)
        return caught[0]

    assert trio.run(main) == (
        "this Line belongs to another trio.run; a thread that was started there calls it with"
        " trio.from_thread.run_sync or trio.from_thread.run"
    )


async def use_of_another_run(use: Callable[[TcpSocket], None]) -> None:
    """``use`` here a socket that lives in another run meanwhile."""
    ready, done = threading.Event(), threading.Event()
    socks: list[TcpSocket] = []

    async def main() -> None:
        async with TcpSocket() as sock:
            socks.append(sock)
            ready.set()
            await trio.to_thread.run_sync(done.wait)

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    await trio.to_thread.run_sync(ready.wait)
    try:
        use(socks[0])
    finally:
        done.set()
        thread.join()


async def test_a_server_takes_no_connection_of_another_run(network: Network) -> None:
    """``add_pending_connection`` took it, and then ``drain`` and the server's block fell over it."""
    async with TcpServer() as server:
        await server.listen(network.host)

        def add(sock: TcpSocket) -> None:
            with pytest.raises(RuntimeError, match=ELSEWHERE):
                server.add_pending_connection(sock)

        await use_of_another_run(add)
        assert not server.has_pending_connections()
        assert await server.drain(0) == DrainReport(0, 0)


@pytest.mark.parametrize("make", [TcpSocket, UdpSocket, SslSocket, TcpServer])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_there_are_no_copies(make: Callable[[], Any], copied: Callable[[object], object]) -> None:
    """Two of them would share what each takes for its own; they said nothing, and a state changed twice."""
    with pytest.raises(TypeError, match=f"cannot copy or pickle a {make.__name__}"):
        copied(make())
    async with make() as thing:
        with pytest.raises(TypeError, match=f"cannot copy or pickle a {make.__name__}"):
            copied(thing)
