"""From a name to a connected link: the look-up, and the race of RFC 8305 between the addresses found.

Look-ups are asked of trio, and sockets too wherever it makes others than the kernel's; so both are simulated wherever
trio's are.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import trio

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, parse_address, to_sockaddr, unmapped
from trioqt.core.errors import raise_bare
from trioqt.links.base import NativeSocket, Sockaddr
from trioqt.links.names import check_name, needing_a_thread
from trioqt.links.native import KernelSocket, NativeLink, native_socket

__all__ = [
    "AttemptsFailed",
    "Target",
    "begin_alone",
    "connect",
    "connect_again",
    "link_over",
    "look_up",
    "race",
    "reachable",
    "targets_of",
]

# RFC 8305, section 5, "Connection Attempt Delay": the recommended value.
ATTEMPT_DELAY = 0.25

FAMILIES = {
    NetworkLayerProtocol.ANY_IP: socket.AF_UNSPEC,
    NetworkLayerProtocol.IPV4: socket.AF_INET,
    NetworkLayerProtocol.IPV6: socket.AF_INET6,
}


@attrs.frozen
class Target:
    """One address to try, or to listen on."""

    family: int
    address: Sockaddr
    dual_stack: bool = attrs.field(eq=False)
    """An IPv6 socket that is bound there carries IPv4 too; or only that, at an IPv4-mapped address."""

    @dual_stack.default
    def _is_mapped(self) -> bool:
        host: str = self.address[0]
        return unmapped(host) != host

    def __str__(self) -> str:
        return f"[{self.address[0]}]:{self.address[1]}" if ":" in self.address[0] else "{}:{}".format(*self.address[:2])


class AttemptsFailed(ExceptionGroup[OSError]):
    """Nothing but failed attempts, in the order in which they ended; a group of another class holds a bug."""

    def derive(self, excs: Sequence[Any], /) -> AttemptsFailed:  # type: ignore[override]
        """What a scope that is cancelled at the same time makes of it, when it looks for Cancelled in it."""
        return AttemptsFailed(self.message, excs)


Prepare = Callable[[NativeSocket | trio.socket.SocketType, Sockaddr], None]
"""Sets options on a new socket, which will be connected, or bound, to that address.  It may raise OSError."""


def target_of(address: HostAddress, port: int) -> Target:
    """The target that a known address is.  Raises: socket.gaierror if its scope names no interface."""
    try:
        sockaddr = to_sockaddr(address, port)
    except OSError as exc:
        raise socket.gaierror(socket.EAI_NONAME, "no interface has the name in the scope") from exc
    return Target(socket.AF_INET if len(sockaddr) == 2 else socket.AF_INET6, sockaddr)


async def look_up(host: HostAddress | str, port: int, protocol: NetworkLayerProtocol) -> list[Target]:
    """The addresses of ``host``, families in turn (RFC 8305 section 4); an address needs no look-up.

    Raises:
      socket.gaierror: There is none, or none of that family.
      SocketError: As ``needing_a_thread``.
    Cancelled: nothing is left behind but a worker thread that may still wait for the system's resolver.
    """
    address = host if isinstance(host, HostAddress) else parse_address(host)
    if address == HostAddress.NULL:
        await trio.lowlevel.checkpoint()  # as for any name that is not found: others see that it was looked up
        raise socket.gaierror(socket.EAI_NONAME, "an empty name")
    if address is not None:
        return targets_of(address, port, protocol)
    try:
        check_name(str(host))
    except OSError:
        await trio.lowlevel.checkpoint()
        raise
    with needing_a_thread():
        found = await trio.socket.getaddrinfo(str(host), port, family=FAMILIES[protocol], type=socket.SOCK_STREAM)
    targets = list(dict.fromkeys(Target(entry[0], entry[4]) for entry in found))
    if not targets:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    return _families_in_turn(targets)


def targets_of(address: HostAddress, port: int, protocol: NetworkLayerProtocol) -> list[Target]:
    """What an address is that is not null.  Raises: socket.gaierror if it has nothing of that family."""
    # An interface may get another number meanwhile.
    find = _targets_of_text.__wrapped__ if "%" in address.text else _targets_of_text
    targets = find(address.text, port, protocol)
    if not targets:
        raise socket.gaierror(socket.EAI_NONAME, f"not an {protocol.name} address")
    return list(targets)


# Who connects again and again does so to few addresses, and this takes 8 us.  By their texts, for a mapped address
# equals its IPv4 form.
@functools.lru_cache(256)
def _targets_of_text(text: str, port: int, protocol: NetworkLayerProtocol) -> tuple[Target, ...]:
    family, address = FAMILIES[protocol], HostAddress(text)
    addresses = (HostAddress.ANY_IPV6, HostAddress.ANY_IPV4) if address == HostAddress.ANY else (address,)
    targets = [target_of(address, port) for address in addresses]
    return tuple(target for target in targets if family in (socket.AF_UNSPEC, target.family))


def _families_in_turn(targets: Sequence[Target]) -> list[Target]:
    """The resolver's order within a family; families alternate, its favourite first."""
    first = [target for target in targets if target.family == targets[0].family]
    others = [target for target in targets if target.family != targets[0].family]
    shared = min(len(first), len(others))
    alternating = [target for pair in zip(first, others, strict=False) for target in pair]
    return alternating + first[shared:] + others[shared:]


async def race(
    targets: Sequence[Target],
    prepare: Prepare,
    *,
    delay: float = ATTEMPT_DELAY,
    proto: int = 0,
    begun: NativeLink | None = None,
) -> NativeLink:
    """Connect to the first target that answers.  Each gets ``delay`` seconds' start over the next, less if it fails.

    Args:
      prepare: Called with each new socket and its address, for its options.
      proto: Of the sockets; 0 is TCP.
      begun: What ``begin_alone`` gave for the only target.

    Raises:
      AttemptsFailed: All of them; one OSError per attempt, in the order in which they ended.
      KeyboardInterrupt, SystemExit: As themselves, not in a group.
    Cancelled: every socket is closed.
    """
    if len(targets) == 1:
        return await _only(targets[0], prepare, proto, begun)
    failures: list[OSError] = []
    winner: NativeLink | None = None

    @trio.lowlevel.enable_ki_protection  # a task of its own, so not below whoever calls this
    async def attempt(target: Target, ended: trio.Event) -> None:
        nonlocal winner
        try:
            link = await _connected(target, prepare, proto)
        except OSError as exc:
            exc.add_note(f"while connecting to {target}")
            failures.append(exc)
            ended.set()
            return
        if winner is None:
            winner = link
            nursery.cancel_scope.cancel(reason="another address answered")
        else:
            link.close()

    try:
        async with trio.open_nursery() as nursery:
            for target in targets:
                ended = trio.Event()
                nursery.start_soon(attempt, target, ended)
                with trio.move_on_after(delay):
                    await ended.wait()
    except BaseException as exc:
        if winner is not None:
            winner.close()
        raise_bare(exc)
    if winner is None:
        raise AttemptsFailed("no address could be connected", failures)
    return winner


async def _only(target: Target, prepare: Prepare, proto: int, begun: NativeLink | None) -> NativeLink:
    """A race of one needs no nursery, no task and no clock, which cost more than the connection."""
    try:
        return await _connected(target, prepare, proto, begun)
    except OSError as exc:
        exc.add_note(f"while connecting to {target}")
        failures = [exc]
    # What a system refuses at once is told no sooner than by a race: an end that another task makes now comes first.
    for _ in range(2):
        await trio.lowlevel.checkpoint()
    raise AttemptsFailed("no address could be connected", failures)


def begin_alone(target: Target, prepare: Prepare, proto: int) -> NativeLink | None:
    """Begin to connect to ``target``, if that is all there is to try, and as far as it can be done without waiting.

    What is returned has a peer if it is connected at once, as over loopback.  If not it is for ``race`` to go on with,
    and None is too: the system has refused, which is to be found and told there, or trio's sockets are not its own.
    """
    if _has_other_sockets():
        return None
    try:
        return _begin(target, prepare, proto)
    except OSError:
        return None


def _begin(target: Target, prepare: Prepare, proto: int) -> NativeLink:
    """The link over a new socket of the kernel's; without a peer if it is not connected yet.  Raises: OSError.

    Trio's socket in between, which is made, asked and unwrapped again, would cost 60 us of a short life's 250.
    """
    sock = KernelSocket.open_stream(target.family, proto)
    try:
        prepare(sock, target.address)
        return NativeLink(sock, sock.begin_connecting(target.address))
    except BaseException:
        sock.close()
        raise


# Where trio keeps who makes its sockets.  It has no call that tells, but tells it to who sets another, and to ask in
# that way is 15 us of a short life's 170.  A trio that keeps it elsewhere is asked so.
_kept: object = getattr(trio.socket.set_custom_socket_factory, "__globals__", {}).get("_socket_factory")
MAKER: trio.lowlevel.RunVar[trio.abc.SocketFactory | None] | None = (
    _kept if isinstance(_kept, trio.lowlevel.RunVar) else None
)


def _has_other_sockets() -> bool:
    """Does trio make other sockets than the kernel's, as of a simulated network?"""
    if MAKER is not None:
        return MAKER.get(None) is not None
    factory = trio.socket.set_custom_socket_factory(None)
    if factory is None:
        return False
    trio.socket.set_custom_socket_factory(factory)
    return True


async def _connected(target: Target, prepare: Prepare, proto: int, begun: NativeLink | None = None) -> NativeLink:
    """One attempt.  Raises: OSError.  Cancelled: the socket is closed.

    Args:
      begun: It has begun already.
    """
    link = begun
    if link is None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if _has_other_sockets():
            return link_over(await _open_connected(target, prepare, proto), target.address)
        link = _begin(target, prepare, proto)
    try:
        if link.peer_address() is None:
            await link.finish_connecting(target.address)
        else:
            await trio.lowlevel.checkpoint()
    except BaseException:
        link.close()
        raise
    return link


def link_over(sock: trio.socket.SocketType, asked: Sockaddr) -> NativeLink:
    """The link over ``sock``, which was connected to ``asked``; the peer of 0.0.0.0 is 127.0.0.1."""
    with contextlib.suppress(OSError):  # the peer may have reset it already: then its address is the one we asked for
        asked = sock.getpeername()
    return NativeLink(native_socket(sock), asked)


async def _open_connected(target: Target, prepare: Prepare, proto: int) -> trio.socket.SocketType:
    """The same with whatever trio's socket is."""
    sock = trio.socket.socket(target.family, socket.SOCK_STREAM, proto)
    try:
        prepare(sock, target.address)
        await connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


async def connect_again(sock: trio.socket.SocketType, target: Target, local: Sockaddr) -> None:
    """Connect ``sock``, whose last attempt has failed, from ``local``.  Raises: OSError.  Cancelled: it is closed.

    Linux has given back a port that it had chosen itself, and answers the first call after a failure that was waited
    for with ECONNABORTED, which makes the socket as new.  Where a system does not let it try again, that is a failure.
    """
    if local[1]:
        try:
            await sock.bind(local)
        except OSError as exc:
            if exc.errno != errno.EINVAL:  # it has its address still
                raise
    try:
        await connect(sock, target)
    except OSError as exc:
        if exc.errno != errno.ECONNABORTED:
            raise
        await connect(sock, target)


async def connect(sock: trio.socket.SocketType, target: Target) -> None:
    """Connect ``sock``.  Raises: OSError.  Cancelled: the socket is closed."""
    try:
        await sock.connect(target.address)
    except OSError as exc:
        if exc.errno is not None:  # trio puts the address into the reason, where it spoils our message
            exc.strerror = os.strerror(exc.errno)
        raise


def reachable(target: Target, family: int, *, dual_stack: bool) -> Target:
    """The target as a socket of ``family`` has to be told it.  Raises: OSError if it cannot get there."""
    if target.family == family:
        return target
    if dual_stack and family == socket.AF_INET6:
        return Target(family, (f"::ffff:{target.address[0]}", target.address[1], 0, 0))
    raise OSError(errno.ECONNREFUSED, "not reachable from the address that was bound")  # Qt's kind for it
