"""Errors: what every call says in every state of a socket."""

from __future__ import annotations

from trio import socket

from tests.parity.cases_kit import Place, Sock, all_of, attempt, case, pending_error, waits


async def every_call(sock: Sock) -> dict[str, object]:
    """What each call says that needs a peer, or that a peer rules out; in this order, they do not disturb another."""
    return {
        "recv": await attempt(sock.recv, 1),
        "send": await attempt(sock.send, b"x"),
        "getpeername": await attempt(sock.getpeername),
        "accept": await attempt(sock.accept),
        "shutdown": await attempt(sock.shutdown, socket.SHUT_WR),
    }


@case(
    {"recv": "ENOTCONN", "send": "EPIPE", "getpeername": "ENOTCONN", "accept": "EINVAL", "shutdown": "ENOTCONN"},
)
async def a_fresh_tcp_socket_refuses_what_needs_a_peer(here: Place) -> object:
    """recv(2), send(2): EPIPE, not ENOTCONN, is what Linux says to a TCP sender that never connected."""
    return await every_call(here.tcp())


@case(
    {"recv": "ENOTCONN", "send": "EPIPE", "getpeername": "ENOTCONN", "accept": "EINVAL", "shutdown": "ENOTCONN"},
)
async def a_bound_tcp_socket_refuses_what_needs_a_peer(here: Place) -> object:
    """To be bound changes nothing."""
    return await every_call(await here.bound())


@case({"recv": "ENOTCONN", "send": "EPIPE", "getpeername": "ENOTCONN", "accept": "waits", "shutdown": "ok"})
async def a_listening_tcp_socket_only_accepts(here: Place) -> object:
    """shutdown(SHUT_WR) of a listener is accepted and does nothing."""
    listener = await here.listener()
    return {
        "recv": await attempt(listener.recv, 1),
        "send": await attempt(listener.send, b"x"),
        "getpeername": await attempt(listener.getpeername),
        "accept": await waits(listener.accept),
        "shutdown": await attempt(listener.shutdown, socket.SHUT_WR),
    }


@case(("ok", "EISCONN", "EISCONN"))
async def a_connected_client_cannot_connect_again(here: Place) -> object:
    """The first call after a non-blocking connect, as trio's is, collects its success once more (connect(2))."""
    client, server = await here.pair()
    return await all_of(*(attempt(client.connect, server.getsockname()) for _ in range(3)))


@case({"accept": "EINVAL", "listen": "EINVAL", "bind": "EINVAL"})
async def a_connected_tcp_socket_cannot_start_anew(here: Place) -> object:
    """listen(2), bind(2)."""
    client, _ = await here.pair()
    return {
        "accept": await attempt(client.accept),
        "listen": await attempt(client.listen),
        "bind": await attempt(client.bind, ("127.0.0.1", 0)),
    }


@case({"connect": "EISCONN", "accept": "EINVAL", "listen": "EINVAL", "bind": "EINVAL"})
async def an_accepted_socket_cannot_start_anew(here: Place) -> object:
    """The server's end is an ordinary connected socket."""
    client, server = await here.pair()
    return {
        "connect": await attempt(server.connect, client.getsockname()),
        "accept": await attempt(server.accept),
        "listen": await attempt(server.listen),
        "bind": await attempt(server.bind, ("127.0.0.1", 0)),
    }


@case("EISCONN")
async def a_listener_cannot_connect(here: Place) -> object:
    """connect(2)."""
    return await attempt((await here.listener()).connect, (await here.listener()).getsockname())


@case("ok")
async def a_listener_may_listen_again(here: Place) -> object:
    """listen(2): the second call only changes the backlog."""
    return await attempt((await here.listener()).listen, 5)


@case("EINVAL")
async def a_listener_cannot_be_bound_again(here: Place) -> object:
    """bind(2)."""
    return await attempt((await here.listener()).bind, ("127.0.0.1", 0))


@case(
    {
        "recv": "EBADF",
        "recv_into": "EBADF",
        "recvfrom": "EBADF",
        "recvmsg": "EBADF",
        "send": "EBADF",
        "sendto": "EBADF",
        "sendmsg": "EBADF",
        "accept": "EBADF",
        "connect": "EBADF",
        "bind": "EBADF",
        "listen": "EBADF",
        "shutdown": "EBADF",
        "getsockname": "EBADF",
        "getpeername": "EBADF",
        "getsockopt": "EBADF",
        "setsockopt": "EBADF",
        "fileno": -1,
        "close": "ok",
    }
)
async def every_call_on_a_closed_socket_says_bad_descriptor(here: Place) -> object:
    """Except close() itself, which may be called twice."""
    sock, _ = await here.pair()
    peer = sock.getpeername()
    sock.close()
    return {
        "recv": await attempt(sock.recv, 1),
        "recv_into": await attempt(sock.recv_into, bytearray(1)),
        "recvfrom": await attempt(sock.recvfrom, 1),
        "recvmsg": await attempt(sock.recvmsg, 1),
        "send": await attempt(sock.send, b"x"),
        "sendto": await attempt(sock.sendto, b"x", peer),
        "sendmsg": await attempt(sock.sendmsg, [b"x"]),
        "accept": await attempt(sock.accept),
        "connect": await attempt(sock.connect, peer),
        "bind": await attempt(sock.bind, ("127.0.0.1", 0)),
        "listen": await attempt(sock.listen),
        "shutdown": await attempt(sock.shutdown, socket.SHUT_WR),
        "getsockname": await attempt(sock.getsockname),
        "getpeername": await attempt(sock.getpeername),
        "getsockopt": await attempt(sock.getsockopt, socket.SOL_SOCKET, socket.SO_ERROR),
        "setsockopt": await attempt(sock.setsockopt, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        "fileno": sock.fileno(),
        "close": await attempt(sock.close),
    }


@case({"listen": "EOPNOTSUPP", "accept": "EOPNOTSUPP", "shutdown": "ENOTCONN", "getpeername": "ENOTCONN"})
async def a_datagram_socket_has_no_connections(here: Place) -> object:
    """listen(2), accept(2): EOPNOTSUPP."""
    sock = here.udp()
    return {
        "listen": await attempt(sock.listen),
        "accept": await attempt(sock.accept),
        "shutdown": await attempt(sock.shutdown, socket.SHUT_WR),
        "getpeername": await attempt(sock.getpeername),
    }


@case(("ValueError", "ValueError", "ValueError", "ValueError", "ValueError"))
async def trio_refuses_an_ipv4_address_that_is_no_pair(here: Place) -> object:
    """Checked by trio before anything is touched, so the socket stays as it was."""
    sock = here.tcp()
    wrong: list[object] = [("127.0.0.1",), ("127.0.0.1", 1, 0), "127.0.0.1", 80, ()]
    return tuple([await attempt(sock.bind, address) for address in wrong])


@case(("ValueError", "ValueError", "ValueError"))
async def trio_refuses_an_ipv6_address_of_one_or_five_parts(here: Place) -> object:
    """(host, port, flowinfo, scope): the last two may be missing."""
    sock = here.tcp6()
    wrong: list[object] = [("::1",), ("::1", 1, 0, 0, 0), "::1"]
    return tuple([await attempt(sock.connect, address) for address in wrong])


@case(("OverflowError", "OverflowError", "OverflowError", "OverflowError"))
async def a_port_has_sixteen_bits(here: Place) -> object:
    """Python refuses other numbers before it asks the system."""
    tcp, udp = here.tcp(), here.udp()
    return (
        await attempt(tcp.bind, ("127.0.0.1", 65536)),
        await attempt(tcp.bind, ("127.0.0.1", -1)),
        await attempt(tcp.connect, ("127.0.0.1", 70000)),
        await attempt(udp.sendto, b"x", ("127.0.0.1", 70000)),
    )


@case(("EINVAL", "EINVAL"))
async def shutdown_wants_one_of_three_ways(here: Place) -> object:
    """shutdown(2)."""
    client, _ = await here.pair()
    return await all_of(attempt(client.shutdown, 3), attempt(client.shutdown, -1))


@case(("EAFNOSUPPORT", "ESOCKTNOSUPPORT", "EPROTONOSUPPORT", "EPROTONOSUPPORT"))
async def a_socket_needs_a_family_a_type_and_a_protocol_that_fit(here: Place) -> object:
    """socket(2)."""
    return (
        await attempt(socket.socket, 200, socket.SOCK_STREAM),
        await attempt(socket.socket, socket.AF_INET, 9),
        await attempt(socket.socket, socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_UDP),
        await attempt(socket.socket, socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_TCP),
    )


@case(("ECONNREFUSED", "ECONNABORTED", "ok"))
async def a_refused_socket_may_try_again(here: Place) -> object:
    """The second call only clears away the failed attempt, whose error trio has read already (inet_stream_connect)."""
    sock, listener = here.tcp(), await here.listener()
    refused = await attempt(sock.connect, ("127.0.0.1", await here.unused_port()))
    return refused, *await all_of(*(attempt(sock.connect, listener.getsockname()) for _ in range(2)))


@case(
    {
        "named": ("ECONNREFUSED", "EINVAL", "ECONNABORTED", "ok", True),
        "drawn": ("ECONNREFUSED", "ok", "ECONNABORTED", "ok", True),
    }
)
async def a_refused_socket_keeps_its_port_if_it_is_bound_anew(here: Place) -> object:
    """A port that bind() was told stays; one that the system chose is given back, and can be bound again by name."""
    listener, found = await here.listener(), {}
    for how, port in (("named", await here.unused_port()), ("drawn", 0)):
        sock = await here.bound(port=port)
        local = sock.getsockname()
        found[how] = (
            await attempt(sock.connect, ("127.0.0.1", await here.unused_port())),
            await attempt(sock.bind, local),
            *await all_of(*(attempt(sock.connect, listener.getsockname()) for _ in range(2))),
            sock.getsockname() == local,
        )
    return found


@case(("ECONNREFUSED", 0))
async def a_refusal_is_told_once(here: Place) -> object:
    """socket(7): reading SO_ERROR clears it, and trio's connect has read it."""
    sock = here.tcp()
    refused = await attempt(sock.connect, ("127.0.0.1", await here.unused_port()))
    return refused, pending_error(sock)


@case({"recv": b"", "send": "EPIPE", "getpeername": "ENOTCONN", "accept": "EINVAL", "shutdown": "ENOTCONN"})
async def a_refused_socket_reads_as_ended(here: Place) -> object:
    """A refusal is a reset, and a reset ends the reading."""
    sock = here.tcp()
    await attempt(sock.connect, ("127.0.0.1", await here.unused_port()))
    return await every_call(sock)
