"""What somebody is told who writes it slightly wrong: `with` for `async with`, or the name that another library has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from trioqt.core import events

__all__ = ["AsyncBlock", "KnowsOtherNames"]

# What the socket module, asyncio and trio call it, and Qt where that is no other spelling of the same.
OTHER_NAMES = {
    "recv": "receive_some",
    "receive": "receive_some",
    "recvfrom": "receive_datagram",
    "receive_lines": "lines",
    "receive_all": "receive_some",
    "readexactly": "receive_exactly",
    "read_exactly": "receive_exactly",
    "readuntil": "receive_until",
    "read_until": "receive_until",
    "send": "send_all",
    "sendto": "send_datagram",
    "connect": "connect_to_host",
    "close": "aclose",
    "is_connected": "state",
    "isOpen": "state",
    "shutdown": "send_eof",
    "write_eof": "send_eof",
    "setsockopt": "set_socket_option",
    "getsockopt": "socket_option",
    "getsockname": "local_address",
    "getpeername": "peer_address",
    "fileno": "socket_descriptor",
    "wait_closed": "wait_for_disconnected",
    "serve_forever": "serve",
    "start_serving": "serve",
    "start": "serve",
    "run": "serve",
    "incomingConnection": "serve",
    "port": "server_port",
    "address": "server_address",
    "stop": "drain",
}
TIME_LIMITS = ("settimeout", "set_timeout", "timeout", "setTimeout")


class AsyncBlock:
    """What is entered by `async with`."""

    __slots__ = ()

    # As trio does it.  Type checkers know without this that it is wrong.
    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise TypeError("write `async with`, not `with`")

        def __exit__(self, *exc: object) -> NoReturn:
            raise AssertionError("there is no block without __enter__")


class KnowsOtherNames:
    """What may be looked for under a name that it has elsewhere."""

    __slots__ = ()

    if not TYPE_CHECKING:  # to which any name would be right then

        def __getattr__(self, name: str) -> NoReturn:
            # Asked only when nothing was found.
            missing = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(missing + remedy(type(self), name), name=name, obj=self)


def remedy(kind: type, name: str) -> str:
    """What ``kind`` has in place of ``name``; nothing if that is not known."""
    if name.startswith("_"):
        return ""
    here = OTHER_NAMES.get(name) or re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)
    if here != name and hasattr(kind, here):
        return f"; here it is {here}()"
    event = name[0].upper() + name[1:]
    if event in events.__all__:
        return f"; what is a signal in Qt is an event: `async with it.events({event}) as events`"
    if name in TIME_LIMITS:
        return "; a time limit is trio's: `with trio.fail_after(seconds):`"
    return ""
