"""UDP between simulated hosts (RFC 768), with the error numbers of Linux."""

from __future__ import annotations

import errno
import socket
from collections import deque

import attrs

from trioqt.links.interrupts import protected
from trioqt.testing.network.fabric import Address, Packet
from trioqt.testing.network.host import ETHERNET, LOOPBACK, Binding, Host, Waker, fail, is_multicast
from trioqt.testing.network.options import Options, number

__all__ = ["Arrival", "Beside", "UdpEnd"]

# What fits behind the headers of UDP and of IP in 65,535 bytes.  IPv6 does not count its own.
MAX_DATAGRAM = {4: 65507, 6: 65527}

# Linux charges a datagram for its bookkeeping too, some 700 bytes: so empty ones fill a buffer as well.
OVERHEAD = 704

# Linux: net.ipv4.igmp_max_memberships.
MEMBERSHIPS = 20


@attrs.frozen
class Arrival:
    """A datagram that has arrived, and what is known of its way."""

    data: bytes
    source: Address
    target: str
    hops: int
    interface: int
    dropped: int
    """How many had been dropped when it came."""


@attrs.frozen
class Beside:
    """What a program says beside one datagram: where it is from, how far and by which interface it goes."""

    source: str = ""
    hops: int = -1
    interface: int = 0


@protected
class UdpEnd:
    """What a datagram socket has bound, and what has arrived there."""

    def __init__(self, host: Host, family: int, options: Options) -> None:
        self.host = host
        self.family = family
        self.options = options
        self.binding: Binding | None = None
        self.remote: Address | None = None
        self.waker: Waker | None = None
        self.error: int = 0
        self.receiving_ended = False
        self.sending_ended = False
        self.dropped: int = 0
        """How many came when the buffer was full."""
        self.multicast_interface: int = 0
        self._arrived: deque[Arrival] = deque()
        self._size = 0
        self._memberships: dict[tuple[str, int], set[str] | None] = {}
        """| group, interface | whose datagrams, None: anybody's |."""

    # ---- what the socket asks ------------------------------------------------------------------

    def is_listening(self) -> bool:
        return False

    def is_gone(self) -> bool:
        return False

    def is_readable(self) -> bool:
        return bool(self._arrived or self.error or self.receiving_ended)

    def is_writable(self) -> bool:
        return True

    def writer_waits(self) -> None:
        """Nothing to prepare."""

    def queued(self) -> tuple[int, int]:
        return self._size, 0

    def take_error(self) -> int:
        error, self.error = self.error, 0
        return error

    # ---- addresses -----------------------------------------------------------------------------

    def bind(self, address: str, port: int) -> None:
        """Raises: OSError."""
        binding = self.options.binding(self, self.family, address, port)
        self.host.udp.take(binding)
        self.binding = binding

    def connect(self, remote: Address) -> None:
        """Talk to nobody else.  Raises: OSError ENETUNREACH, EINVAL."""
        source = self.host.source_for(remote[0])
        if self.binding is None:
            self.bind(source, 0)
        else:
            self._check_leaving(self.binding.address, remote[0])
            if not self.binding.address:
                self.binding.address = source
        self.remote = remote

    def local(self) -> Address:
        return ("", 0) if self.binding is None else (self.binding.address, self.binding.port)

    # ---- datagrams -----------------------------------------------------------------------------

    def send(self, data: bytes, target: Address | None = None, beside: Beside | None = None) -> int:
        """Raises: EDESTADDRREQ, EMSGSIZE, ENETUNREACH, EPIPE, EINVAL, ENODEV; EACCES of a forbidden broadcast."""
        if self.error:
            fail(self.take_error())
        if self.sending_ended:
            fail(errno.EPIPE)
        asked, target = target, target or self.remote
        if target is None:
            fail(errno.EDESTADDRREQ)
        address = target[0]
        if len(data) > MAX_DATAGRAM[6 if ":" in address else 4]:
            fail(errno.EMSGSIZE)
        if asked is not None and asked[1] == 0:
            fail(errno.EINVAL)
        host, beside = self.host, beside or Beside()
        if beside.interface not in (0, LOOPBACK, ETHERNET):
            fail(errno.ENODEV)
        if beside.source and (not host.owns(beside.source) or host.is_broadcast(beside.source)):
            is_impossible = ":" in beside.source or is_multicast(beside.source) or beside.source == "255.255.255.255"
            fail(errno.EINVAL if is_impossible else errno.ENETUNREACH)  # Linux 6; before, EINVAL for all
        to_group = is_multicast(address)
        interface = beside.interface or (to_group and self.multicast_interface) or 0
        own = self._from(self._source_for(address, interface if to_group else 0))
        own = beside.source or own[0], own[1]
        self._check_leaving(own[0], address)
        packet = Packet("UDP", own, target, data)
        packet.hops = beside.hops if beside.hops >= 0 else self._hops(address, to_group)
        if host.is_broadcast(address):
            if not self.options.flag(socket.SOL_SOCKET, socket.SO_BROADCAST):
                fail(errno.EACCES)
            self._send_to_many(packet, interface or (LOOPBACK if address.startswith("127.") else ETHERNET))
        elif to_group:
            interface = interface or ETHERNET  # what goes out by the loopback interface comes in by it, loop or not
            self._send_to_many(packet, interface, loop=interface == LOOPBACK or self._loops(address))
        else:
            path = host.path_to(address)
            if path is not None:  # else it is lost, as on a real network
                self._check_size(data, path.conditions.mtu)
                packet.interface = LOOPBACK if host.owns(address) else ETHERNET
                path.send(packet)
        return len(data)

    def _source_for(self, address: str, interface: int) -> str:
        if interface == LOOPBACK and not self.host.addresses:
            return "::1" if ":" in address else "127.0.0.1"
        return self.host.source_for(address)

    def _check_leaving(self, source: str, address: str) -> None:
        if not is_multicast(address) and address != "255.255.255.255":
            self.host.check_leaving(source, address)

    def _from(self, source: str) -> Address:
        if self.binding is None:
            self.bind("", 0)
            assert self.binding is not None
        return self.binding.address or source, self.binding.port

    def _hops(self, address: str, to_group: bool) -> int:
        if ":" in address:
            level, name = socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS if to_group else socket.IPV6_UNICAST_HOPS
        else:
            level, name = socket.IPPROTO_IP, socket.IP_MULTICAST_TTL if to_group else socket.IP_TTL
        hops = self.options.get(level, name)
        assert isinstance(hops, int)
        return hops

    def _loops(self, group: str) -> bool:
        if ":" in group:
            return self.options.get(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP) != 0
        return self.options.get(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP) != 0

    def _check_size(self, data: bytes, mtu: int) -> None:
        """IP_MTU_DISCOVER = IP_PMTUDISC_DO (2): never in fragments."""
        name = number("IP_MTU_DISCOVER")
        if name is not None and self.options.get(socket.IPPROTO_IP, name) == 2 and len(data) + 28 > mtu:
            fail(errno.EMSGSIZE)

    def _send_to_many(self, packet: Packet, interface: int, *, loop: bool = True) -> None:
        """To every host on the network of that interface: whom it does not concern drops it."""
        host = self.host
        everybody = [host] if interface == LOOPBACK or packet.hops == 0 else host.world.everybody()
        for other in list(everybody):
            if loop or other is not host:
                copy = Packet("UDP", packet.source, packet.target, packet.data)
                copy.hops, copy.interface = packet.hops, interface
                host.path(other).send(copy)

    def receive_group(self, packet: Packet) -> None:
        """What was sent to a group that somebody on this host has joined."""
        group, interface = packet.target[0], packet.interface
        sources = self._memberships.get((group, interface), set())
        if (group, interface) not in self._memberships and not self._hears_all(group):
            return
        if (group, interface) in self._memberships and sources is not None and packet.source[0] not in sources:
            return
        if self.binding is not None and self.binding.fits(group):
            self.receive(packet)

    def _hears_all(self, group: str) -> bool:
        """ip(7), IP_MULTICAST_ALL: also groups that others have joined."""
        if ":" in group:
            return bool(self.options.get(socket.IPPROTO_IPV6, number("IPV6_MULTICAST_ALL") or 0))
        return bool(self.options.get(socket.IPPROTO_IP, number("IP_MULTICAST_ALL") or 0))

    def receive(self, packet: Packet) -> None:
        """A datagram for this port."""
        if self.binding is None or self.binding.port != packet.target[1] or self.receiving_ended:
            return
        if self.remote is not None and self.remote != packet.source:
            return
        if self._size + len(packet.data) + OVERHEAD > self.options.receive_buffer:
            self.dropped += 1
            self.host.note("buffer full", port=packet.target[1], size=len(packet.data))
            return
        arrival = Arrival(
            packet.data, packet.source, packet.target[0], packet.hops, packet.interface or ETHERNET, self.dropped
        )
        self._arrived.append(arrival)
        self._size += len(packet.data) + OVERHEAD
        if self.waker is not None:
            self.waker.wake_reader()

    def refused(self, source: Address) -> None:
        """ICMP says that nobody is at that port: who is connected to it hears of it (RFC 1122, 4.1.3.3)."""
        if self.remote == source:
            self.error = errno.ECONNREFUSED
            if self.waker is not None:
                self.waker.wake_reader()

    def read(self, *, peek: bool = False) -> Arrival:
        """The next datagram.  Raises: BlockingIOError, OSError."""
        if self.error:
            fail(self.take_error())
        if not self._arrived:
            if self.receiving_ended:
                return Arrival(b"", ("", 0), "", 0, 0, 0)
            fail(errno.EAGAIN)
        if peek:
            return self._arrived[0]
        arrival = self._arrived.popleft()
        self._size -= len(arrival.data) + OVERHEAD
        return arrival

    # ---- groups --------------------------------------------------------------------------------

    def join(self, group: str, interface: int) -> None:
        """Raises: OSError EADDRINUSE if it is a member already, ENOBUFS if it is one of too many."""
        if (group, interface) in self._memberships:
            fail(errno.EADDRINUSE)
        self._become_member(group, interface, None)

    def leave(self, group: str, interface: int) -> None:
        """Raises: OSError EADDRNOTAVAIL if it is no member."""
        if (group, interface) not in self._memberships:
            fail(errno.EADDRNOTAVAIL)
        del self._memberships[group, interface]
        members = self.host.groups.get((group, interface), {})
        members.pop(id(self), None)
        if not members:
            self.host.groups.pop((group, interface), None)

    def join_source(self, group: str, interface: int, source: str) -> None:
        """Only what that host sends, or that one too.  Raises: OSError EADDRNOTAVAIL if it is one already."""
        sources = self._memberships.get((group, interface))
        if sources is None:  # also who has joined for everybody's: Linux then narrows it
            self._become_member(group, interface, {source})
        elif source in sources:
            fail(errno.EADDRNOTAVAIL)
        else:
            sources.add(source)

    def leave_source(self, group: str, interface: int, source: str) -> None:
        """Raises: OSError EADDRNOTAVAIL if it is none, EINVAL if the group was not joined so."""
        sources = self._memberships.get((group, interface))
        if sources is None:
            fail(errno.EINVAL)
        if source not in sources:
            fail(errno.EADDRNOTAVAIL)
        sources.discard(source)
        if not sources:
            self.leave(group, interface)

    def _become_member(self, group: str, interface: int, sources: set[str] | None) -> None:
        if ":" not in group and sum(":" not in known for known, _ in self._memberships) >= MEMBERSHIPS:
            fail(errno.ENOBUFS)
        self._memberships[group, interface] = sources
        self.host.groups.setdefault((group, interface), {})[id(self)] = self

    def close(self) -> None:
        if self.binding is not None:
            self.host.udp.release(self.binding)
        for group, interface in list(self._memberships):
            self.leave(group, interface)
