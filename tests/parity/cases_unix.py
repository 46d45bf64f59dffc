"""AF_UNIX streams: unix(7)."""

from __future__ import annotations

import trio
from trio import socket

from tests.parity.cases_kit import Place, all_of, attempt, case, until_readable, while_waiting


@case((b"question", b"answer"))
async def a_path_connects_two_sockets(here: Place) -> object:
    """A stream in both directions."""
    client, server = await here.unix_pair()
    await client.send(b"question")
    await server.send(b"answer")
    return await server.recv(100), await client.recv(100)


@case((("", "DIR/pair"), ("DIR/pair", "")))
async def only_the_server_has_a_name(here: Place) -> object:
    """The client is unnamed."""
    return here.ends(*await here.unix_pair())


@case(("DIR/client", "DIR/client", "DIR/server"))
async def a_client_may_have_a_name_too(here: Place) -> object:
    """It binds before it connects; accept() tells it."""
    listener, client = here.unix(), here.unix()
    await listener.bind(here.path("server"))
    await client.bind(here.path("client"))
    listener.listen()
    await client.connect(here.path("server"))
    server, peer = await listener.accept()
    here.keep(server)
    return here.told(peer), here.told(server.getpeername()), here.told(client.getpeername())


@case("")
async def an_unnamed_client_is_told_as_an_empty_name(here: Place) -> object:
    """By accept()."""
    listener = here.unix()
    await listener.bind(here.path("server"))
    listener.listen()
    await here.unix().connect(here.path("server"))
    server, peer = await listener.accept()
    server.close()
    return peer


@case("ENOENT")
async def a_path_that_is_not_there_cannot_be_connected_to(here: Place) -> object:
    """connect(2)."""
    return await attempt(here.unix().connect, here.path("nothing"))


@case("ECONNREFUSED")
async def a_path_without_a_listener_refuses(here: Place) -> object:
    """Bound but not listening."""
    await here.unix().bind(here.path("server"))
    return await attempt(here.unix().connect, here.path("server"))


@case("ECONNREFUSED")
async def the_name_that_a_closed_socket_leaves_behind_refuses(here: Place) -> object:
    """It is a file, and nobody has unlinked it."""
    sock = here.unix()
    await sock.bind(here.path("server"))
    sock.listen()
    sock.close()
    return await attempt(here.unix().connect, here.path("server"))


@case("EADDRINUSE")
async def a_path_is_bound_once(here: Place) -> object:
    """bind(2)."""
    await here.unix().bind(here.path("server"))
    return await attempt(here.unix().bind, here.path("server"))


@case("EADDRINUSE")
async def the_name_that_a_closed_socket_leaves_behind_is_taken(here: Place) -> object:
    """Until somebody unlinks it."""
    sock = here.unix()
    await sock.bind(here.path("server"))
    sock.close()
    return await attempt(here.unix().bind, here.path("server"))


@case("ENOENT")
async def a_path_in_no_directory_cannot_be_bound(here: Place) -> object:
    """bind(2)."""
    return await attempt(here.unix().bind, here.path("missing/server"))


@case("EINVAL")
async def a_unix_socket_is_bound_once(here: Place) -> object:
    """bind(2)."""
    sock = here.unix()
    await sock.bind(here.path("one"))
    return await attempt(sock.bind, here.path("two"))


@case("OSError")
async def a_path_has_at_most_107_bytes(here: Place) -> object:
    """Python says so, without an errno."""
    return await attempt(here.unix().bind, here.path("x" * 108))


@case((b"abstract", True, "EADDRINUSE", "ECONNREFUSED"))
async def an_abstract_name_needs_no_file(here: Place) -> object:
    """It begins with a zero byte, and ends with its socket."""
    name, listener, client = b"\0" + here.path("abstract").encode(), here.unix(), here.unix()
    await listener.bind(name)
    listener.listen()
    await client.connect(name)
    await (await here.accept(listener)).send(b"abstract")
    again = await attempt(here.unix().bind, name)
    listener.close()
    return await client.recv(100), client.getpeername() == name, again, await attempt(here.unix().connect, name)


@case({"recv": "EINVAL", "send": "ENOTCONN", "accept": "EINVAL", "getpeername": "ENOTCONN", "shutdown": "ok"})
async def a_fresh_unix_socket_refuses_what_needs_a_peer(here: Place) -> object:
    """Not with the errno of TCP."""
    sock = here.unix()
    return {
        "recv": await attempt(sock.recv, 1),
        "send": await attempt(sock.send, b"x"),
        "accept": await attempt(sock.accept),
        "getpeername": await attempt(sock.getpeername),
        "shutdown": await attempt(sock.shutdown, socket.SHUT_WR),
    }


@case(("EISCONN", "EINVAL", "EINVAL"))
async def a_connected_unix_socket_cannot_start_anew(here: Place) -> object:
    """connect(2), listen(2), accept(2)."""
    listener, client = here.unix(), here.unix()
    await listener.bind(here.path("server"))
    listener.listen()
    await client.connect(here.path("server"))
    return await all_of(attempt(client.connect, here.path("server")), attempt(client.listen), attempt(client.accept))


@case("EINVAL")
async def an_unnamed_unix_socket_cannot_listen(here: Place) -> object:
    """listen(2); there is no free port to take."""
    return await attempt(here.unix().listen)


@case((b"last words", b"", "EPIPE"))
async def the_end_of_a_unix_stream(here: Place) -> object:
    """EPIPE at the first send: there is no network between them."""
    client, server = await here.unix_pair()
    await server.send(b"last words")
    server.close()
    return await client.recv(100), await client.recv(100), await attempt(client.send, b"x")


@case((b"", b"reply", "EPIPE"))
async def a_unix_stream_can_be_half_closed(here: Place) -> object:
    """As over TCP."""
    client, server = await here.unix_pair()
    client.shutdown(socket.SHUT_WR)
    end = await server.recv(1)
    await server.send(b"reply")
    return end, await client.recv(100), await attempt(client.send, b"x")


@case(("EPIPE", b""))
async def after_shut_rd_the_peer_cannot_send(here: Place) -> object:
    """Unlike over TCP, the peer is told."""
    client, server = await here.unix_pair()
    client.shutdown(socket.SHUT_RD)
    return await attempt(server.send, b"x"), await client.recv(1)


@case(("ECONNRESET", b"", "EPIPE"))
async def closing_a_unix_stream_with_unread_data_resets(here: Place) -> object:
    """Told once."""
    client, server = await here.unix_pair()
    await client.send(b"nobody reads this")
    server.close()
    return await attempt(client.recv, 1), await attempt(client.recv, 1), await attempt(client.send, b"x")


@case((b"", "DIR/pair"))
async def the_name_of_a_peer_that_is_gone_is_kept(here: Place) -> object:
    """Unlike over TCP."""
    client, server = await here.unix_pair()
    server.close()
    return await client.recv(1), here.told(client.getpeername())


@case("ECONNRESET")
async def closing_a_unix_listener_resets_who_was_not_accepted(here: Place) -> object:
    """As over TCP."""
    listener, client = here.unix(), here.unix()
    await listener.bind(here.path("server"))
    listener.listen()
    await client.connect(here.path("server"))
    listener.close()
    await until_readable(client)
    return await attempt(client.recv, 1)


@case((b"early", b""))
async def a_unix_client_may_send_and_end_before_it_is_accepted(here: Place) -> object:
    """As over TCP."""
    listener, client = here.unix(), here.unix()
    await listener.bind(here.path("server"))
    listener.listen()
    await client.connect(here.path("server"))
    await client.send(b"early")
    client.close()
    server = await here.accept(listener)
    return await server.recv(100), await server.recv(100)


@case(b"now")
async def a_reader_of_a_unix_stream_is_woken(here: Place) -> object:
    """By what is sent."""
    client, server = await here.unix_pair()
    return await while_waiting(client.recv, 100, then=lambda: server.send(b"now"))


@case((b"path", b"path"))
async def a_path_may_be_bytes_or_a_path_object(here: Place) -> object:
    """PEP 519."""
    listener = here.unix()
    await listener.bind(here.path("server").encode())
    listener.listen()
    told = []
    for address in (here.path("server").encode(), trio.Path(here.path("server"))):
        client = here.unix()
        await client.connect(address)
        await (await here.accept(listener)).send(b"path")
        told.append(await client.recv(100))
    return tuple(told)


@case((b"one", b"two"))
async def open_unix_socket_is_a_stream(here: Place) -> object:
    """trio.open_unix_socket() takes a path."""
    listener = here.unix()
    await listener.bind(here.path("server"))
    listener.listen()
    async with await trio.open_unix_socket(here.path("server")) as stream:
        server = await here.accept(listener)
        await stream.send_all(b"one")
        await server.send(b"two")
        return await server.recv(100), await stream.receive_some(100)


@case("FileNotFoundError")
async def open_unix_socket_of_nothing_is_an_os_error(here: Place) -> object:
    """Unwrapped."""
    try:
        await trio.open_unix_socket(here.path("nothing"))
    except OSError as exc:
        return type(exc).__name__
    return "opened"
