"""Datagrams by way of a SOCKS5 proxy (RFC 1928, section 7): each with the other end's address in front.

There are two ways to the proxy: a socket for datagrams, to where the proxy takes them in, and the connection on which
that was asked for, which lasts as long as the proxy is to carry anything, and brings nothing more.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Awaitable, Callable

import trio

from trioqt.core import socks5
from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, location, to_sockaddr
from trioqt.core.datagram import NetworkDatagram
from trioqt.core.errors import ErrorKind, SocketError, raise_bare
from trioqt.core.network_proxy import NetworkProxy, credentials_of
from trioqt.core.proxies import Target, target_of
from trioqt.links.base import TO_PEER, Bytes, DatagramLink, DatagramSocket, Link, Sockaddr, Where
from trioqt.links.interrupts import protected
from trioqt.links.through_proxy import ENDS, Answer, Reach, speak

__all__ = ["ProxiedDatagramLink", "associate_through"]

# What the proxy says on a connection that has nothing to say any more is dropped, in pieces of so many bytes.
BLOCK_SIZE = 4096


async def associate_through(
    proxy: NetworkProxy, reach: Reach, answer: Answer, open_socket: Callable[[Sockaddr], DatagramLink]
) -> ProxiedDatagramLink:
    """Have the proxy carry datagrams.

    Args:
      open_socket: A link whose peer is that address.

    Raises: SocketError; OSError of ``open_socket``.
    Cancelled: everything is closed.
    """
    if proxy.via is not None:
        raise SocketError(
            ErrorKind.UNSUPPORTED_SOCKET_OPERATION, f"datagrams do not go through a chain, to the {proxy}"
        )
    control, reported = await speak(proxy, socks5.associate(credentials_of(proxy)), reach, answer)
    try:
        assert reported is not None
        relay = reported.address
        if not relay or relay in (HostAddress.ANY_IPV4, HostAddress.ANY_IPV6):  # "here", which only the proxy can say
            there = control.peer_address()
            assert there is not None
            relay = HostAddress(there[0])
        if not reported.port or relay.is_multicast() or relay == HostAddress.BROADCAST:
            where = location(relay, reported.port)
            raise SocketError(ErrorKind.PROXY_PROTOCOL, f"the proxy takes no datagrams in at {where} ({proxy})")
        below = open_socket(to_sockaddr(relay, reported.port))
    except BaseException:
        control.close()
        raise
    return ProxiedDatagramLink(below, control, proxy)


@protected
class ProxiedDatagramLink(DatagramLink):
    """Datagrams that a proxy carries.

    Args:
      below: To where the proxy takes them in.
      control: The connection that keeps it doing so.
    """

    __slots__ = ("_below", "_control", "_peer", "proxy")

    def __init__(self, below: DatagramLink, control: Link, proxy: NetworkProxy) -> None:
        self._below = below
        self._control = control
        self.proxy: NetworkProxy = proxy
        self._peer: Target | None = None

    def is_drained(self) -> bool:
        return self._below.is_drained()

    def try_receive(self, arrived: deque[NetworkDatagram], most: int) -> OSError | None:
        wrapped: deque[NetworkDatagram] = deque()
        exc = self._below.try_receive(wrapped, most)
        for datagram in wrapped:
            found = socks5.unpack_datagram(datagram.data)
            if found is not None and self._is_from_peer(found[0], found[1]):
                address, port, data = found
                arrived.append(NetworkDatagram(data, address, port))
        return exc

    def _is_from_peer(self, address: HostAddress, port: int) -> bool:
        if self._peer is None:
            return True
        # Of a peer whose name only the proxy has looked up, only the port is known.
        known = isinstance(self._peer.host, HostAddress)
        return port == self._peer.port and (not known or _bare(address) == _bare(self._peer.host))

    async def wait_receivable(self) -> None:
        self._check_control()
        failures: list[Exception] = []

        @trio.lowlevel.enable_ki_protection  # a task of its own
        async def wait_until(wait: Callable[[], Awaitable[None]]) -> None:
            try:
                await wait()
            except ENDS as exc:
                failures.append(exc)
            nursery.cancel_scope.cancel(reason="there is news")

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_until, self._below.wait_receivable)
                nursery.start_soon(wait_until, lambda: self._control.wait_receivable(BLOCK_SIZE))
        except BaseExceptionGroup as group:
            raise_bare(group)
        if failures:
            raise failures[0]
        self._check_control()

    def _check_control(self) -> None:
        """Raises: SocketError(PROXY_CONNECTION_CLOSED) if the proxy carries nothing more."""
        try:
            if self._control.try_receive(BLOCK_SIZE) != b"":
                return
            cause: Exception | None = None
        except ENDS as exc:
            cause = exc
        message = f"the proxy closed the connection ({self.proxy})"
        raise SocketError(ErrorKind.PROXY_CONNECTION_CLOSED, message) from cause

    def try_send(self, data: Bytes, where: Where) -> None:
        self._check_control()
        address, port, *_ = where
        target = target_of(address, port) if address else self._peer
        if target is None:
            raise OSError(errno.EDESTADDRREQ, os.strerror(errno.EDESTADDRREQ))
        self._below.try_send(socks5.wrap_datagram(target, bytes(data)), TO_PEER)

    async def wait_sendable(self) -> None:
        await self._below.wait_sendable()

    def connect(self, address: Sockaddr) -> None:
        self.connect_to(Target(HostAddress(address[0]), int(address[1])))

    def connect_to(self, target: Target) -> None:
        """The same, where only the proxy may know the address."""
        self._peer = target

    def dropped(self) -> int | None:
        return self._below.dropped()

    def join(self, group: HostAddress, interface: int, source: HostAddress | None) -> None:
        raise OSError(errno.EOPNOTSUPP, "a proxy joins no groups")

    def leave(self, group: HostAddress, interface: int, source: HostAddress | None) -> None:
        raise OSError(errno.EOPNOTSUPP, "a proxy joins no groups")

    def set_multicast_interface(self, interface: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "a proxy has interfaces of its own")

    def close(self) -> None:
        try:
            self._below.close()
        finally:
            self._control.close()

    def protocol(self) -> NetworkLayerProtocol:
        return NetworkLayerProtocol.ANY_IP

    def local_address(self) -> Sockaddr:
        return ("", 0)  # where the proxy sends them from, it does not say

    def peer_address(self) -> Sockaddr | None:
        if self._peer is None:
            return None
        return (str(self._peer.host) if isinstance(self._peer.host, HostAddress) else "", self._peer.port)

    def native(self) -> DatagramSocket:
        return self._below.native()


def _bare(address: HostAddress | str) -> HostAddress:
    """Without its zone, which means something on one machine only, and so is not told to a proxy or by it."""
    return HostAddress(str(address).partition("%")[0])
