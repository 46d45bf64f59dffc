"""Every public method of sockets and servers, with arguments that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import trio

from trioqt import DataStream, HostAddress, NetworkProxy, PauseMode, ProxyKind, SocketOption, TcpServer, TcpSocket

__all__ = ["SERVER_CALLS", "SOCKET_CALLS", "public_methods"]

SPECIAL = ("__aenter__", "__aexit__", "__anext__")

# They make a socket, and so belong to no run yet.
CONSTRUCTORS = ("from_stream",)


def public_methods(kind: type) -> Iterator[str]:
    """What is called on an object of ``kind``; not what trio's base classes have of their own."""
    for name in dir(kind):
        if (name.startswith("_") and name not in SPECIAL) or name in CONSTRUCTORS:
            continue
        if inspect.isfunction(inspect.unwrap(getattr(kind, name))) and getattr(kind, name).__module__.startswith(
            "trioqt"
        ):
            yield name


async def handler(sock: TcpSocket) -> None:
    """What serves."""
    await trio.sleep_forever()


NO_EXCEPTION = (None, None, None)

_PROXY: dict[str, tuple[Any, ...]] = {
    "set_protocol_tag": ("http",),
    "set_proxy": (NetworkProxy(ProxyKind.NONE),),
    "set_proxy_authenticator": (None,),
}
# Those that take no arguments are filled in.
_SOCKET: dict[str, tuple[Any, ...]] = {
    "__aexit__": NO_EXCEPTION,
    "bind": ("127.0.0.1",),
    "connect_to_host": ("127.0.0.1", 1),
    "peek": (1,),
    "put_char": (b"x",),
    "read": (1,),
    "receive_exactly": (1,),
    "receive_message": (DataStream.read_q_string,),
    "receive_until": (b"\n",),
    "send_all": (b"x",),
    **_PROXY,
    "set_pause_mode": (PauseMode.NEVER,),
    "set_read_buffer_size": (1,),
    "set_socket_descriptor": (10**6,),
    "set_socket_option": (SocketOption.KEEP_ALIVE, 1),
    "skip": (1,),
    "socket_option": (SocketOption.KEEP_ALIVE,),
    "unget_char": (b"x",),
    "write": (b"x",),
}
_SERVER: dict[str, tuple[Any, ...]] = {
    "__aexit__": NO_EXCEPTION,
    "add_pending_connection": (TcpSocket(),),
    "drain": (1,),
    "listen": (HostAddress.LOCAL_HOST,),
    "serve": (handler,),
    "serve_descriptors": (handler,),
    "set_listen_backlog_size": (1,),
    "set_max_pending_connections": (1,),
    **_PROXY,
    "set_socket_descriptor": (10**6,),
}

SOCKET_CALLS: dict[str, tuple[Any, ...]] = {name: _SOCKET.get(name, ()) for name in public_methods(TcpSocket)}
SERVER_CALLS: dict[str, tuple[Any, ...]] = {name: _SERVER.get(name, ()) for name in public_methods(TcpServer)}
