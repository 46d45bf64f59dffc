"""Options: what is answered, what is kept, what is refused (socket(7), tcp(7), ip(7), ipv6(7))."""

from __future__ import annotations

import struct

from trio import socket

from tests.parity.cases_kit import Place, Sock, attempt, case

SOL, IP, IP6, TCP = socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.IPPROTO_TCP


async def set_each(sock: Sock, level: int, option: int, *values: int | bytes) -> tuple[object, ...]:
    """For each value what setting it says or, if that is ok, what the option then answers."""
    told = []
    for value in values:
        error = await attempt(sock.setsockopt, level, option, value)
        told.append(sock.getsockopt(level, option) if error == "ok" else error)
    return tuple(told)


@case(
    {
        "SO_REUSEADDR": 0,
        "SO_REUSEPORT": 0,
        "SO_KEEPALIVE": 0,
        "SO_BROADCAST": 0,
        "SO_OOBINLINE": 0,
        "SO_LINGER": 0,
        "SO_ERROR": 0,
        "SO_ACCEPTCONN": 0,
        "SO_RCVLOWAT": 1,
    }
)
async def defaults_of_a_socket(here: Place) -> object:
    """socket(7)."""
    names = (
        "REUSEADDR",
        "REUSEPORT",
        "KEEPALIVE",
        "BROADCAST",
        "OOBINLINE",
        "LINGER",
        "ERROR",
        "ACCEPTCONN",
        "RCVLOWAT",
    )
    return {f"SO_{name}": here.tcp().getsockopt(SOL, getattr(socket, f"SO_{name}")) for name in names}


@case(
    {
        "TCP_NODELAY": 0,
        "TCP_CORK": 0,
        "TCP_KEEPIDLE": 7200,
        "TCP_KEEPINTVL": 75,
        "TCP_KEEPCNT": 9,
        "TCP_USER_TIMEOUT": 0,
        "TCP_NOTSENT_LOWAT": 0,
    }
)
async def defaults_of_tcp(here: Place) -> object:
    """tcp(7); two hours until the first keep-alive probe (RFC 9293 3.8.4)."""
    names = ("NODELAY", "CORK", "KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT", "NOTSENT_LOWAT")
    return {f"TCP_{name}": here.tcp().getsockopt(TCP, getattr(socket, f"TCP_{name}")) for name in names}


@case({"IP_TOS": 0, "IP_TTL": 64, "IP_MULTICAST_TTL": 1, "IP_MULTICAST_LOOP": 1})
async def defaults_of_ipv4(here: Place) -> object:
    """ip(7)."""
    names = ("TOS", "TTL", "MULTICAST_TTL", "MULTICAST_LOOP")
    return {f"IP_{name}": here.udp().getsockopt(IP, getattr(socket, f"IP_{name}")) for name in names}


@case(
    {"IPV6_V6ONLY": 0, "IPV6_TCLASS": 0, "IPV6_UNICAST_HOPS": 64, "IPV6_MULTICAST_HOPS": 1, "IPV6_MULTICAST_LOOP": 1},
)
async def defaults_of_ipv6(here: Place) -> object:
    """ipv6(7); V6ONLY is off unless the machine's administrator says otherwise."""
    sock = here.new(socket.AF_INET6, socket.SOCK_DGRAM)
    names = ("V6ONLY", "TCLASS", "UNICAST_HOPS", "MULTICAST_HOPS", "MULTICAST_LOOP")
    return {f"IPV6_{name}": sock.getsockopt(IP6, getattr(socket, f"IPV6_{name}")) for name in names}


@case({"REUSEADDR": (1, 1, 0), "REUSEPORT": (1, 1, 0), "KEEPALIVE": (1, 1, 0), "BROADCAST": (1, 1, 0)})
async def a_flag_answers_one_whatever_switched_it_on(here: Place) -> object:
    """Set to 1, 5 and 0."""
    names = ("REUSEADDR", "REUSEPORT", "KEEPALIVE", "BROADCAST")
    return {name: await set_each(here.tcp(), SOL, getattr(socket, f"SO_{name}"), 1, 5, 0) for name in names}


@case(((1, 1, 0), (1, 1, 0)))
async def a_flag_of_tcp_answers_one_whatever_switched_it_on(here: Place) -> object:
    """TCP_NODELAY, TCP_CORK."""
    return (
        await set_each(here.tcp(), TCP, socket.TCP_NODELAY, 1, 5, 0),
        await set_each(here.tcp(), TCP, socket.TCP_CORK, 1, 5, 0),
    )


@case(
    {
        "idle": (1, 60, 32767, "EINVAL", "EINVAL", "EINVAL"),
        "interval": (1, 60, 32767, "EINVAL", "EINVAL", "EINVAL"),
        "count": (1, 60, 127, "EINVAL", "EINVAL", "EINVAL"),
    }
)
async def keep_alive_has_limits(here: Place) -> object:
    """tcp.h: MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL are 32767, MAX_TCP_KEEPCNT is 127."""
    return {
        "idle": await set_each(here.tcp(), TCP, socket.TCP_KEEPIDLE, 1, 60, 32767, 32768, 0, -1),
        "interval": await set_each(here.tcp(), TCP, socket.TCP_KEEPINTVL, 1, 60, 32767, 32768, 0, -1),
        "count": await set_each(here.tcp(), TCP, socket.TCP_KEEPCNT, 1, 60, 127, 128, 0, -1),
    }


@case(((5000, 0, "EINVAL"), (16384, 0, 1)))
async def user_timeout_and_unsent_low_water_mark_are_kept(here: Place) -> object:
    """RFC 5482; trio's SocketStream sets the second to 16 KiB."""
    return (
        await set_each(here.tcp(), TCP, socket.TCP_USER_TIMEOUT, 5000, 0, -1),
        await set_each(here.tcp(), TCP, socket.TCP_NOTSENT_LOWAT, 16384, 0, 1),
    )


@case((20000, 20000))
async def a_buffer_is_twice_what_was_asked(here: Place) -> object:
    """socket(7): the kernel doubles it, for its book-keeping."""
    sock = here.tcp()
    return (
        *await set_each(sock, SOL, socket.SO_SNDBUF, 10000),
        *await set_each(sock, SOL, socket.SO_RCVBUF, 10000),
    )


@case((True, True))
async def a_buffer_has_a_least_size(here: Place) -> object:
    """How much that is depends on the kernel; socket(7) says 2048 and 256."""
    sock = here.tcp()
    (send,), (receive,) = await set_each(sock, SOL, socket.SO_SNDBUF, 1), await set_each(sock, SOL, socket.SO_RCVBUF, 1)
    assert isinstance(send, int)
    assert isinstance(receive, int)
    return 2048 <= send < 10000, 256 <= receive < 10000


@case((64, 252, 16, 0, 0))
async def tcp_keeps_two_bits_of_the_service_type_for_itself(here: Place) -> object:
    """RFC 3168: they are ECN's."""
    return await set_each(here.tcp(), IP, socket.IP_TOS, 64, 255, 18, 0, 3)


@case((64, 255, 18, 0, 3))
async def a_datagram_socket_has_all_bits_of_the_service_type(here: Place) -> object:
    """ip(7)."""
    return await set_each(here.udp(), IP, socket.IP_TOS, 64, 255, 18, 0, 3)


@case((64, 255, 0, "EINVAL", "EINVAL"))
async def the_traffic_class_is_a_byte(here: Place) -> object:
    """RFC 3542 6.5: -1 is the default."""
    sock = here.new(socket.AF_INET6, socket.SOCK_DGRAM)
    return await set_each(sock, IP6, socket.IPV6_TCLASS, 64, 255, -1, -2, 256)


@case((64, 252))
async def tcp_keeps_two_bits_of_the_traffic_class_too(here: Place) -> object:
    """RFC 3168."""
    return await set_each(here.tcp6(), IP6, socket.IPV6_TCLASS, 64, 255)


@case((1, 255, 64, "EINVAL", "EINVAL"))
async def the_time_to_live_is_1_to_255(here: Place) -> object:
    """ip(7): -1 is the default."""
    return await set_each(here.tcp(), IP, socket.IP_TTL, 1, 255, -1, 0, 256)


@case((7, 0, 255, 1, "EINVAL"))
async def multicast_has_a_time_to_live_of_its_own(here: Place) -> object:
    """0 stays on this host; -1 is the default."""
    return await set_each(here.udp(), IP, socket.IP_MULTICAST_TTL, 7, 0, 255, -1, 256)


@case(("EINVAL", "ENOPROTOOPT"))
async def tcp_has_no_multicast_time_to_live(here: Place) -> object:
    """Two answers to one question: IPv4's and IPv6's."""
    return (
        await attempt(here.tcp().setsockopt, IP, socket.IP_MULTICAST_TTL, 1),
        await attempt(here.tcp6().setsockopt, IP6, socket.IPV6_MULTICAST_HOPS, 1),
    )


@case(((0, 1), (9, 1, "EINVAL")))
async def multicast_options_of_ipv6(here: Place) -> object:
    """RFC 3493 5.2."""
    sock = here.new(socket.AF_INET6, socket.SOCK_DGRAM)
    return (
        await set_each(sock, IP6, socket.IPV6_MULTICAST_LOOP, 0, 1),
        await set_each(sock, IP6, socket.IPV6_MULTICAST_HOPS, 9, -1, 256),
    )


@case(((1, 0), "EINVAL", 0))
async def v6only_must_be_said_before_binding(here: Place) -> object:
    """ipv6(7)."""
    sock = here.tcp6()
    before = await set_each(sock, IP6, socket.IPV6_V6ONLY, 1, 0)
    await sock.bind(("::", 0))
    return before, await attempt(sock.setsockopt, IP6, socket.IPV6_V6ONLY, 1), sock.getsockopt(IP6, socket.IPV6_V6ONLY)


@case((0, 0, 1))
async def binding_to_one_ipv6_address_switches_v6only_on(here: Place) -> object:
    """inet6_bind: a wildcard stays as it was, a mapped address needs it off, any other rules IPv4 out."""
    told = []
    for address in ("::", "::ffff:127.0.0.1", "::1"):
        sock = here.tcp6()
        await sock.bind((address, 0))
        told.append(sock.getsockopt(IP6, socket.IPV6_V6ONLY))
    return tuple(told)


@case(("ENOPROTOOPT", "EOPNOTSUPP", "ENOPROTOOPT", "EOPNOTSUPP", (32,)))
async def an_option_of_another_protocol_is_unknown(here: Place) -> object:
    """But an IPv6 socket has IPv4's options, since its peer may be IPv4-mapped."""
    return (
        await attempt(here.tcp().setsockopt, IP6, socket.IPV6_V6ONLY, 1),
        await attempt(here.tcp().getsockopt, IP6, socket.IPV6_V6ONLY),
        await attempt(here.udp().setsockopt, TCP, socket.TCP_NODELAY, 1),
        await attempt(here.unix().setsockopt, TCP, socket.TCP_NODELAY, 1),
        await set_each(here.tcp6(), IP, socket.IP_TOS, 32),
    )


@case(
    {
        "socket": ("ENOPROTOOPT", "ENOPROTOOPT"),
        "tcp": ("ENOPROTOOPT", "ENOPROTOOPT"),
        "ip": ("ENOPROTOOPT", "ENOPROTOOPT"),
        "unknown level": ("EOPNOTSUPP", "ENOPROTOOPT"),
    }
)
async def an_unknown_option_is_refused(here: Place) -> object:
    """What getsockopt(2) and setsockopt(2) say; they disagree about a level that there is not."""
    sock = here.tcp()
    options = {"socket": (SOL, 9999), "tcp": (TCP, 9999), "ip": (IP, 9999), "unknown level": (9999, 1)}
    return {
        name: (await attempt(sock.getsockopt, *option), await attempt(sock.setsockopt, *option, 1))
        for name, option in options.items()
    }


@case(("ENOPROTOOPT",) * 5)
async def what_can_only_be_asked_cannot_be_set(here: Place) -> object:
    """socket(7): read-only."""
    names = ("SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_ERROR", "SO_ACCEPTCONN")
    return tuple([await attempt(here.tcp().setsockopt, SOL, getattr(socket, name), 1) for name in names])


@case({"tcp": (True, True, 6), "udp": (True, True, 17), "tcp6": (True, True, 6), "unix": (True, True, 0)})
async def a_socket_knows_what_it_is(here: Place) -> object:
    """SO_DOMAIN, SO_TYPE, SO_PROTOCOL; asked for protocol 0, the answer is the one that was chosen."""
    socks = {"tcp": here.tcp(), "udp": here.udp(), "tcp6": here.tcp6(), "unix": here.unix()}
    return {
        name: (
            sock.getsockopt(SOL, socket.SO_DOMAIN) == sock.family,
            sock.getsockopt(SOL, socket.SO_TYPE) == sock.type,
            sock.getsockopt(SOL, socket.SO_PROTOCOL),
        )
        for name, sock in socks.items()
    }


@case((("AF_INET", "SOCK_STREAM", 0), ("AF_INET6", "SOCK_DGRAM", 17)))
async def python_tells_what_it_was_told(here: Place) -> object:
    """The attributes family, type and proto; the last as it was asked for."""
    socks = here.tcp(), here.keep(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP))
    return tuple((sock.family.name, sock.type.name, sock.proto) for sock in socks)


@case((0, 1, 0))
async def only_a_listener_says_it_listens(here: Place) -> object:
    """SO_ACCEPTCONN; trio.SocketListener asks it.  The last is an accepted socket."""
    listener = await here.listener()
    await here.connect(listener)
    socks = await here.bound(), listener, await here.accept(listener)
    return tuple(sock.getsockopt(SOL, socket.SO_ACCEPTCONN) for sock in socks)


@case(
    {
        "SO_KEEPALIVE": 1,
        "SO_REUSEADDR": 1,
        "TCP_NODELAY": 1,
        "TCP_KEEPIDLE": 11,
        "TCP_KEEPINTVL": 12,
        "TCP_KEEPCNT": 13,
        "TCP_USER_TIMEOUT": 1400,
        "IP_TTL": 15,
        "IP_TOS": 16,
        "SO_RCVBUF": 34000,
        "SO_SNDBUF": 36000,
    }
)
async def an_accepted_socket_inherits_its_listeners_options(here: Place) -> object:
    """socket(7), tcp(7); servers set them once, on the listener."""
    listener = await here.bound()
    values = {
        "SO_KEEPALIVE": (SOL, 1),
        "SO_REUSEADDR": (SOL, 1),
        "TCP_NODELAY": (TCP, 1),
        "TCP_KEEPIDLE": (TCP, 11),
        "TCP_KEEPINTVL": (TCP, 12),
        "TCP_KEEPCNT": (TCP, 13),
        "TCP_USER_TIMEOUT": (TCP, 1400),
        "IP_TTL": (IP, 15),
        "IP_TOS": (IP, 16),
        "SO_RCVBUF": (SOL, 17000),
        "SO_SNDBUF": (SOL, 18000),
    }
    for name, (level, value) in values.items():
        listener.setsockopt(level, getattr(socket, name), value)
    listener.listen()
    await here.connect(listener)
    server = await here.accept(listener)
    return {name: server.getsockopt(level, getattr(socket, name)) for name, (level, _) in values.items()}


@case(((1, 3), "ECONNRESET"))
async def linger_is_inherited(here: Place) -> object:
    """A listener with SO_LINGER 0 makes servers that reset."""
    listener = await here.listener()
    listener.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 3))
    client = await here.connect(listener)
    server = await here.accept(listener)
    inherited = struct.unpack("ii", server.getsockopt(SOL, socket.SO_LINGER, 8))
    server.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    return inherited, await attempt(client.recv, 1)


@case((0, 0, (1, 7), 1))
async def what_is_said_after_accepting_stays_with_one(here: Place) -> object:
    """Neither listener nor peer learns of it."""
    listener = await here.listener()
    client = await here.connect(listener)
    server = await here.accept(listener)
    server.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", 1, 7))
    return (
        listener.getsockopt(SOL, socket.SO_LINGER),
        client.getsockopt(SOL, socket.SO_LINGER),
        struct.unpack("ii", server.getsockopt(SOL, socket.SO_LINGER, 8)),
        server.getsockopt(SOL, socket.SO_LINGER),
    )


@case(((0, 0), (1, 30), (0, 30)))
async def linger_is_two_numbers(here: Place) -> object:
    """struct linger: on or off, and seconds.  Switched off it keeps its seconds."""
    sock = here.tcp()
    told = [struct.unpack("ii", sock.getsockopt(SOL, socket.SO_LINGER, 8))]
    for value in ((1, 30), (0, 5)):
        sock.setsockopt(SOL, socket.SO_LINGER, struct.pack("ii", *value))
        told.append(struct.unpack("ii", sock.getsockopt(SOL, socket.SO_LINGER, 8)))
    return tuple(told)


@case(("EINVAL", "EINVAL", "EINVAL", "EINVAL", "EINVAL"))
async def a_value_that_is_too_short_is_refused(here: Place) -> object:
    """An int has four bytes, a struct linger eight."""
    sock = here.tcp()
    return (
        await attempt(sock.setsockopt, SOL, socket.SO_KEEPALIVE, b"\1"),
        await attempt(sock.setsockopt, SOL, socket.SO_KEEPALIVE, b""),
        await attempt(sock.setsockopt, TCP, socket.TCP_NODELAY, b"\1\0\0"),
        await attempt(sock.setsockopt, SOL, socket.SO_LINGER, b"\1\0\0\0"),
        await attempt(sock.setsockopt, SOL, socket.SO_LINGER, 1),
    )


@case((1, 32, 5))
async def more_bytes_than_needed_are_no_mistake(here: Place) -> object:
    """The first four count; IP's own options take a single byte as well."""
    tcp, udp = here.tcp(), here.udp()
    tcp.setsockopt(SOL, socket.SO_KEEPALIVE, struct.pack("ii", 1, 0))
    tcp.setsockopt(IP, socket.IP_TOS, b"\x20")
    udp.setsockopt(IP, socket.IP_MULTICAST_TTL, b"\5")
    return (
        tcp.getsockopt(SOL, socket.SO_KEEPALIVE),
        tcp.getsockopt(IP, socket.IP_TOS),
        udp.getsockopt(IP, socket.IP_MULTICAST_TTL),
    )


@case((b"\1\0\0\0", b"\1\0\0\0", b"\1\0", b"\1", 1, "OSError", "OSError"))
async def an_answer_as_bytes_is_as_long_as_it_is_and_no_longer_than_asked(here: Place) -> object:
    """Four bytes, in the order of this machine; Python takes 1 to 1024 of them, and 0 for an int."""
    sock = here.tcp()
    sock.setsockopt(SOL, socket.SO_KEEPALIVE, 1)
    sizes = (4, 8, 2, 1, 0, 1025, -1)
    return tuple([await attempt(sock.getsockopt, SOL, socket.SO_KEEPALIVE, size) for size in sizes])


@case(("TypeError", "TypeError", "TypeError", "TypeError"))
async def a_value_is_an_int_or_bytes(here: Place) -> object:
    """Python and trio say so; None goes with a length."""
    sock = here.tcp()
    return (
        await attempt(sock.setsockopt, SOL, socket.SO_KEEPALIVE, "1"),
        await attempt(sock.setsockopt, SOL, socket.SO_KEEPALIVE, 1.5),
        await attempt(sock.setsockopt, SOL, socket.SO_KEEPALIVE, None),
        await attempt(sock.setsockopt, SOL, socket.SO_KEEPALIVE, 1, 4),
    )


@case((1, 1))
async def a_bool_is_an_int(here: Place) -> object:
    """trio itself sets TCP_NODELAY to True."""
    sock = here.tcp()
    sock.setsockopt(TCP, socket.TCP_NODELAY, True)
    sock.setsockopt(SOL, socket.SO_KEEPALIVE, memoryview(struct.pack("i", 1)))
    return sock.getsockopt(TCP, socket.TCP_NODELAY), sock.getsockopt(SOL, socket.SO_KEEPALIVE)


@case(("ENOTCONN", True))
async def the_path_mtu_is_that_of_a_connection(here: Place) -> object:
    """ip(7): IP_MTU (14, which Python does not name) needs a peer."""
    client, _ = await here.pair()
    return await attempt(here.tcp().getsockopt, IP, 14), client.getsockopt(IP, 14) >= 1280


@case((1, 60, 1))
async def options_may_be_set_on_a_connection(here: Place) -> object:
    """Not only before."""
    client, _ = await here.pair()
    client.setsockopt(SOL, socket.SO_KEEPALIVE, 1)
    client.setsockopt(TCP, socket.TCP_KEEPIDLE, 60)
    client.setsockopt(TCP, socket.TCP_NODELAY, 1)
    return (
        client.getsockopt(SOL, socket.SO_KEEPALIVE),
        client.getsockopt(TCP, socket.TCP_KEEPIDLE),
        client.getsockopt(TCP, socket.TCP_NODELAY),
    )


@case((False, True, False))
async def a_descriptor_is_not_inherited_by_child_processes(here: Place) -> object:
    """PEP 446; it can be switched on and off."""
    sock = here.tcp()
    told = [sock.get_inheritable()]
    for flag in (True, False):
        sock.set_inheritable(flag)
        told.append(sock.get_inheritable())
    return tuple(told)
