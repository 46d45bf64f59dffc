"""What a caller passes, checked before anything is done with it: hosts, ports, sizes, single bytes."""

from __future__ import annotations

import operator
from ipaddress import IPv4Address, IPv6Address

from trioqt.core.addresses import HostAddress, parse_address

__all__ = ["Host", "check_char", "check_host", "check_port", "check_seconds", "check_size", "spelled"]

Host = HostAddress | str | IPv4Address | IPv6Address


def check_host(host: Host) -> HostAddress | str:
    """An address, or a name still to be looked up.  Raises: TypeError."""
    if isinstance(host, HostAddress):
        return host
    if isinstance(host, (IPv4Address, IPv6Address)):
        return HostAddress(str(host))
    if not isinstance(host, str):
        raise TypeError(f"a host is a name or an address, not {type(host).__name__}")
    address = parse_address(host.strip())  # as Qt does
    return host if address is None else address


def spelled(host: HostAddress | str) -> str:
    """A host as messages have it: whatever a caller took out of a URL or a file, it can be printed."""
    text = str(host)
    return text if text.isprintable() else repr(text)


def check_port(port: int) -> int:
    """Raises: TypeError, ValueError."""
    port = operator.index(port)
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is 0 to 65535, not {port}")
    return port


def check_size(size: int, name: str, *, least: int = 0) -> int:
    """Raises: TypeError, ValueError."""
    size = operator.index(size)
    if size < least:
        raise ValueError(f"{name} must be at least {least}, not {size}")
    return size


def check_seconds(seconds: float, name: str) -> float:
    """Raises: TypeError, ValueError."""
    if not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {type(seconds).__name__}")
    if not seconds >= 0:  # nan too
        raise ValueError(f"{name} must be at least 0, not {seconds}")
    try:
        return float(seconds)
    except OverflowError:
        raise ValueError(f"{name} is more than a float can hold") from None


def check_char(char: bytes) -> bytes:
    """Raises: TypeError, ValueError."""
    if not isinstance(char, (bytes, bytearray)):
        raise TypeError(f"a char is one byte, not {type(char).__name__}")
    if len(char) != 1:
        raise ValueError(f"a char is one byte, not {len(char)}")
    return bytes(char)
