"""The standard library's sockets, on the simulated network: what ``socket.socket()`` gives to code that runs on it.

Servers are often built from such sockets: made, bound and set to listen by plain calls, and only then handed to trio
(``trio.socket.from_stdlib_socket``).  Trio has no hook for them, so seven things of Python's and trio's are replaced
while there is a network: ``socket.socket`` gives a `SyncSocket` to code that runs on one, ``from_stdlib_socket`` knows
it, ``trio.lowlevel.wait_readable`` and its like wait for it, ``socket.gethostname`` and ``getfqdn`` give the host's
name, ``if_nametoindex`` and its like know the host's interfaces, ``getaddrinfo`` and its like ask the network from
worker threads, and ``select.select`` and `selectors` say that they cannot wait for it.  To all other code they do what
they did.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import select
import selectors
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio

from trioqt.testing.network.host import INTERFACES, fail
from trioqt.testing.network.real_network import is_real_network_allowed
from trioqt.testing.network.socket import VirtualSocket
from trioqt.testing.network.sync_socket import Network, SyncSocket, join, network_here, new_socket, worker_here

__all__ = ["stdlib_sockets"]

_lock = threading.Lock()
_networks = 0  # that are entered, in any thread


@contextlib.contextmanager
def stdlib_sockets(network: Network) -> Iterator[None]:
    """Within the block the standard library's sockets that code of this run makes are that network's."""
    if is_real_network_allowed():
        yield
        return
    try:
        _begin()
        join(network)
        yield
    finally:
        join(None)
        _end()


def _begin() -> None:
    global _networks
    with _lock:
        _networks += 1
        if _networks == 1:
            _replace()
        _rename()


def _end() -> None:
    global _networks
    with _lock:
        _networks -= 1
        if not _networks:
            _restore()


_plain_host_name = socket.gethostname
_plain_full_name = socket.getfqdn
_plain_interface_index = socket.if_nametoindex
_plain_interface_name = socket.if_indextoname
_plain_interface_pairs = socket.if_nameindex
_trio_namespace: dict[str, Any] = trio.socket.from_stdlib_socket.__globals__
_plain_trio_socket: Callable[..., Any] = _trio_namespace["_SocketType"]
# trio.lowlevel.wait_readable and its like are calls of what the run waits for the system with.
_trio_run: Any = trio.lowlevel.wait_readable.__globals__["GLOBAL_RUN_CONTEXT"]
_waits: dict[type, dict[str, Callable[..., Any]]] = {}
"""| of which class | the method's name | what it was |"""
_renamed: list[dict[str, Any]] = []
_known: tuple[int, list[dict[str, Any]]] = (0, [])  # looked for again when there are other modules


def _replace() -> None:
    socket.socket.__new__ = staticmethod(_new)  # type: ignore[assignment]
    _trio_namespace["_SocketType"] = _trio_socket
    _replace_waits(type(_trio_run.runner.io_manager))


def _rename() -> None:
    for namespace in _namespaces_with_names():
        is_changed = False
        for name, (plain, replaced) in _NAMES.items():
            if namespace.get(name) is plain:
                namespace[name] = replaced
                is_changed = True
        if is_changed:
            _renamed.append(namespace)


def _restore() -> None:
    while _renamed:
        namespace = _renamed.pop()
        for name, (plain, replaced) in _NAMES.items():
            if namespace.get(name) is replaced:
                namespace[name] = plain
    while _waits:
        cls, methods = _waits.popitem()
        for name, plain in methods.items():
            setattr(cls, name, plain)
    _trio_namespace["_SocketType"] = _plain_trio_socket
    if "__new__" in vars(socket.socket):
        del socket.socket.__new__


def _replace_waits(cls: type) -> None:
    plain = _waits[cls] = {name: getattr(cls, name) for name in ("wait_readable", "wait_writable", "notify_closing")}
    cls.wait_readable = _waiting(plain["wait_readable"], "wait_readable")  # type: ignore[attr-defined]
    cls.wait_writable = _waiting(plain["wait_writable"], "wait_writable")  # type: ignore[attr-defined]
    cls.notify_closing = _notifying(plain["notify_closing"])  # type: ignore[attr-defined]


def _waiting(plain: Callable[..., Awaitable[None]], name: str) -> Callable[..., Awaitable[None]]:
    async def wait(manager: Any, sock: Any) -> None:
        virtual = _simulated(sock)
        await (plain(manager, sock) if virtual is None else getattr(virtual, name)())

    return wait


def _notifying(plain: Callable[..., None]) -> Callable[..., None]:
    def notify_closing(manager: Any, sock: Any) -> None:
        virtual = _simulated(sock)
        if virtual is None:
            plain(manager, sock)
        else:
            virtual.notify_closing()

    return notify_closing


def _simulated(sock: Any) -> VirtualSocket | None:
    """What is given to a call that takes a socket or a descriptor."""
    if isinstance(sock, SyncSocket):
        sock = sock.virtual
    if isinstance(sock, VirtualSocket):
        return sock
    network = network_here()
    return None if network is None else network.find_socket(sock if isinstance(sock, int) else sock.fileno())


def _namespaces_with_names() -> list[dict[str, Any]]:
    """The modules that have them, and those that have got them by name."""
    global _known
    if _known[0] != len(sys.modules):
        found = []
        for module in list(sys.modules.values()):
            namespace = getattr(module, "__dict__", None)
            if type(namespace) is dict and any(namespace.get(name) is plain for name, (plain, _) in _NAMES.items()):
                found.append(namespace)
        _known = len(sys.modules), found
    return _known[1]


def _new(
    cls: type[socket.socket], family: int = -1, type: int = -1, proto: int = -1, fileno: object = None
) -> socket.socket:
    """``socket.socket(...)``.  Derived classes, and a socket of a given descriptor, stay the kernel's."""
    network = network_here()
    if isinstance(fileno, int) and network is not None and network.find_socket(fileno) is not None:
        raise NotImplementedError(
            f"{cls.__module__}.{cls.__qualname__} over a simulated socket: no system call knows its descriptor."
            "  trio.SSLStream and ssl.MemoryBIO speak TLS over it"
        )
    is_simulated = cls is socket.socket and fileno is None and network is not None
    made: socket.socket = new_socket(SyncSocket if is_simulated else cls)
    return made


def _trio_socket(sock: socket.socket) -> trio.socket.SocketType:
    """What trio makes of a socket of the standard library's."""
    if isinstance(sock, SyncSocket):
        sock.setblocking(False)
        wrapped: trio.socket.SocketType = sock.virtual
    else:
        wrapped = _plain_trio_socket(sock)
    return wrapped


def _host_name() -> str:
    network = network_here()
    return _plain_host_name() if network is None else network.host_name()


def _full_name(name: str = "") -> str:
    network = network_here()
    if network is not None and name in ("", "0.0.0.0", "::", network.host_name()):
        return network.host_name()
    return _plain_full_name(name)


def _interface_index(name: str, /) -> int:
    if network_here() is None:
        return _plain_interface_index(name)
    if name not in INTERFACES:
        fail(errno.ENODEV)
    return INTERFACES[name]


def _interface_name(index: int, /) -> str:
    if network_here() is None:
        return _plain_interface_name(index)
    for name, number in INTERFACES.items():
        if number == index:
            return name
    fail(errno.ENXIO)


def _interface_pairs() -> list[tuple[int, str]]:
    if network_here() is None:
        return _plain_interface_pairs()
    return [(number, name) for name, number in INTERFACES.items()]


def _telling(plain: Callable[..., Any], what: str) -> Callable[..., Any]:
    """A call that hands descriptors to the kernel, which knows none of a simulated socket."""

    @functools.wraps(plain)
    def call(*args: Any) -> Any:
        if trio.lowlevel.in_trio_run() or worker_here() is not None:
            for arg in args:
                for each in arg if isinstance(arg, list | tuple | set) else (arg,):
                    if isinstance(each, SyncSocket | VirtualSocket):
                        raise NotImplementedError(
                            f"{what} of a simulated socket: no system call knows its descriptor."
                            "  trio.lowlevel.wait_readable and wait_writable wait for it"
                        )
        return plain(*args)

    return call


def _looking_up(plain: Callable[..., Any], ask: Callable[..., Any]) -> Callable[..., Any]:
    """A look-up that waits, of the network in a worker thread; another would have the whole run wait, and is told."""

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        worker = worker_here()
        if worker is None or network_here() is None:
            return plain(*args, **kwargs)
        return ask(worker.ask, *args, **kwargs)

    return call


def _address_info(
    ask: Callable[..., Any], host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> Any:
    return ask(trio.socket.getaddrinfo, host, port, family, type, proto, flags)


def _name_info(ask: Callable[..., Any], sockaddr: Any, flags: int, /) -> Any:
    return ask(trio.socket.getnameinfo, sockaddr, flags)


def _host_by_name(ask: Callable[..., Any], name: Any, /) -> str:
    return str(_addresses_by_name(ask, name)[0])


def _host_by_name_ex(ask: Callable[..., Any], name: Any, /) -> tuple[str, list[str], list[str]]:
    return str(name), [], _addresses_by_name(ask, name)


def _addresses_by_name(ask: Callable[..., Any], name: Any) -> list[str]:
    found = ask(trio.socket.getaddrinfo, name or "0.0.0.0", None, socket.AF_INET, socket.SOCK_STREAM)
    return [info[4][0] for info in found]


def _host_by_address(ask: Callable[..., Any], address: Any, /) -> tuple[str, list[str], list[str]]:
    try:
        found = ask(trio.socket.getaddrinfo, address, None, 0, socket.SOCK_STREAM)[0][4]
        name, _ = ask(trio.socket.getnameinfo, found, socket.NI_NAMEREQD)
    except socket.gaierror:
        raise socket.herror(1, "Unknown host") from None
    return name, [], [found[0]]


# What a selector asks of all that is registered with it.
_plain_lookup = getattr(selectors, "_fileobj_to_fd", None)

_NAMES: dict[str, tuple[Any, Any]] = {
    "gethostname": (_plain_host_name, _host_name),
    "getfqdn": (_plain_full_name, _full_name),
    "if_nametoindex": (_plain_interface_index, _interface_index),
    "if_indextoname": (_plain_interface_name, _interface_name),
    "if_nameindex": (_plain_interface_pairs, _interface_pairs),
    "select": (select.select, _telling(select.select, "select.select()")),
    **{
        plain.__name__: (plain, _looking_up(plain, ask))
        for plain, ask in (
            (socket.getaddrinfo, _address_info),
            (socket.getnameinfo, _name_info),
            (socket.gethostbyname, _host_by_name),
            (socket.gethostbyname_ex, _host_by_name_ex),
            (socket.gethostbyaddr, _host_by_address),
        )
    },
}
"""| a name in a module | what it is, and what it is while there is a network |"""
if _plain_lookup is not None:
    _NAMES["_fileobj_to_fd"] = (_plain_lookup, _telling(_plain_lookup, "a selector"))
