"""What an IP address is, how it is spelled, and how the system's socket calls spell it.

This module knows no names: nothing here asks a resolver.  The one question it puts to the system is which number an
interface has, because a socket call wants the number where people write ``fe80::1%eth0``.
"""

from __future__ import annotations

import enum
import errno
import functools
import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any, ClassVar, TypeAlias

import attrs

__all__ = [
    "AddressLike",
    "HostAddress",
    "NetworkLayerProtocol",
    "from_sockaddr",
    "host_address",
    "location",
    "parse_address",
    "to_sockaddr",
    "unmapped",
]

# Qt prints Any as 0.0.0.0, so its Any and AnyIPv4 are two values with one text.  With us the text is the value, so
# Any needs a text of its own.  `ss -l` shows a dual-stack listener as `*:4000`, an IPv4 one as `0.0.0.0:4000` and an
# IPv6-only one as `[::]:4000`: three texts, known to who runs servers, and the star is nobody's address.
ANY_TEXT = "*"

MAPPED_PREFIX = "::ffff:"
MAPPED_NETWORK = ipaddress.IPv6Network("::ffff:0:0/96")


class NetworkLayerProtocol(enum.Enum):
    """Which IP an address belongs to.  Qt: QAbstractSocket::NetworkLayerProtocol."""

    IPV4 = 0
    """Version 4."""
    IPV6 = 1
    """Version 6."""
    ANY_IP = 2
    """Either."""
    UNKNOWN = -1
    """No address, or of another kind."""


def _canonical(value: AddressLike) -> str:
    """The one spelling of an address."""
    if isinstance(value, HostAddress):
        return value.text
    if not isinstance(value, str | IPv4Address | IPv6Address):
        raise TypeError(f"an address is a str, an ipaddress object or a HostAddress, not {type(value).__name__}")
    return _canonical_text(str(value))


# Who connects again and again, and a server's clients, are few addresses; to read one costs 3 us.
@functools.lru_cache(256)
def _canonical_text(text: str) -> str:
    if text in ("", ANY_TEXT):
        return text
    try:
        # ipaddress.ip_address() tries one after the other, and an exception costs more than the look.
        ip = IPv6Address(text) if ":" in text else IPv4Address(text)
        if isinstance(ip, IPv4Address):
            return text  # it has one spelling: leading zeros and short forms are refused
        if ip.scope_id is not None and not _is_scope(ip.scope_id):
            raise ValueError("the scope is not the name of an interface")
    except ValueError as exc:
        raise ValueError(f"not an IP address: {text!r}") from exc
    if ip.ipv4_mapped is None:
        return str(ip)
    # Python 3.13 writes ::ffff:10.0.0.1 where 3.11 and 3.12 write ::ffff:a00:1.
    return f"{MAPPED_PREFIX}{ip.ipv4_mapped}" + (f"%{ip.scope_id}" if ip.scope_id else "")


def unmapped(text: str) -> str:
    """What two equal addresses have in common: the IPv4 form of a mapped address, else the text."""
    address = text.partition("%")[0]
    return address.removeprefix(MAPPED_PREFIX) if "." in address else text


@attrs.frozen
class HostAddress:
    """An IP address, IPv6 scope included; equal addresses have one text, which is also ``str(address)``.

    Made from that text, from an ``ipaddress`` object or from another ``HostAddress``.  The text is lower case, IPv6
    is compressed, and a scope is kept as given (``fe80::1%eth0`` and ``fe80::1%2`` differ).  Two texts are special:
    ``""`` is the null address, and ``"*"`` is ``HostAddress.ANY``, every address of both families.  An IPv4-mapped
    IPv6 address equals its IPv4 form, keeps its own text, and is IPV6 to ``protocol()``.

    Raises:
      ValueError: The text is no address; a host name is not one.
      TypeError: It is not text, an ``ipaddress`` address or a ``HostAddress``.
    Qt: QHostAddress.  There, bad text gives the null address, Any prints as 0.0.0.0, ``127.1`` and ``010.0.0.1``
    (which is 8.0.0.1) are taken, ``==`` ignores the scope, and holds the mapped form unequal to the IPv4 one.
    """

    text: str = attrs.field(converter=_canonical, eq=unmapped)

    NULL: ClassVar[HostAddress]
    """No address: its text is empty."""
    ANY: ClassVar[HostAddress]
    ANY_IPV4: ClassVar[HostAddress]
    """Every address of this host, of IPv4: ``0.0.0.0``."""
    ANY_IPV6: ClassVar[HostAddress]
    """Every address of this host, of IPv6: ``::``."""
    LOCAL_HOST: ClassVar[HostAddress]
    """``127.0.0.1``"""
    LOCAL_HOST_IPV6: ClassVar[HostAddress]
    """``::1``"""
    BROADCAST: ClassVar[HostAddress]
    """``255.255.255.255``"""

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """The ``ipaddress`` object, with its scope; of ``ANY`` it is ``::``, which is what a dual-stack socket binds.

        Raises: ValueError if this is the null address.
        """
        if not self.text:
            raise ValueError("the null address has no ip")
        if self.text == ANY_TEXT:
            return IPv6Address("::")
        return IPv6Address(self.text) if ":" in self.text else IPv4Address(self.text)

    def __bool__(self) -> bool:
        """False for the null address only."""
        return bool(self.text)

    def protocol(self) -> NetworkLayerProtocol:
        """The family: ANY_IP for ``ANY``, UNKNOWN for the null address.  Qt: protocol()."""
        if self.text == ANY_TEXT:
            return NetworkLayerProtocol.ANY_IP
        if not self.text:
            return NetworkLayerProtocol.UNKNOWN
        return NetworkLayerProtocol.IPV6 if ":" in self.text else NetworkLayerProtocol.IPV4

    def is_loopback(self) -> bool:
        """Whether it never leaves this machine: 127.0.0.0/8, mapped or not, and ::1.  Qt: isLoopback()."""
        return self._is_one_address() and self._unmapped().is_loopback

    def is_multicast(self) -> bool:
        """Whether it is a group: 224.0.0.0/4, mapped or not, and ff00::/8.  Qt: isMulticast()."""
        return self._is_one_address() and self._unmapped().is_multicast

    def is_in_subnet(self, subnet: str) -> bool:
        """Whether it lies in ``10.0.0.0/8``, ``10.0.0.0/255.0.0.0``, ``fe80::/10``, or is the one address given.

        Bits of the subnet beyond its mask, and the scope of this address, are not looked at.  A mapped address
        is an IPv4 address here too, so it lies in ``10.0.0.0/8`` and ``::ffff:10.0.0.0/104`` and not in ``::/0``.
        ``ANY`` and the null address lie nowhere.

        Raises:
          ValueError: The text is no subnet.
        Qt: isInSubnet(parseSubnet(subnet)).  There, short forms (``10/8``) are taken, bad text means "no", and a
        mapped address lies in no IPv4 subnet.
        """
        if not isinstance(subnet, str):
            raise TypeError(f"a subnet is a str, not {type(subnet).__name__}")
        try:
            if "%" in subnet:
                raise ValueError("a subnet has no scope")
            network = ipaddress.ip_network(subnet, strict=False)
        except ValueError as exc:
            raise ValueError(f"not a subnet: {subnet!r}") from exc
        if network.version == 6 and network.subnet_of(MAPPED_NETWORK):
            network = ipaddress.IPv4Network(f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}")
        return self._is_one_address() and self._unmapped() in network

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"HostAddress({self.text!r})"

    def _is_one_address(self) -> bool:
        return self.text not in ("", ANY_TEXT)

    def _unmapped(self) -> IPv4Address | IPv6Address:
        ip = self.ip
        return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


AddressLike: TypeAlias = HostAddress | str | IPv4Address | IPv6Address

HostAddress.NULL = HostAddress("")
HostAddress.ANY = HostAddress(ANY_TEXT)
HostAddress.ANY_IPV4 = HostAddress("0.0.0.0")
HostAddress.ANY_IPV6 = HostAddress("::")
HostAddress.LOCAL_HOST = HostAddress("127.0.0.1")
HostAddress.LOCAL_HOST_IPV6 = HostAddress("::1")
HostAddress.BROADCAST = HostAddress("255.255.255.255")


def host_address(value: AddressLike) -> HostAddress:
    """The address in an argument that must be one.  Raises: ValueError, TypeError, as ``HostAddress`` does."""
    return value if isinstance(value, HostAddress) else HostAddress(value)


def parse_address(text: str) -> HostAddress | None:
    """The address in ``text``, or None if a resolver must say what it means; ``""`` gives the null address."""
    try:
        return HostAddress(text)
    except ValueError:
        return None


def from_sockaddr(sockaddr: tuple[Any, ...]) -> HostAddress:
    """The address in what ``getsockname``, ``accept`` or ``getaddrinfo`` returned; the port is dropped.

    ``| host | port |`` or ``| host | port | flow info | scope id |``.  A scope id becomes the interface's name, or
    stays a number if the system knows none (the interface may be gone).  ``::`` gives ``ANY_IPV6``: whether the
    socket is dual-stack is not in the tuple.
    """
    text, scope_id = str(sockaddr[0]), sockaddr[3] if len(sockaddr) > 3 else 0
    if not scope_id or "%" in text:
        return HostAddress(text)
    try:
        scope = socket.if_indextoname(scope_id)
    except OSError:
        scope = ""
    return HostAddress(f"{text}%{scope if _is_scope(scope) else scope_id}")


def to_sockaddr(address: HostAddress, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """What ``bind`` and ``connect`` want: two items for AF_INET, four for AF_INET6.

    ``ANY`` gives ``::``; it means both families on a socket whose IPV6_V6ONLY is off.

    Raises:
      ValueError: The null address, or a port outside 0 to 65535.
      TypeError: The port is not an int.
      OSError: No interface has the name in the scope.
    """
    if not isinstance(port, int):
        raise TypeError(f"a port is an int, not {type(port).__name__}")
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is 0 to 65535, not {port}")
    if not address.text:
        raise ValueError("the null address cannot be bound or connected to")
    if address.protocol() is NetworkLayerProtocol.IPV4:
        return address.text, port
    if address.text == ANY_TEXT:
        return "::", port, 0, 0
    text, _, scope = address.text.partition("%")
    return text, port, 0, _scope_id(scope) if scope else 0


def _scope_id(scope: str) -> int:
    # 32 bits are what the system's sin6_scope_id holds; a longer number is looked up as a name, and not found.
    if re.fullmatch("[0-9]{1,10}", scope) and int(scope) < 2**32:
        return int(scope)
    try:
        return socket.if_nametoindex(scope)
    except OSError as exc:  # Python before 3.14 gives it no number
        raise OSError(errno.ENODEV, "no interface has the name in the scope") from exc


def _is_scope(scope: str) -> bool:
    # What Linux lets an interface be called, without what would spoil a log line or an address ("%" ends one).
    return scope.isprintable() and re.fullmatch(r"[^\s/%]+", scope) is not None


def location(address: HostAddress, port: int) -> str:
    """As in a URL."""
    return f"[{address.text}]:{port}" if ":" in address.text else f"{address.text}:{port}"
