"""Listening: the queue between connect and accept."""

from __future__ import annotations

import trio
from trio import socket
from trio.testing import wait_all_tasks_blocked

from tests.parity.cases_kit import (
    RESET_ON_CLOSE,
    Place,
    all_of,
    attempt,
    case,
    pending_error,
    until_readable,
    waits,
    while_waiting,
)


@case("ECONNREFUSED")
async def connecting_to_a_port_that_nobody_holds_is_refused(here: Place) -> object:
    """RFC 9293 3.5.2: answered by a reset."""
    return await attempt(here.tcp().connect, ("127.0.0.1", await here.unused_port()))


@case("ECONNREFUSED")
async def connecting_to_a_port_that_is_only_bound_is_refused(here: Place) -> object:
    """Nobody listens."""
    return await attempt(here.tcp().connect, (await here.bound()).getsockname())


@case("ECONNREFUSED")
async def connecting_to_a_listener_that_was_closed_is_refused(here: Place) -> object:
    """At once."""
    listener = await here.listener()
    address = listener.getsockname()
    listener.close()
    return await attempt(here.tcp().connect, address)


@case((b"1", b"2", b"3"))
async def connections_are_accepted_in_the_order_of_their_arrival(here: Place) -> object:
    """A queue."""
    listener = await here.listener()
    for number in (b"1", b"2", b"3"):
        await (await here.connect(listener)).send(number)
    return tuple([await (await here.accept(listener)).recv(1) for _ in range(3)])


@case("port A")
async def a_waiting_accept_is_woken_by_a_client(here: Place) -> object:
    """With that client's name."""
    listener, client = await here.listener(), await here.bound()
    here.told(client.getsockname())
    accepted: list[object] = []

    async def accept() -> None:
        sock, address = await listener.accept()
        accepted.append(here.told(address)[1])
        sock.close()

    await while_waiting(accept, then=lambda: client.connect(listener.getsockname()))
    return accepted[0]


@case((5, b"early"))
async def a_client_may_send_before_it_is_accepted(here: Place) -> object:
    """The system has shaken hands for the server."""
    listener = await here.listener()
    client = await here.connect(listener)
    sent = await client.send(b"early")
    return sent, await (await here.accept(listener)).recv(100)


@case((b"gone", b"", True))
async def a_client_that_ended_before_it_was_accepted_is_accepted(here: Place) -> object:
    """With what it said."""
    listener = await here.listener()
    client = await here.connect(listener)
    await client.send(b"gone")
    client.close()
    server, address = await listener.accept()
    here.keep(server)
    return await server.recv(100), await server.recv(100), address == server.getpeername()


@case(("ECONNRESET", b"", "ENOTCONN", "127.0.0.1"))
async def a_client_that_reset_before_it_was_accepted_is_accepted(here: Place) -> object:
    """Linux; others drop it (ECONNABORTED).  accept() still tells the name that getpeername() has forgotten."""
    listener = await here.listener()
    client = await here.connect(listener)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.close()
    server, address = await listener.accept()
    here.keep(server)
    await until_readable(server)
    errors = await attempt(server.recv, 1), await attempt(server.recv, 1)
    return *errors, await attempt(server.getpeername), address[0]


@case(("ok", "ok", "waits"))
async def the_queue_holds_one_more_than_the_backlog(here: Place) -> object:
    """Linux: then a SYN is dropped, and its sender tries again later."""
    listener = await here.listener(backlog=1)
    return await all_of(*(waits(here.tcp().connect, listener.getsockname()) for _ in range(3)))


@case(("ok", "waits"))
async def a_backlog_of_0_holds_one(here: Place) -> object:
    """As does a negative one, which Python takes for 0."""
    listener = await here.listener(backlog=0)
    return await all_of(*(waits(here.tcp().connect, listener.getsockname()) for _ in range(2)))


@case(("ok", "ok", "waits", "ok"))
async def accepting_makes_room_in_the_queue(here: Place) -> object:
    """For the next client."""
    listener = await here.listener(backlog=1)
    full = await all_of(*(waits(here.tcp().connect, listener.getsockname()) for _ in range(3)))
    await here.accept(listener)
    return *full, await waits(here.tcp().connect, listener.getsockname())


@case(("ok", "waits", "ok"))
async def listening_again_changes_the_backlog(here: Place) -> object:
    """listen(2)."""
    listener = await here.listener(backlog=0)
    first = await all_of(*(waits(here.tcp().connect, listener.getsockname()) for _ in range(2)))
    listener.listen(5)
    return *first, await waits(here.tcp().connect, listener.getsockname())


@case(("ECONNRESET", b""))
async def closing_a_listener_resets_who_was_not_accepted(here: Place) -> object:
    """They were connected, as far as they knew."""
    listener = await here.listener()
    client = await here.connect(listener)
    listener.close()
    return await attempt(client.recv, 1), await attempt(client.recv, 1)


@case(b"still here")
async def closing_a_listener_leaves_accepted_connections_alone(here: Place) -> object:
    """They are sockets of their own."""
    listener = await here.listener()
    client = await here.connect(listener)
    server = await here.accept(listener)
    listener.close()
    await server.send(b"still here")
    return await client.recv(100)


@case(("EINVAL", "ECONNREFUSED", "ENOTCONN"))
async def a_listener_that_is_shut_down_listens_no_more(here: Place) -> object:
    """Linux: SHUT_RD and SHUT_RDWR end it."""
    listener = await here.listener()
    address = listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    return (
        await attempt(listener.accept),
        await attempt(here.tcp().connect, address),
        await attempt(listener.shutdown, socket.SHUT_RDWR),
    )


@case("EINVAL")
async def shutting_a_listener_down_wakes_its_accept(here: Place) -> object:
    """With what accept says on a socket that does not listen."""
    listener = await here.listener()
    return await while_waiting(listener.accept, then=lambda: listener.shutdown(socket.SHUT_RDWR))


@case(("ok", "ok", b"back"))
async def a_listener_that_was_shut_down_may_listen_again(here: Place) -> object:
    """At the address it was bound to."""
    port = await here.unused_port()
    listener = await here.listener(port=port)
    listener.shutdown(socket.SHUT_RD)
    again = await attempt(listener.listen)
    client = here.tcp()
    connected = await attempt(client.connect, ("127.0.0.1", port))
    await (await here.accept(listener)).send(b"back")
    return again, connected, await client.recv(100)


@case(("ECONNRESET", b""))
async def shutting_a_listener_down_resets_who_was_not_accepted(here: Place) -> object:
    """As closing does."""
    listener = await here.listener()
    client = await here.connect(listener)
    listener.shutdown(socket.SHUT_RDWR)
    return await attempt(client.recv, 1), await attempt(client.recv, 1)


@case(("0.0.0.0", True, "ok"))
async def listening_without_binding_takes_a_free_port(here: Place) -> object:
    """At every address."""
    listener = here.tcp()
    listener.listen()
    host, port = listener.getsockname()
    return host, port >= 1024, await attempt(here.tcp().connect, ("127.0.0.1", port))


@case((0, True, True, False))
async def an_accepted_socket_is_like_its_listener_but_does_not_listen(here: Place) -> object:
    """Family and type."""
    listener = await here.listener()
    await here.connect(listener)
    server = await here.accept(listener)
    accepts = server.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return accepts, server.family == listener.family, server.type == listener.type, server.did_shutdown_SHUT_WR


@case(("BusyResourceError", "ok"))
async def two_tasks_cannot_accept_at_once(here: Place) -> object:
    """trio; the one that came first goes on."""
    listener = await here.listener()
    second: list[object] = []

    async def accept() -> None:
        here.keep((await listener.accept())[0])

    async def disturb() -> None:
        second.append(await attempt(listener.accept))
        await here.connect(listener)

    first = await while_waiting(accept, then=disturb)
    return second[0], first


@case((True, b"mine"))
async def a_cancelled_accept_leaves_the_connection_to_the_next(here: Place) -> object:
    """Cancelled means it did not happen."""
    listener = await here.listener()
    client = await here.connect(listener)
    await client.send(b"mine")
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.accept()
    return scope.cancelled_caught, await (await here.accept(listener)).recv(100)


@case("ClosedResourceError")
async def closing_a_listener_wakes_its_accept(here: Place) -> object:
    """trio's rule."""
    listener = await here.listener()
    return await while_waiting(listener.accept, then=listener.close)


@case(("waits", -1))
async def a_cancelled_connect_closes_the_socket(here: Place) -> object:
    """trio: nobody could tell in which state it is."""
    listener, sock = await here.listener(backlog=0), here.tcp()
    await here.connect(listener)
    return await waits(sock.connect, listener.getsockname()), sock.fileno()


@case("BusyResourceError")
async def two_tasks_cannot_connect_one_socket(here: Place) -> object:
    """trio."""
    listener, sock = await here.listener(backlog=0), here.tcp()
    await here.connect(listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sock.connect, listener.getsockname())
        await wait_all_tasks_blocked()
        second = await attempt(sock.connect, listener.getsockname())
        nursery.cancel_scope.cancel()
    return second


@case("ClosedResourceError")
async def closing_a_socket_that_connects_wakes_its_connect(here: Place) -> object:
    """trio's rule."""
    listener, sock = await here.listener(backlog=0), here.tcp()
    await here.connect(listener)
    return await while_waiting(sock.connect, listener.getsockname(), then=sock.close)


@case("ECONNRESET")
async def shutting_down_a_socket_that_connects_wakes_its_connect(here: Place) -> object:
    """Linux gives the attempt up (tcp_disconnect)."""
    listener, sock = await here.listener(backlog=0), here.tcp()
    await here.connect(listener)
    return await while_waiting(sock.connect, listener.getsockname(), then=lambda: sock.shutdown(socket.SHUT_RDWR))


@case(
    {
        "getsockname": "127.0.0.1",
        "getpeername": "ENOTCONN",
        "recv": "waits",
        "send": "BusyResourceError",
        "bind": "EINVAL",
        "listen": "EINVAL",
        "accept": "EINVAL",
        "SO_ERROR": 0,
    }
)
async def while_a_socket_connects(here: Place) -> object:
    """It waits for room in the backlog.  It has a name already; sending waits for the same thing as connecting."""
    listener, sock = await here.listener(backlog=0), here.tcp()
    await here.connect(listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sock.connect, listener.getsockname())
        await wait_all_tasks_blocked()
        told = {
            "getsockname": sock.getsockname()[0],
            "getpeername": await attempt(sock.getpeername),
            "recv": await waits(sock.recv, 1),
            "send": await waits(sock.send, b"x"),
            "bind": await attempt(sock.bind, ("127.0.0.1", 0)),
            "listen": await attempt(sock.listen),
            "accept": await attempt(sock.accept),
            "SO_ERROR": pending_error(sock),
        }
        nursery.cancel_scope.cancel()
    return told


@case((False, True, False))
async def a_listener_is_readable_while_somebody_waits(here: Place) -> object:
    """is_readable()."""
    listener = await here.listener()
    before = listener.is_readable()
    await here.connect(listener)
    await until_readable(listener)
    during = listener.is_readable()
    await here.accept(listener)
    return before, during, listener.is_readable()


@case(20)
async def many_clients_are_many_connections(here: Place) -> object:
    """Each hears its own number."""
    listener = await here.listener()
    heard: list[bytes] = []

    async def client(number: int) -> None:
        sock = await here.connect(listener)
        await sock.send(bytes([number]))
        assert await sock.recv(1) == bytes([number])
        heard.append(b"")

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(client, number)
        for _ in range(20):
            server = await here.accept(listener)
            await server.send(await server.recv(1))
    return len(heard)
