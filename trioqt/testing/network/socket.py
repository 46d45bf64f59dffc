"""A socket on a simulated network, in the place of trio's own.

It does what trio's socket does over the kernel's: wait, and give the kernel's errors.  It adds the sync calls that
trioqt's native link uses (``try_recv`` and so on), so both kinds of program run on it unchanged.
"""

from __future__ import annotations

import errno
import ipaddress
import operator
import os
import socket
import struct
import sys
import warnings
import weakref
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, TypeVar

import outcome
import trio

from trioqt.links.base import Bytes
from trioqt.testing.network.fabric import Address
from trioqt.testing.network.host import Binding, Host, fail, is_multicast
from trioqt.testing.network.names import is_numeric
from trioqt.testing.network.options import Options, number
from trioqt.testing.network.tcp import TcpEnd, TcpListener
from trioqt.testing.network.udp import UdpEnd
from trioqt.testing.network.unix import UnixEnd, UnixListener, UnixName, spelled

__all__ = ["VirtualSocket", "left_open", "shown"]

T = TypeVar("T")

Buffer = Any
"""Anything with the buffer protocol; `collections.abc.Buffer` is of Python 3.12."""

BaseExceptionType = type[BaseException]

MAPPED = "::ffff:"


class Closed:
    """Below a closed socket: every call fails with EBADF.  Below one whose host has crashed: with ENETDOWN."""

    def __init__(self, error: int) -> None:
        self._error = error

    def fail(self) -> NoReturn:
        fail(self._error)

    def __getattr__(self, name: str) -> Any:
        fail(self._error)

    def is_readable(self) -> bool:
        return True

    def is_writable(self) -> bool:
        return True

    def writer_waits(self) -> None:
        """Nothing to prepare."""

    def close(self, *, reset: bool = False) -> None:
        """It is."""


class Fresh:
    """Below a socket that is neither connected nor listening."""

    def __init__(self, family: int) -> None:
        self._is_unix = family == socket.AF_UNIX

    def is_readable(self) -> bool:
        return True

    def is_writable(self) -> bool:
        return True

    def read(self, count: int, *, peek: bool = False) -> bytes:
        fail(errno.EINVAL if self._is_unix else errno.ENOTCONN)

    def send(self, data: Bytes) -> int:
        fail(errno.ENOTCONN if self._is_unix else errno.EPIPE)

    def finish(self) -> None:
        if not self._is_unix:
            fail(errno.ENOTCONN)

    def receive_no_more(self) -> None:
        self.finish()

    def take_error(self) -> int:
        return 0

    def writer_waits(self) -> None:
        """Nothing to prepare."""

    def is_listening(self) -> bool:
        return False

    def is_gone(self) -> bool:
        return False

    def close(self, *, reset: bool = False) -> None:
        """Nothing to undo."""


CLOSED = Closed(errno.EBADF)
CRASHED = Closed(errno.ENETDOWN)
LEFT_OPEN = Closed(errno.ENETDOWN)  # when the network ended


class VirtualSocket(trio.socket.SocketType):
    """Made by the factory that the network installs; a program gets it from ``trio.socket.socket()``."""

    def __init__(self, host: Host, family: int, type_: int, proto: int) -> None:
        super().__init__()
        type_ &= ~SOCKET_FLAGS
        sort = sort_of(family, type_, proto)
        host.check_new_socket()
        self._host = host
        self._family = socket.AddressFamily(family)
        self._type = socket.SocketKind(type_)
        self._proto = proto
        self._options = Options(sort)
        self._binding: Binding | None = None
        self._unix_name: UnixName = ""
        self._did_shutdown_write = False
        # Of a connect() that returned before it was done (it always does) Linux tells the outcome to the next one.
        self._outcome_told = True
        self._has_failed = False  # and is bound anew since, so that the next connect() has still to tell that
        self._keeps: tuple[str, int] | None = None  # what bind() was told, if that names a port
        self._reader: trio.lowlevel.Task | None = None
        self._writer: trio.lowlevel.Task | None = None
        self._end: Any = Fresh(family)
        if type_ == socket.SOCK_DGRAM:
            self._end = UdpEnd(host, family, self._options)
            self._end.socket = self
        self._descriptor = host.fabric.next_descriptor()
        host.sockets[self._descriptor] = self

    # ---- plain facts ---------------------------------------------------------------------------

    @property
    def family(self) -> socket.AddressFamily:
        return self._family

    @property
    def type(self) -> socket.SocketKind:  # from here on `type` is this property: see `BaseExceptionType`
        return self._type

    @property
    def proto(self) -> int:
        return self._proto

    @property
    def sort(self) -> str:
        """tcp, tcp6, udp, udp6 or unix."""
        return self._options.sort

    @property
    def end(self) -> Any:
        """What is below it."""
        return self._end

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        return self._did_shutdown_write

    def __repr__(self) -> str:
        return f"<virtual {self._options.sort} socket of {self._host.name}, {self.describe()}>"

    def describe(self) -> str:
        """| state local > remote |"""
        if isinstance(self._end, Closed):
            return "left open" if self._end is LEFT_OPEN else "closed"
        return " ".join(str(part) for part in self.row() if part)

    def row(self) -> tuple[str, str, str, int, int]:
        """For netstat: | state | local | remote | bytes unread | bytes unacknowledged |."""
        end = self._end
        local = shown(self._local())
        if isinstance(end, TcpEnd):
            return (end.state, local, shown(end.remote), *end.queued())
        if isinstance(end, TcpListener | UnixListener):
            return "LISTEN", local, "", len(end.ready), end.backlog
        if isinstance(end, UdpEnd):
            return ("UDP", local, "" if end.remote is None else shown(end.remote), *end.queued())
        if isinstance(end, UnixEnd):
            return ("CONNECTED", local, shown(end.peer_name), *end.queued())
        return "", local, "", 0, 0

    def fileno(self) -> int:
        return self._descriptor

    def detach(self) -> int:
        raise NotImplementedError("a simulated socket has no descriptor to hand over")

    def dup(self) -> trio.socket.SocketType:
        raise NotImplementedError("a simulated socket cannot be duplicated")

    def get_inheritable(self) -> bool:
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        if inheritable:
            raise NotImplementedError("no other process could use a simulated socket")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: BaseExceptionType | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- options -------------------------------------------------------------------------------

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> Any:
        self._check_open()
        fact = self._dynamic_option(level, optname)
        value = self._options.get(level, optname) if fact is None else fact
        if buflen:
            if not 0 < buflen <= 1024:
                raise OSError("getsockopt buflen out of range")
            packed = struct.pack("i", value) if isinstance(value, int) else value
            return packed[:buflen]
        return value if isinstance(value, int) else struct.unpack_from("i", value.ljust(4, b"\0"))[0]

    def _dynamic_option(self, level: int, name: int) -> int | bytes | None:
        """What is not set but so; of TCP_INFO only the first byte, the state, is told."""
        if level == socket.SOL_SOCKET:
            if name == socket.SO_ERROR:
                error: int = self._end.take_error() if hasattr(self._end, "take_error") else 0
                return error
            if name == socket.SO_ACCEPTCONN:
                return int(isinstance(self._end, TcpListener | UnixListener))
            facts = {
                "SO_TYPE": self._type,
                "SO_DOMAIN": self._family,
                "SO_PROTOCOL": DEFAULT_PROTOCOLS.get((self._family, self._type), 0),
            }
            return next((int(fact) for key, fact in facts.items() if getattr(socket, key, None) == name), None)
        if (level, name) in ((socket.IPPROTO_IP, number("IP_MTU")), (socket.IPPROTO_IPV6, number("IPV6_MTU"))):
            if self._family == socket.AF_UNIX:
                fail(errno.EOPNOTSUPP)
            return self._path_mtu(level)
        if level == socket.IPPROTO_TCP and self._options.sort.startswith("tcp"):
            if name == number("TCP_MAXSEG") and self._is_connected():
                return self._path_mtu(level) - 40
            if name == number("TCP_INFO"):
                return bytes([self._tcp_state()]).ljust(TCP_INFO_SIZE, b"\0")
        return None

    def _tcp_state(self) -> int:
        end = self._end
        if isinstance(end, TcpListener):
            return TCP_STATES["CLOSED" if end.is_shut else "LISTEN"]
        if isinstance(end, TcpEnd):
            return TCP_STATES[end.state if end.is_connected() or end.state == "SYN_SENT" else "CLOSED"]
        return TCP_STATES["CLOSED"]

    def _path_mtu(self, level: int) -> int:
        remote = self._remote()
        path = None if remote is None else self._host.path_to(remote[0])
        if path is None:
            if level == socket.IPPROTO_IPV6:
                return 65536
            fail(errno.ENOTCONN)
        return int(path.conditions.mtu)

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None) -> None:
        self._check_open()
        if optlen is not None:
            if value is not None:
                raise TypeError(f"invalid value for argument 'value': {value!r}, must be None when specifying optlen")
            value = bytes(optlen)
        elif value is None:
            raise TypeError("invalid value for argument 'value', must not be None when specifying optlen")
        value = operator.index(value) if hasattr(value, "__index__") else bytes(value)
        if self._membership(level, optname, value):
            return
        if self._options.sort.startswith("tcp") and level == socket.IPPROTO_IP and optname == socket.IP_MULTICAST_TTL:
            fail(errno.EINVAL)
        if level == socket.IPPROTO_IPV6 and optname == socket.IPV6_V6ONLY and self._local()[1]:
            fail(errno.EINVAL)
        self._options.set(level, optname, value)
        if self._writer is not None and self._end.is_writable():
            self.wake_writer()  # there may be more room now
        if isinstance(self._end, TcpEnd) and (self._options.keep_alive or optname == socket.SO_KEEPALIVE):
            self._end.keep_alive_changed()
        if self._binding is not None:
            self._binding.reuse_address = self._options.flag(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            self._binding.reuse_port = self._options.flag(socket.SOL_SOCKET, socket.SO_REUSEPORT)

    def _membership(self, level: int, name: int, value: int | bytes) -> bool:
        """Joining and leaving multicast groups: | group | interface |."""
        family = {socket.IPPROTO_IP: socket.AF_INET, socket.IPPROTO_IPV6: socket.AF_INET6}.get(level)
        joins = {socket.IPPROTO_IP: socket.IP_ADD_MEMBERSHIP, socket.IPPROTO_IPV6: socket.IPV6_JOIN_GROUP}
        leaves = {socket.IPPROTO_IP: socket.IP_DROP_MEMBERSHIP, socket.IPPROTO_IPV6: socket.IPV6_LEAVE_GROUP}
        if family is None or name not in (joins[level], leaves[level]):
            return False
        size = 4 if family == socket.AF_INET else 16
        if not isinstance(self._end, UdpEnd):
            fail(errno.EPROTO if family == socket.AF_INET else errno.ENOPROTOOPT)
        if isinstance(value, int) or len(value) < size + 4:
            fail(errno.EINVAL)
        group = canonical(socket.inet_ntop(family, value[:size]))
        interface = socket.inet_ntop(family, value[4:8]) if family == socket.AF_INET else "0.0.0.0"
        if interface != "0.0.0.0" and not self._host.owns(interface):
            fail(errno.ENODEV)
        if not is_multicast(group):
            fail(errno.EINVAL)
        (self._end.join if name == joins[level] else self._end.leave)(group)
        return True

    # ---- addresses -----------------------------------------------------------------------------

    def getsockname(self) -> Any:
        self._check_open()
        if self._family == socket.AF_UNIX:
            return self._unix_name
        return self._sockaddr(self._local())

    def getpeername(self) -> Any:
        self._check_open()
        end = self._end
        if isinstance(end, UnixEnd):
            return end.peer_name
        remote = self._remote()
        if remote is None or (isinstance(end, TcpEnd) and not end.is_connected()):
            fail(errno.ENOTCONN)
        return self._sockaddr(remote)

    def _local(self) -> Address:
        if self._family == socket.AF_UNIX:
            name = self._unix_name
            return (name if isinstance(name, str) else repr(name), 0)
        if isinstance(self._end, UdpEnd):
            return self._end.local()
        if isinstance(self._end, TcpEnd):
            return self._end.local
        return ("", 0) if self._binding is None else (self._binding.address, self._binding.port)

    def _remote(self) -> Address | None:
        remote: Address | None = getattr(self._end, "remote", None) if isinstance(self._end, TcpEnd | UdpEnd) else None
        return remote

    def _is_connected(self) -> bool:
        return isinstance(self._end, TcpEnd | UnixEnd) and self._end.is_connected()

    def _sockaddr(self, address: Address) -> Any:
        """As the socket module spells it for this family."""
        host, port = address
        if self._family == socket.AF_INET:
            return host or "0.0.0.0", port
        if not host:
            host = "::"
        elif ":" not in host:
            host = MAPPED + host
        return host, port, 0, 0

    def _own_address(self, address: Any) -> Address:
        """What a socket is to be bound to; "" for any."""
        host, port = self._numeric(address, mapped_error=errno.EINVAL)
        if host in ("0.0.0.0", "::"):
            return "", port
        if not (self._host.owns(host) or is_multicast(host) or host == "255.255.255.255"):
            free = number("IP_FREEBIND")
            if free is None or not self._options.flag(socket.IPPROTO_IP, free):
                fail(errno.EADDRNOTAVAIL)
        return host, port

    def _peer_address(self, address: Any) -> Address:
        host, port = self._numeric(address, mapped_error=errno.ENETUNREACH)
        if host == "0.0.0.0":
            host = "127.0.0.1"
        elif host == "::":
            host = "::1"
        return host, port

    def _numeric(self, address: Any, *, mapped_error: int) -> Address:
        host, port = address[0], address[1]
        host = canonical(host)
        if not 0 <= port <= 65535:
            raise OverflowError("port must be 0-65535.")
        if self._family == socket.AF_INET6 and ":" not in host:
            if self._options.flag(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                fail(mapped_error)
        elif is_link_local(host) and not any(address[3:]) and "%" not in address[0]:
            fail(errno.EINVAL)  # the same address may be on every interface
        elif (self._family == socket.AF_INET6) != (":" in host):
            raise socket.gaierror(socket.EAI_ADDRFAMILY, "Address family for hostname not supported")
        return host, port

    async def _resolve(self, address: Any, *, local: bool) -> Any:
        """Names are looked up, as trio's sockets do."""
        if self._family == socket.AF_UNIX:
            if not isinstance(address, str | bytes | os.PathLike):
                raise TypeError(f"a path is a str, bytes or os.PathLike, not {type(address).__name__}")
            return os.fspath(address)
        if self._family == socket.AF_INET:
            if not isinstance(address, tuple) or len(address) != 2:
                raise ValueError("address should be a (host, port) tuple")
        elif not isinstance(address, tuple) or not 2 <= len(address) <= 4:
            raise ValueError("address should be a (host, port, [flowinfo, [scopeid]]) tuple")
        host, port, *rest = address
        if isinstance(port, int) and isinstance(host, str) and is_numeric(self._family, host):
            return address
        if host == "":
            host = None
        elif host == "<broadcast>":
            host = "255.255.255.255"
        flags = socket.AI_PASSIVE if local else 0
        if self._family == socket.AF_INET6 and not self._options.flag(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            flags |= socket.AI_V4MAPPED
        found = await trio.socket.getaddrinfo(host, port, self._family, self._type, self._proto, flags)
        return (*found[0][4][:2], *rest) if rest else found[0][4]

    # ---- binding, listening, accepting ---------------------------------------------------------

    async def bind(self, address: Any) -> None:
        address = await self._resolve(address, local=True)
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._family == socket.AF_UNIX:
            self._bind_unix(address)
        elif isinstance(self._end, UdpEnd):
            if self._end.binding is not None:
                fail(errno.EINVAL)
            self._end.bind(*self._own_address(address))
        else:
            own = self._own_address(address)
            if self._may_be_bound_anew():
                self._end, self._has_failed = Fresh(self._family), True
            elif self._binding is not None or not isinstance(self._end, Fresh):
                fail(errno.EINVAL)
            self._bind_tcp(*own)
            self._keeps = own if own[1] else None

    def _may_be_bound_anew(self) -> bool:
        """Linux: a connect() that fails gives back a port that was not named in bind()."""
        end = self._end
        return isinstance(end, TcpEnd) and end.state == "CLOSED" and not (self._outcome_told or self._keeps)

    def _bind_tcp(self, address: str, port: int) -> None:
        binding = self._options.binding(self._end, self._family, address, port)
        self._host.tcp.take(binding)
        self._binding = binding
        if self._family == socket.AF_INET6 and ":" in address:
            self._options.set(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

    def _bind_unix(self, name: UnixName) -> None:
        if self._unix_name:
            fail(errno.EINVAL)
        if not name:  # Linux: a name of five digits in the abstract name space
            name = b"\0" + f"{self._descriptor % 0x100000:05x}".encode()
        if len(os.fsencode(name)) > 107 + (name[:1] in (b"\0", "\0")):
            raise OSError("AF_UNIX path too long")
        name = spelled(name)
        if name in self._host.unix:
            fail(errno.EADDRINUSE)
        self._unix_name = name
        self._host.unix[name] = self

    def listen(self, backlog: int = min(socket.SOMAXCONN, 128)) -> None:
        self._check_open()
        backlog = max(0, min(operator.index(backlog), socket.SOMAXCONN))
        end = self._end
        if isinstance(end, UdpEnd):
            fail(errno.EOPNOTSUPP)
        if isinstance(end, TcpListener | UnixListener) and not end.is_shut:
            end.backlog = backlog
            return
        if not isinstance(end, Fresh | TcpListener | UnixListener):
            fail(errno.EINVAL)
        listener: TcpListener | UnixListener
        if self._family == socket.AF_UNIX:
            if not self._unix_name:
                fail(errno.EINVAL)
            listener = UnixListener(self._host, self._unix_name, self._options, backlog)
        else:
            if self._binding is None:
                self._bind_tcp("", 0)
            assert self._binding is not None
            self._host.tcp.listen(self._binding)
            listener = TcpListener(self._host, self._binding, self._options, backlog)
            self._binding.owner = listener
        listener.socket = self
        self._end = listener
        self._note_listener("listen")
        self.wake_reader()

    def try_accept(self) -> tuple[VirtualSocket, Any]:
        """Raises: BlockingIOError if no connection waits; OSError."""
        listener = self._end
        if listener is CRASHED:
            # Not ENETDOWN: servers take that for the end of a connection that was never accepted (accept(2)), and would
            # try again at once, for ever.
            fail(errno.EINVAL)
        if not isinstance(listener, TcpListener | UnixListener):
            self._check_open()
            fail(errno.EOPNOTSUPP if isinstance(listener, UdpEnd) else errno.EINVAL)
        if listener.is_shut:
            fail(errno.EINVAL)
        if not listener.ready:
            fail(errno.EAGAIN)
        self._host.check_new_socket()
        accepted = VirtualSocket(self._host, self._family, self._type, self._proto)
        end: Any = listener.ready.popleft()
        accepted._adopt(end, self._options.copy())
        if isinstance(end, UnixEnd):
            accepted._unix_name = end.name
            return accepted, end.peer_name
        return accepted, accepted._sockaddr(end.remote)

    def _adopt(self, end: Any, options: Options) -> None:
        self._end = end
        self._options = options
        end.socket = self
        if isinstance(end, TcpEnd):
            end.listener = None
            end.settings = options
            self._binding = end.binding
            end.keep_alive_changed()
        else:
            end.options = options

    async def accept(self) -> tuple[trio.socket.SocketType, Any]:
        return await self._when_readable(self.try_accept)

    # ---- connecting ----------------------------------------------------------------------------

    async def connect(self, address: Any) -> None:
        try:
            address = await self._resolve(address, local=False)
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                is_done = self._start_connecting(address)
            except BlockingIOError:
                is_done = False
            except BaseException:
                await trio.lowlevel.cancel_shielded_checkpoint()
                raise
            if is_done:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            await self.wait_writable()
        except trio.Cancelled:
            # As trio's own: it has begun, and nobody would know how it ended.
            self.close()
            raise
        error = self._end.take_error()
        if error:
            raise OSError(error, f"Error connecting to {address!r}: {os.strerror(error)}")

    def _start_connecting(self, address: Any) -> bool:
        """True: it is done already; False: wait until it is writable.  Raises: OSError."""
        self._check_open()
        end = self._end
        if isinstance(end, UdpEnd):
            end.connect(self._peer_address(address))
            return True
        if isinstance(end, TcpEnd | TcpListener | UnixEnd | UnixListener):
            return self._connect_again(end)
        if self._family == socket.AF_UNIX:
            self._connect_unix(address)
            return True
        remote = self._peer_address(address)
        if self._has_failed:
            self._has_failed = False
            fail(errno.ECONNABORTED)
        if remote[1] == 0:
            fail(errno.ECONNREFUSED)
        if is_multicast(remote[0]) or remote[0] == "255.255.255.255":
            fail(errno.ENETUNREACH)
        source = self._host.source_for(remote[0])
        if self._binding is None:
            self._bind_for_connect(source)
        assert self._binding is not None
        local = (self._binding.address or source, self._binding.port)
        known = self._host.connections.get((local, remote))
        if known is not None:
            if not known.is_gone() and known.state != "TIME_WAIT":
                fail(errno.EADDRNOTAVAIL)
            known.forget()
        end = TcpEnd(self._host, self._binding, local, remote, self._options)
        self._binding.owner = end
        self._binding.address = local[0]
        self._end = end
        end.socket = self
        self._outcome_told = False
        end.connect()
        return False

    def _bind_for_connect(self, source: str) -> None:
        try:
            self._bind_tcp(source, 0)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:  # every port is taken
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)) from None
            raise

    def _connect_again(self, end: Any) -> bool:
        """A second connect(): it tells once how the first one ended.  True: well."""
        if isinstance(end, UnixListener):
            fail(errno.EINVAL)
        if not isinstance(end, TcpEnd):
            fail(errno.EISCONN)
        if end.state == "SYN_SENT":
            fail(errno.EALREADY)
        if self._outcome_told:
            fail(errno.EISCONN)
        self._outcome_told = True
        if end.state != "CLOSED":
            return True
        self._end = Fresh(self._family)
        self._binding = None
        if self._keeps is not None:
            self._bind_tcp(*self._keeps)
        fail(end.take_error() or errno.ECONNABORTED)

    def _connect_unix(self, name: UnixName) -> None:
        name = spelled(name)
        holder = self._host.unix.get(name)
        if holder is None:
            fail(errno.ENOENT if isinstance(name, str) else errno.ECONNREFUSED)
        if not isinstance(holder.end, UnixListener):
            fail(errno.ECONNREFUSED)
        end = UnixEnd(self._unix_name, self._options)
        holder.end.connect(end)
        end.socket = self
        self._end = end

    # ---- stream bytes --------------------------------------------------------------------------

    def try_recv(self, max_bytes: int, /) -> bytes:
        """What has arrived, up to ``max_bytes``.  Raises: BlockingIOError if nothing has; OSError."""
        data: bytes = self._end.read(max_bytes)
        return data

    def try_send(self, data: Bytes, /) -> int:
        """Hand over what there is room for.  Raises: BlockingIOError if there is none; OSError."""
        sent: int = self._end.send(data)
        return sent

    def _receive(self, count: int, flags: int) -> bytes:
        refuse_urgent(flags)
        if count == 0:
            return b""  # Python does not even ask the system
        if self._type == socket.SOCK_DGRAM:
            return self._receive_from(count, flags)[0]
        if isinstance(self._end, TcpListener | UnixListener):
            fail(errno.ENOTCONN if self._family != socket.AF_UNIX else errno.EINVAL)
        data: bytes = self._end.read(count, peek=bool(flags & socket.MSG_PEEK))
        return data

    def _receive_from(self, count: int, flags: int) -> tuple[bytes, Any]:
        if self._type != socket.SOCK_DGRAM:
            data = self._receive(count, flags)
            return data, self._end.peer_name if isinstance(self._end, UnixEnd) else None
        datagram, source = self._end.read(peek=bool(flags & socket.MSG_PEEK))
        return datagram[:count], self._sockaddr(source)

    def _send(self, data: Any, flags: int = 0, address: Any = None) -> int:
        refuse_urgent(flags)
        view = memoryview(data)
        if self._type == socket.SOCK_DGRAM:
            target = None if address is None else self._peer_address(address)
            sent: int = self._end.send(view.tobytes(), target)
            return sent
        if isinstance(self._end, TcpListener | UnixListener):
            fail(errno.EPIPE if self._family != socket.AF_UNIX else errno.ENOTCONN)
        if address is not None and isinstance(self._end, UnixEnd):
            fail(errno.EISCONN)
        return self.try_send(view.cast("B") if view.nbytes else view)

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        count = not_negative(buflen, "recv")
        return await self._when_readable(self._receive, count, flags)

    async def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        view, count = writable_view(buffer, nbytes)
        data = await self._when_readable(self._receive, *self._real_length(count, flags))
        view[: len(data)] = data[:count]
        return len(data)

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        count = not_negative(bufsize, "recvfrom")
        return await self._when_readable(self._receive_from, count, flags)

    async def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        view, count = writable_view(buffer, nbytes)
        data, source = await self._when_readable(self._receive_from, *self._real_length(count, flags))
        view[: len(data)] = data[:count]
        return len(data), source

    def _real_length(self, count: int, flags: int) -> tuple[int, int]:
        """MSG_TRUNC: a datagram's length is told, not how much of it there was room for."""
        whole = count and self._type == socket.SOCK_DGRAM and flags & getattr(socket, "MSG_TRUNC", 0)
        return (MAX_DATAGRAM if whole else count), flags

    async def send(self, data: Buffer, flags: int = 0, /) -> int:
        return await self._when_writable(self._send, data, flags)

    async def sendto(self, *args: Any) -> int:
        data, *flags, address = args
        address = await self._resolve(address, local=False)
        return await self._when_writable(self._send, data, *(flags or (0,)), address)

    if sys.platform != "win32":

        async def recvmsg(
            self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
        ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
            count = not_negative(bufsize, "recvmsg")
            return await self._when_readable(self._receive_message, count, flags)

        async def recvmsg_into(
            self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
        ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
            views = [memoryview(buffer).cast("B") for buffer in buffers]
            count = sum(map(len, views))
            data, ancillary, returned, source = await self._when_readable(self._receive_message, count, flags)
            rest = data
            for view in views:
                view[: len(rest)] = rest[: len(view)]
                rest = rest[len(view) :]
            return len(data), ancillary, returned, source

        def _receive_message(self, count: int, flags: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
            if self._type != socket.SOCK_DGRAM:
                data, source = self._receive_from(count, flags)
                return data, [], 0, source
            datagram, origin = self._end.read(peek=bool(flags & socket.MSG_PEEK))
            truncated = socket.MSG_TRUNC if len(datagram) > count else 0
            return datagram[:count], [], int(truncated), self._sockaddr(origin)

        async def sendmsg(
            self,
            buffers: Iterable[Buffer],
            ancdata: Iterable[tuple[int, int, Buffer]] = (),
            flags: int = 0,
            address: Any = None,
            /,
        ) -> int:
            data = b"".join(bytes(memoryview(buffer)) for buffer in buffers)
            if any(True for _ in ancdata):
                raise NotImplementedError("simulated sockets carry no ancillary data")
            if address is not None:
                address = await self._resolve(address, local=False)
            return await self._when_writable(self._send, data, flags, address)

    # ---- ends ----------------------------------------------------------------------------------

    def shutdown(self, flag: int, /) -> None:
        self._check_open()
        how = operator.index(flag)
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            fail(errno.EINVAL)
        end = self._end
        if isinstance(end, UdpEnd):
            if end.remote is None:
                fail(errno.ENOTCONN)
            end.receiving_ended |= how != socket.SHUT_WR
            end.sending_ended |= how != socket.SHUT_RD
            self.wake_reader()
        elif isinstance(end, TcpListener | UnixListener):
            if end.is_shut:
                fail(errno.ENOTCONN)
            if how != socket.SHUT_WR:
                end.shut()
                self.wake_reader()
        else:
            if isinstance(end, TcpEnd) and end.state == "SYN_SENT":
                end.give_up()
                return
            if isinstance(end, TcpEnd) and not end.is_connected():
                fail(errno.ENOTCONN)
            if how != socket.SHUT_RD:
                end.finish()
            if how != socket.SHUT_WR:
                end.receive_no_more()
        if how != socket.SHUT_RD:
            self._did_shutdown_write = True

    def close(self) -> None:
        end = self._end
        if end is CLOSED:
            return
        self._end = CLOSED
        left_open.discard(self)
        host = self._host
        if host.sockets.get(self._descriptor) is self:
            del host.sockets[self._descriptor]
        self._descriptor = -1
        if self._family == socket.AF_UNIX and host.unix.get(self._unix_name) is self:
            del host.unix[self._unix_name]
        if isinstance(end, TcpEnd):
            end.close(reset=self._options.lingers == 0)
        elif not isinstance(end, Closed):
            if self._binding is not None:
                host.tcp.release(self._binding)
            if isinstance(end, TcpListener | UnixListener):
                self._note_listener("close")
            end.close()
        self._wake(trio.ClosedResourceError("another task closed this socket"))

    def _note_listener(self, kind: str) -> None:
        port = 0 if self._binding is None else self._binding.port
        self._host.note(kind, port=port, note=shown(self._unix_name))

    def vanish(self) -> None:
        """Its host has crashed."""
        self._end = CRASHED
        self.wake_reader()
        self.wake_writer()

    def leave_open(self) -> None:
        """The network ends, and nobody has closed it: told when the program lets go of it, as by Python's own."""
        self._end = LEFT_OPEN
        left_open.add(self)
        self.wake_reader()
        self.wake_writer()

    def __del__(self) -> None:
        if getattr(self, "_end", CLOSED) is LEFT_OPEN:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def _check_open(self) -> None:
        if isinstance(self._end, Closed):
            self._end.fail()

    # ---- waiting -------------------------------------------------------------------------------

    def is_readable(self) -> bool:
        self._check_open()
        readable: bool = self._end.is_readable()
        return readable

    async def _when_readable(self, call: Callable[..., T], *args: Any) -> T:
        return await self._when(self.wait_readable, call, *args)

    async def _when_writable(self, call: Callable[..., T], *args: Any) -> T:
        return await self._when(self.wait_writable, call, *args)

    async def _when(self, wait: Callable[[], Awaitable[None]], call: Callable[..., T], *args: Any) -> T:
        """Try at once; if it would block, wait and try again.  Cancelled: nothing was done."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            result = call(*args)
        except BlockingIOError:
            pass
        except BaseException:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return result
        while True:
            await wait()
            try:
                return call(*args)
            except BlockingIOError:
                pass

    async def wait_readable(self) -> None:
        """Wait until a receive, or an accept, would not block.

        Raises: trio.BusyResourceError if another task waits; trio.ClosedResourceError if closed, before or meanwhile.
        Cancelled: nothing has changed.
        """
        self._check_waitable(self._reader)
        if self._end.is_readable():
            await trio.lowlevel.checkpoint()
            return
        self._reader = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort_reader)

    async def wait_writable(self) -> None:
        """Wait until a send would not block.

        Raises: trio.BusyResourceError if another task waits; trio.ClosedResourceError if closed, before or meanwhile.
        Cancelled: nothing has changed.
        """
        self._check_waitable(self._writer)
        if self._end.is_writable():
            await trio.lowlevel.checkpoint()
            return
        self._writer = trio.lowlevel.current_task()
        self._end.writer_waits()
        await trio.lowlevel.wait_task_rescheduled(self._abort_writer)

    def _check_waitable(self, waiting: trio.lowlevel.Task | None) -> None:
        if self._end is CLOSED:
            raise trio.ClosedResourceError("this socket is closed")
        if waiting is not None:
            raise trio.BusyResourceError("another task is already using this socket")

    def _abort_reader(self, raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _abort_writer(self, raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake_reader(self) -> None:
        """Something has arrived, or it is over."""
        if self._reader is not None:
            task, self._reader = self._reader, None
            trio.lowlevel.reschedule(task)

    def wake_writer(self) -> None:
        """There is room, or it is over."""
        if self._writer is not None:
            task, self._writer = self._writer, None
            trio.lowlevel.reschedule(task)

    def has_writer(self) -> bool:
        """Does a task wait for room?"""
        return self._writer is not None

    def _wake(self, exc: BaseException) -> None:
        for task in (self._reader, self._writer):
            if task is not None:
                trio.lowlevel.reschedule(task, outcome.Error(exc))
        self._reader = self._writer = None


MAX_DATAGRAM = 65535

# SOCK_NONBLOCK and SOCK_CLOEXEC, which a socket is anyway.
SOCKET_FLAGS = getattr(socket, "SOCK_NONBLOCK", 0) | getattr(socket, "SOCK_CLOEXEC", 0)

# What Linux says to an internet socket of another type below SOCK_MAX; a raw one wants a protocol.
SOCKET_TYPE_ERRORS: dict[int, int] = {
    **dict.fromkeys(range(1, 11), errno.ESOCKTNOSUPPORT),
    socket.SOCK_RAW: errno.EPROTONOSUPPORT,
}

# linux/tcp.h: struct tcp_info; net/tcp_states.h.
TCP_INFO_SIZE = 104
TCP_STATES = {
    "ESTABLISHED": 1,
    "SYN_SENT": 2,
    "SYN_RECV": 3,
    "FIN_WAIT1": 4,
    "FIN_WAIT2": 5,
    "TIME_WAIT": 6,
    "CLOSED": 7,
    "CLOSE_WAIT": 8,
    "LAST_ACK": 9,
    "LISTEN": 10,
    "CLOSING": 11,
}

left_open: weakref.WeakSet[VirtualSocket] = weakref.WeakSet()
"""What nobody had closed when its network ended, nor has since."""

DEFAULT_PROTOCOLS: dict[tuple[int, int], int] = {
    (family, type_): protocol
    for family in (socket.AF_INET, socket.AF_INET6)
    for type_, protocol in ((socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.SOCK_DGRAM, socket.IPPROTO_UDP))
}


def sort_of(family: int, type_: int, proto: int) -> Literal["tcp", "tcp6", "udp", "udp6", "unix"]:
    """Raises: OSError EAFNOSUPPORT, ESOCKTNOSUPPORT, EPROTONOSUPPORT if there is no such socket here."""
    if family == getattr(socket, "AF_UNIX", None):
        if type_ == socket.SOCK_STREAM:
            return "unix"
        fail(errno.ESOCKTNOSUPPORT)
    if family not in (socket.AF_INET, socket.AF_INET6):
        fail(errno.EAFNOSUPPORT)
    if type_ not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        fail(SOCKET_TYPE_ERRORS.get(type_, errno.EINVAL))
    if proto not in (0, DEFAULT_PROTOCOLS[family, type_]):
        fail(errno.EPROTONOSUPPORT)
    if type_ == socket.SOCK_STREAM:
        return "tcp6" if family == socket.AF_INET6 else "tcp"
    return "udp6" if family == socket.AF_INET6 else "udp"


@lru_cache(1024)
def canonical(host: str) -> str:
    """The one spelling of an address; of an IPv4-mapped one, the IPv4 address."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ip)


@lru_cache(1024)
def is_link_local(host: str) -> bool:
    """An IPv6 address that means nothing without an interface (RFC 4007)."""
    return ":" in host and ipaddress.ip_address(host).is_link_local


def shown(address: Address | UnixName) -> str:
    """For people: ``10.0.0.1:4000``, ``*:4000``, ``[::1]:4000``, a path."""
    if isinstance(address, bytes):
        return "@" + address[1:].decode(errors="replace")
    if isinstance(address, str):
        return address
    host, port = address
    if not host and not port:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"


def refuse_urgent(flags: int) -> None:
    if flags & socket.MSG_OOB:
        raise NotImplementedError("simulated sockets carry no urgent data")


def not_negative(count: int, call: str) -> int:
    """A float fails at once (TypeError), as on a real socket."""
    count = operator.index(count)
    if count < 0:
        raise ValueError(f"negative buffersize in {call}")
    return count


def writable_view(buffer: Buffer, nbytes: int) -> tuple[memoryview, int]:
    view = memoryview(buffer).cast("B")
    if view.readonly:
        raise TypeError("a buffer to receive into must be writable")
    count = not_negative(nbytes, "recv_into")
    if count > len(view):
        raise ValueError("buffer too small for requested bytes")
    return view, count or len(view)
