"""From a name to addresses, and back, by trio's resolver: a simulated network answers where there is one."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import trio

from trioqt.core.addresses import HostAddress, from_sockaddr, to_sockaddr
from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.host_info import HostInfo

__all__ = ["LONGEST_NAME", "check_name", "look_up_address", "look_up_name", "needing_a_thread"]

# RFC 1035, 2.3.4, as text, without the dot at the end.  Of names with other letters than ASCII's Python's codec says
# whether their labels are too long.
LONGEST_NAME = 253
LONGEST_LABEL = 63

# As Qt asks: addresses of a family in which this machine has none itself, but for its loopback, are no use to it.
FLAGS = socket.AI_CANONNAME | getattr(socket, "AI_ADDRCONFIG", 0)


def check_name(name: str) -> None:
    """What no resolver need be asked.  Raises: socket.gaierror."""
    reason = None
    if not name:
        reason = "an empty name"
    elif "\0" in name:  # the C library would look up what stands before it
        reason = "a name has no null character"
    elif any("\ud800" <= char <= "\udfff" for char in name):
        reason = "a name has no half characters"
    elif name.isascii() and not all(0 < len(label) <= LONGEST_LABEL for label in name.removesuffix(".").split(".")):
        reason = f"label empty or longer than {LONGEST_LABEL} characters"
    elif len(name.removesuffix(".")) > LONGEST_NAME:
        reason = f"a name has at most {LONGEST_NAME} characters"
    elif "/" in name or "@" in name:
        reason = "a host is a name or an address, and no URL"
    elif name.startswith("["):
        reason = "an address is written without brackets"
    elif ":" in name:
        reason = "a host is a name or an address, without a port"
    if reason is not None:
        raise socket.gaierror(socket.EAI_NONAME, reason)


@contextlib.contextmanager
def needing_a_thread() -> Iterator[None]:
    """Trio's resolver asks the system's in a thread.  Raises: SocketError, SOCKET_RESOURCE if there can be no more."""
    try:
        yield
    except RuntimeError as exc:
        if "new thread" not in str(exc):  # all by which threading tells it
            raise
        raise SocketError(ErrorKind.SOCKET_RESOURCE, str(exc)) from exc


async def look_up_name(name: str) -> HostInfo:
    """The addresses of a name, of the families that this machine has addresses of.

    Raises: socket.gaierror, UnicodeError; SocketError as ``needing_a_thread``.
    Cancelled: nothing is left behind but a worker thread that may still wait for the system's resolver.
    """
    check_name(name)
    with needing_a_thread():
        found = await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=FLAGS)
    addresses = tuple(dict.fromkeys(from_sockaddr(entry[4]) for entry in found))
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    canonical = next((entry[3] for entry in found if entry[3]), "")
    return HostInfo(name, canonical or name, addresses)


async def look_up_address(address: HostAddress) -> HostInfo:
    """The name of an address; its text if nobody knows one.  Cancelled: as ``look_up_name``.

    Raises: socket.gaierror if it is the null address, or its scope names no interface; SocketError as
      ``needing_a_thread``.
    """
    name = address.text
    if not name:
        raise socket.gaierror(socket.EAI_NONAME, "an empty name")
    if address != HostAddress.ANY:
        try:
            sockaddr = to_sockaddr(address, 0)
        except OSError as exc:
            raise socket.gaierror(socket.EAI_NONAME, "no interface has the name in the scope") from exc
        with needing_a_thread(), contextlib.suppress(socket.gaierror):
            name, _ = await trio.socket.getnameinfo(sockaddr, socket.NI_NAMEREQD | socket.NI_NUMERICSERV)
    return HostInfo(name, name, (address,))
