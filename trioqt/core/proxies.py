"""What is said to a proxy before a connection is ours: a prologue, which asks for bytes and gives bytes.

A prologue is a generator.  It yields steps, and whoever drives it does them: sends, receives exactly as many bytes as
asked, asks the program for a name and a password.  It never asks for a byte that it does not need, so whatever comes
behind the proxy's last answer is still where it was: the connection's first bytes.
It ends with what the proxy said, or raises ``SocketError``; nothing that a proxy says makes it raise anything else.

This module knows no network, no clock, and no language of proxies: those are ``socks5.py`` and ``http_connect.py``.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, NoReturn

import attrs

from trioqt.core.addresses import HostAddress, parse_address
from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.network_proxy import Credentials

__all__ = [
    "Again",
    "Ask",
    "Prologue",
    "Receive",
    "Reported",
    "Send",
    "Step",
    "Steps",
    "Target",
    "ask",
    "expect",
    "fail",
    "receive",
    "target_of",
]


@attrs.frozen
class Send:
    """Send these bytes, all of them.  They may hold a password."""

    data: bytes = attrs.field(repr=False)


@attrs.frozen
class Receive:
    """Give exactly so many bytes; fewer only if the proxy has ended the connection."""

    count: int


@attrs.frozen
class Ask:
    """Give ``Credentials`` for ``realm``, or None if there are none."""

    realm: str


@attrs.frozen
class Again:
    """This connection to the proxy has served its turn: close it, and go on with a new one."""


@attrs.frozen
class Reported:
    """What the proxy said of its end of the connection, or of where it listens."""

    address: HostAddress
    """Null if it named none, or a host."""
    port: int


Step = Send | Receive | Ask | Again
Steps = Generator[Step, Any, None]
Prologue = Generator[Step, Any, Reported | None]


def receive(count: int) -> Generator[Step, Any, bytes]:
    """Exactly so many bytes.  Raises: SocketError(PROXY_CONNECTION_CLOSED)."""
    data: bytes = yield Receive(count)
    if len(data) < count:
        raise SocketError(ErrorKind.PROXY_CONNECTION_CLOSED, "the proxy closed the connection")
    return data


def ask(realm: str, refused: Credentials | None) -> Generator[Step, Any, Credentials]:
    """What the program answers, unless that is what was ``refused``.

    Raises: SocketError(PROXY_AUTHENTICATION_REQUIRED) if it has nothing new.
    """
    answer: Credentials | None = yield Ask(realm)
    if answer is None or answer == refused:
        what = "a name and a password" if refused is None else "another name and password"
        fail(ErrorKind.PROXY_AUTHENTICATION_REQUIRED, f"the proxy wants {what}")
    return answer


def fail(kind: ErrorKind, message: str) -> NoReturn:
    """Raise that."""
    raise SocketError(kind, message)


def expect(holds: bool, message: str) -> None:
    """Raise SocketError(PROXY_PROTOCOL) unless it holds."""
    if not holds:
        fail(ErrorKind.PROXY_PROTOCOL, message)


# ---- where to ------------------------------------------------------------------------------

# RFC 3986, reg-name, of labels that a resolver would ask for (RFC 1035, 2.3.4).  Whatever else is in a name, a newline
# for one, could say something to the proxy that nobody meant to say.
LABEL = r"[A-Za-z0-9_~!$&'()*+,;=%-]{1,63}"
NAME = re.compile(rf"(?=.{{1,255}}\Z){LABEL}(?:\.{LABEL})*\.?")


@attrs.frozen
class Target:
    """Where a proxy is to connect to."""

    host: HostAddress | str
    """A name only in ASCII, as a resolver wants it."""
    port: int

    def __str__(self) -> str:
        """As HTTP has it; RFC 9110, section 7.2."""
        host = str(self.host).partition("%")[0] if isinstance(self.host, HostAddress) else self.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def target_of(host: HostAddress | str, port: int) -> Target:
    """The target that a name or an address is.

    Raises: SocketError(HOST_NOT_FOUND) if no proxy could be told that name.
    """
    address = host if isinstance(host, HostAddress) else parse_address(host)
    if address is not None:
        if not address:
            fail(ErrorKind.HOST_NOT_FOUND, "an empty name")
        return Target(HostAddress.ANY_IPV4 if address == HostAddress.ANY else address, port)
    try:
        name = str(host) if str(host).isascii() else str(host).encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if NAME.fullmatch(name) is None:
        fail(ErrorKind.HOST_NOT_FOUND, "no host can have that name")
    return Target(name, port)
