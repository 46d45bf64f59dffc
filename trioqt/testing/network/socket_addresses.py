"""How the sockets of a family spell addresses, and what they take for one."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from functools import lru_cache
from typing import Any

import trio

from trioqt.testing.network.fabric import Address
from trioqt.testing.network.host import ETHERNET, INTERFACES, LOOPBACK, Host, fail, is_multicast
from trioqt.testing.network.names import is_numeric
from trioqt.testing.network.options import Options, number
from trioqt.testing.network.unix import UnixName

__all__ = ["canonical", "check_link", "destination", "own_address", "peer_address", "resolved", "shown", "sockaddr"]

MAPPED = "::ffff:"


def sockaddr(family: int, address: Address) -> Any:
    """As the socket module spells it for this family."""
    host, port = address
    if family == socket.AF_INET:
        return host or "0.0.0.0", port
    if not host:
        host = "::"
    elif ":" not in host:
        host = MAPPED + host
    return host, port, 0, ETHERNET if is_link_local(host) else 0


def own_address(host: Host, family: int, options: Options, address: Any) -> Address:
    """What a socket of that host is to be bound to; "" for any."""
    text, port = _numeric(family, options, address, mapped_error=errno.EINVAL)
    scope = _scope_of(address)
    if is_link_local(text) and scope != ETHERNET:
        fail({0: errno.EINVAL, LOOPBACK: errno.EADDRNOTAVAIL}.get(scope, errno.ENODEV))
    if text in ("0.0.0.0", "::"):
        return "", port
    if not (host.owns(text) or is_multicast(text) or host.is_broadcast(text)):
        free = number("IP_FREEBIND")
        if free is None or not options.flag(socket.IPPROTO_IP, free):
            fail(errno.EADDRNOTAVAIL)
    return text, port


def peer_address(family: int, options: Options, address: Any) -> Address:
    """To whom a socket is to connect; any address is this host."""
    host, port = destination(family, options, address)
    check_link(host, address)
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def destination(family: int, options: Options, address: Any) -> Address:
    """Where a datagram is to go; which of this host's addresses any address is, its sender knows."""
    host, port = _numeric(family, options, address, mapped_error=errno.ENETUNREACH)
    if (is_link_local(host) or host.startswith("ff02:")) and _scope_of(address) not in (0, ETHERNET):
        fail(errno.ENETUNREACH)
    return host, port


def check_link(host: str, address: Any, interface: int = 0) -> None:
    """Of an address that may be on every link, who connects must say on which.

    Args:
      interface: Where what is sent to groups goes out, if the socket was told.

    Raises: OSError EINVAL.
    """
    if (is_link_local(host) or (host.startswith("ff02:") and not interface)) and not _scope_of(address):
        fail(errno.EINVAL)


def _scope_of(address: Any) -> int:
    """The number of the interface that an IPv6 address is for; 0 if it does not say."""
    zone: str = address[0].partition("%")[2]
    if zone:
        return int(zone) if zone.isdecimal() else INTERFACES.get(zone, -1)
    return int(address[3]) if len(address) > 3 else 0


def _numeric(family: int, options: Options, address: Any, *, mapped_error: int) -> Address:
    host, port = address[0], address[1]
    host = canonical(host)
    if not 0 <= port <= 65535:
        raise OverflowError("port must be 0-65535.")
    if family == socket.AF_INET6 and ":" not in host:
        if options.flag(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            fail(mapped_error)
    elif (family == socket.AF_INET6) != (":" in host):
        raise socket.gaierror(socket.EAI_ADDRFAMILY, "Address family for hostname not supported")
    return host, port


async def resolved(address: Any, family: int, type_: int, proto: int, *, only_ipv6: bool, passive: bool = False) -> Any:
    """Names are looked up, as trio's sockets do.

    Args:
      passive: It is to be bound to, so no name stands for any address.

    Cancelled: nothing has changed.
    """
    if family == socket.AF_UNIX:
        if not isinstance(address, str | bytes | os.PathLike):
            raise TypeError(f"a path is a str, bytes or os.PathLike, not {type(address).__name__}")
        return os.fspath(address)
    if family == socket.AF_INET:
        if not isinstance(address, tuple) or len(address) != 2:
            raise ValueError("address should be a (host, port) tuple")
    elif not isinstance(address, tuple) or not 2 <= len(address) <= 4:
        raise ValueError("address should be a (host, port, [flowinfo, [scopeid]]) tuple")
    host, port, *rest = address
    if isinstance(port, int) and isinstance(host, str) and is_numeric(family, host):
        return address
    if host == "":
        host = None
    elif host == "<broadcast>":
        host = "255.255.255.255"
    flags = socket.AI_PASSIVE if passive else 0
    if family == socket.AF_INET6 and not only_ipv6:
        flags |= socket.AI_V4MAPPED
    found = await trio.socket.getaddrinfo(host, port, family, type_, proto, flags)
    return (*found[0][4][:2], *rest) if rest else found[0][4]


@lru_cache(1024)
def canonical(host: str) -> str:
    """The one spelling of an address; of an IPv4-mapped one, the IPv4 address."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ip)


@lru_cache(1024)
def is_link_local(host: str) -> bool:
    """An IPv6 address that means nothing without an interface (RFC 4007)."""
    return ":" in host and ipaddress.ip_address(host).is_link_local


def shown(address: Address | UnixName) -> str:
    """For people: ``10.0.0.1:4000``, ``*:4000``, ``[::1]:4000``, a path."""
    if isinstance(address, bytes):
        return "@" + address[1:].decode(errors="replace")
    if isinstance(address, str):
        return address
    host, port = address
    if not host and not port:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"
