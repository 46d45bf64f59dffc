"""Groups: joining and leaving them, and where what is sent to them goes out."""

from __future__ import annotations

from trioqt.core.addresses import AddressLike, HostAddress, host_address
from trioqt.core.errors import ErrorKind, SocketError, kind_of, reason_of
from trioqt.links.base import DatagramLink
from trioqt.links.interrupts import protected
from trioqt.sockets.arguments import check_size, spelled
from trioqt.sockets.datagrams import Datagrams

__all__ = ["Multicast"]


@protected
class Multicast(Datagrams):
    """A socket that can be a member of groups."""

    __slots__ = ()

    def join_multicast_group(
        self, group: AddressLike, interface: str | int | None = None, *, source: AddressLike | None = None
    ) -> None:
        """Receive what is sent to ``group`` and this socket's port.

        A socket receives the groups that it has joined, and no others.  It must be bound: for an IPv4 group to
        ``HostAddress.ANY_IPV4`` or an IPv4 address, for an IPv6 group to anything else.

        Args:
          interface: The name or the number of the interface where to listen; None lets the system choose by its
            routes.
          source: Only what this host sends (RFC 4607); more of them are joined one by one.

        Raises:
          SocketError: OPERATION if the socket has no address, ADDRESS_IN_USE if it has joined already,
            SOCKET_ADDRESS_NOT_AVAILABLE if there is no such interface, UNSUPPORTED_SOCKET_OPERATION if the socket
            is not bound for the group's family, SOCKET_RESOURCE if it has joined too many (Linux: 20 of IPv4).
          trio.ClosedResourceError: The socket is closed, or was ended by another task.
          ValueError: It is no group.
        Qt: joinMulticastGroup().  There, sources cannot be chosen.
        """
        link, joined, index, sender = self._membership("join", group, interface, source)
        try:
            link.join(joined, index, sender)
        except OSError as exc:
            raise _refused(f"cannot join {joined}", exc) from exc

    def leave_multicast_group(
        self, group: AddressLike, interface: str | int | None = None, *, source: AddressLike | None = None
    ) -> None:
        """No more of it; the arguments are those it was joined with.

        Raises: as ``join_multicast_group``; SocketError(SOCKET_ADDRESS_NOT_AVAILABLE) if it was not joined.
        Qt: leaveMulticastGroup().
        """
        link, joined, index, sender = self._membership("leave", group, interface, source)
        try:
            link.leave(joined, index, sender)
        except OSError as exc:
            raise _refused(f"cannot leave {joined}", exc) from exc

    def _membership(
        self, verb: str, group: AddressLike, interface: str | int | None, source: AddressLike | None
    ) -> tuple[DatagramLink, HostAddress, int, HostAddress | None]:
        joined, sender = host_address(group), None if source is None else host_address(source)
        if not joined.is_multicast():
            raise ValueError(f"not a multicast group: {joined.text!r}")
        if sender is not None and (sender.is_multicast() or sender.protocol() is not joined.protocol()):
            raise ValueError(f"no source of {joined.text}: {sender.text!r}")
        _, _, scope = joined.text.partition("%")
        link = self._link_for(f"{verb} a group")
        return link, joined, self._interface(link, interface if interface is not None else scope or 0), sender

    def multicast_interface(self) -> str | None:
        """The name of the interface that ``set_multicast_interface`` has chosen; None if none was.

        Qt: multicastInterface().
        """
        link = self._link_for("ask for the multicast interface")
        if not self._multicast_interface:
            return None
        try:
            return link.native().interface_name(self._multicast_interface)
        except OSError:
            return str(self._multicast_interface)  # it is gone

    def set_multicast_interface(self, interface: str | int | None) -> None:
        """Where what is sent to groups goes out; None lets the system choose by its routes.

        How far it goes is ``SocketOption.MULTICAST_TTL``, and whether this host hears it ``MULTICAST_LOOPBACK``.

        Args:
          interface: A name or a number.

        Raises:
          SocketError: OPERATION if the socket has no address, SOCKET_ADDRESS_NOT_AVAILABLE if there is no such
            interface.
          trio.ClosedResourceError: The socket is closed, or was ended by another task.
        Qt: setMulticastInterface().
        """
        link = self._link_for("set the multicast interface")
        index = self._interface(link, 0 if interface is None else interface)
        try:
            link.set_multicast_interface(index)
        except OSError as exc:
            raise _refused("cannot set the multicast interface", exc) from exc
        self._multicast_interface = index

    def _link_for(self, attempted: str) -> DatagramLink:
        self._check_call()
        if self._link is None:
            self._refuse(attempted)
        return self._link

    def _interface(self, link: DatagramLink, interface: str | int) -> int:
        """The number of an interface.  Raises: SocketError, TypeError, ValueError."""
        if isinstance(interface, str) and not interface.isdecimal():
            try:
                return link.native().interface_index(interface)
            except OSError as exc:
                message = f"there is no interface {spelled(interface)}"
                raise SocketError(ErrorKind.SOCKET_ADDRESS_NOT_AVAILABLE, message, errno=exc.errno) from exc
        return check_size(int(interface) if isinstance(interface, str) else interface, "interface")


def _refused(attempted: str, exc: OSError) -> SocketError:
    return SocketError(kind_of(exc), f"{attempted}: {reason_of(exc)}", errno=exc.errno)
