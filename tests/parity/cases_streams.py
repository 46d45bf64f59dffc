"""trio's streams and listeners over these sockets."""

from __future__ import annotations

import trio
import trio.testing
from trio import socket

from tests.parity.cases_kit import RESET_ON_CLOSE, Place, attempt, case, until_readable, waits, while_waiting


async def stream_pair(here: Place) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two connected streams."""
    client, server = await here.pair()
    return trio.SocketStream(client), trio.SocketStream(server)


def reset(stream: trio.SocketStream) -> None:
    """Close ``stream`` with RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    stream.socket.close()


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes."""
    async for chunk in stream:
        await stream.send_all(chunk)


async def serve_echo(task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
    """An echo server at a free port of 127.0.0.1."""
    await trio.serve_tcp(echo, 0, host="127.0.0.1", task_status=task_status)


@case((b"to the server", b"to the client", b""))
async def a_stream_carries_bytes_both_ways(here: Place) -> object:
    """And ends."""
    client, server = await stream_pair(here)
    await client.send_all(b"to the server")
    await server.send_all(b"to the client")
    received = await server.receive_some(), await client.receive_some()
    await server.aclose()
    return *received, await client.receive_some()


@case(("BrokenResourceError", "BrokenResourceError"))
async def sending_to_a_reset_peer_is_broken(here: Place) -> object:
    """And stays so."""
    client, server = await stream_pair(here)
    reset(server)
    await until_readable(client.socket)
    return await attempt(client.send_all, b"x"), await attempt(client.send_all, b"x")


@case(("BrokenResourceError", b""))
async def receiving_from_a_reset_peer_is_broken_once(here: Place) -> object:
    """Then the system says that it is the end."""
    client, server = await stream_pair(here)
    reset(server)
    return await attempt(client.receive_some), await attempt(client.receive_some)


@case("BrokenResourceError")
async def a_blocked_send_all_is_broken_by_a_reset(here: Place) -> object:
    """It need not wait any longer."""
    client, server = await stream_pair(here)
    return await while_waiting(client.send_all, bytes(50_000_000), then=lambda: reset(server))


@case(("ClosedResourceError", "ClosedResourceError", "ClosedResourceError", "ClosedResourceError", "ok"))
async def a_closed_stream_says_so(here: Place) -> object:
    """Not EBADF; and it may be closed again."""
    client, _ = await stream_pair(here)
    await client.aclose()
    return (
        await attempt(client.send_all, b"x"),
        await attempt(client.receive_some),
        await attempt(client.wait_send_all_might_not_block),
        await attempt(client.send_eof),
        await attempt(client.aclose),
    )


@case(("ClosedResourceError", "ClosedResourceError"))
async def closing_a_stream_wakes_who_uses_it(here: Place) -> object:
    """The receiver and the sender."""
    (first, _), (second, _) = await stream_pair(here), await stream_pair(here)
    return (
        await while_waiting(first.receive_some, then=first.aclose),
        await while_waiting(second.send_all, bytes(50_000_000), then=second.aclose),
    )


@case((b"", b"answer", "ClosedResourceError", "ok"))
async def send_eof_ends_one_direction(here: Place) -> object:
    """trio: sending after it is a mistake, ending again is not."""
    client, server = await stream_pair(here)
    await client.send_eof()
    end = await server.receive_some()
    await server.send_all(b"answer")
    return end, await client.receive_some(), await attempt(client.send_all, b"x"), await attempt(client.send_eof)


@case(("BusyResourceError", "BusyResourceError"))
async def two_tasks_cannot_send_at_once(here: Place) -> object:
    """Nor end while one sends."""
    client, _ = await stream_pair(here)
    told: list[object] = []

    async def disturb() -> None:
        told.append(await attempt(client.send_all, b"x"))
        told.append(await attempt(client.send_eof))
        await client.aclose()

    await while_waiting(client.send_all, bytes(50_000_000), then=disturb)
    return tuple(told)


@case((True, b"x", "ok"))
async def sending_nothing_is_a_checkpoint_that_says_nothing(here: Place) -> object:
    """send_all(b"")."""
    client, server = await stream_pair(here)
    nothing = await attempt(client.send_all, b"")
    await client.send_all(b"x")
    return nothing == "ok", await server.receive_some(), await attempt(client.wait_send_all_might_not_block)


@case((b"ab", b"c", "ValueError"))
async def receive_some_takes_at_most_what_it_is_told(here: Place) -> object:
    """At least one byte."""
    client, server = await stream_pair(here)
    await server.send_all(b"abc")
    return await client.receive_some(2), await client.receive_some(2), await attempt(client.receive_some, 0)


@case((1, 16384))
async def a_stream_sets_two_options(here: Place) -> object:
    """No delay, and not much that is unsent."""
    client, _ = await stream_pair(here)
    return (
        client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
        client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT),
    )


@case(("ValueError", "ValueError", "ValueError", "TypeError"))
async def a_stream_is_made_of_a_connected_stream_socket(here: Place) -> object:
    """Not of datagrams; a listener is made of a listening one; and neither of something else."""
    not_a_socket: object = object()
    return (
        await attempt(trio.SocketStream, here.udp()),
        await attempt(trio.SocketListener, await here.bound()),
        await attempt(trio.SocketListener, here.udp()),
        await attempt(trio.SocketStream, not_a_socket),
    )


@case(b"accepted")
async def a_listener_makes_streams(here: Place) -> object:
    """SocketListener.accept()."""
    listener = trio.SocketListener(await here.listener())
    client = await here.connect(listener.socket)
    async with await listener.accept() as server:
        await server.send_all(b"accepted")
        return await client.recv(100)


@case(("ClosedResourceError", "ClosedResourceError"))
async def a_closed_listener_says_so(here: Place) -> object:
    """Before and while somebody waits."""
    listener = trio.SocketListener(await here.listener())
    woken = await while_waiting(listener.accept, then=listener.aclose)
    return woken, await attempt(listener.accept)


@case((b"hello", b"bye", b""))
async def serve_tcp_and_open_tcp_stream_meet(here: Place) -> object:
    """An echo server on a free port."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(serve_echo)
        async with await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]) as client:
            told = []
            for word in (b"hello", b"bye"):
                await client.send_all(word)
                told.append(await client.receive_some())
            await client.send_eof()
            told.append(await client.receive_some())
        nursery.cancel_scope.cancel()
    return tuple(told)


@case("ECONNREFUSED")
async def open_tcp_stream_to_nobody_is_refused(here: Place) -> object:
    """With the error of the only attempt behind it."""
    port = await here.unused_port()
    try:
        await trio.open_tcp_stream("127.0.0.1", port)
    except OSError as exc:
        cause = exc.__cause__
        while isinstance(cause, BaseExceptionGroup):
            (cause,) = cause.exceptions
        return "ECONNREFUSED" if isinstance(cause or exc, ConnectionRefusedError) else repr(exc)
    return "connected"


@case((("127.0.0.2", "port A"), ("127.0.0.2", "port A")))
async def open_tcp_stream_may_choose_its_own_address(here: Place) -> object:
    """local_address."""
    listener = await here.listener()
    port = listener.getsockname()[1]
    async with await trio.open_tcp_stream("127.0.0.1", port, local_address="127.0.0.2") as client:
        server = await here.accept(listener)
        return here.told(client.socket.getsockname()), here.told(server.getpeername())


@case((["0.0.0.0", "::"], [1, 1]))
async def open_tcp_listeners_listens_to_both_families(here: Place) -> object:
    """At the wildcards, each for itself, with REUSEADDR."""
    here.needs_ipv6()
    listeners = await trio.open_tcp_listeners(0)
    names = sorted(listener.socket.getsockname()[0] for listener in listeners)
    reuse = [listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) for listener in listeners]
    for listener in listeners:
        await listener.aclose()
    return names, reuse


@case((1, "waits", "ECONNREFUSED"))
async def closing_what_serve_tcp_listens_on_ends_it(here: Place) -> object:
    """Cancelled, it lets go of its port."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(serve_echo)
        port = listeners[0].socket.getsockname()[1]
        client = here.tcp()
        await client.connect(("127.0.0.1", port))
        quiet = await waits(client.recv, 1)
        nursery.cancel_scope.cancel()
    return len(listeners), quiet, await attempt(here.tcp().connect, ("127.0.0.1", port))


@case((b"through tcp", b"back"))
async def open_stream_to_socket_listener_finds_its_listener(here: Place) -> object:
    """trio.testing, at the wildcard."""
    listener = trio.SocketListener(await here.listener("0.0.0.0"))
    async with await trio.testing.open_stream_to_socket_listener(listener) as client:
        async with await listener.accept() as server:
            await client.send_all(b"through tcp")
            await server.send_all(b"back")
            return await server.receive_some(), await client.receive_some()
