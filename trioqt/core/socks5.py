"""SOCKS5 (RFC 1928), and its names and passwords (RFC 1929), as prologues; see ``proxies.py``.

It knows no network.  Where the RFCs leave a choice, Qt's is taken: one method is offered, which is the password's if
there is one, and the proxy that wants one is asked again on a new connection.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from trioqt.core.addresses import HostAddress
from trioqt.core.errors import ErrorKind
from trioqt.core.network_proxy import Credentials
from trioqt.core.proxies import (
    Again,
    Prologue,
    Reported,
    Send,
    Step,
    Steps,
    Target,
    ask,
    expect,
    fail,
    receive,
)

__all__ = ["associate", "bind", "bound_peer", "connect", "unpack_datagram", "wrap_datagram"]

VERSION, PASSWORD_VERSION = 5, 1
NO_AUTHENTICATION, PASSWORD, NONE_ACCEPTABLE = 0x00, 0x02, 0xFF
CONNECT, BIND, ASSOCIATE = 1, 2, 3
IPV4, NAME, IPV6 = 1, 3, 4

# RFC 1928, section 6, with the kinds that Qt has for them.
REPLIES: dict[int, tuple[ErrorKind, str]] = {
    1: (ErrorKind.NETWORK, "the proxy failed"),
    2: (ErrorKind.SOCKET_ACCESS, "the proxy does not allow it"),
    3: (ErrorKind.NETWORK, "the proxy finds the network unreachable"),
    4: (ErrorKind.HOST_NOT_FOUND, "the proxy finds the host unreachable"),
    5: (ErrorKind.CONNECTION_REFUSED, "the proxy says that the host refused the connection"),
    6: (ErrorKind.NETWORK, "the proxy says that the host is too far away"),
    7: (ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "the proxy cannot do that"),
    8: (ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "the proxy does not know this kind of address"),
}

# The proxy is asked for datagrams and connections that come from anywhere.
ANYWHERE = Target(HostAddress.ANY_IPV4, 0)


def connect(target: Target, credentials: Credentials | None) -> Prologue:
    """A connection to ``target``; the proxy reports its own end."""
    yield from _introduce(credentials)
    yield Send(struct.pack("!BBx", VERSION, CONNECT) + _pack_address(target))
    return (yield from _reply())


def bind(target: Target, credentials: Credentials | None) -> Prologue:
    """The proxy listens for one connection, from ``target``; it reports where.  Then comes ``bound_peer``."""
    yield from _introduce(credentials)
    yield Send(struct.pack("!BBx", VERSION, BIND) + _pack_address(target))
    return (yield from _reply())


def bound_peer() -> Prologue:
    """The connection that ``bind`` is about has come; the proxy reports its other end."""
    return (yield from _reply())


def associate(credentials: Credentials | None, source: Target = ANYWHERE) -> Prologue:
    """The proxy carries datagrams that come from ``source``, as long as the connection lasts; it reports where to."""
    yield from _introduce(credentials)
    yield Send(struct.pack("!BBx", VERSION, ASSOCIATE) + _pack_address(source))
    return (yield from _reply())


# ---- who we are ----------------------------------------------------------------------------


def _introduce(credentials: Credentials | None) -> Steps:
    """Section 3, and RFC 1929.

    | 5 | count | methods |      | 5 | method |
    | 1 | length | name | length | password |      | 1 | status |
    """
    while True:
        offered = NO_AUTHENTICATION if credentials is None else PASSWORD
        yield Send(bytes([VERSION, 1, offered]))
        version, method = yield from receive(2)
        expect(version == VERSION, f"the proxy answers in version {version}, not {VERSION}")
        if method != NONE_ACCEPTABLE:
            if method != offered:
                fail(ErrorKind.SOCKET_ACCESS, f"the proxy wants the method {method}, which was not offered")
            if credentials is None:
                return
            yield Send(_password(credentials))
            version, status = yield from receive(2)
            expect(version == PASSWORD_VERSION, f"the proxy answers the password in version {version}")
            if status == 0:
                return
        # RFC 1928 and 1929: the proxy must close the connection now, so the next try needs another.
        credentials = yield from ask("", credentials)
        yield Again()


def _password(credentials: Credentials) -> bytes:
    user, password = credentials.user.encode(), credentials.password.encode()
    if len(user) > 255 or len(password) > 255:
        fail(ErrorKind.PROXY_AUTHENTICATION_REQUIRED, "SOCKS5 has 255 bytes for a name, and as many for a password")
    return bytes([PASSWORD_VERSION, len(user), *user, len(password), *password])


# ---- requests and replies ------------------------------------------------------------------


def _reply() -> Generator[Step, Any, Reported]:
    """Section 6.

    | 5 | reply | 0 | type | address | u16 port |
    """
    version, reply = yield from receive(2)
    expect(version == VERSION, f"the proxy answers in version {version}, not {VERSION}")
    if reply:
        fail(*REPLIES.get(reply, (ErrorKind.UNKNOWN, f"the proxy answers with {reply}, which is no known reply")))
    _, kind = yield from receive(2)
    if kind == NAME:
        (length,) = yield from receive(1)
    else:
        expect(kind in (IPV4, IPV6), f"the proxy answers with an address of type {kind}")
        length = 4 if kind == IPV4 else 16
    address = (yield from receive(length)) if length else b""
    (port,) = struct.unpack("!H", (yield from receive(2)))
    return Reported(_from_wire(kind, address), port)


def _from_wire(kind: int, address: bytes) -> HostAddress:
    """The address, null if it is a name."""
    if kind == NAME:
        return HostAddress.NULL
    return HostAddress(IPv4Address(address) if kind == IPV4 else IPv6Address(address))


def _pack_address(target: Target) -> bytes:
    """Section 5: ``| type | address | u16 port |``; a name has its length in front."""
    host, port = target.host, struct.pack("!H", target.port)
    if not isinstance(host, HostAddress):
        return bytes([NAME, len(host)]) + host.encode() + port
    ip = host.ip
    return bytes([IPV4 if isinstance(ip, IPv4Address) else IPV6]) + ip.packed + port


# ---- datagrams -----------------------------------------------------------------------------


def wrap_datagram(target: Target, data: bytes) -> bytes:
    """Section 7: ``| 0 | 0 | fragment | type | address | u16 port | data |``."""
    return bytes(3) + _pack_address(target) + data


def unpack_datagram(datagram: bytes) -> tuple[HostAddress, int, bytes] | None:
    """Who sent it, and what; None if it is no such datagram, or only a part of one, which may be dropped."""
    if len(datagram) < 5 or datagram[2] != 0:
        return None
    kind = datagram[3]
    start, length = (5, datagram[4]) if kind == NAME else (4, {IPV4: 4, IPV6: 16}.get(kind, -1))
    end = start + length
    if length < 0 or len(datagram) < end + 2:
        return None
    (port,) = struct.unpack_from("!H", datagram, end)
    return _from_wire(kind, datagram[start:end]), port, datagram[end + 2 :]
