"""What a proxy is, as a program names it.

How one is spoken to is in ``proxies.py``; which of several is taken is the sockets' business.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

__all__ = [
    "Credentials",
    "NetworkProxy",
    "ProxyFactory",
    "ProxyKind",
    "ProxyQuery",
    "ProxyUse",
    "can_carry",
    "credentials_of",
]


class ProxyKind(enum.Enum):
    """What language a proxy speaks.  Qt: QNetworkProxy::ProxyType (same numbers)."""

    DEFAULT = 0
    """The application's, if there is one."""
    SOCKS5 = 1
    """RFC 1928: connections, listening, datagrams."""
    NONE = 2
    """No proxy: straight to the host."""
    HTTP = 3
    """CONNECT of RFC 9110: connections."""
    HTTP_CACHING = 4
    """It fetches pages; no socket can use it."""
    FTP_CACHING = 5
    """It fetches files; no socket can use it."""


ProxyUse = Literal["tcp", "udp", "server"]
"""What a proxy is wanted for."""

CAN_CARRY: dict[ProxyUse, frozenset[ProxyKind]] = {
    "tcp": frozenset({ProxyKind.SOCKS5, ProxyKind.HTTP}),
    "udp": frozenset({ProxyKind.SOCKS5}),
    "server": frozenset({ProxyKind.SOCKS5}),
}

# Each proxy of a chain is asked by way of those before it, and every byte passes through them all; three are common.
LONGEST_CHAIN = 16

# What a URL's scheme stands for, and the port where it names none: curl's.
SCHEMES: dict[str, tuple[ProxyKind, int]] = {
    "socks5": (ProxyKind.SOCKS5, 1080),
    "socks5h": (ProxyKind.SOCKS5, 1080),
    "http": (ProxyKind.HTTP, 1080),
    "https": (ProxyKind.HTTP, 443),
}


def _check_port(proxy: object, attribute: attrs.Attribute[int], port: object) -> None:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"a port is an int, not {type(port).__name__}")
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is 0 to 65535, not {port}")


# attrs' own messages have the value in them, which may be a password, or a URL that holds one.  So may an exception
# that is the context of another.
def check_text(owner: object, attribute: attrs.Attribute[str], value: object) -> None:
    """Raises: TypeError, ValueError, that do not show the value."""
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} is a str, not {type(value).__name__}")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError(f"{attribute.name} has a surrogate in it, which cannot be encoded")


def _check_kind(proxy: object, attribute: attrs.Attribute[ProxyKind], kind: object) -> None:
    if not isinstance(kind, ProxyKind):
        raise TypeError(f"kind is a ProxyKind, not {type(kind).__name__}; a URL is for NetworkProxy.from_url")


def _check_context(proxy: object, attribute: attrs.Attribute[Any], context: object) -> None:
    if context is not None and not isinstance(context, ssl.SSLContext):
        raise TypeError(f"context is an ssl.SSLContext, not {type(context).__name__}")
    if context is not None and context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ValueError("a proxy is spoken to as a client: context is ssl.create_default_context()")


@attrs.frozen
class Credentials:
    """A name and its password."""

    user: str = attrs.field(validator=check_text)
    password: str = attrs.field(repr=False, validator=check_text)


def _check_via(proxy: object, attribute: attrs.Attribute[Any], via: object) -> None:
    if via is not None and not isinstance(via, NetworkProxy):
        raise TypeError(f"via is a NetworkProxy, not {type(via).__name__}")
    if via is not None and not can_carry(via, "tcp"):
        raise ValueError(f"no proxy can be reached via a proxy of the kind {via.kind.name}")
    length = 1
    while via is not None:
        length, via = length + 1, via.via
    if length > LONGEST_CHAIN:
        raise ValueError(f"a chain has {LONGEST_CHAIN} proxies at most")


@attrs.frozen
class NetworkProxy:
    """How to get to a host by way of another.  Qt: QNetworkProxy.

    Args:
      kind: What it speaks.  DEFAULT and NONE need nothing else.
      host, port: Where it is.
      user, password: What it is told if it asks.  The password is in no repr, message or log.
      context: TLS to the proxy, checked by this; None: plain.
      looks_up_names: Names are sent to the proxy as they are.  False: they are looked up here, and it gets an address.
      via: The proxy through which this one is reached; None: straight.  A chain has 16 proxies at most.

    Raises: TypeError, ValueError: A value is none of its kind, or out of range.
    Qt: there, ``looks_up_names`` is the capability HostNameLookupCapability; no TLS to a proxy, and no proxy behind a
    proxy.
    """

    kind: ProxyKind = attrs.field(validator=_check_kind)
    host: str = attrs.field(default="", validator=check_text)
    port: int = attrs.field(default=0, validator=_check_port)
    user: str = attrs.field(default="", validator=check_text)
    password: str = attrs.field(default="", repr=False, validator=check_text)
    context: ssl.SSLContext | None = attrs.field(default=None, validator=_check_context)
    looks_up_names: bool = attrs.field(default=True, kw_only=True)
    via: NetworkProxy | None = attrs.field(default=None, kw_only=True, validator=_check_via)

    @classmethod
    def from_url(
        cls, url: str, *, context: ssl.SSLContext | None = None, via: NetworkProxy | None = None
    ) -> NetworkProxy:
        """``socks5://user:password@host:port``, or with ``http``, or ``https``: HTTP inside of TLS.

        What is special in a URL is percent-encoded in the name and the password.  ``socks5h`` is the same as
        ``socks5``: the proxy looks names up.  Without a port it is 1080, and 443 for ``https``, as with curl.

        Args:
          context: For ``https``; None: ``ssl.create_default_context()``, made once in a process.
          via: The proxy through which this one is reached.

        Raises:
          ValueError: It is no such URL.  The message does not have it, for it may hold a password.
          TypeError: It is no text.
        Qt: no counterpart.
        """
        known = _parts_of(url)
        del url  # it is in no frame of what is raised here, which may be shown with its variables
        if isinstance(known, Exception):
            raise known
        scheme, host, port, who = known
        kind, usual_port = SCHEMES[scheme]
        if scheme == "https" and context is None:
            context = _default_context()
        return cls(kind, host, usual_port if port is None else port, who.user, who.password, context, via=via)

    def __str__(self) -> str:
        """Its kind and where it is, for messages."""
        name = "proxy" if self.kind is ProxyKind.DEFAULT else f"{self.kind.name} proxy"
        host = f"[{self.host}]" if ":" in self.host else self.host
        where = f" {host}:{self.port}" if host else ""
        text = name + where
        return text if text.isprintable() else repr(text)


def credentials_of(proxy: NetworkProxy) -> Credentials | None:
    """What it is told if it asks, or None."""
    return Credentials(proxy.user, proxy.password) if proxy.user or proxy.password else None


def can_carry(proxy: NetworkProxy, use: ProxyUse) -> bool:
    """Can it be used for that?  Qt: capabilities()."""
    return proxy.kind in CAN_CARRY[use]


@functools.cache  # it reads a file with all authorities, which takes some 10 ms
def _default_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _parts_of(url: object) -> tuple[str, str, int | None, Credentials] | Exception:
    """Scheme, host, port, name and password; or what is wrong, which does not tell the URL, nor has it behind it."""
    if not isinstance(url, str):
        return TypeError(f"a URL is a str, not {type(url).__name__}")
    parts, host, port, user, password = _split(url)
    if parts is None or _has_blanks(url) or _has_blanks(host):  # of the URL, urlsplit would leave some of them out
        return ValueError("not the URL of a proxy: its host, its port or its encoding is wrong")
    if parts.scheme not in SCHEMES:
        known = ", ".join(SCHEMES)
        return ValueError(f"not the URL of a proxy: it begins with none of {known}, and ://")
    if not host:
        return ValueError("not the URL of a proxy: it has no host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return ValueError("not the URL of a proxy: something is behind the host and the port")
    return parts.scheme, host, port, Credentials(user, password)


def _split(url: str) -> tuple[SplitResult | None, str, int | None, str, str]:
    """The parts of a URL, of which host, name and password are decoded; None if it has none."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        host, user, password = (
            unquote(text or "", errors="strict") for text in (parts.hostname, parts.username, parts.password)
        )
        return parts, host, parts.port, user, password
    return None, "", None, "", ""


def _has_blanks(text: str) -> bool:
    """Or control characters."""
    return any(char <= " " or char == "\x7f" for char in text)


@attrs.frozen
class ProxyQuery:
    """What a factory is asked.  Qt: QNetworkProxyQuery."""

    host: str
    """The name or address to be reached; empty for a socket that is bound, and for a server."""
    port: int
    """Its port, or the local one."""
    protocol_tag: str
    """What ``set_protocol_tag`` said, such as ``"http"``."""
    kind: ProxyUse
    """What for."""


ProxyFactory = Callable[[ProxyQuery], Sequence[NetworkProxy]]
"""Says which proxies to use for something, the best first; the first one that can do it is taken."""
