"""What a network interface is, as frozen values: what it is called, what it can do, which addresses it has.

This module asks no system for them.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

from trioqt.core.addresses import HostAddress

__all__ = ["InterfaceAddress", "InterfaceFlag", "NetworkInterface"]


class InterfaceFlag(enum.Flag):
    """What an interface is and can do.  Qt: QNetworkInterface::InterfaceFlag, with Qt's numbers."""

    IS_UP = 1
    """It is switched on."""
    IS_RUNNING = 2
    """It has its cable, or its radio; packets can go."""
    CAN_BROADCAST = 4
    """It reaches everybody on its network at once."""
    IS_LOOPBACK = 8
    """It leads back to this host."""
    IS_POINT_TO_POINT = 16
    """There is one other end, as of a tunnel."""
    CAN_MULTICAST = 32
    """It carries datagrams for groups."""


NOTHING: Final = InterfaceFlag(0)


@attrs.frozen
class InterfaceAddress:
    """One address of an interface, and the network that it belongs to.  Qt: QNetworkAddressEntry."""

    address: HostAddress
    """With the interface as its scope if it means nothing without: ``fe80::1%eth0``."""
    prefix_length: int
    """How many of its bits are the network's.  Qt: prefixLength(); netmask() says the same."""
    broadcast: HostAddress = HostAddress.NULL
    """Everybody on that network; ``HostAddress.NULL`` where there is none: in IPv6, and in a network of one or two."""


@attrs.frozen
class NetworkInterface:
    """One interface of this host, as it was when it was asked for.  Qt: QNetworkInterface."""

    name: str
    """As the system calls it: ``eth0``."""
    index: int
    """The number that a scope or a socket option may want.  It stays while the interface exists."""
    hardware_address: str = ""
    """``02:fc:00:00:00:01``; empty if it has none.  Qt: hardwareAddress(), in capitals there."""
    flags: InterfaceFlag = NOTHING
    """What it is and can do."""
    mtu: int = 0
    """The largest packet, in bytes; 0 if it is not known.  Qt: maximumTransmissionUnit()."""
    addresses: tuple[InterfaceAddress, ...] = ()
    """In the order of the system."""
    is_complete: bool = True
    """False if no more than name and index could be found out: then the rest is empty, and says nothing."""
