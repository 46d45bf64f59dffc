"""An end concerns the connection that it was called for, has one clock, and leaves no receiver with a part."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.links.scripted import names
from tests.networks import Loopback, Network
from tests.sockets.arrivals import fill
from tests.sockets.pairs import connection
from trioqt import SocketError, SocketState, TcpServer, TcpSocket

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, LISTENING, CLOSING = SocketState

# fmt: off
RECEIVES: dict[str, Callable[[TcpSocket], Awaitable[object]]] = {
    "receive_line":        lambda sock: sock.receive_line(),
    "receive_until":       lambda sock: sock.receive_until(b";"),
    "receive_exactly":     lambda sock: sock.receive_exactly(1000),
    "receive_message":     lambda sock: sock.receive_message(lambda stream: stream.read_raw_data(1000)),
    "lines":               lambda sock: anext(sock.lines()),
}
# fmt: on


class AfterThisStep(trio.abc.Instrument):
    """Calls ``call`` once, at the end of the step that is running."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        trio.lowlevel.remove_instrument(self)
        self.call()


async def outcome(call: Callable[[], Awaitable[object]], into: list[object]) -> None:
    """Make the call, and note how it ended."""
    try:
        into.append(await call())
    except trio.ClosedResourceError:
        into.append("closed")
    except SocketError as error:
        into.append(error.kind.name)


def real_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection of the kernel's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


# ---- Whose end it is -----------------------------------------------------------------------------


# Loopback: a descriptor is handed over.
async def test_a_disconnect_does_not_end_the_connection_that_replaces_its_own(
    network: Loopback, nursery: trio.Nursery
) -> None:
    """Another task adopts one while the call takes its first turn."""
    sock, peer = await network.connected(nursery)
    ours, theirs = real_pair()
    with peer, ours, theirs:
        trio.lowlevel.add_instrument(AfterThisStep(lambda: sock.set_socket_descriptor(ours.detach())))
        await sock.disconnect_from_host()
        state = sock.state()
        await sock.send_all(b"on")
        await sock.wait_for_bytes_written()
        got = theirs.recv(10)
        sock.abort()

    assert (state, got) == (CONNECTED, b"on")


async def test_a_cancelled_disconnect_does_not_abort_the_next_connection(
    network: Loopback, nursery: trio.Nursery
) -> None:
    """Cancelled, it is an abort of the connection that it was called for."""
    sock, peer = await network.connected(nursery)
    ours, theirs = real_pair()
    with peer, ours, theirs:
        await fill(sock)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(sock.disconnect_from_host)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                sock.abort()
                sock.set_socket_descriptor(ours.detach())
        state = sock.state()
        sock.abort()

    assert state is CONNECTED


@pytest.mark.parametrize("again", range(8))
async def test_a_loss_is_told_to_who_waited_though_another_task_reconnects_in_that_step(
    network: Network, nursery: trio.Nursery, again: int
) -> None:
    """The failure belongs to the connection that it ended, so it is there for whoever had a call in it."""
    told: list[object] = []
    async with TcpServer() as server, trio.open_nursery() as tasks:
        await server.listen(network.host)
        sock = TcpSocket(nursery)
        await sock.connect_to_host(network.host, server.server_port())
        peer = await server.accept()
        await fill(sock)

        async def reconnect() -> None:
            await sock.wait_for_disconnected()
            await sock.connect_to_host(network.host, server.server_port())

        tasks.start_soon(reconnect)
        tasks.start_soon(outcome, sock.wait_for_bytes_written, told)
        tasks.start_soon(outcome, sock.disconnect_from_host, told)
        await trio.testing.wait_all_tasks_blocked()
        peer.abort(reset=True)
        await trio.testing.wait_all_tasks_blocked(0.01)
        state = sock.state()
        sock.abort()

    assert (told, state) == (["REMOTE_HOST_CLOSED"] * 2, CONNECTED)


@pytest.mark.parametrize("end", ["aclose", "block"])
async def test_nothing_begins_once_a_socket_is_being_closed(network: Network, nursery: trio.Nursery, end: str) -> None:
    """It would be aborted when that is done, with whatever had been promised to it."""
    refused: list[object] = []
    sock, peer = await network.connected(nursery)

    async def leave() -> None:
        async with sock:
            pass

    with peer:
        port = await network.unused_port()
        nursery.start_soon(sock.aclose if end == "aclose" else leave)
        trio.lowlevel.add_instrument(AfterThisStep(sock.abort))
        await trio.lowlevel.checkpoint()
        await outcome(lambda: sock.connect_to_host(network.host, port), refused)
        await outcome(sock.bind, refused)

    assert refused == ["closed", "closed"]


@pytest.mark.parametrize("end", ["abort", "disconnect_from_host", "aclose"])
async def test_an_end_made_while_bind_looks_up_its_name_holds(end: str) -> None:
    """As for connect_to_host: the socket does not come to be bound afterwards."""
    gate, ended = trio.Event(), list[object]()
    names({"slow.example": ["127.0.0.1"]}, gate=gate)
    async with trio.open_nursery() as nursery:
        sock = TcpSocket(nursery)
        nursery.start_soon(outcome, lambda: sock.bind("slow.example"), ended)
        await trio.testing.wait_all_tasks_blocked()
        if end == "abort":
            sock.abort()
        else:
            await getattr(sock, end)()
        await trio.testing.wait_all_tasks_blocked()
        at_once = list(ended)
        gate.set()
        await trio.testing.wait_all_tasks_blocked()

        assert (at_once, ended, sock.state(), sock.local_port()) == (["closed"], ["closed"], UNCONNECTED, 0)


@pytest.mark.parametrize("end", ["close", "aclose", "drain"])
async def test_an_end_made_while_listen_looks_up_its_name_holds(end: str) -> None:
    """The server does not come to listen afterwards."""
    gate, ended = trio.Event(), list[object]()
    names({"slow.example": ["127.0.0.1"]}, gate=gate)
    async with TcpServer() as server, trio.open_nursery() as nursery:
        nursery.start_soon(outcome, lambda: server.listen("slow.example"), ended)
        await trio.testing.wait_all_tasks_blocked()
        if end == "close":
            server.close()
        elif end == "aclose":
            await server.aclose()
        else:
            await server.drain(0)
        gate.set()
        await trio.testing.wait_all_tasks_blocked()

        assert (ended, server.is_listening()) == (["closed"], False)


async def test_a_name_that_is_found_in_the_step_of_the_end_is_of_no_use() -> None:
    """The look-up is done, the server closes, and then listen has its turn: what it has taken is given back."""
    gate, ended = trio.Event(), list[object]()
    names({"slow.example": ["127.0.0.1"]}, gate=gate)
    async with TcpServer() as server, trio.open_nursery() as nursery:
        nursery.start_soon(outcome, lambda: server.listen("slow.example"), ended)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
        server.close()
        await trio.testing.wait_all_tasks_blocked()
        stopped = server.is_listening()
        await server.listen("127.0.0.1")

        assert (ended, stopped, server.is_listening()) == (["closed"], False, True)


# ---- Who receives --------------------------------------------------------------------------------


@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
@pytest.mark.parametrize("end", ["aclose", "disconnect_from_host"])
@pytest.mark.parametrize("arrived", [b"", b"half"])
@pytest.mark.parametrize("watched", [False, True])
async def test_who_waits_for_more_than_had_arrived_is_told_at_once(
    network: Network,
    nursery: trio.Nursery,
    receive: Callable[[TcpSocket], Awaitable[object]],
    end: str,
    arrived: bytes,
    watched: bool,
) -> None:
    """Before the peer reads, ends or sends the rest; and it never gets that rest without its beginning."""
    got: list[object] = []
    async with connection(network) as pair:
        await fill(pair.sock)
        if watched:
            nursery.start_soon(pair.sock.wait_for_disconnected)
        async with trio.open_nursery() as tasks:
            tasks.start_soon(outcome, lambda: receive(pair.sock), got)
            if arrived:
                await pair.arrive(arrived)
            await trio.testing.wait_all_tasks_blocked()
            before = list(got)
            tasks.start_soon(getattr(pair.sock, end))
            await trio.testing.wait_all_tasks_blocked()
            at_once, state = list(got), pair.sock.state()
            await pair.peer.send(b" a line;\n")
            tasks.start_soon(outcome, pair.sock.receive_line, got)
            tasks.start_soon(pair.peer.receive_to_end)
            await trio.testing.wait_all_tasks_blocked()
            pair.peer.finish()

    assert (before, at_once, state) == ([], ["closed"], CLOSING)
    assert got == ["closed", "closed"]


@pytest.mark.parametrize("end", ["aclose", "disconnect_from_host"])
async def test_who_receives_gets_a_whole_line_that_has_come_or_nothing(network: Network, end: str) -> None:
    """It arrives in the step in which another task ends the connection."""
    for _ in range(8):
        got: list[object] = []
        async with connection(network) as pair, trio.open_nursery() as tasks:
            tasks.start_soon(outcome, pair.sock.receive_line, got)
            await pair.arrive(b"DO NOT DEL")
            await trio.testing.wait_all_tasks_blocked()
            await pair.peer.send(b"ETE ALL\nnext")
            tasks.start_soon(getattr(pair.sock, end))
            pair.peer.finish()

        assert got in ([b"DO NOT DELETE ALL\n"], ["closed"])


async def test_an_end_that_has_dropped_bytes_is_no_clean_end_for_a_later_receive(network: Network) -> None:
    """The peer has finished, two lines are unread, and another task closes: ``b""`` would say that there were none."""
    got: list[object] = []
    async with connection(network) as pair, trio.open_nursery() as tasks:
        await fill(pair.sock)
        await pair.arrive(b"one\ntwo\n")
        await pair.finish()
        assert pair.sock.bytes_available() == 8
        assert pair.sock.peer_has_finished()
        tasks.start_soon(outcome, pair.sock.aclose, got)
        await trio.testing.wait_all_tasks_blocked()
        for call in (pair.sock.receive_some, pair.sock.receive_line, pair.sock.wait_for_ready_read):
            await outcome(call, got)
        pair.peer.reset()

    assert got[:3] == ["closed", "closed", "closed"]


# ---- One clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["block", "disconnect_from_host"])
async def test_progress_renews_the_time_of_all_who_end_it(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, other: str
) -> None:
    """The peer takes some every half second, so nobody's second of patience is ever over."""
    ended: list[object] = []
    sock, peer = await network.connected(nursery, flush_timeout=1.0)

    async def leave() -> None:
        async with sock:
            pass

    with peer:
        accepted = await fill(sock)
        nursery.start_soon(outcome, leave, ended)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(outcome, leave if other == "block" else sock.disconnect_from_host, ended)
        received = b""
        while len(received) < accepted:
            await trio.sleep(0.5)
            before = sock._queue.size
            while sock._queue.size == before and len(received) < accepted:
                received += await peer.receive(min(65536, accepted - len(received)))
                await trio.testing.wait_all_tasks_blocked()
        rest = await peer.receive_to_end()
        await trio.testing.wait_all_tasks_blocked()

    assert (ended, rest) == ([None, None], b"")


async def test_all_who_end_it_share_the_result(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """The peer takes nothing: the first limit that is over ends it for all, and all are told."""
    ended: list[object] = []
    sock, peer = await network.connected(nursery, flush_timeout=1.0)

    async def leave() -> None:
        async with sock:
            pass

    with peer:
        await fill(sock)
        for end in (sock.disconnect_from_host, leave, leave):
            nursery.start_soon(outcome, end, ended)
            await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await trio.sleep(2)
        how = await peer.how_it_ends()

    assert (ended, how) == (["SOCKET_TIMEOUT"] * 3, "reset")
    assert trio.current_time() - began == pytest.approx(2)


async def test_a_block_that_joins_an_end_does_not_count_its_lingering(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Everything is sent; the second that an end waits for the peer's is not the peer's taking nothing."""
    ended: list[object] = []
    sock, peer = await network.connected(nursery, flush_timeout=0.2)

    async def leave() -> None:
        async with sock:
            pass

    with peer:
        await peer.send(b"a request that nobody reads")
        await sock.send_all(b"answer")
        await trio.sleep(0.1)
        began = trio.current_time()
        nursery.start_soon(outcome, sock.disconnect_from_host, ended)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(outcome, leave, ended)
        await trio.sleep(1.5)
        answer = await peer.receive_to_end()

    assert (ended, answer) == ([None, None], b"answer")
    assert trio.current_time() - began == pytest.approx(1.5)


# ---- What goes wrong while a block ends ----------------------------------------------------------


# Loopback: the kernel's own descriptor is closed.
@pytest.mark.parametrize("body", ["ends", "raises"])
async def test_a_descriptor_that_somebody_else_closed_ends_the_block_with_that_error(
    network: Loopback, body: str
) -> None:
    """Nothing of the socket is left, and the body's own exception is behind the one that comes out."""
    own = ValueError("of the body") if body == "raises" else None
    nurseries = list(trio.lowlevel.current_task().child_nurseries)
    with await network.raw_listener() as listener:
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            async with TcpSocket() as sock:
                await sock.connect_to_host(network.host, listener.port)
                os.close(sock.socket_descriptor())
                if own is not None:
                    raise own
        with await listener.accept() as peer:
            await peer.receive_to_end()

    assert (caught.value.errno, sock.state()) == (errno.EBADF, UNCONNECTED)
    assert trio.lowlevel.current_task().child_nurseries == nurseries
    if own is not None:
        assert caught.value.__context__ is own


async def test_a_server_whose_descriptor_somebody_else_closed_ends_its_block(network: Loopback) -> None:
    """So for the listening socket; its clients are ended all the same."""
    own = ValueError("of the body")
    nurseries = list(trio.lowlevel.current_task().child_nurseries)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        async with TcpServer() as server:
            await server.listen(network.host)
            client = await network.raw_connect(server.server_port())
            sock = await server.accept()
            os.close(server.socket_descriptor())
            raise own
    with client:
        how = await client.how_it_ends()

    assert caught.value.__context__ is own
    assert (how, sock.state(), server.is_listening()) == ("reset", UNCONNECTED, False)
    assert trio.lowlevel.current_task().child_nurseries == nurseries


# ---- A server's block ----------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["exception", "cancellation", "nothing"])
async def test_an_exception_out_of_a_servers_block_resets_what_nobody_has_entered(network: Network, by: str) -> None:
    """One was accepted and told half of something, one is still pending."""
    with trio.CancelScope() as scope:
        try:
            async with TcpServer() as server:
                await server.listen(network.host)
                accepted = await network.raw_connect(server.server_port())
                sock = await server.accept()
                await sock.send_all(b"half an ")
                pending = await network.raw_connect(server.server_port())
                await server.wait_for_new_connection()
                if by == "exception":
                    raise ValueError("a bug")
                if by == "cancellation":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        except ValueError:
            pass
    with accepted, pending:
        ends = [await accepted.how_it_ends(), await pending.how_it_ends()]

    assert ends == (["reset", "reset"] if by == "exception" else ["end", "end"])


async def test_connected_is_waited_for_in_the_attempt_that_ran(network: Network, nursery: trio.Nursery) -> None:
    """Another task drops it and makes another in the step in which the wait begins."""
    told: list[object] = []
    with await network.raw_listener() as listener:
        sock = TcpSocket(nursery)
        await nursery.start(outcome_started, sock, network.host, listener.port)

        def again() -> None:
            sock.abort()
            nursery.start_soon(sock.connect_to_host, network.host, listener.port)

        trio.lowlevel.add_instrument(AfterThisStep(again))
        await outcome(sock.wait_for_connected, told)
        await trio.testing.wait_all_tasks_blocked()
        state = sock.state()
        sock.abort()

    assert (told, state) == (["closed"], CONNECTED)


async def outcome_started(
    sock: TcpSocket, host: str, port: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """``connect_to_host``, whatever becomes of it."""
    try:
        await sock.connect_to_host(host, port, task_status=task_status)
    except (SocketError, trio.ClosedResourceError):
        pass
