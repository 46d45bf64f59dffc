"""UDP between simulated hosts (RFC 768), with the error numbers of Linux."""

from __future__ import annotations

import errno
import socket
from collections import deque

import attrs

from trioqt.links.interrupts import protected
from trioqt.testing.network.fabric import Address, Packet, Path
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
        if remote[0] == "0.0.0.0":
            remote = self._own_of_family(remote[0]) or "127.0.0.1", remote[1]
        remote = self._any_ipv6(remote)
        self._check_family(remote[0])
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
        """Raises: EDESTADDRREQ, EMSGSIZE, ENETUNREACH, EPIPE, EINVAL, ENODEV, EAFNOSUPPORT, ENOBUFS; EACCES."""
        if self.sending_ended:
            fail(errno.EPIPE)
        asked, target = target, target or self.remote
        if target is None:
            fail(errno.EDESTADDRREQ)
        target = self._any_ipv6(target)
        address = target[0]
        if len(data) > 65535:  # which no length can say; Linux looks at that first
            fail(errno.EMSGSIZE)
        if target[1] == 0 and (asked is not None or (self.family == socket.AF_INET6 and ":" not in address)):
            fail(errno.EINVAL)
        if len(data) > MAX_DATAGRAM[6 if ":" in address else 4]:
            fail(errno.EMSGSIZE)
        host, beside = self.host, beside or Beside()
        self._check_beside(beside)
        to_group = is_multicast(address)
        interface = beside.interface or (to_group and self.multicast_interface) or 0
        arrives_by = 0
        if address == "0.0.0.0":  # this machine: Linux sends it back to where it comes from
            address, _ = self._own_for(address if interface == ETHERNET else "127.0.0.1", interface, beside)
            beside = attrs.evolve(beside, source=address)
            target, interface, arrives_by = (address, target[1]), LOOPBACK, interface or LOOPBACK
        own = self._own_for(address, interface, beside)
        if not interface and own[0].startswith("127.") and (to_group or address == "255.255.255.255"):
            interface = LOOPBACK  # no route leads there, and so the source's interface is taken
        if interface != LOOPBACK:
            self._check_leaving(own[0], address)
        if self.error:  # of an earlier one; Linux looks for what is wrong with this one first
            fail(self.take_error())
        packet = Packet("UDP", own, target, data)
        packet.hops = beside.hops if beside.hops >= 0 else self._hops(address, to_group)
        packet.interface = arrives_by
        if host.is_broadcast(address):
            if not self.options.flag(socket.SOL_SOCKET, socket.SO_BROADCAST):
                fail(errno.EACCES)
            self._send_to_many(packet, interface or (LOOPBACK if address.startswith("127.") else ETHERNET))
        elif to_group:
            interface = interface or ETHERNET  # what goes out by the loopback interface comes in by it, loop or not
            self._send_to_many(packet, interface, loop=interface == LOOPBACK or self._loops(address))
        else:
            self._send_to_one(packet, interface, has_source=bool(beside.source or self._own_of_family(address)))
        return len(data)

    def _check_beside(self, beside: Beside) -> None:
        """Raises: OSError."""
        host, source = self.host, beside.source
        if beside.interface not in (0, LOOPBACK, ETHERNET):
            fail(errno.ENODEV)
        if source and (not host.owns(source) or host.is_broadcast(source)):
            is_impossible = ":" in source or is_multicast(source) or source == "255.255.255.255"
            fail(errno.EINVAL if is_impossible else errno.ENETUNREACH)  # Linux 6; before, EINVAL for all
        if source == "::1" and beside.interface == ETHERNET:
            fail(errno.EINVAL)  # it is an address of the other one

    def _send_to_one(self, packet: Packet, interface: int, *, has_source: bool) -> None:
        """By an interface that was chosen, if there is one, as Linux looks for the way by it.  Raises: OSError."""
        host, address = self.host, packet.target[0]
        is_loopback = _is_loopback(address)
        # By the loopback interface IPv4 takes every address for its own.
        stays = is_loopback or (interface == LOOPBACK and ":" not in address)
        if interface == LOOPBACK and not (stays or has_source):  # IPv6 heeds the interface if that is all it is told
            fail(errno.ENETUNREACH)
        path = host.path(host) if stays else host.path_to(address)
        if path is None:
            return  # it is lost, as on a real network
        self._check_size(packet, path)
        if is_loopback and interface == ETHERNET:  # it leaves the host, if it may, and nobody out there is that
            if packet.source[0].startswith("127."):
                fail(errno.EINVAL)
        else:
            packet.interface = packet.interface or (LOOPBACK if stays else ETHERNET)
            path.send(packet)

    def _own_for(self, address: str, interface: int, beside: Beside) -> Address:
        """From where it goes.  Raises: OSError."""
        if self.binding is None:
            self.bind("", 0)
            assert self.binding is not None
        source = beside.source
        if not source and (":" in address or not beside.interface):
            self._check_family(address)
            source = self._own_of_family(address)
        # IPv4's source and interface are told together: who tells the one alone leaves the other to the system.
        return source or self._source_for(address, interface), self.binding.port

    def _check_family(self, address: str) -> None:
        """From an IPv4 address nothing goes to an IPv6 one, though the socket could.  Raises: OSError EAFNOSUPPORT."""
        own = "" if self.binding is None else self.binding.address
        if ":" in address and own and ":" not in own:
            fail(errno.EAFNOSUPPORT)

    def _any_ipv6(self, target: Address) -> Address:
        """Where a packet to ``::`` goes: of an IPv4 address that is the IPv4 loopback."""
        if target[0] != "::":
            return target
        own = self.local()[0]
        return ("127.0.0.1" if own and ":" not in own else "::1"), target[1]

    def _own_of_family(self, address: str) -> str:
        """What it is bound to, if that can be the source of a packet to there."""
        own = "" if self.binding is None else self.binding.address
        if not own or (":" in own) != (":" in address) or is_multicast(own) or self.host.is_broadcast(own):
            return ""
        return own

    def _source_for(self, address: str, interface: int) -> str:
        own = [known for known in self.host.addresses if (":" in known) == (":" in address)]
        if interface == LOOPBACK and not own:
            return "::1" if ":" in address else "127.0.0.1"
        if interface == ETHERNET and own and _is_loopback(address):
            return own[0]
        return self.host.source_for(address)

    def _check_leaving(self, source: str, address: str) -> None:
        if not is_multicast(address) and address != "255.255.255.255":
            self.host.check_leaving(source, address)

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

    def _check_size(self, packet: Packet, path: Path) -> None:
        """IP_MTU_DISCOVER = IP_PMTUDISC_DO (2): never in fragments.  Raises: EMSGSIZE, ENOBUFS."""
        size = len(packet.data)
        if size + (48 if ":" in packet.target[0] else 28) <= path.conditions.mtu:
            return
        name = number("IP_MTU_DISCOVER")
        if name is not None and self.options.get(socket.IPPROTO_IP, name) == 2:
            fail(errno.EMSGSIZE)
        if size > 2 * self.options.send_buffer:  # of what goes in one piece Linux takes any size
            fail(errno.ENOBUFS)

    def _send_to_many(self, packet: Packet, interface: int, *, loop: bool = True) -> None:
        """To every host on the network of that interface; of a group, whom it does not concern drops it.

        Raises: OSError.
        """
        host, address = self.host, packet.target[0]
        if interface == LOOPBACK and ":" in address:
            fail(errno.ENETUNREACH)  # IPv6 has no way for groups by that one
        everybody = [host] if interface == LOOPBACK or packet.hops == 0 else host.world.everybody()
        for other in list(everybody):
            if (loop or other is not host) and (is_multicast(address) or other.is_broadcast(address)):
                copy = Packet("UDP", packet.source, packet.target, packet.data)
                copy.hops, copy.interface = packet.hops, interface
                path = host.path(other)
                self._check_size(packet, path)
                path.send(copy)

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
        if self.remote is not None and not self.is_peer(packet.source):
            return
        # The smallest buffer holds one of any size.
        if self._arrived and self._size + len(packet.data) + OVERHEAD > self.options.receive_buffer:
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
        if self.is_peer(source):
            self.error = errno.ECONNREFUSED
            if self.waker is not None:
                self.waker.wake_reader()

    def is_peer(self, source: Address) -> bool:
        """Linux: at port 0 nobody is, and connected to it a socket has that host's every port for its peer."""
        return self.remote is not None and source[0] == self.remote[0] and self.remote[1] in (0, source[1])

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


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")
