"""UDP between simulated hosts (RFC 768), with the error numbers of Linux."""

from __future__ import annotations

import errno
import socket
from collections import deque

from trioqt.links.interrupts import protected
from trioqt.testing.network.fabric import Address, Packet
from trioqt.testing.network.host import Binding, Host, Waker, fail, is_multicast
from trioqt.testing.network.options import Options, number

__all__ = ["UdpEnd"]

# What fits behind the headers of UDP and of IP in 65,535 bytes.  IPv6 does not count its own.
MAX_DATAGRAM = {4: 65507, 6: 65527}

# Linux charges a datagram for its bookkeeping too, some 700 bytes: so empty ones fill a buffer as well.
OVERHEAD = 704


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
        self._arrived: deque[tuple[bytes, Address]] = deque()
        self._size = 0

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
        """Talk to nobody else.  Raises: OSError ENETUNREACH."""
        source = self.host.source_for(remote[0])
        if self.binding is None:
            self.bind(source, 0)
        elif not self.binding.address:
            self.binding.address = source
        self.remote = remote

    def local(self) -> Address:
        return ("", 0) if self.binding is None else (self.binding.address, self.binding.port)

    # ---- datagrams -----------------------------------------------------------------------------

    def send(self, data: bytes, target: Address | None) -> int:
        """Raises: OSError EDESTADDRREQ, EMSGSIZE, EACCES for a broadcast that is not allowed, ENETUNREACH, EPIPE."""
        if self.error:
            fail(self.take_error())
        if self.sending_ended:
            fail(errno.EPIPE)
        target = target or self.remote
        if target is None:
            fail(errno.EDESTADDRREQ)
        address, port = target
        if len(data) > MAX_DATAGRAM[6 if ":" in address else 4]:
            fail(errno.EMSGSIZE)
        if port == 0:
            fail(errno.EINVAL)
        host = self.host
        if address == "255.255.255.255":
            if not self.options.flag(socket.SOL_SOCKET, socket.SO_BROADCAST):
                fail(errno.EACCES)
            source = host.source_for(address)
            self._send_to_many(data, source, target, [other for other in host.world.everybody() if other is not host])
        elif is_multicast(address):
            source = host.source_for(address)
            self._send_to_many(data, source, target, self._members(address))
        else:
            source = host.source_for(address)
            path = host.path_to(address)
            if path is not None:  # else it is lost, as on a real network
                self._check_size(data, path.conditions.mtu)
                path.send(Packet("UDP", self._from(source), target, data))
        return len(data)

    def _from(self, source: str) -> Address:
        if self.binding is None:
            self.bind("", 0)
            assert self.binding is not None
        return self.binding.address or source, self.binding.port

    def _check_size(self, data: bytes, mtu: int) -> None:
        """IP_MTU_DISCOVER = IP_PMTUDISC_DO (2): never in fragments."""
        name = number("IP_MTU_DISCOVER")
        if name is not None and self.options.get(socket.IPPROTO_IP, name) == 2 and len(data) + 28 > mtu:
            fail(errno.EMSGSIZE)

    def _send_to_many(self, data: bytes, source: str, target: Address, hosts: list[Host]) -> None:
        origin = self._from(source)
        for other in hosts:
            self.host.path(other).send(Packet("UDP", origin, target, data))

    def _members(self, group: str) -> list[Host]:
        if ":" in group:
            loop = self.options.get(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP)
        else:
            loop = self.options.get(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP)
        return [
            other for other in self.host.world.everybody() if group in other.groups and (loop or other is not self.host)
        ]

    def receive(self, packet: Packet) -> None:
        """A datagram for this port."""
        if self.binding is None or self.binding.port != packet.target[1] or self.receiving_ended:
            return
        if self.remote is not None and self.remote != packet.source:
            return
        if self._size + len(packet.data) + OVERHEAD > self.options.receive_buffer:
            self.host.note("buffer full", port=packet.target[1], size=len(packet.data))
            return
        self._arrived.append((packet.data, packet.source))
        self._size += len(packet.data) + OVERHEAD
        if self.waker is not None:
            self.waker.wake_reader()

    def refused(self, source: Address) -> None:
        """ICMP says that nobody is at that port: who is connected to it hears of it (RFC 1122, 4.1.3.3)."""
        if self.remote == source:
            self.error = errno.ECONNREFUSED
            if self.waker is not None:
                self.waker.wake_reader()

    def read(self, *, peek: bool = False) -> tuple[bytes, Address]:
        """The next datagram and where it is from.  Raises: BlockingIOError, OSError."""
        if self.error:
            fail(self.take_error())
        if not self._arrived:
            if self.receiving_ended:
                return b"", ("", 0)
            fail(errno.EAGAIN)
        if peek:
            return self._arrived[0]
        data, source = self._arrived.popleft()
        self._size -= len(data) + OVERHEAD
        return data, source

    # ---- groups --------------------------------------------------------------------------------

    def join(self, group: str) -> None:
        """Raises: OSError EADDRINUSE if it is a member already."""
        members = self.host.groups.setdefault(group, {})
        if id(self) in members:
            fail(errno.EADDRINUSE)
        members[id(self)] = self

    def leave(self, group: str) -> None:
        """Raises: OSError EADDRNOTAVAIL if it is no member."""
        members = self.host.groups.get(group, {})
        if members.pop(id(self), None) is None:
            fail(errno.EADDRNOTAVAIL)
        if not members:
            del self.host.groups[group]

    def close(self) -> None:
        if self.binding is not None:
            self.host.udp.release(self.binding)
        for group in [group for group, members in self.host.groups.items() if id(self) in members]:
            self.leave(group)
