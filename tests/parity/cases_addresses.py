"""Addresses: what can be bound, who shares it, which name a socket then has."""

from __future__ import annotations

from trio import socket

from tests.parity.cases_kit import RESET_ON_CLOSE, Place, Sock, all_of, attempt, case, until_readable

# TEST-NET-3 (RFC 5737) and the documentation prefix (RFC 3849): nobody's.
FOREIGN, FOREIGN6 = "203.0.113.7", "2001:db8::7"

SHARING = {
    "nothing": (),
    "address": ("SO_REUSEADDR",),
    "port": ("SO_REUSEPORT",),
    "both": ("SO_REUSEADDR", "SO_REUSEPORT"),
}


def sharing(sock: Sock, how: str) -> Sock:
    """``sock``, which now shares its address as ``how`` says."""
    for name in SHARING[how]:
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), 1)
    return sock


async def second_binder(here: Place, kind: int) -> dict[str, str]:
    """For each first binder what nothing, address, port and both of a second binder lead to."""
    table = {}
    for first in SHARING:
        row = []
        for second in SHARING:
            holder = sharing(here.new(kind=kind), first)
            await holder.bind(("127.0.0.1", 0))
            row.append(await attempt(sharing(here.new(kind=kind), second).bind, holder.getsockname()))
        table[first] = " ".join("bound" if each == "ok" else each for each in row)
    return table


MATRIX = {
    "nothing": "EADDRINUSE EADDRINUSE EADDRINUSE EADDRINUSE",
    "address": "EADDRINUSE bound EADDRINUSE bound",
    "port": "EADDRINUSE EADDRINUSE bound bound",
    "both": "EADDRINUSE bound bound bound",
}


@case(MATRIX)
async def who_may_bind_a_tcp_address_that_is_bound(here: Place) -> object:
    """The table of trioqt/core/options.py."""
    return await second_binder(here, socket.SOCK_STREAM)


@case(MATRIX)
async def who_may_bind_a_udp_address_that_is_bound(here: Place) -> object:
    """The same."""
    return await second_binder(here, socket.SOCK_DGRAM)


@case({"nothing": "EADDRINUSE", "address": "EADDRINUSE", "port": "ok", "both": "ok"})
async def who_may_bind_a_tcp_address_that_is_listened_on(here: Place) -> object:
    """socket(7): REUSEADDR does not let a second one in beside a listener, REUSEPORT does."""
    told = {}
    for how in SHARING:
        holder = sharing(here.tcp(), how)
        await holder.bind(("127.0.0.1", 0))
        holder.listen()
        told[how] = await attempt(sharing(here.tcp(), how).bind, holder.getsockname())
    return told


@case({"address": "EADDRINUSE", "port": "ok", "both": "ok"})
async def who_may_listen_at_an_address_that_is_listened_on(here: Place) -> object:
    """Both were bound before the first one listened."""
    told = {}
    for how in ("address", "port", "both"):
        first, second = sharing(here.tcp(), how), sharing(here.tcp(), how)
        await first.bind(("127.0.0.1", 0))
        await second.bind(first.getsockname())
        first.listen()
        told[how] = await attempt(second.listen)
    return told


@case((b"second", "ECONNREFUSED"))
async def of_two_listeners_at_one_port_the_survivor_gets_all(here: Place) -> object:
    """REUSEPORT."""
    first, second = sharing(here.tcp(), "port"), sharing(here.tcp(), "port")
    await first.bind(("127.0.0.1", 0))
    await second.bind(first.getsockname())
    first.listen()
    second.listen()
    address = first.getsockname()
    first.close()
    client = await here.connect(second)
    server = await here.accept(second)
    await server.send(b"second")
    second.close()
    return await client.recv(100), await attempt(here.tcp().connect, address)


@case(((("0.0.0.0", 0)), ("::", 0, 0, 0), ("0.0.0.0", 0), ""))
async def a_fresh_socket_is_nowhere(here: Place) -> object:
    """getsockname(2)."""
    socks = here.tcp(), here.tcp6(), here.udp(), here.unix()
    return tuple(here.told(sock.getsockname()) for sock in socks)


@case((("127.0.0.1", "port A"), ("127.0.0.1", "port B"), ("0.0.0.0", "port C"), ("::1", "port D", 0, 0)))
async def port_0_is_any_free_one(here: Place) -> object:
    """Each time another."""
    socks = await here.bound(), await here.bound(), await here.bound("0.0.0.0"), here.tcp6()
    await socks[3].bind(("::1", 0))
    return tuple(here.told(sock.getsockname()) for sock in socks)


@case(True)
async def free_ports_are_above_the_well_known_ones(here: Place) -> object:
    """ip(7), ip_local_port_range."""
    return all([1024 <= (await here.bound()).getsockname()[1] <= 65535 for _ in range(5)])


@case(("EADDRNOTAVAIL", "EADDRNOTAVAIL", "EADDRNOTAVAIL"))
async def a_foreign_address_cannot_be_bound(here: Place) -> object:
    """bind(2)."""
    return (
        await attempt(here.tcp().bind, (FOREIGN, 0)),
        await attempt(here.udp().bind, (FOREIGN, 0)),
        await attempt(here.tcp6().bind, (FOREIGN6, 0)),
    )


@case(("ok", "EINVAL", "ok", "EINVAL"))
async def a_socket_is_bound_once(here: Place) -> object:
    """bind(2)."""
    tcp, udp = here.tcp(), here.udp()
    return await all_of(*(attempt(sock.bind, ("127.0.0.1", 0)) for sock in (tcp, tcp, udp, udp)))


@case(("EADDRINUSE", "ok"))
async def a_failed_bind_leaves_the_socket_free(here: Place) -> object:
    """It may be bound elsewhere."""
    sock, holder = here.tcp(), await here.bound()
    return await all_of(*(attempt(sock.bind, address) for address in (holder.getsockname(), ("127.0.0.1", 0))))


@case(("EADDRINUSE", "ok"))
async def a_closed_socket_gives_its_address_back(here: Place) -> object:
    """At once: nothing was ever connected."""
    holder = await here.listener()
    address = holder.getsockname()
    before = await attempt(here.tcp().bind, address)
    holder.close()
    return before, await attempt(here.tcp().bind, address)


@case("ok")
async def tcp_and_udp_ports_are_apart(here: Place) -> object:
    """Two protocols, two sets of ports."""
    return await attempt(here.udp().bind, (await here.bound()).getsockname())


@case((b"first", b"second"))
async def one_port_of_two_addresses_is_two_places(here: Place) -> object:
    """All of 127.0.0.0/8 is this host (RFC 1122 3.2.1.3)."""
    first = await here.listener("127.0.0.1")
    second = await here.listener("127.0.0.2", first.getsockname()[1])
    told = []
    for listener, word in ((first, b"first"), (second, b"second")):
        client = await here.connect(listener)
        await (await here.accept(listener)).send(word)
        told.append(await client.recv(100))
    return tuple(told)


@case(("EADDRINUSE", "EADDRINUSE", "ok"))
async def the_wildcard_is_every_address(here: Place) -> object:
    """It collides with each, in either order."""
    wild, special = await here.bound("0.0.0.0"), await here.bound("127.0.0.1")
    return (
        await attempt(here.tcp().bind, ("127.0.0.1", wild.getsockname()[1])),
        await attempt(here.tcp().bind, ("0.0.0.0", special.getsockname()[1])),
        await attempt(here.tcp().bind, ("127.0.0.2", special.getsockname()[1])),
    )


@case(("127.0.0.1", "127.0.0.2", "127.0.0.1"))
async def a_wildcard_listener_is_found_at_every_address(here: Place) -> object:
    """The accepted socket has the address that was called, the listener keeps the wildcard."""
    listener = await here.listener("0.0.0.0")
    told = []
    for address in ("127.0.0.1", "127.0.0.2", "0.0.0.0"):
        await here.tcp().connect((address, listener.getsockname()[1]))
        told.append((await here.accept(listener)).getsockname()[0])
    return tuple(told)


@case(("127.0.0.1", "127.0.0.1", "::1"))
async def to_connect_to_the_wildcard_is_to_connect_to_loopback(here: Place) -> object:
    """Linux takes it for "this host"; a bound address that listens there answers."""
    told = []
    for address, wildcard in (("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "0.0.0.0"), ("::1", "::")):
        listener = await here.listener(address)
        client = here.new(listener.family)
        await client.connect((wildcard, listener.getsockname()[1]))
        told.append(client.getpeername()[0])
    return tuple(told)


@case(
    (
        (("127.0.0.1", "port A"), ("127.0.0.1", "port B")),
        (("127.0.0.1", "port B"), ("127.0.0.1", "port A")),
    )
)
async def each_end_knows_the_other_by_name(here: Place) -> object:
    """getsockname(2), getpeername(2)."""
    return here.ends(*await here.pair())


@case((("127.0.0.2", "port A"), ("127.0.0.2", "port A")))
async def a_client_may_choose_its_own_address(here: Place) -> object:
    """Bound before it connects."""
    listener, client = await here.listener(), await here.bound("127.0.0.2")
    bound_to = here.told(client.getsockname())
    await client.connect(listener.getsockname())
    return bound_to, here.told((await here.accept(listener)).getpeername())


@case((("0.0.0.0", "port A"), ("127.0.0.1", "port A")))
async def a_wildcard_becomes_an_address_when_it_connects(here: Place) -> object:
    """The port stays."""
    listener, client = await here.listener(), await here.bound("0.0.0.0")
    before = here.told(client.getsockname())
    await client.connect(listener.getsockname())
    return before, here.told(client.getsockname())


@case(("ok", "EADDRNOTAVAIL", "ok"))
async def one_pair_of_addresses_is_one_connection(here: Place) -> object:
    """connect(2): two clients may share an address, but not towards one server."""
    listener, other = await here.listener(), await here.listener()
    first, second, third = (sharing(here.tcp(), "address") for _ in range(3))
    await first.bind(("127.0.0.1", 0))
    await second.bind(first.getsockname())
    await third.bind(first.getsockname())
    return (
        await attempt(first.connect, listener.getsockname()),
        await attempt(second.connect, listener.getsockname()),
        await attempt(third.connect, other.getsockname()),
    )


@case({"nothing": "EADDRINUSE", "address": "ok"})
async def a_server_that_ended_first_blocks_its_port_for_a_while(here: Place) -> object:
    """TIME_WAIT (RFC 9293 3.6.1); REUSEADDR is there to get past it."""
    told = {}
    for how in ("nothing", "address"):
        listener = sharing(here.tcp(), how)
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        address, client = listener.getsockname(), await here.connect(listener)
        server = await here.accept(listener)
        listener.close()
        server.close()
        await client.recv(1)
        client.close()
        told[how] = await attempt(sharing(here.tcp(), how).bind, address)
    return told


@case("ok")
async def a_server_whose_client_ended_first_has_its_port_free(here: Place) -> object:
    """TIME_WAIT is then the client's."""
    listener = await here.listener()
    address, client = listener.getsockname(), await here.connect(listener)
    server = await here.accept(listener)
    listener.close()
    client.close()
    await server.recv(1)
    server.close()
    return await attempt(here.tcp().bind, address)


@case("ok")
async def a_reset_leaves_no_time_wait(here: Place) -> object:
    """Which is why some servers reset."""
    listener = await here.listener()
    address, client = listener.getsockname(), await here.connect(listener)
    server = await here.accept(listener)
    listener.close()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    server.close()
    await until_readable(client)
    return await attempt(here.tcp().bind, address)


@case({"nothing": "EADDRINUSE", "address": "ok"})
async def a_server_may_come_back_while_old_connections_live(here: Place) -> object:
    """With REUSEADDR, once nobody listens there."""
    told = {}
    for how in ("nothing", "address"):
        listener = sharing(here.tcp(), how)
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()
        await here.connect(listener)
        await here.accept(listener)
        listener.close()
        told[how] = await attempt(sharing(here.tcp(), how).bind, address)
    return told


@case((("::1", "port A", 0, 0), ("::1", "port B", 0, 0), "::1", ("::1", "port A", 0, 0)))
async def an_ipv6_name_has_four_parts(here: Place) -> object:
    """RFC 3493: address, port, flow, scope."""
    listener = await here.listener("::1")
    client = await here.connect(listener)
    server, peer = await listener.accept()
    here.keep(server)
    mine = here.told(client.getsockname()), here.told(client.getpeername())
    return *mine, server.getsockname()[0], here.told(peer)


@case(("ok", "ok", "ok"))
async def flow_and_scope_may_be_left_out(here: Place) -> object:
    """Two to four parts."""
    port = (await here.listener("::1")).getsockname()[1]
    addresses: list[object] = [("::1", port), ("::1", port, 0), ("::1", port, 0, 0)]
    return await all_of(*(attempt(here.tcp6().connect, address) for address in addresses))


@case(("::ffff:127.0.0.1", "::ffff:127.0.0.1", "::1", "::1"))
async def a_dual_stack_listener_sees_ipv4_as_mapped(here: Place) -> object:
    """RFC 4291 2.5.5.2; V6ONLY is off."""
    listener = await here.listener("::")
    await here.tcp().connect(("127.0.0.1", listener.getsockname()[1]))
    mapped = await here.accept(listener)
    await here.tcp6().connect(("::1", listener.getsockname()[1]))
    plain = await here.accept(listener)
    return mapped.getpeername()[0], mapped.getsockname()[0], plain.getpeername()[0], plain.getsockname()[0]


@case(("ECONNREFUSED", "ok"))
async def a_v6only_listener_does_not_see_ipv4(here: Place) -> object:
    """ipv6(7)."""
    listener = here.tcp6(v6only=True)
    await listener.bind(("::", 0))
    listener.listen()
    port = listener.getsockname()[1]
    return await attempt(here.tcp().connect, ("127.0.0.1", port)), await attempt(here.tcp6().connect, ("::1", port))


@case({"dual": "EADDRINUSE", "v6only": "ok"})
async def a_dual_stack_wildcard_holds_ipv4s_port_too(here: Place) -> object:
    """trio's open_tcp_listeners binds both, so it sets V6ONLY."""
    told = {}
    for name, v6only in (("dual", False), ("v6only", True)):
        wild = here.tcp6(v6only=v6only)
        await wild.bind(("::", 0))
        told[name] = await attempt(here.tcp().bind, ("0.0.0.0", wild.getsockname()[1]))
    return told


@case({"dual": "EADDRINUSE", "v6only": "ok"})
async def an_ipv4_port_keeps_a_dual_stack_wildcard_out(here: Place) -> object:
    """The other order."""
    told = {}
    for name, v6only in (("dual", False), ("v6only", True)):
        port = (await here.bound()).getsockname()[1]
        told[name] = await attempt(here.tcp6(v6only=v6only).bind, ("::", port))
    return told


@case("ok")
async def an_ipv6_address_leaves_ipv4s_port_alone(here: Place) -> object:
    """Only the wildcard is both."""
    sock = here.tcp6()
    await sock.bind(("::1", 0))
    return await attempt(here.tcp().bind, ("127.0.0.1", sock.getsockname()[1]))


@case((("::ffff:127.0.0.1", "port A", 0, 0), ("::ffff:127.0.0.1", "port B", 0, 0), ("127.0.0.1", "port A")))
async def an_ipv6_socket_reaches_ipv4_by_a_mapped_address(here: Place) -> object:
    """RFC 3493 3.7."""
    listener, client = await here.listener(), here.tcp6()
    await client.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
    server = await here.accept(listener)
    return *here.ends(client)[0], here.told(server.getpeername())  # type: ignore[misc]


@case("::ffff:127.0.0.1")
async def a_plain_ipv4_address_is_mapped_for_a_dual_stack_socket(here: Place) -> object:
    """trio asks for AI_V4MAPPED."""
    listener, client = await here.listener(), here.tcp6()
    await client.connect(("127.0.0.1", listener.getsockname()[1]))
    return client.getpeername()[0]


@case(("ENETUNREACH", "EINVAL"))
async def a_v6only_socket_knows_no_mapped_addresses(here: Place) -> object:
    """ipv6(7)."""
    port = (await here.listener()).getsockname()[1]
    return (
        await attempt(here.tcp6(v6only=True).connect, ("::ffff:127.0.0.1", port)),
        await attempt(here.tcp6(v6only=True).bind, ("::ffff:127.0.0.1", 0)),
    )


@case(("EAI_ADDRFAMILY", "EAI_ADDRFAMILY"))
async def an_address_of_the_other_family_is_a_name_that_is_not_found(here: Place) -> object:
    """trio asks getaddrinfo for the socket's family."""
    return (
        await attempt(here.tcp().connect, ("::1", 80)),
        await attempt(here.tcp6(v6only=True).connect, ("127.0.0.1", 80)),
    )


@case((b"via mapped", "EADDRINUSE"))
async def a_mapped_address_is_an_ipv4_address(here: Place) -> object:
    """An IPv6 socket bound to it serves IPv4 clients, and holds that port."""
    listener = await here.listener("::ffff:127.0.0.1")
    client = here.tcp()
    await client.connect(("127.0.0.1", listener.getsockname()[1]))
    await (await here.accept(listener)).send(b"via mapped")
    return await client.recv(100), await attempt(here.tcp().bind, ("127.0.0.1", listener.getsockname()[1]))


@case(("EINVAL", "EINVAL"))
async def a_link_local_address_needs_a_scope(here: Place) -> object:
    """RFC 4007 6."""
    return await attempt(here.tcp6().bind, ("fe80::1", 0)), await attempt(here.tcp6().connect, ("fe80::1", 80))


@case(("ECONNREFUSED", "ECONNREFUSED"))
async def nobody_listens_at_port_0(here: Place) -> object:
    """It is a port like any other, to TCP."""
    return await attempt(here.tcp().connect, ("127.0.0.1", 0)), await attempt(here.tcp6().connect, ("::1", 0))


@case(("127.0.0.1", "0.0.0.0"))
async def an_empty_host_is_loopback_to_connect_and_wildcard_to_bind(here: Place) -> object:
    """As in Python's socket module."""
    listener, client = here.tcp(), here.tcp()
    await listener.bind(("", 0))
    listener.listen()
    await client.connect(("", listener.getsockname()[1]))
    return client.getpeername()[0], listener.getsockname()[0]


@case(("127.0.0.1", "127.0.0.1"))
async def localhost_is_loopback(here: Place) -> object:
    """RFC 6761 6.3."""
    listener, client = here.tcp(), here.tcp()
    await listener.bind(("localhost", 0))
    listener.listen()
    await client.connect(("localhost", listener.getsockname()[1]))
    return listener.getsockname()[0], client.getpeername()[0]


@case(("ECONNREFUSED", "ECONNREFUSED", "ok"))
async def a_listener_at_one_address_is_not_at_another(here: Place) -> object:
    """127.0.0.1, the loopback of IPv6, and 127.0.0.2, where it is."""
    port = (await here.listener("127.0.0.2")).getsockname()[1]
    return (
        await attempt(here.tcp().connect, ("127.0.0.1", port)),
        await attempt(here.tcp6().connect, ("::1", port)),
        await attempt(here.tcp().connect, ("127.0.0.2", port)),
    )
