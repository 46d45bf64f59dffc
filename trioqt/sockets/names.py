"""What a program asks about names and about its own machine."""

from __future__ import annotations

import trio

from trioqt.core.addresses import HostAddress
from trioqt.core.errors import SocketError, kind_of, reason_of
from trioqt.core.host_info import HostInfo
from trioqt.core.interfaces import NetworkInterface
from trioqt.links.machine import this_machine
from trioqt.links.names import look_up_address, look_up_name
from trioqt.sockets.arguments import Host, check_host, spelled

__all__ = ["local_host_name", "look_up_host", "network_interfaces"]


@trio.lowlevel.enable_ki_protection
async def look_up_host(host: Host) -> HostInfo:
    """The addresses of a name, or the name of an address.

    By trio's resolver, in its order; on a simulated network that one answers.  Of a name, those of a family in which
    this machine has an address itself, beyond its loopback (AI_ADDRCONFIG).  What the system's ``getaddrinfo`` takes
    for an address, ``127.1`` for one, is one here too.  An address that has no name is its own.

    Raises:
      SocketError: HOST_NOT_FOUND if there is no such name, if it has no address, or if it cannot be one: empty, too
        long, or with characters that no name has; also if no name server answers.  The message says which.
        SOCKET_RESOURCE if the system has no thread or descriptor left to ask with.
      TypeError: It is no text and no address.
    Cancelled: nothing is left behind but a worker thread that may still wait for the system's resolver.
    Qt: QHostInfo::lookupHost and fromName; ``abortHostLookup`` is to cancel it.
    """
    checked = check_host(host)
    await trio.lowlevel.checkpoint()
    try:
        if isinstance(checked, HostAddress):
            return await look_up_address(checked)
        return await look_up_name(checked)
    except (OSError, UnicodeError) as exc:
        message = f"cannot look up {spelled(checked)}: {reason_of(exc)}" if checked else "cannot look up an empty name"
        raise SocketError(kind_of(exc), message) from exc


@trio.lowlevel.enable_ki_protection
def local_host_name() -> str:
    """What this machine calls itself; on a simulated network, the host on which the caller runs.

    It need not be a name that others can look up.
    Qt: QHostInfo::localHostName.
    """
    return this_machine().host_name()


@trio.lowlevel.enable_ki_protection
def network_interfaces() -> tuple[NetworkInterface, ...]:
    """The interfaces of this machine, by index; on a simulated network, those of the host on which the caller runs.

    Linux tells all of it (rtnetlink).  On other systems, and where a sandbox forbids the question, only names and
    indices are known, and ``is_complete`` is False.

    Raises:
      SocketError: SOCKET_RESOURCE, if the system has no descriptor or memory left to ask with.
    Qt: QNetworkInterface::allInterfaces.
    """
    try:
        return tuple(this_machine().interfaces())
    except OSError as exc:
        message = f"cannot ask for the network interfaces: {reason_of(exc)}"
        raise SocketError(kind_of(exc), message, errno=exc.errno) from exc
