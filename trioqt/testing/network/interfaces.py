"""The interfaces of a simulated host: ``lo``, and ``eth0`` with all the addresses that it was given."""

from __future__ import annotations

from collections.abc import Callable

from trioqt.core.addresses import HostAddress
from trioqt.core.interfaces import InterfaceAddress, InterfaceFlag, NetworkInterface
from trioqt.links.interrupts import protected
from trioqt.testing.network.host import ETHERNET, LOOPBACK, Host, broadcast_of

__all__ = ["SimulatedMachine", "interfaces_of"]

# Of the loopback interface, as Linux has it.
LOOPBACK_MTU = 65536


@protected
class SimulatedMachine:
    """The host on which the calling code runs, for who asks ``links/machine.py``.

    Args:
      current: Which one that is.
      mtu: Of the links between hosts, in bytes.
    """

    def __init__(self, current: Callable[[], Host], mtu: Callable[[], int]) -> None:
        self._current = current
        self._mtu = mtu

    def host_name(self) -> str:
        return self._current().name

    def interfaces(self) -> tuple[NetworkInterface, ...]:
        return interfaces_of(self._current(), self._mtu())


def interfaces_of(host: Host, mtu: int) -> tuple[NetworkInterface, ...]:
    """As a kernel would tell them; of a host that is down nothing is up."""
    up = InterfaceFlag.IS_UP | InterfaceFlag.IS_RUNNING if host.is_up else InterfaceFlag(0)
    loopback = NetworkInterface(
        name="lo",
        index=LOOPBACK,
        hardware_address=bytes(6).hex(":"),
        flags=up | InterfaceFlag.IS_LOOPBACK,
        mtu=LOOPBACK_MTU,
        addresses=(
            InterfaceAddress(HostAddress.LOCAL_HOST, 8, HostAddress("127.255.255.255")),
            InterfaceAddress(HostAddress.LOCAL_HOST_IPV6, 128),
        ),
    )
    ethernet = NetworkInterface(
        name="eth0",
        index=ETHERNET,
        hardware_address=_hardware_address(host.addresses[0]),
        flags=up | InterfaceFlag.CAN_BROADCAST | InterfaceFlag.CAN_MULTICAST,
        mtu=mtu,
        addresses=tuple(map(_interface_address, host.addresses)),
    )
    return loopback, ethernet


def _hardware_address(address: str) -> str:
    # Docker's rule: 02:42, then an IPv4 address; of IPv6 the last four bytes are as good.
    return (b"\x02\x42" + HostAddress(address).ip.packed[-4:]).hex(":")


def _interface_address(text: str) -> InterfaceAddress:
    # Whose network it is nobody has said.  These lengths are the usual ones.
    if ":" in text:
        return InterfaceAddress(HostAddress(text), 64)
    return InterfaceAddress(HostAddress(text), 24, HostAddress(broadcast_of(text)))
