"""Names: trio.socket.getaddrinfo and getnameinfo, as far as no name server is asked."""

from __future__ import annotations

from typing import Any

from trio import socket

from tests.parity.cases_kit import Place, attempt, case

STREAM = socket.SOCK_STREAM


async def look_up(host: Any, port: Any, **hints: int) -> object:
    """Each answer as family, type, protocol and address."""

    async def ask() -> object:
        answers = await socket.getaddrinfo(host, port, **hints)
        return [(family.name, kind.name, proto, address) for family, kind, proto, _, address in answers]

    return await attempt(ask)


@case([("AF_INET", "SOCK_STREAM", 6, ("127.0.0.1", 80))])
async def localhost_as_ipv4(here: Place) -> object:
    """RFC 6761 6.3."""
    return await look_up("localhost", 80, family=socket.AF_INET, type=STREAM)


@case([("AF_INET", "SOCK_STREAM", 6, ("127.0.0.1", 80))])
async def an_ipv4_address_is_itself(here: Place) -> object:
    """No name server is asked."""
    return await look_up("127.0.0.1", 80, type=STREAM)


@case([("AF_INET6", "SOCK_STREAM", 6, ("::1", 80, 0, 0))])
async def an_ipv6_address_is_itself(here: Place) -> object:
    """With flow and scope."""
    return await look_up("::1", 80, type=STREAM)


@case(
    [
        ("AF_INET", "SOCK_STREAM", 6, ("127.0.0.1", 80)),
        ("AF_INET", "SOCK_DGRAM", 17, ("127.0.0.1", 80)),
        ("AF_INET", "SOCK_RAW", 0, ("127.0.0.1", 80)),
    ]
)
async def without_a_type_there_is_an_answer_for_each(here: Place) -> object:
    """getaddrinfo(3)."""
    return await look_up("127.0.0.1", 80)


@case([("AF_INET", "SOCK_DGRAM", 17, ("127.0.0.1", 53))])
async def a_protocol_is_a_filter_too(here: Place) -> object:
    """RFC 3493 6.1."""
    return await look_up("127.0.0.1", 53, proto=socket.IPPROTO_UDP)


@case([("AF_INET", "SOCK_STREAM", 6, ("127.0.0.1", 80))])
async def localhost_as_bytes(here: Place) -> object:
    """A name on the wire is bytes."""
    return await look_up(b"localhost", 80, family=socket.AF_INET, type=STREAM)


@case(([("AF_INET", "SOCK_STREAM", 6, ("10.0.0.1", 80))], [("AF_INET", "SOCK_STREAM", 6, ("127.0.0.1", 80))]))
async def the_old_short_forms_are_addresses(here: Place) -> object:
    """inet_aton(3): parts may be left out, and hexadecimal."""
    return await look_up("10.1", 80, type=STREAM), await look_up("0x7f.1", 80, type=STREAM)


@case(([("AF_INET", "SOCK_STREAM", 6, ("127.0.0.1", 80))], [("AF_INET", "SOCK_STREAM", 6, ("127.0.0.1", 0))]))
async def a_port_may_be_digits_or_nothing(here: Place) -> object:
    """getaddrinfo(3)."""
    return await look_up("127.0.0.1", "80", type=STREAM), await look_up("127.0.0.1", None, type=STREAM)


@case("EAI_SERVICE")
async def a_port_that_is_no_service_is_an_error(here: Place) -> object:
    """Not in services(5)."""
    return await look_up("127.0.0.1", "trioqt-has-no-service", type=STREAM)


@case("EAI_NONAME")
async def a_name_is_not_looked_up_if_only_numbers_are_wanted(here: Place) -> object:
    """AI_NUMERICHOST."""
    return await look_up("localhost", 80, flags=socket.AI_NUMERICHOST)


@case(("EAI_ADDRFAMILY", "EAI_ADDRFAMILY"))
async def an_address_has_its_family(here: Place) -> object:
    """The other one is not found."""
    return (
        await look_up("::1", 80, family=socket.AF_INET),
        await look_up("127.0.0.1", 80, family=socket.AF_INET6),
    )


@case([("AF_INET6", "SOCK_STREAM", 6, ("::ffff:127.0.0.1", 80, 0, 0))])
async def an_ipv4_address_can_be_had_as_mapped(here: Place) -> object:
    """AI_V4MAPPED."""
    return await look_up("127.0.0.1", 80, family=socket.AF_INET6, type=STREAM, flags=socket.AI_V4MAPPED)


@case(([("AF_INET", "SOCK_STREAM", 6, ("0.0.0.0", 80))], [("AF_INET", "SOCK_STREAM", 6, ("127.0.0.1", 80))]))
async def no_host_is_the_wildcard_to_listen_and_loopback_to_connect(here: Place) -> object:
    """AI_PASSIVE."""
    return (
        await look_up(None, 80, family=socket.AF_INET, type=STREAM, flags=socket.AI_PASSIVE),
        await look_up(None, 80, family=socket.AF_INET, type=STREAM),
    )


@case(([("AF_INET6", "SOCK_STREAM", 6, ("::", 80, 0, 0))], [("AF_INET6", "SOCK_STREAM", 6, ("::1", 80, 0, 0))]))
async def no_host_is_the_wildcard_or_loopback_in_ipv6_too(here: Place) -> object:
    """AI_PASSIVE."""
    return (
        await look_up(None, 80, family=socket.AF_INET6, type=STREAM, flags=socket.AI_PASSIVE),
        await look_up(None, 80, family=socket.AF_INET6, type=STREAM),
    )


@case("EAI_NONAME")
async def neither_host_nor_port_is_nothing_to_look_up(here: Place) -> object:
    """getaddrinfo(3)."""
    return await look_up(None, None)


@case([("AF_INET6", "SOCK_STREAM", 6, ("fe80::1", 80, 0, 3))])
async def a_scope_can_be_given_as_a_number(here: Place) -> object:
    """RFC 4007 11."""
    return await look_up("fe80::1%3", 80, type=STREAM)


@case(("127.0.0.1", ["127.0.0.1"]))
async def the_canonical_name_of_an_address_is_the_address(here: Place) -> object:
    """AI_CANONNAME."""
    answers = await socket.getaddrinfo("127.0.0.1", 80, type=STREAM, flags=socket.AI_CANONNAME)
    return answers[0][3], [address[0] for *_, address in answers]


@case((("127.0.0.1", "80"), ("::1", "80")))
async def an_address_can_be_told_in_digits(here: Place) -> object:
    """getnameinfo(3), NI_NUMERICHOST and NI_NUMERICSERV."""
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return await socket.getnameinfo(("127.0.0.1", 80), flags), await socket.getnameinfo(("::1", 80, 0, 0), flags)
