"""A connection by way of a proxy: what ``core/proxies.py`` says first, over any link, which then is the connection.

It may lie over a proxy itself, so proxies form chains.  Nothing that comes behind the proxy's last answer is read here.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs
import trio

from trioqt.core import http_connect, socks5
from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, from_sockaddr
from trioqt.core.errors import ErrorKind, SocketError, kind_of, reason_of
from trioqt.core.network_proxy import Credentials, NetworkProxy, ProxyKind, credentials_of
from trioqt.core.proxies import Again, Ask, Prologue, Receive, Reported, Send, Target, target_of
from trioqt.core.tls_failures import message_of
from trioqt.links.base import Bytes, Link, NativeSocket, Sockaddr
from trioqt.links.connect import AttemptsFailed, look_up
from trioqt.links.interrupts import protected
from trioqt.links.tls import TlsLink
from trioqt.links.tls_terms import Terms

__all__ = [
    "ANSWER_TIME",
    "ENDS",
    "Answer",
    "ProxiedLink",
    "ProxiedListener",
    "Reach",
    "connect_through",
    "listen_through",
    "speak",
]

# How long a proxy may take for each of its answers, in seconds, however many bytes of it have come.  It may have to
# connect first, so this is what Qt gives a connect (QT_CONNECT_TIMEOUT in qabstractsocket.cpp).
ANSWER_TIME = 30.0

# A proxy that has said much at once does not hold the other tasks up: they have a turn after so many steps.
STEPS_AT_ONCE = 64

Reach = Callable[[str, int], Awaitable[Link]]
"""Connects to a host straight.  Raises: OSError, UnicodeError, AttemptsFailed."""

Answer = Callable[[NetworkProxy, str], Awaitable[Credentials | None]]
"""Knows a name and a password for a proxy and its realm, or none."""

# What cannot be reached is the proxy, and not the host that the program has asked for.
UNREACHABLE: dict[ErrorKind, ErrorKind] = {
    ErrorKind.CONNECTION_REFUSED: ErrorKind.PROXY_CONNECTION_REFUSED,
    ErrorKind.REMOTE_HOST_CLOSED: ErrorKind.PROXY_CONNECTION_CLOSED,
    ErrorKind.HOST_NOT_FOUND: ErrorKind.PROXY_NOT_FOUND,
    ErrorKind.SOCKET_TIMEOUT: ErrorKind.PROXY_CONNECTION_TIMEOUT,
}

CONNECTS: dict[ProxyKind, Callable[[Target, Credentials | None], Prologue]] = {
    ProxyKind.SOCKS5: socks5.connect,
    ProxyKind.HTTP: http_connect.connect,
}

T = TypeVar("T")

ENDS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


async def connect_through(
    proxy: NetworkProxy, host: HostAddress | str, port: int, reach: Reach, answer: Answer
) -> ProxiedLink:
    """A connection to ``host``, which the proxy makes.

    Raises: SocketError: the proxy cannot be reached, or refuses, or makes no sense; HOST_NOT_FOUND if no host can have
      that name.
    Cancelled: every connection is closed.
    """
    target = target_of(host, port)
    link, reported = await speak(proxy, CONNECTS[proxy.kind](target, credentials_of(proxy)), reach, answer)
    peer = (str(target.host) if isinstance(target.host, HostAddress) else "", port)
    return ProxiedLink(link, peer, _sockaddr(reported))


async def listen_through(
    proxy: NetworkProxy, host: HostAddress | str, port: int, reach: Reach, answer: Answer
) -> ProxiedListener:
    """The proxy, which speaks SOCKS5, listens for one connection.

    Args:
      host, port: From where that is to come, as far as the proxy looks at it.

    Raises, Cancelled: as ``connect_through``.
    """
    prologue = socks5.bind(target_of(host, port), credentials_of(proxy))
    link, reported = await speak(proxy, prologue, reach, answer)
    return ProxiedListener(link, proxy, _sockaddr(reported) or ("", 0))


def _sockaddr(reported: Reported | None) -> Sockaddr | None:
    return None if reported is None else (str(reported.address), reported.port)


# ---- the connection to the proxy -----------------------------------------------------------


async def _link_to(proxy: NetworkProxy, reach: Reach, answer: Answer) -> Link:
    """A connection to the proxy itself.  Raises: SocketError.  Cancelled: closed."""
    try:
        if proxy.via is None:
            link = await reach(proxy.host, proxy.port)
        else:
            host: HostAddress | str = proxy.host
            if not proxy.via.looks_up_names:
                (first, *_) = await look_up(host, proxy.port, NetworkLayerProtocol.ANY_IP)
                host = from_sockaddr(first.address)
            link = await connect_through(proxy.via, host, proxy.port, reach, answer)
    except (OSError, UnicodeError, AttemptsFailed) as exc:
        last = exc.exceptions[-1] if isinstance(exc, AttemptsFailed) else exc
        for failed in exc.exceptions if isinstance(exc, AttemptsFailed) else ():
            failed.__traceback__ = None  # which would keep frames alive, as it would below
        kind, number = kind_of(last), last.errno if isinstance(last, OSError) else None
        message = f"cannot reach the {proxy}: {reason_of(last)}"
        raise SocketError(UNREACHABLE.get(kind, kind), message, errno=number) from exc.with_traceback(None)
    return link if proxy.context is None else await _encrypted(link, proxy, proxy.context)


async def _encrypted(link: Link, proxy: NetworkProxy, context: ssl.SSLContext) -> Link:
    """TLS to the proxy, over ``link``, which is closed if that fails.  Raises: SocketError.  Cancelled: closed."""
    tls = TlsLink(link, Terms(context, server_side=False, server_hostname=proxy.host))
    scope = trio.CancelScope(deadline=trio.current_time() + ANSWER_TIME)
    try:
        with scope:
            await tls.shake_hands()
    except (*ENDS, ValueError) as exc:  # ValueError: no certificate can be for such a host
        tls.close()
        kind = ErrorKind.SSL_HANDSHAKE_FAILED if isinstance(exc, ValueError) else kind_of(exc)
        why = message_of(exc) if isinstance(exc, ssl.SSLError) else reason_of(exc)
        raise SocketError(UNREACHABLE.get(kind, kind), f"no TLS with the {proxy}: {why}") from exc
    except BaseException:
        tls.close()
        raise
    if scope.cancelled_caught:
        tls.close()
        raise _no_answer(proxy)
    return tls


@attrs.define(eq=False)
class _Wire:
    """What a prologue's steps are done on."""

    link: Link
    deadline: float = math.inf
    lost: Exception | None = None  # how the connection was found to have ended, if not in order
    steps: int = 0

    async def send(self, step: Send) -> None:
        view = memoryview(step.data)  # neither shows what it holds, in a traceback with its variables
        try:
            while view:
                sent = self.link.try_send(view)
                view = view[sent or await self.link.send(view) :]
        except ENDS as exc:
            self.lost = exc.with_traceback(None)  # its last words may say why

    async def receive(self, count: int) -> bytes:
        """Exactly so many, fewer at the end."""
        self.steps += 1
        if self.steps % STEPS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        got = b""
        try:
            while len(got) < count:
                if self.link.is_drained():
                    await self.link.wait_receivable(count - len(got))
                data = self.link.try_receive(count - len(got))
                if data == b"":
                    break
                got += data or b""
        except ENDS as exc:
            self.lost = self.lost or exc.with_traceback(None)
        return got


async def speak(proxy: NetworkProxy, prologue: Prologue, reach: Reach, answer: Answer) -> tuple[Link, Reported | None]:
    """Connect to the proxy, and do what ``prologue`` wants, to its end.  Cancelled: every connection is closed."""
    wire = _Wire(await _link_to(proxy, reach, answer))
    try:
        reported = await _follow(proxy, prologue, wire, reach, answer)
    except BaseException:
        wire.link.close()
        raise
    return wire.link, reported


async def _follow(
    proxy: NetworkProxy, prologue: Prologue, wire: _Wire, reach: Reach, answer: Answer
) -> Reported | None:
    reply: object = None
    failure: SocketError | None = None
    while True:
        try:
            step = prologue.send(reply)
        except StopIteration as end:
            reported: Reported | None = end.value
            return reported
        except SocketError as error:
            failure = SocketError(error.kind, f"{error.message} ({proxy})")
        if failure is not None:  # not from within, for the prologue's frames know a password
            raise failure from wire.lost
        reply = None
        match step:
            case Ask(realm):
                reply = await answer(proxy, realm)
            case Again():
                wire.link.close()
                wire.link, wire.lost = await _link_to(proxy, reach, answer), None
            case Send():
                wire.deadline = trio.current_time() + ANSWER_TIME
                await _in_time(proxy, wire, wire.send(step))
            case Receive(count):
                reply = await _in_time(proxy, wire, wire.receive(count))


async def _in_time(proxy: NetworkProxy, wire: _Wire, step: Awaitable[T]) -> T:
    with trio.CancelScope(deadline=wire.deadline):
        return await step
    raise _no_answer(proxy)


def _no_answer(proxy: NetworkProxy) -> SocketError:
    message = f"the {proxy} has not answered within {ANSWER_TIME:g} s"
    return SocketError(ErrorKind.PROXY_CONNECTION_TIMEOUT, message)


# ---- what comes of it ----------------------------------------------------------------------


@protected
class ProxiedLink(Link):
    """The link to a proxy, which carries the bytes of somebody else's connection now.

    Args:
      peer: The target's address, without a host if only the proxy knows it.
      local: The proxy's own end, as it said; None: it did not.
    """

    __slots__ = ("_below", "_local", "_peer")

    def __init__(self, below: Link, peer: Sockaddr, local: Sockaddr | None) -> None:
        self._below = below
        self._peer = peer
        self._local = local

    def can_be_asked(self) -> bool:
        return self._below.can_be_asked()

    def is_drained(self) -> bool:
        return self._below.is_drained()

    def look_again(self) -> None:
        self._below.look_again()

    def try_receive(self, max_bytes: int) -> bytes | None:
        return self._below.try_receive(max_bytes)

    def wait_receivable(self, max_bytes: int) -> Awaitable[None]:
        return self._below.wait_receivable(max_bytes)

    def wake(self) -> None:
        self._below.wake()

    async def look(self) -> None:
        await self._below.look()

    def try_send(self, data: Bytes) -> int:
        return self._below.try_send(data)

    def wait_sendable(self) -> Awaitable[None]:
        return self._below.wait_sendable()

    async def send(self, data: Bytes) -> int:
        return await self._below.send(data)

    async def finish_sending(self) -> None:
        await self._below.finish_sending()

    def close(self, *, reset: bool = False, waited_on: bool = True) -> None:
        self._below.close(reset=reset, waited_on=waited_on)

    def has_goodbye(self) -> bool:
        return self._below.has_goodbye()

    async def say_goodbye(self, *, linger: float = 0) -> None:
        await self._below.say_goodbye(linger=linger)

    def drop_unread(self) -> None:
        self._below.drop_unread()

    def most_unread(self) -> int:
        return self._below.most_unread()

    def local_address(self) -> Sockaddr | None:
        return self._below.local_address() if self._local is None else self._local

    def peer_address(self) -> Sockaddr | None:
        return self._peer

    def native(self) -> NativeSocket | None:
        return self._below.native()


@protected
class ProxiedListener:
    """A proxy that listens for one connection (BIND of SOCKS5); when that comes, the link to the proxy becomes it.

    Args:
      local: Where the proxy listens, as it said.
    """

    __slots__ = ("_closed", "_failure", "_local", "_proxy", "_peer", "_wire")

    def __init__(self, link: Link, proxy: NetworkProxy, local: Sockaddr) -> None:
        self._wire: _Wire | None = _Wire(link)  # until it is handed out, or lost
        self._proxy = proxy
        self._local = local
        self._peer: Sockaddr | None = None  # of the connection that has come
        self._failure: SocketError | None = None  # until it is told
        self._closed = trio.Event()

    def try_accept(self) -> tuple[Link, Sockaddr]:
        failure, wire, peer = self._failure, self._wire, self._peer
        if failure is not None:
            self._failure = None
            raise failure
        if wire is None or peer is None:
            raise BlockingIOError
        self._wire = None
        return ProxiedLink(wire.link, peer, self._local), peer

    async def wait_acceptable(self) -> None:
        wire = self._wire
        if self._failure is not None or (wire is not None and self._peer is not None):
            await trio.lowlevel.checkpoint()
            return
        if wire is None or self._closed.is_set():
            # There is only the one; another needs another listen().
            await self._closed.wait()
            raise trio.ClosedResourceError("the listener is closed")
        try:
            # It waits for a stranger, and so has all the time in the world.
            reported = await _follow(self._proxy, socks5.bound_peer(), wire, _nowhere, _nobody)
        except SocketError as error:
            if self._closed.is_set():
                raise trio.ClosedResourceError("the listener is closed") from None
            self._failure, self._wire = error, None
            wire.link.close()
        else:
            self._peer = _sockaddr(reported)

    def ignore_newcomers(self) -> bool:
        return False

    def half_open(self) -> frozenset[object]:
        return frozenset()

    def close(self) -> None:
        self._closed.set()
        if self._wire is not None:
            self._wire.link.close()

    def local_address(self) -> Sockaddr:
        return self._local

    def native(self) -> NativeSocket | None:
        return None


async def _nowhere(host: str, port: int) -> Link:
    raise AssertionError("the second reply of BIND needs no other connection")


async def _nobody(proxy: NetworkProxy, realm: str) -> Credentials | None:
    raise AssertionError("the second reply of BIND asks nobody")
