"""A socket on a simulated network, in the place of trio's own.

It does what trio's socket does over the kernel's: wait, and give the kernel's errors.  It adds the sync calls that
trioqt's native link uses (``try_recv`` and so on), so both kinds of program run on it unchanged.  Here is its life:
made, bound, listening or connecting, and closed.
"""

from __future__ import annotations

import errno
import operator
import os
import socket
import struct
import warnings
import weakref
from types import TracebackType
from typing import Any, Self

import trio

from trioqt.links.interrupts import protected
from trioqt.testing.network.fabric import Address
from trioqt.testing.network.host import INTERFACES, Binding, Host, fail, is_multicast
from trioqt.testing.network.no_end import CLOSED, CRASHED, LEFT_OPEN, Closed, Fresh
from trioqt.testing.network.options import Options
from trioqt.testing.network.socket_addresses import (
    check_link,
    destination,
    own_address,
    peer_address,
    resolved,
    shown,
    sockaddr,
)
from trioqt.testing.network.socket_messages import Messages
from trioqt.testing.network.socket_options import choose_interface, join_or_leave, remote_of, what_is_so
from trioqt.testing.network.sorts import SOCKET_FLAGS, sort_of
from trioqt.testing.network.stream_ends import StreamEnd, StreamListener
from trioqt.testing.network.sync_socket import SyncSocket
from trioqt.testing.network.tcp import TcpEnd
from trioqt.testing.network.tcp_listener import TcpListener
from trioqt.testing.network.udp import UdpEnd
from trioqt.testing.network.unix import UnixEnd, UnixListener, UnixName, spelled
from trioqt.testing.network.waiting import Waiting, try_and_wait

__all__ = ["VirtualSocket", "left_open"]

BaseExceptionType = type[BaseException]


@protected
class VirtualSocket(Messages):
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
        self.options: Options = Options(sort)
        self._binding: Binding | None = None
        self._unix_name: UnixName = ""
        self._did_shutdown_write = False
        # Of a connect() that returned before it was done (it always does) Linux tells the outcome to the next one.
        self._outcome_told = True
        self._has_failed = False  # and is bound anew since, so that the next connect() has still to tell that
        self._keeps: tuple[str, int] | None = None  # what bind() was told, if that names a port
        self._waiting = Waiting()
        self._is_inheritable = False
        self.face: weakref.ref[SyncSocket] | None = None
        """As the standard library's, for as long as somebody has it."""
        self.end: Any = Fresh(family)
        if type_ == socket.SOCK_DGRAM:
            self.end = UdpEnd(host, family, self.options)
            self.end.waker = self._waiting
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
        """tcp, tcp6, sctp, sctp6, udp, udp6 or unix."""
        return self.options.sort

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        return self._did_shutdown_write

    def __repr__(self) -> str:
        return f"<virtual {self.options.sort} socket of {self._host.name}, {self.describe()}>"

    def describe(self) -> str:
        """| state local > remote |"""
        if isinstance(self.end, Closed):
            return "left open" if self.end is LEFT_OPEN else "closed"
        return " ".join(str(part) for part in self.row() if part)

    def row(self) -> tuple[str, str, str, int, int]:
        """For netstat: | state | local | remote | bytes unread | bytes unacknowledged |."""
        end = self.end
        local = shown(self._local())
        if isinstance(end, TcpEnd):
            return (end.state, local, shown(end.remote), *end.queued())
        if isinstance(end, StreamListener):
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
        return self._is_inheritable

    def set_inheritable(self, inheritable: bool) -> None:
        """It is noted; a child process inherits nothing all the same."""
        self._is_inheritable = bool(inheritable)

    @property
    def _sock(self) -> SyncSocket:
        """What libraries take from a socket of trio's that want to ask it something."""
        face = None if self.face is None else self.face()
        return SyncSocket.of(self, 0.0) if face is None else face

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: BaseExceptionType | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def arrived_at(self, now: float) -> float | None:
        return self.end.arrived_at if isinstance(self.end, TcpEnd) else None

    def _is_connection(self) -> bool:
        return self._type == socket.SOCK_STREAM and self._family != socket.AF_UNIX

    # ---- options -------------------------------------------------------------------------------

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> Any:
        self._check_open()
        fact = what_is_so(self._host, self._family, self._type, self._proto, self.end, level, optname)
        value = self.options.get(level, optname) if fact is None else fact
        if buflen:
            if not 0 < buflen <= 1024:
                raise OSError("getsockopt buflen out of range")
            packed = struct.pack("i", value) if isinstance(value, int) else value
            return packed[:buflen]
        return value if isinstance(value, int) else struct.unpack_from("i", value.ljust(4, b"\0"))[0]

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None) -> None:
        self._check_open()
        if optlen is not None:
            if value is not None:
                raise TypeError(f"invalid value for argument 'value': {value!r}, must be None when specifying optlen")
            value = bytes(optlen)
        elif value is None:
            raise TypeError("invalid value for argument 'value', must not be None when specifying optlen")
        value = operator.index(value) if hasattr(value, "__index__") else bytes(value)
        if join_or_leave(self._host, self.end, level, optname, value):
            return
        if (level, optname) == (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) and self._is_connection():
            fail(errno.EINVAL)
        if level == socket.IPPROTO_IPV6 and optname == socket.IPV6_V6ONLY and self._local()[1]:
            fail(errno.EINVAL)
        self.options.set(level, optname, choose_interface(self._host, self.end, level, optname, value))
        if self._waiting.has_writer() and self.end.is_writable():
            self._waiting.wake_writer()  # there may be more room now
        if isinstance(self.end, TcpEnd) and (self.options.keep_alive or optname == socket.SO_KEEPALIVE):
            self.end.keep_alive_changed()
        if self._binding is not None:
            self._binding.reuse_address = self.options.flag(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            self._binding.reuse_port = self.options.flag(socket.SOL_SOCKET, socket.SO_REUSEPORT)

    # ---- addresses -----------------------------------------------------------------------------

    def getsockname(self) -> Any:
        self._check_open()
        if self._family == socket.AF_UNIX:
            return self._unix_name
        return sockaddr(self._family, self._local())

    def getpeername(self) -> Any:
        self._check_open()
        end = self.end
        if isinstance(end, UnixEnd):
            return end.peer_name
        remote = remote_of(end)
        if remote is None or (isinstance(end, TcpEnd) and not end.is_connected()) or not remote[1]:
            fail(errno.ENOTCONN)
        return sockaddr(self._family, remote)

    def _local(self) -> Address:
        if self._family == socket.AF_UNIX:
            name = self._unix_name
            return (name if isinstance(name, str) else repr(name), 0)
        if isinstance(self.end, UdpEnd):
            return self.end.local()
        if isinstance(self.end, TcpEnd):
            return self.end.local
        return ("", 0) if self._binding is None else (self._binding.address, self._binding.port)

    async def resolve(self, address: Any, *, local: bool = False) -> Any:
        only_ipv6 = self.options.flag(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return await resolved(address, self._family, self._type, self._proto, only_ipv6=only_ipv6, passive=local)

    def _own_address(self, address: Any) -> Address:
        return own_address(self._host, self._family, self.options, address)

    def _peer_address(self, address: Any) -> Address:
        return peer_address(self._family, self.options, address)

    # ---- binding, listening, accepting ---------------------------------------------------------

    async def bind(self, address: Any) -> None:
        address = await self.resolve(address, local=True)
        await trio.lowlevel.checkpoint()
        self.bind_now(address)

    def bind_now(self, address: Any) -> None:
        """An address without a name in it.  Raises: OSError."""
        self._check_open()
        if self._family == socket.AF_UNIX:
            self._bind_unix(address)
        elif isinstance(self.end, UdpEnd):
            self.try_bind(address)
        else:
            own = self._own_address(address)
            if self._may_be_bound_anew():
                self.end, self._has_failed = Fresh(self._family), True
            elif self._binding is not None or not isinstance(self.end, Fresh):
                fail(errno.EINVAL)
            self._bind_tcp(*own)
            self._keeps = own if own[1] else None

    def try_bind(self, address: Any, /) -> None:
        self._check_open()
        assert isinstance(self.end, UdpEnd)
        if self.end.binding is not None:
            fail(errno.EINVAL)
        self.end.bind(*self._own_address(address))

    def try_connect(self, address: Any, /) -> None:
        self.connect_now(address)

    def option_bytes(self, level: int, optname: int, buflen: int, /) -> bytes:
        value: bytes = self.getsockopt(level, optname, buflen)
        return value

    def interface_index(self, name: str, /) -> int:
        if name not in INTERFACES:
            fail(errno.ENODEV)
        return INTERFACES[name]

    def interface_name(self, index: int, /) -> str:
        for name, number in INTERFACES.items():
            if number == index:
                return name
        fail(errno.ENXIO)

    def _may_be_bound_anew(self) -> bool:
        """Linux: a connect() that fails gives back a port that was not named in bind()."""
        end = self.end
        return isinstance(end, TcpEnd) and end.state == "CLOSED" and not (self._outcome_told or self._keeps)

    def _bind_tcp(self, address: str, port: int) -> None:
        binding = self.options.binding(self.end, self._family, address, port)
        self._host.tcp.take(binding)
        self._binding = binding
        if self._family == socket.AF_INET6 and ":" in address:
            self.options.set(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

    def _bind_unix(self, name: UnixName) -> None:
        if self._unix_name:
            fail(errno.EINVAL)
        if not name:  # Linux: a name of five digits in the abstract name space
            name = b"\0" + f"{self._descriptor % 0x100000:05x}".encode()
        if len(os.fsencode(name)) > 107 + (name[:1] in (b"\0", "\0")):
            raise OSError("AF_UNIX path too long")
        name = spelled(name)
        if name in self._host.unix and not self._is_unlinked(name):
            fail(errno.EADDRINUSE)
        self._unix_name = name
        self._host.unix[name] = self
        if isinstance(name, str):
            self._host.fabric.socket_files.make(name)

    def _is_unlinked(self, name: UnixName) -> bool:
        return isinstance(name, str) and self._host.fabric.socket_files.is_unlinked(name)

    def listen(self, backlog: int = min(socket.SOMAXCONN, 128)) -> None:
        self._check_open()
        backlog = max(0, min(operator.index(backlog), socket.SOMAXCONN))
        end = self.end
        if isinstance(end, UdpEnd):
            fail(errno.EOPNOTSUPP)
        if isinstance(end, StreamListener) and not end.is_shut:
            end.backlog = backlog
            return
        if not isinstance(end, Fresh | StreamListener):
            fail(errno.EINVAL)
        listener: TcpListener | UnixListener
        if self._family == socket.AF_UNIX:
            if not self._unix_name:
                fail(errno.EINVAL)
            listener = UnixListener(self._host, self._unix_name, self.options, backlog)
        else:
            if self._binding is None:
                self._bind_tcp("", 0)
            assert self._binding is not None
            self._host.tcp.listen(self._binding)
            listener = TcpListener(self._host, self._binding, self.options, backlog)
            self._binding.owner = listener
        listener.waker = self._waiting
        self.end = listener
        self._note_listener("listen")
        self._waiting.wake_reader()

    def ignore_newcomers(self) -> bool:
        """Answer nobody any more who asks for a connection, as a server asks of Linux before it closes."""
        if not isinstance(self.end, TcpListener):
            return False
        self.end.is_deaf = True
        return True

    def half_open(self) -> frozenset[object]:
        """The connections that a listener has answered, and that are not established."""
        return self.end.asking() if isinstance(self.end, TcpListener) else frozenset()

    def try_accept(self) -> tuple[VirtualSocket, Any]:
        """Raises: BlockingIOError if no connection waits; OSError."""
        listener = self.end
        if isinstance(listener, Closed):
            listener.accept()
        if not isinstance(listener, StreamListener):
            fail(errno.EOPNOTSUPP if isinstance(listener, UdpEnd) else errno.EINVAL)
        if listener.is_shut:
            fail(errno.EINVAL)
        if not listener.ready:
            fail(errno.EAGAIN)
        self._host.check_new_socket()
        accepted = VirtualSocket(self._host, self._family, self._type, self._proto)
        end: Any = listener.ready.popleft()
        accepted._adopt(end, self.options.copy())
        if isinstance(end, UnixEnd):
            accepted._unix_name = end.name
            return accepted, end.peer_name
        return accepted, sockaddr(self._family, end.remote)

    def _adopt(self, end: Any, options: Options) -> None:
        self.end = end
        self.options = options
        end.waker = self._waiting
        if isinstance(end, TcpEnd):
            end.listener = None
            end.settings = options
            self._binding = end.binding
            end.keep_alive_changed()
        else:
            end.options = options

    async def accept(self) -> tuple[trio.socket.SocketType, Any]:
        return await try_and_wait(self.wait_readable, self.try_accept)

    # ---- connecting ----------------------------------------------------------------------------

    async def connect(self, address: Any) -> None:
        try:
            address = await self.resolve(address)
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                is_done = self.connect_now(address)
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
        error = self.end.take_error()
        if error:
            raise OSError(error, f"Error connecting to {address!r}: {os.strerror(error)}")

    def connect_now(self, address: Any) -> bool:
        """True: it is done already; False: wait until it is writable.  Raises: OSError."""
        end = self.end
        if isinstance(end, Closed):
            end.connect()  # fails
        if isinstance(end, UdpEnd):
            remote = destination(self._family, self.options, address)
            check_link(remote[0], address, end.multicast_interface)
            end.connect(remote)
            return True
        if isinstance(end, StreamEnd | StreamListener):
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
        self._host.check_leaving(local[0], remote[0])
        known = self._host.connections.get((local, remote))
        if known is not None:
            if not known.is_gone() and known.state != "TIME_WAIT":
                fail(errno.EADDRNOTAVAIL)
            known.forget()
        end = TcpEnd(self._host, self._binding, local, remote, self.options)
        self._binding.owner = end
        self._binding.address = local[0]
        self.end = end
        end.waker = self._waiting
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
        self.end = Fresh(self._family)
        self._binding = None
        if self._keeps is not None:
            self._bind_tcp(*self._keeps)
        fail(end.take_error() or errno.ECONNABORTED)

    def _connect_unix(self, name: UnixName) -> None:
        name = spelled(name)
        holder = self._host.unix.get(name)
        if holder is None or self._is_unlinked(name):
            fail(errno.ENOENT if isinstance(name, str) else errno.ECONNREFUSED)
        if not isinstance(holder.end, UnixListener):
            fail(errno.ECONNREFUSED)
        end = UnixEnd(self._unix_name, self.options, self._host)
        holder.end.connect(end)
        end.waker = self._waiting
        self.end = end

    # ---- ends ----------------------------------------------------------------------------------

    def shutdown(self, flag: int, /) -> None:
        self._check_open()
        how = operator.index(flag)
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            fail(errno.EINVAL)
        end = self.end
        if isinstance(end, UdpEnd):
            if end.remote is None:
                fail(errno.ENOTCONN)
            end.receiving_ended |= how != socket.SHUT_WR
            end.sending_ended |= how != socket.SHUT_RD
            self._waiting.wake_reader()
        elif isinstance(end, StreamListener):
            if end.is_shut:
                fail(errno.ENOTCONN)
            if how != socket.SHUT_WR:
                end.shut()
                self._waiting.wake_reader()
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

    def wake(self) -> None:
        """Who waits looks again."""
        self._waiting.wake_reader()
        self._waiting.wake_writer()

    def close(self) -> None:
        end = self.end
        if end is CLOSED:
            return
        self.end = CLOSED
        left_open.discard(self)
        host = self._host
        if host.sockets.get(self._descriptor) is self:
            del host.sockets[self._descriptor]
        self._descriptor = -1
        if self._family == socket.AF_UNIX and host.unix.get(self._unix_name) is self:
            del host.unix[self._unix_name]
        if isinstance(end, TcpEnd):
            end.close(reset=self.options.lingers == 0)
        elif not isinstance(end, Closed):
            if self._binding is not None:
                host.tcp.release(self._binding)
            if isinstance(end, StreamListener):
                self._note_listener("close")
            end.close()
        self.notify_closing()

    def notify_closing(self) -> None:
        """It is about to be closed, or is: who waits for it is told."""
        self._waiting.end(trio.ClosedResourceError("another task closed this socket"))

    def _note_listener(self, kind: str) -> None:
        port = 0 if self._binding is None else self._binding.port
        self._host.note(kind, port=port, note=shown(self._unix_name))

    def vanish(self) -> None:
        """Its host has crashed."""
        self.end = CRASHED
        self._waiting.tell_dead()

    def leave_open(self) -> None:
        """The network ends, and nobody has closed it: told when the program lets go of it, as by Python's own."""
        self.end = LEFT_OPEN
        left_open.add(self)
        self._waiting.tell_dead()

    def __del__(self) -> None:
        if getattr(self, "end", CLOSED) is LEFT_OPEN:
            left_open.discard(self)  # nobody holds it, but the warning does for a while
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def _check_open(self) -> None:
        if isinstance(self.end, Closed):
            self.end.fail()

    # ---- waiting -------------------------------------------------------------------------------

    def is_readable(self) -> bool:
        if self.end is CLOSED:
            self.end.fail()
        readable: bool = self.end.is_readable()
        return readable

    async def wait_readable(self) -> None:
        """Wait until a receive, or an accept, would not block.

        Raises: trio.BusyResourceError if another task waits; trio.ClosedResourceError if closed, before or meanwhile.
        Cancelled: nothing has changed.
        """
        self._check_waitable(self._waiting.reader)
        if self.end.is_readable():
            await trio.lowlevel.checkpoint()
        else:
            await self._waiting.for_reading()

    async def wait_writable(self) -> None:
        """Wait until a send would not block.

        Raises: trio.BusyResourceError if another task waits; trio.ClosedResourceError if closed, before or meanwhile.
        Cancelled: nothing has changed.
        """
        self._check_waitable(self._waiting.writer)
        if self.end.is_writable():
            await trio.lowlevel.checkpoint()
        else:
            await self._waiting.for_writing(self.end.writer_waits)

    async def readable_for_thread(self) -> None:
        """Wait for the same as `wait_readable`, for a worker thread; several may.

        Cancelled: nothing has changed.
        """
        if self.end.is_readable():
            await trio.lowlevel.checkpoint()
        else:
            await self._waiting.thread_for_reading()

    async def writable_for_thread(self) -> None:
        """Wait for the same as `wait_writable`, for a worker thread; several may.

        Cancelled: nothing has changed.
        """
        if self.end.is_writable():
            await trio.lowlevel.checkpoint()
        else:
            await self._waiting.thread_for_writing(self.end.writer_waits)

    def _check_waitable(self, waiting: trio.lowlevel.Task | None) -> None:
        if self.end is CLOSED:
            raise trio.ClosedResourceError("this socket is closed")
        if waiting is not None:
            raise trio.BusyResourceError("another task is already using this socket")


left_open: weakref.WeakSet[VirtualSocket] = weakref.WeakSet()
"""What nobody had closed when its network ended, nor has since."""
