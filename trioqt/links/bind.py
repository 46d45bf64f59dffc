"""Taking a local address, for a socket or for a server.

Sockets are asked of trio, so they are simulated wherever trio's are.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from trioqt.core.addresses import HostAddress
from trioqt.core.options import listen_options
from trioqt.links.base import NativeSocket
from trioqt.links.connect import Prepare, Target, target_of
from trioqt.links.native import NativeListener, native_socket

__all__ = ["any_target", "bind_socket", "listen_on"]

# A second address may find the first one's random port in use; then another port is drawn.  Ports in use are
# some dozens of 28,000 on most machines, so one draw in a thousand fails, and sixteen in a row never.
PORT_DRAWS = 16

SocketOptions = Sequence[tuple[int, int, int]]


def any_target(port: int) -> Target:
    """The target that ``HostAddress.ANY`` is here: both families on one socket, or IPv4 where there is no IPv6."""
    target = target_of(HostAddress.ANY if has_ipv6() else HostAddress.ANY_IPV4, port)
    return attrs.evolve(target, dual_stack=target.family == socket.AF_INET6)


def has_ipv6() -> bool:
    """Whether there are IPv6 sockets.  ``socket.has_ipv6`` tells what Python can do, not what the kernel can."""
    try:
        trio.socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError as exc:
        return exc.errno != errno.EAFNOSUPPORT  # anything else is for bind() to tell
    return True


async def bind_socket(
    target: Target,
    options: SocketOptions,
    *,
    dual_stack: bool = False,
    socket_type: int = socket.SOCK_STREAM,
    proto: int = 0,
    prepare: Prepare | None = None,
) -> trio.socket.SocketType:
    """A new socket with that local address.

    Args:
      options: Set before it is bound.
      dual_stack: An IPv6 socket carries IPv4 too.
      prepare: Called with it and the address, before it is bound.

    Raises: OSError.  Cancelled: the socket is closed.
    """
    sock = trio.socket.socket(target.family, socket_type, proto)
    try:
        for option in options:
            sock.setsockopt(*option)
        if target.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        if prepare is not None:
            prepare(sock, target.address)
        await sock.bind(target.address)
    except BaseException:
        sock.close()
        raise
    return sock


async def listen_on(
    targets: Sequence[Target], backlog: int, *, reuse_port: bool = False, prepare: Prepare | None = None, proto: int = 0
) -> list[NativeListener]:
    """Listen on every target with one port; where theirs is 0, the system's choice for the first serves all.

    Of several targets, those of a family that this host lacks are left out.

    Args:
      prepare: Called with each socket and its address, before it is bound.

    Raises: OSError, also if it lacks all of them, or has no ``reuse_port``.  Cancelled: every socket is closed.
    """
    options = listen_options(reuse_port=reuse_port)

    async def listen(target: Target) -> trio.socket.SocketType:
        return await _listen(target, backlog, options, prepare, proto)

    port_is_free = targets[0].address[1] == 0
    for draw in range(PORT_DRAWS):
        try:
            return await _listen_on_one_port(targets, listen)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or not port_is_free or len(targets) == 1 or draw == PORT_DRAWS - 1:
                raise
    raise AssertionError("unreachable")


async def _listen_on_one_port(
    targets: Sequence[Target], listen: Callable[[Target], Awaitable[trio.socket.SocketType]]
) -> list[NativeListener]:
    socks: list[NativeSocket] = []
    lacking: OSError | None = None
    port = targets[0].address[1]
    try:
        for target in targets:
            host, _, *scope = target.address
            try:
                sock = await listen(attrs.evolve(target, address=(host, port, *scope)))
            except OSError as exc:
                if not _lacks_family(exc, target):
                    raise
                lacking = exc
            else:
                port = sock.getsockname()[1]
                socks.append(native_socket(sock))
        if lacking is not None and not socks:
            raise lacking
    except BaseException:
        for taken in socks:
            taken.close()
        raise
    return [NativeListener(sock) for sock in socks]


def _lacks_family(exc: OSError, target: Target) -> bool:
    """Is there no IPv4, or no IPv6, here?  Where IPv6 is switched off, localhost often still stands for ::1 too.

    Any other address that is not ours is a mistake, and is told.
    """
    return exc.errno == errno.EAFNOSUPPORT or (exc.errno == errno.EADDRNOTAVAIL and target.address[0] == "::1")


async def _listen(
    target: Target, backlog: int, options: SocketOptions, prepare: Prepare | None, proto: int
) -> trio.socket.SocketType:
    sock = await bind_socket(target, options, dual_stack=target.dual_stack, prepare=prepare, proto=proto)
    try:
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock
