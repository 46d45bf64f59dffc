"""The sending verbs of a datagram socket: when a call returns the system has the datagram, whole."""

from __future__ import annotations

import errno
import socket
from _thread import get_ident
from functools import lru_cache
from typing import Final, NoReturn

import trio

from trioqt.core.addresses import AddressLike, HostAddress, NetworkLayerProtocol, from_sockaddr, host_address
from trioqt.core.datagram import NetworkDatagram, as_bytes
from trioqt.core.errors import ErrorKind, SocketError, kind_of, reason_of
from trioqt.core.events import BytesWritten
from trioqt.core.states import Input
from trioqt.links.base import TO_PEER, DatagramLink, Where
from trioqt.links.bind import any_target
from trioqt.links.connect import look_up
from trioqt.links.datagrams_through_proxy import ProxiedDatagramLink
from trioqt.links.interrupts import protected
from trioqt.sockets.arguments import Host, check_host, check_port, spelled
from trioqt.sockets.datagrams import CONNECTED, ENDS, UNCONNECTED, Datagrams

__all__ = ["DatagramWriter"]

# How systems say that there is no way to there: not from that address, by that interface or with so few hops, and one
# that is forbidden is none.  To Qt all that is one.
NO_WAY: Final = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENODEV, errno.EADDRNOTAVAIL})

# Source, interface and hop limit of what is given without them.
AS_IT_IS: Final = ("", 0, -1)


@protected
class DatagramWriter(Datagrams):
    """A socket that sends datagrams."""

    __slots__ = ()

    def write_datagram(
        self,
        data: NetworkDatagram | bytes | bytearray | memoryview,
        host: AddressLike = HostAddress.NULL,
        port: int = 0,
    ) -> int:
        """Send a datagram now.  Returns how many bytes it has.

        A socket without an address takes any free port of every address first.

        Args:
          data: Its bytes; or a datagram, whose destination, hop limit, interface and sender address count.
          host, port: Where to, an address; left out, the peer of ``connect_to_host``, or a port of this machine.

        Raises:
          trio.WouldBlock: The system has no room for it; it was not sent.
          SocketError: DATAGRAM_TOO_LARGE, NETWORK if there is no such way to there, or it has no port, or what else the
            system answers; told as ``ErrorOccurred`` too.  It was not sent.  OPERATION in a wrong state.
          trio.ClosedResourceError: The socket is closed.
          TypeError, ValueError: The host is no address; ``send_datagram`` takes names.
        Qt: writeDatagram().
        """
        if get_ident() != self._thread:
            self._check_run()
        if self._parent is not None:
            self._in_scope()
        if isinstance(data, NetworkDatagram):
            if host is not HostAddress.NULL or port:
                _check_alone(host, port)
            where = (
                data.destination_address.text,
                data.destination_port,
                data.sender_address.text,
                data.interface_index,
                data.hop_limit,
            )
            return self._send(data.data, where)
        return self._send(as_bytes(data), (_address(host), check_port(port), *AS_IT_IS))

    async def send_datagram(
        self,
        data: NetworkDatagram | bytes | bytearray | memoryview,
        host: Host = HostAddress.NULL,
        port: int = 0,
    ) -> None:
        """``write_datagram``, waiting until there is room; a name is looked up each time.

        Raises: as ``write_datagram``; SocketError(HOST_NOT_FOUND).
        Cancelled: it was not sent.
        Qt: writeDatagram().  There, no names.
        """
        if get_ident() != self._thread:
            self._check_run()
        if self._parent is not None:
            self._in_scope()
        name, address = None, ""
        if isinstance(data, NetworkDatagram):
            if host is not HostAddress.NULL or port:
                _check_alone(host, port)
        else:
            data, port = as_bytes(data), check_port(port)
            where = _known_host(host) if type(host) is str else check_host(host)
            if isinstance(where, HostAddress):
                address = where.text
            else:
                name = where
        self._answers -= 1
        if self._answers > 0 and self._now() < self._answers_until:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
            self._refill_answers()
        if name is not None:
            address = await self._found(name, port)
        while True:
            try:
                if isinstance(data, NetworkDatagram):
                    DatagramWriter.write_datagram(self, data)  # not what a derived class has made of it
                else:
                    self._send(data, (address, port, *AS_IT_IS))
                return
            except trio.WouldBlock:
                await self._wait_for_room()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send ``data`` to the peer as one datagram.  Returns how many bytes it has.

        Raises: as ``write_datagram``; SocketError(OPERATION) if there is no peer.
        Qt: write(), on a virtual connection.
        """
        self._check_thread()
        data = as_bytes(data)
        if self._machine.state is not CONNECTED:
            self._refuse("write")
        return self._send(data, TO_PEER)

    def bytes_to_write(self) -> int:
        """Always 0: what was written is with the system.  Qt: bytesToWrite()."""
        self._check_call()
        return 0

    def flush(self) -> bool:
        """Always False: there is nothing left to send.  Qt: flush()."""
        self._check_call()
        return False

    async def wait_for_bytes_written(self) -> None:
        """Return at once: what was written is with the system.

        Raises: trio.ClosedResourceError if the socket is closed.
        Cancelled: nothing has happened.
        Qt: waitForBytesWritten().
        """
        self._check_call()
        await trio.lowlevel.checkpoint()
        self._check_open("wait")

    def _send(self, data: bytes, where: Where) -> int:
        link = self._link
        if link is None or self._closed:
            link = self._link_to_send()
        address, port, _, _, _ = where
        if not (address and port) and (address or link.peer_address() is None):
            if not port or isinstance(link, ProxiedDatagramLink):  # of a proxy "this machine" would be another
                exc = OSError(errno.EDESTADDRREQ, "it has no port" if address else "it has no destination")
                self._datagram_failed("cannot send a datagram", exc, ErrorKind.NETWORK)  # as Qt
            where = HostAddress.ANY_IPV4.text, *where[1:]  # this machine, as with Qt
        try:
            try:
                link.try_send(data, where)
            except OSError as exc:
                if isinstance(exc, BlockingIOError | SocketError):
                    raise
                # It may be what the network says of an earlier one: the system tells that once, to whoever comes first.
                try:
                    link.try_send(data, where)
                except OSError as again:
                    if again.errno != exc.errno:
                        self._note(exc)
                    raise
                self._note(exc)
        except BlockingIOError:
            raise trio.WouldBlock("the system has no room for a datagram") from None
        except OSError as exc:
            kind = ErrorKind.NETWORK if exc.errno in NO_WAY and not isinstance(exc, SocketError) else None
            self._datagram_failed(f"cannot send a datagram of {len(data)} bytes", exc, kind)
        if self._subscriptions:
            self._post(BytesWritten(len(data)))
        return len(data)

    def _link_to_send(self) -> DatagramLink:
        self._check_can_begin("send")
        if self._machine.state is not UNCONNECTED:
            self._refuse("send", ended=False)
        if self._choose_proxy("udp", "", 0) is not None:
            raise SocketError(ErrorKind.OPERATION, "cannot send by a proxy before bind() or connect_to_host()")
        try:
            return self._bind_to_any()
        except OSError as exc:
            self._datagram_failed("cannot send a datagram", exc)

    def _bind_to_any(self) -> DatagramLink:
        """Who sends needs an address; any will do.  Raises: OSError, SocketError."""
        target = any_target(0)
        sock = trio.socket.socket(target.family, socket.SOCK_DGRAM)
        try:
            if target.dual_stack:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            link = self._make_link(sock)
        except BaseException:
            sock.close()
            raise
        try:
            link.native().try_bind(target.address)
        except BaseException:
            link.close()
            raise
        self._begin(link, is_any=True)
        self._machine.feed(Input.BIND, self._tell)
        self._update_watcher()
        self._changed()
        return link

    def _datagram_failed(self, attempted: str, exc: Exception, kind: ErrorKind | None = None) -> NoReturn:
        kind = kind or kind_of(exc)
        message = f"{attempted}: {reason_of(exc)}"
        self._set_error(kind, message)
        self._machine.feed(Input.DATAGRAM_FAILED, self._tell)
        raise SocketError(kind, message, errno=exc.errno if isinstance(exc, OSError) else None) from exc

    async def _found(self, name: str, port: int) -> str:
        """An address of ``name`` that this socket can send to; by a proxy the name itself.  Raises: SocketError."""
        if isinstance(self._link, ProxiedDatagramLink) and self._link.proxy.looks_up_names:
            return name
        if self._link is not None:
            protocol = self._link.protocol()
        elif any_target(0).dual_stack:
            protocol = NetworkLayerProtocol.ANY_IP
        else:
            protocol = NetworkLayerProtocol.IPV4
        try:
            targets = await look_up(name, port, protocol)
        except (OSError, UnicodeError) as exc:
            self._datagram_failed(f"cannot send to {spelled(name)}", exc)
        return from_sockaddr(targets[0].address).text

    async def _wait_for_room(self) -> None:
        link = self._link
        if link is None:
            self._refuse("send")
        if self._sender_waits:
            await self._wait_changed()
            return
        self._sender_waits = True
        try:
            await link.wait_sendable()
        except ENDS as exc:
            self._link_failed(link, exc)
            self._refuse("send")
        finally:
            self._sender_waits = False
            self._changed()


@lru_cache(1024)
def _known_host(host: str) -> HostAddress | str:
    return check_host(host)


def _address(host: AddressLike) -> str:
    """Raises: TypeError, ValueError: It is none."""
    where = _known_host(host) if type(host) is str else host
    return host_address(where).text


def _check_alone(host: object, port: int) -> None:
    if host != HostAddress.NULL or port:
        raise TypeError("a NetworkDatagram has its destination with it")
