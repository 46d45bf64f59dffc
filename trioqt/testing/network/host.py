"""A simulated machine: its addresses, and who has which port.

It knows where a packet belongs; what a packet does there, the transports know.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, Protocol

import attrs

from trioqt.links.interrupts import protected
from trioqt.testing.network.fabric import Address, Fabric, Packet, Path
from trioqt.testing.network.host_clock import HostClock

__all__ = [
    "ETHERNET",
    "INTERFACES",
    "LOOPBACK",
    "Binding",
    "End",
    "Holder",
    "Host",
    "PortTable",
    "Program",
    "Waker",
    "World",
    "broadcast_of",
    "fail",
    "is_multicast",
]

# Linux: net.ipv4.ip_local_port_range.  Linux draws at random; counting up is as good, and reads better in a trace.
EPHEMERAL_PORTS = range(32768, 61000)

# As Linux has it for a process (ulimit -n).
DESCRIPTOR_LIMIT = 1_048_576


# The interfaces that every host has, and their numbers: packets to itself take the one, all others the other.
INTERFACES = {"lo": 1, "eth0": 2}
LOOPBACK, ETHERNET = INTERFACES.values()


def fail(code: int) -> NoReturn:
    """Raise the OSError that the kernel would give."""
    raise OSError(code, os.strerror(code))


class World(Protocol):
    """What a host needs of the network around it."""

    def find(self, address: str) -> Host | None:
        """Who has this address."""

    def everybody(self) -> Iterable[Host]:
        """Who hears a broadcast."""

    def mtu(self) -> int:
        """Bytes of the largest IP packet."""

    def new_path(self, source: Host, target: Host) -> Path:
        """The way from one to the other."""


class Program(Protocol):
    """What runs on a host, and dies with it."""

    def crash(self) -> None:
        """The host is down."""

    def restart(self) -> None:
        """The host is up again."""


class Holder(Protocol):
    """A socket, as its host sees it."""

    @property
    def sort(self) -> str:
        """tcp, tcp6, sctp, sctp6, udp, udp6 or unix."""

    @property
    def end(self) -> Any:
        """What is below it."""

    def row(self) -> tuple[str, str, str, int, int]:
        """For netstat: | state | local | remote | bytes unread | bytes unacknowledged |."""

    def vanish(self) -> None:
        """The host has crashed."""

    def leave_open(self) -> None:
        """The network ends."""


class End(Protocol):
    """One end of a TCP connection, as its host sees it."""

    local: Address
    remote: Address
    state: str
    expires: float

    def receive(self, packet: Packet) -> None:
        """A packet for it."""

    def queued(self) -> tuple[int, int]:
        """Bytes that have arrived and are unread, bytes that are not acknowledged."""

    def is_gone(self) -> bool:
        """Does it hold its port no more?"""

    def forget(self) -> None:
        """Out of the host's tables."""

    def vanish(self) -> None:
        """The host has crashed."""


class Waker(Protocol):
    """A socket, as what is below it sees it."""

    def wake_reader(self) -> None:
        """Something has arrived, or it is over."""

    def wake_writer(self) -> None:
        """There is room, or it is over."""

    def has_writer(self) -> bool:
        """Does a task wait for room?"""


@attrs.define(eq=False)
class Binding:
    """One socket's hold on a port: | family | address, "" for any | port |."""

    owner: Any
    family: int
    address: str
    port: int
    only_ipv6: bool = False
    reuse_address: bool = False
    reuse_port: bool = False

    def covers(self, version: int) -> bool:
        """Does it take packets of this version of IP, 4 or 6?"""
        if self.family == socket.AF_INET:
            return version == 4
        if self.address:
            return version == (6 if ":" in self.address else 4)
        return version == 6 or not self.only_ipv6

    def overlaps(self, other: Binding) -> bool:
        """Is there a packet that both would take?"""
        if self.address and other.address:
            return self.address == other.address
        return any(self.covers(version) and other.covers(version) for version in (4, 6))

    def fits(self, address: str) -> int:
        """How well it fits a packet to ``address``: 0 not at all, 1 any address of both families, 2 any, 3 exactly."""
        version = 6 if ":" in address else 4
        if not self.covers(version) or self.address not in ("", address):
            return 0
        if self.address:
            return 3
        return 2 if (self.family == socket.AF_INET6) == (version == 6) else 1


@protected
class PortTable:
    """Who holds which port of one protocol."""

    def __init__(self) -> None:
        self._ports: dict[int, dict[int, Binding]] = {}
        # Apart, because a listener's connections hold its port too, and there may be thousands.
        self._listening: dict[int, dict[int, Binding]] = {}
        self._next = EPHEMERAL_PORTS.start

    def take(self, binding: Binding) -> None:
        """Hold the port; 0 stands for any that is free.  Raises: OSError EADDRINUSE."""
        if binding.port == 0:
            binding.port = self._draw(binding)
        elif self.conflict(binding) is not None:
            fail(errno.EADDRINUSE)
        self.hold(binding)

    def hold(self, binding: Binding) -> None:
        """Hold the port without asking: an accepted connection shares it with its listener."""
        self._ports.setdefault(binding.port, {})[id(binding)] = binding

    def release(self, binding: Binding) -> None:
        """Give it back."""
        for table in (self._ports, self._listening):
            held = table.get(binding.port, {})
            held.pop(id(binding), None)
            if not held:
                table.pop(binding.port, None)

    def listen(self, binding: Binding) -> None:
        """Who holds the port listens there.  Raises: OSError EADDRINUSE if somebody else does."""
        if self.conflict(binding, listening=True) is not None:
            fail(errno.EADDRINUSE)
        self._listening.setdefault(binding.port, {})[id(binding)] = binding

    def conflict(self, binding: Binding, *, listening: bool = False) -> Binding | None:
        """Who stands in the way, by the rules of Linux (the table in core/options.py)."""
        for other in list(self._ports.get(binding.port, {}).values()):
            if other is binding or not binding.overlaps(other):
                continue
            if other.owner.is_gone():
                self.release(other)
            elif binding.reuse_port and other.reuse_port:
                continue
            elif listening:
                if other.owner.is_listening():
                    return other
            elif not (binding.reuse_address and other.reuse_address) or other.owner.is_listening():
                return other
        return None

    def find(self, address: str, port: int) -> list[Any]:
        """Who takes a packet to there: the holders that fit best."""
        return self._best(self._ports.get(port, {}), address)

    def find_listeners(self, address: str, port: int) -> list[Any]:
        """Who accepts a connection there: those that fit best."""
        listening = {
            key: binding for key, binding in self._listening.get(port, {}).items() if binding.owner.is_listening()
        }
        return self._best(listening, address)

    @staticmethod
    def _best(holders: dict[int, Binding], address: str) -> list[Any]:
        best = 1
        found: list[Any] = []
        for binding in holders.values():
            fit = binding.fits(address)
            if fit >= best:
                if fit > best:
                    best, found = fit, []
                found.append(binding.owner)
        return found

    def holders(self, port: int) -> list[Any]:
        """Everybody who holds this port, in the order in which they came."""
        return [binding.owner for binding in self._ports.get(port, {}).values()]

    def _is_free(self, port: int) -> bool:
        for binding in list(self._ports.get(port, {}).values()):
            if binding.owner.is_gone():
                self.release(binding)
        return port not in self._ports

    def _draw(self, binding: Binding) -> int:
        for _ in EPHEMERAL_PORTS:
            port = self._next
            self._next = port + 1 if port + 1 in EPHEMERAL_PORTS else EPHEMERAL_PORTS.start
            if self._is_free(port):
                return port
        fail(errno.EADDRINUSE)


@protected
class Host:
    """One machine on the network."""

    def __init__(self, fabric: Fabric, world: World, name: str, addresses: Sequence[str]) -> None:
        self.fabric = fabric
        self.world = world
        self.name = name
        self.addresses: tuple[str, ...] = tuple(addresses)
        self.is_up: bool = True
        self.clock: HostClock = HostClock()
        self.descriptor_limit = DESCRIPTOR_LIMIT
        self.programs: dict[Program, None] = {}
        """What `VirtualNetwork.run_on` runs here, in the order in which it started; it outlives a crash."""
        self._paths: dict[Host, Path] = {}
        self._reset()

    def __repr__(self) -> str:
        return f"<host {self.name}>"

    def _reset(self) -> None:
        self.tcp: PortTable = PortTable()
        self.udp: PortTable = PortTable()
        self.connections: dict[tuple[Address, Address], End] = {}
        self.lingering: deque[End] = deque()
        self.unix: dict[str | bytes, Holder] = {}
        self.sockets: dict[int, Holder] = {}
        """Those that programs hold, by descriptor."""
        self.groups: dict[tuple[str, int], dict[int, Any]] = {}
        """Multicast: who listens to which group, on which interface."""

    # ---- addresses -----------------------------------------------------------------------------

    def owns(self, address: str) -> bool:
        """Can a socket be bound to it?"""
        return address in self.addresses or address == "::1" or address.startswith("127.")

    def is_broadcast(self, address: str) -> bool:
        """Does it stand for everybody on one of this host's networks?

        That of an IPv4 address is its first three bytes, though the addresses that hosts are given may be of several.
        """
        if address in ("255.255.255.255", "127.255.255.255"):
            return True
        return any(broadcast_of(own) == address for own in self.addresses) and self.world.find(address) is None

    def source_for(self, address: str) -> str:
        """The address from which packets to there come.  Raises: OSError ENETUNREACH if there is no way."""
        if address.startswith("127."):
            return "127.0.0.1"
        if address == "::1" or address in self.addresses:
            return address
        is_ipv6 = ":" in address
        for own in self.addresses:
            if (":" in own) == is_ipv6:
                return own
        fail(errno.ENETUNREACH)

    def check_leaving(self, source: str, address: str) -> None:
        """What comes from 127.0.0.0/8 never leaves a host; of IPv6 it does, and is lost.  Raises: OSError EINVAL."""
        if source.startswith("127.") and not self.owns(address):
            fail(errno.EINVAL)

    def path_to(self, address: str) -> Path | None:
        """The way to whoever has this address; None if nobody has."""
        target = self if self.owns(address) else self.world.find(address)
        return None if target is None else self.path(target)

    def path(self, target: Host) -> Path:
        """The way to that host."""
        path = self._paths.get(target)
        if path is None:
            path = self._paths[target] = self.world.new_path(self, target)
        return path

    # ---- packets -------------------------------------------------------------------------------

    def receive(self, packet: Packet) -> None:
        """A packet has arrived: to whom it belongs."""
        if packet.kind == "UDP":
            self._receive_datagram(packet)
            return
        end = self.connections.get((packet.target, packet.source))
        if end is not None and (end.is_gone() or (packet.kind == "SYN" and end.state == "TIME_WAIT")):
            end.forget()
            end = None
        if end is not None:
            end.receive(packet)
        elif packet.kind == "SYN":
            # SCTP has TCP's ports here, and its connections are TCP's; but nobody is answered by the other protocol.
            listeners = self.tcp.find_listeners(*packet.target)
            listeners = [listener for listener in listeners if listener.speaks_with(packet.sender)]
            if listeners:
                # Of several (SO_REUSEPORT) Linux picks by a hash of the addresses.
                listeners[packet.source[1] % len(listeners)].receive(packet)
            else:
                self.refuse(packet)
        elif packet.kind == "ICMP":
            for holder in self.udp.find(*packet.target):
                holder.refused(packet.source)
        elif packet.kind != "RST":
            self.refuse(packet)

    def refuse(self, packet: Packet) -> None:
        """Nobody is there."""
        back = self.path_to(packet.source[0])
        if back is not None:
            kind = "ICMP" if packet.kind == "UDP" else "RST"
            # If the refusal is lost, who was refused must ask again.
            back.send(Packet(kind, packet.target, packet.source, b"", packet.sender))

    def _receive_datagram(self, packet: Packet) -> None:
        address, port = packet.target
        if is_multicast(address):
            if (address, packet.interface) in self.groups:
                for holder in self.udp.holders(port):
                    holder.receive_group(packet)
            return
        if self.is_broadcast(address):
            for holder in self.udp.holders(port):
                if holder.binding.fits(address):
                    holder.receive(packet)
            return
        holders = self.udp.find(address, port)
        connected = [holder for holder in holders if holder.remote is not None]
        exact = [holder for holder in connected if holder.is_peer(packet.source)]
        others = [holder for holder in holders if holder.remote is None]
        # Linux: of several that fit equally well the one bound last, unless they share by SO_REUSEPORT.
        taker = next(iter(exact[-1:] or others[-1:]), None)
        if taker is None:
            self.refuse(packet)
        else:
            taker.receive(packet)

    def note(self, kind: str, *, port: int = 0, size: int = 0, note: str = "") -> None:
        """Into the trace: it happened here."""
        now = self.fabric.now()
        self.fabric.trace.add((now, kind, self.name, port, "", 0, size, note, 0, now, False))

    # ---- lives ---------------------------------------------------------------------------------

    def crash(self) -> None:
        """The power is cut: nothing is said to anybody, and everything is forgotten."""
        sockets = list(self.sockets.values())
        ends = list(self.connections.values())
        self.is_up = False
        self._reset()
        for end in ends:
            end.vanish()
        for sock in sockets:
            sock.vanish()

    def restart(self) -> None:
        """It is up again, and knows nothing of its former life."""
        self.is_up = True

    def check_new_socket(self) -> None:
        """Raises: OSError ENETDOWN if this host is down, EMFILE if it has used up its descriptors."""
        if not self.is_up:
            fail(errno.ENETDOWN)
        if len(self.sockets) >= self.descriptor_limit:
            fail(errno.EMFILE)


def broadcast_of(own: str) -> str:
    """Everybody on the network of an IPv4 address, whose first three bytes that is."""
    return "" if ":" in own else own.rpartition(".")[0] + ".255"


def is_multicast(address: str) -> bool:
    """Does it stand for a group of hosts?"""
    return ipaddress.ip_address(address).is_multicast
