"""Which proxy a socket or a server uses: its own, or the application's, which is that of its ``trio.run``."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import trio

from trioqt.core.addresses import HostAddress, parse_address
from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.events import ProxyAuthenticationRequired
from trioqt.core.network_proxy import (
    Credentials,
    NetworkProxy,
    ProxyFactory,
    ProxyKind,
    ProxyQuery,
    ProxyUse,
    can_carry,
)
from trioqt.links.interrupts import answer_of, call_interruptible, protected
from trioqt.sockets.subscription import EventSource

__all__ = [
    "Authenticator",
    "HasProxy",
    "ProxyChoice",
    "is_loopback",
    "set_application_proxy",
    "set_application_proxy_factory",
]

Authenticator = Callable[[NetworkProxy, str], Awaitable[tuple[str, str] | None]]
"""Asked with the proxy and its realm for a name and a password."""

DEFAULT = NetworkProxy(ProxyKind.DEFAULT)

# How proxies name themselves in what the program is told that it cannot use.
MOST_NAMED = 5

_application: trio.lowlevel.RunVar[ProxyFactory | None] = trio.lowlevel.RunVar("trioqt's application proxy", None)


@trio.lowlevel.enable_ki_protection
def set_application_proxy(proxy: NetworkProxy) -> None:
    """Use ``proxy`` for every socket and server of this ``trio.run`` whose own is DEFAULT.

    It is not used for what stays on this machine: ``localhost``, 127.0.0.0/8 and ::1.  NONE and DEFAULT end it.  It
    takes the place of a factory.

    Raises: RuntimeError outside of ``trio.run``; TypeError if it is no NetworkProxy.
    Qt: QNetworkProxy::setApplicationProxy().  There, for the whole process.
    """
    if not isinstance(proxy, NetworkProxy):
        raise TypeError(f"a proxy is a NetworkProxy, not {type(proxy).__name__}")
    _application.set(None if proxy.kind in (ProxyKind.NONE, ProxyKind.DEFAULT) else lambda query: (proxy,))


@trio.lowlevel.enable_ki_protection
def set_application_proxy_factory(factory: ProxyFactory | None) -> None:
    """Ask ``factory`` for every socket and server of this ``trio.run`` whose own proxy is DEFAULT.

    It is called once for each ``connect_to_host``, ``bind`` of datagrams, or ``listen``, and not for what stays on this
    machine.  The first of its proxies that can be used is; NONE and DEFAULT among them, and an empty answer, mean none.
    What it raises goes out of that call, and nothing has begun.  None: no proxy.  It takes the place of
    ``set_application_proxy``.

    Raises: RuntimeError outside of ``trio.run``; TypeError if it cannot be called.
    Qt: QNetworkProxyFactory::setApplicationProxyFactory().  There, for the whole process.
    """
    if factory is not None and not callable(factory):
        raise TypeError(f"a factory of proxies is callable, not {type(factory).__name__}")
    _application.set(factory)


@attrs.define(eq=False)
class ProxyChoice:
    """What a program has said about its proxies."""

    proxy: NetworkProxy = DEFAULT
    tag: str = ""
    authenticator: Authenticator | None = None


@protected
class HasProxy(EventSource):
    """What can be reached, or reach something, by way of a proxy."""

    __slots__ = ("_proxies",)

    def __init__(self) -> None:
        super().__init__()
        self._proxies: ProxyChoice | None = None  # None: nothing was said, as of nearly all

    def proxy(self) -> NetworkProxy:
        """What ``set_proxy`` said; DEFAULT unless it was called.  Qt: proxy()."""
        self._check_call()
        return DEFAULT if self._proxies is None else self._proxies.proxy

    def set_proxy(self, proxy: NetworkProxy) -> None:
        """Use ``proxy`` from the next ``connect_to_host``, ``bind`` of datagrams, or ``listen`` on.

        DEFAULT: the application's, except for what stays on this machine; NONE: none.

        Raises: TypeError if it is no NetworkProxy.
        Qt: setProxy().
        """
        self._check_call()
        if not isinstance(proxy, NetworkProxy):
            raise TypeError(f"a proxy is a NetworkProxy, not {type(proxy).__name__}")
        self._choice().proxy = proxy

    def protocol_tag(self) -> str:
        """What ``set_protocol_tag`` said; empty unless it was called.  Qt: protocolTag()."""
        self._check_call()
        return "" if self._proxies is None else self._proxies.tag

    def set_protocol_tag(self, tag: str) -> None:
        """Say what will be spoken, such as ``"http"``, for a factory of proxies to see.

        Raises: TypeError if it is no text.
        Qt: setProtocolTag().
        """
        self._check_call()
        if not isinstance(tag, str):
            raise TypeError(f"a tag is a str, not {type(tag).__name__}")
        self._choice().tag = tag

    def set_proxy_authenticator(self, authenticator: Authenticator | None) -> None:
        """Ask ``authenticator`` when a proxy wants a name and a password, and those of its NetworkProxy will not do.

        It is an async function of the proxy and its realm, and returns both as a pair, or None to give up.  If they are
        wrong it is asked again; the same answer again gives up too.  What it raises goes out of the call that connects.

        Raises: TypeError if it cannot be called.
        Qt: the slot of proxyAuthenticationRequired().
        """
        self._check_call()
        if authenticator is not None and not callable(authenticator):
            raise TypeError(f"an authenticator is an async function, not {type(authenticator).__name__}")
        self._choice().authenticator = authenticator

    def _choice(self) -> ProxyChoice:
        if self._proxies is None:
            self._proxies = ProxyChoice()
        return self._proxies

    def _choose_proxy(self, use: ProxyUse, host: str, port: int) -> NetworkProxy | None:
        """The proxy to use now; None: none.

        Raises: SocketError(UNSUPPORTED_SOCKET_OPERATION) if there are some, and none of them can be used.
        """
        if self._proxies is None and _application.get() is None:
            return None  # nobody has said anything of proxies
        proxy = self.proxy()
        proxies: Sequence[NetworkProxy] = (proxy,)
        if proxy.kind is ProxyKind.DEFAULT:
            factory = _application.get()
            if factory is None or is_loopback(host):
                return None
            query = ProxyQuery(host, port, self.protocol_tag(), use)
            proxies, mistake = _proxies_in(call_interruptible(factory, query))
            if mistake is not None:
                raise mistake
        for proxy in proxies:
            if proxy.kind in (ProxyKind.NONE, ProxyKind.DEFAULT):
                return None
            if can_carry(proxy, use):
                return proxy
        if not proxies:
            return None
        names = ", ".join(str(proxy) for proxy in proxies[:MOST_NAMED])
        raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, f"{USES[use]} cannot go through: {names}")

    async def _authenticate(self, proxy: NetworkProxy, realm: str) -> Credentials | None:
        """The proxy wants a name and a password that it has not been shown yet."""
        if self._subscriptions:
            self._post(ProxyAuthenticationRequired(proxy, realm))
        authenticator = None if self._proxies is None else self._proxies.authenticator
        if authenticator is None:
            return None
        credentials, mistake = _credentials_in(await answer_of(authenticator, proxy, realm))
        if mistake is not None:
            raise mistake
        return credentials


def _credentials_in(answer: Any) -> tuple[Credentials | None, Exception | None]:
    """What an authenticator returned, or what is wrong with it; not raised here, where a frame knows a password."""
    if answer is None:
        return None, None
    if not isinstance(answer, tuple) or len(answer) != 2:
        what = f"an authenticator returns a name and a password, or None, not {type(answer).__name__}"
        return None, TypeError(what)
    try:
        return Credentials(*answer), None
    except (TypeError, ValueError) as exc:
        return None, exc.with_traceback(None)


USES: dict[ProxyUse, str] = {"tcp": "a connection", "udp": "datagrams", "server": "a server"}


def _proxies_in(answer: Any) -> tuple[Sequence[NetworkProxy], TypeError | None]:
    """What a factory returned, or what is wrong with it; as above, for a URL may have a password in it."""
    if not isinstance(answer, Sequence) or not all(isinstance(proxy, NetworkProxy) for proxy in answer):
        what = f"a factory of proxies returns a sequence of NetworkProxy, not {type(answer).__name__}"
        return (), TypeError(what)
    return answer, None


def is_loopback(host: str) -> bool:
    """Does it stay on this machine?"""
    name = host.strip().lower().removesuffix(".")
    address = parse_address(name)
    if address is None and re.fullmatch("[0-9][0-9a-fx.]*", name):
        # What a resolver takes for an address, 127.1 for one, Qt does too; a proxy's would take it for its own machine.
        with contextlib.suppress(OSError):
            address = HostAddress(socket.inet_ntoa(socket.inet_aton(name)))
    return name == "localhost" if address is None else address.is_loopback()
