"""Names on a simulated network: the resolver that trio asks."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Protocol

import trio

from trioqt.links.interrupts import protected
from trioqt.testing.network.host import Host

__all__ = ["Names", "is_address", "is_numeric"]

PROTOCOLS: dict[int, int] = {
    socket.SOCK_STREAM: socket.IPPROTO_TCP,
    socket.SOCK_DGRAM: socket.IPPROTO_UDP,
    socket.SOCK_RAW: 0,
}

# glibc asks twice and gives each question five seconds (resolv.conf: timeout, attempts).
QUESTIONS = 2
PATIENCE = 5.0


class Register(Protocol):
    """Where names and addresses are looked up, and from where somebody asks."""

    def current_host(self) -> Host:
        """The host on which the calling code runs."""

    def has_names(self, host: str) -> bool:
        """Does a name server answer this host?"""

    def find(self, address: str) -> Host | None:
        """Who has this address."""

    def everybody(self) -> Iterable[Host]:
        """All hosts."""


@protected
class Names(trio.abc.HostnameResolver):
    """Every host knows ``localhost``; all else a name server knows, which takes its time and can fail."""

    def __init__(self, net: Register, latency: float) -> None:
        self._net = net
        self.latency = latency
        self.added: dict[str, tuple[str, ...]] = {}

    async def getaddrinfo(
        self, host: bytes | str | None, port: bytes | str | int | None,
        family: int = 0, type: int = 0, proto: int = 0, flags: int = 0,
    ) -> Any:  # fmt: skip
        """As ``socket.getaddrinfo``.  Raises: socket.gaierror.  Cancelled: nothing is left behind."""
        await trio.lowlevel.checkpoint()
        name = (host.decode("ascii") if isinstance(host, bytes) else host or "").rstrip(".").lower()
        if flags & socket.AI_NUMERICHOST and not is_address(name):
            raise socket.gaierror(socket.EAI_NONAME, f"{name}: not an address")
        number = port_number(port, type)
        addresses = await self._find(name)
        if flags & socket.AI_ADDRCONFIG and not is_address(name):
            families = {family_of(address) for address in self._net.current_host().addresses}
            addresses = tuple(address for address in addresses if family_of(address) in families)
        found = [address for address in addresses if family in (0, family_of(address))]
        if not found and family == socket.AF_INET6 and flags & socket.AI_V4MAPPED:
            found = [f"::ffff:{address}" for address in addresses]
        if not found:
            raise socket.gaierror(socket.EAI_ADDRFAMILY if addresses else socket.EAI_NONAME, f"{name}: no such name")
        kinds = [(kind, proto or PROTOCOLS.get(kind, 0)) for kind in ([type] if type else PROTOCOLS)]
        canonical = name if flags & socket.AI_CANONNAME else ""
        return [
            (family_of(address), socket.SocketKind(kind), protocol, canonical, sockaddr(address, number))
            for address in found
            for kind, protocol in kinds
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """As ``socket.getnameinfo``.  Raises: socket.gaierror.  Cancelled: nothing is left behind."""
        await trio.lowlevel.checkpoint()
        address, port = sockaddr[:2]
        if not is_address(address):
            raise socket.gaierror(socket.EAI_NONAME, f"{address}: not an address")
        service = str(port % 65536)
        if not flags & socket.NI_NUMERICSERV:
            with contextlib.suppress(OSError):
                service = socket.getservbyport(port % 65536, "udp" if flags & socket.NI_DGRAM else "tcp")
        if flags & socket.NI_NUMERICHOST:
            return address, service
        if address in ("::1", "127.0.0.1"):
            return "localhost", service
        await self._ask(address)
        host = self._net.find(address)
        name = None if host is None else host.name
        if name is None and flags & socket.NI_NAMEREQD:
            raise socket.gaierror(socket.EAI_NONAME, f"{address}: no name")
        return name or address, service

    async def _find(self, name: str) -> tuple[str, ...]:
        here = self._net.current_host()
        if name == "localhost" or name.endswith(".localhost"):
            return ("::1", "127.0.0.1")
        if is_address(name):  # with a service name as its port
            return (name,)
        await self._ask(name, here)
        if name in self.added:
            return self.added[name]
        return next((host.addresses for host in self._net.everybody() if host.name.lower() == name), ())

    async def _ask(self, name: str, here: Host | None = None) -> None:
        here = here or self._net.current_host()
        here.note("lookup", note=name)
        for _ in range(QUESTIONS):
            if self._net.has_names(here.name):
                await trio.sleep(self.latency)
                return
            await trio.sleep(PATIENCE)
        raise socket.gaierror(socket.EAI_AGAIN, f"{name}: the name server does not answer")


def port_number(port: bytes | str | int | None, type_: int) -> int:
    """A port, or a service's (the system's table of services is read).  Raises: socket.gaierror."""
    if port is None:
        return 0
    if isinstance(port, int):
        return port
    text = port.decode("ascii") if isinstance(port, bytes) else port
    if text.isdigit():
        return int(text)
    try:
        return socket.getservbyname(text, "udp" if type_ == socket.SOCK_DGRAM else "tcp")
    except OSError as exc:
        raise socket.gaierror(socket.EAI_SERVICE, f"{text}: no such service") from exc


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@lru_cache(1024)
def is_numeric(family: int, host: str) -> bool:
    """Is it an address of that family, and not a name?"""
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True


def is_address(name: str) -> bool:
    return is_numeric(socket.AF_INET, name) or is_numeric(socket.AF_INET6, name)


def sockaddr(address: str, port: int) -> tuple[Any, ...]:
    return (address, port, 0, 0) if ":" in address else (address, port)
