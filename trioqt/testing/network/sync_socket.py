"""The standard library's face of a simulated socket: plain calls, which wait in worker threads only."""

from __future__ import annotations

import errno
import math
import os
import socket
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn, Protocol, Self

import trio

from trioqt.links.interrupts import protected
from trioqt.testing.network.names import is_numeric
from trioqt.testing.network.no_end import Closed
from trioqt.testing.network.real_network import is_real_network_allowed
from trioqt.testing.network.socket_messages import not_negative, writable_view

__all__ = ["Network", "SyncSocket", "Worker", "join", "new_socket", "network_here", "set_worker", "worker_here"]

VirtualSocket = Any
"""`trioqt.testing.network.socket.VirtualSocket`, which needs this module."""

new_socket: Any = socket.socket.__new__
"""Of its base class: it has none of its own."""


class Network(Protocol):
    """What is asked of it."""

    def make_socket(self, family: int, type_: int, proto: int) -> VirtualSocket:
        """A socket of the host on which the calling code runs.  Raises: OSError."""

    def find_socket(self, descriptor: int) -> VirtualSocket | None:
        """Whose number is it?"""

    def host_name(self) -> str:
        """Of the same host."""


class Worker(Protocol):
    """A worker thread that takes turns with trio's, as that thread itself sees it."""

    network: Network | None
    """On which its task was."""

    def do(self, call: Callable[..., Any], *args: Any) -> Any:
        """Have trio's thread call it, now."""

    def ask(self, wait: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Have trio's thread wait for it, while the run goes on.  Raises: OSError ENETDOWN if the run is over."""


@protected
class SyncSocket(socket.socket):
    """The standard library's face of a simulated socket.

    In trio's thread it blocks nobody: a call that would wait raises BlockingIOError if the socket is non-blocking, and
    RuntimeError otherwise, since nothing else could happen meanwhile, so the wait would never end.  In a worker thread
    it waits, in virtual time.
    """

    # The base class is for isinstance(); nothing of it is initialised, so it has no descriptor and closes none.
    __slots__ = ("_seconds", "_virtual")

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: None = None) -> None:
        network = network_here()
        if network is None:
            raise RuntimeError("there is no simulated network here")
        inet, stream = socket.AF_INET, socket.SOCK_STREAM
        wanted = (inet if family == -1 else family, stream if type == -1 else type, 0 if proto == -1 else proto)
        self._show(_now(network.make_socket, *wanted))

    def _show(self, virtual: VirtualSocket) -> None:
        self._virtual = virtual
        self._seconds = socket.getdefaulttimeout()
        self._closed = False
        self._io_refs = 0
        virtual.face = weakref.ref(self)

    @classmethod
    def of(cls, virtual: VirtualSocket, seconds: float | None) -> Self:
        """Another face of a socket that there is, with this time limit."""
        sock: Self = new_socket(cls)
        sock._show(virtual)
        sock._seconds = seconds
        return sock

    @property
    def virtual(self) -> VirtualSocket:
        """What trio's programs use."""
        return self._virtual

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._virtual!r}>"

    @property
    def family(self) -> socket.AddressFamily:
        found: socket.AddressFamily = self._virtual.family
        return found

    @property
    def type(self) -> socket.SocketKind:
        found: socket.SocketKind = self._virtual.type
        return found

    @property
    def proto(self) -> int:
        found: int = self._virtual.proto
        return found

    # ---- waiting, which trio's thread cannot ---------------------------------------------------

    @property
    def timeout(self) -> float | None:
        return self._seconds

    def gettimeout(self) -> float | None:
        return self._seconds

    def settimeout(self, value: float | None, /) -> None:
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        self._seconds = value

    def setblocking(self, flag: bool, /) -> None:
        self._seconds = None if flag else 0.0

    def getblocking(self) -> bool:
        return self._seconds != 0

    def _try(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
        """Call it, and in a worker thread wait until it does not block."""
        worker = worker_here()
        if worker is None and not (trio.lowlevel.in_trio_run() or isinstance(self._virtual.end, Closed)):
            raise RuntimeError(
                f"{name}() of a simulated socket in another thread than trio's: trio.to_thread.run_sync can, with"
                " simulate(threads='inline')"
            )
        wait = self._virtual.writable_for_thread if name in _SENDING else self._virtual.readable_for_thread
        deadline: float | None = None
        while True:
            try:
                return _now(call, *args)
            except BlockingIOError:
                if self._seconds == 0:
                    raise
                if worker is None:
                    self._would_wait(name)
            deadline = self._deadline(worker) if deadline is None else deadline
            worker.ask(_by, deadline, wait)

    def _deadline(self, worker: Worker) -> float:
        return math.inf if self._seconds is None else worker.do(trio.current_time) + self._seconds

    def _would_wait(self, name: str) -> NoReturn:
        raise RuntimeError(
            f"{name}() of a blocking socket would wait for ever: nothing else happens on a simulated network meanwhile."
            "  Set it non-blocking and hand it to trio.socket.from_stdlib_socket, or call this in"
            " trio.to_thread.run_sync, which can wait within simulate()"
        ) from None

    # ---- its life ------------------------------------------------------------------------------

    def fileno(self) -> int:
        found: int = self._virtual.fileno()
        return found

    def detach(self) -> int:
        found: int = _now(self._virtual.detach)
        return found

    def dup(self) -> NoReturn:
        self._virtual.dup()
        raise AssertionError("unreachable")

    def get_inheritable(self) -> bool:
        found: bool = self._virtual.get_inheritable()
        return found

    def set_inheritable(self, inheritable: bool) -> None:
        self._virtual.set_inheritable(inheritable)

    def _real_close(self, _ss: Any = None) -> None:
        _now(self._virtual.close)  # called by close(), or by the last file that makefile() has made

    def shutdown(self, how: int, /) -> None:
        _now(self._virtual.shutdown, how)

    # ---- options and addresses -----------------------------------------------------------------

    def getsockopt(self, level: int, optname: int, buflen: int | None = None, /) -> Any:
        return _now(self._virtual.getsockopt, level, optname, buflen)

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None, /) -> None:
        _now(self._virtual.setsockopt, level, optname, value, optlen)

    def getsockname(self) -> Any:
        return _now(self._virtual.getsockname)

    def getpeername(self) -> Any:
        return _now(self._virtual.getpeername)

    def _address(self, address: Any, *, own: bool) -> Any:
        """An address without a look-up, which takes time, and here is none."""
        if self.family == socket.AF_UNIX:
            if not isinstance(address, str | bytes | os.PathLike):
                raise TypeError(f"a path is a str, bytes or os.PathLike, not {type(address).__name__}")
            return os.fspath(address)
        if not isinstance(address, tuple):
            raise TypeError(f"an address is a tuple, not {type(address).__name__}")
        host, port, *rest = address
        if host == "":
            host = "::" if self.family == socket.AF_INET6 else "0.0.0.0"
        elif host == "<broadcast>":
            host = "255.255.255.255"
        elif host == "localhost" or (own and host == socket.gethostname()):
            host = "::1" if self.family == socket.AF_INET6 else "127.0.0.1"
        if not is_numeric(self.family, host.partition("%")[0]):
            worker = worker_here()
            if worker is None:
                raise RuntimeError(
                    f"{host!r} would be looked up by a call that blocks: look it up by trio.socket.getaddrinfo, and"
                    " give the address"
                )
            found = worker.ask(trio.socket.getaddrinfo, host, port, self.family, self.type)
            return (*found[0][4][:2], *rest)
        return host, port, *rest

    def bind(self, address: Any, /) -> None:
        _now(self._virtual.bind_now, self._address(address, own=True))

    def listen(self, backlog: int = min(socket.SOMAXCONN, 128), /) -> None:
        _now(self._virtual.listen, backlog)

    def accept(self) -> tuple[SyncSocket, Any]:
        virtual, address = self._try("accept", self._virtual.try_accept)
        return type(self).of(virtual, socket.getdefaulttimeout()), address

    def connect(self, address: Any, /) -> None:
        try:
            is_done = _now(self._virtual.connect_now, self._address(address, own=False))
        except BlockingIOError:
            is_done = False
        if is_done:
            return
        if self._seconds == 0:
            raise BlockingIOError(errno.EINPROGRESS, os.strerror(errno.EINPROGRESS))
        # On a link without latency it is over by now, one way or the other.
        self._try("connect", self._check_connected)
        error: int = _now(self._virtual.getsockopt, socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def _check_connected(self) -> None:
        """Raises: BlockingIOError if that is open."""
        if not self._virtual.end.is_writable():
            raise BlockingIOError(errno.EINPROGRESS, os.strerror(errno.EINPROGRESS))

    def connect_ex(self, address: Any, /) -> int:
        try:
            self.connect(address)
        except OSError as exc:
            if exc.errno is None:
                raise
            return exc.errno
        return 0

    # ---- bytes and datagrams -------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        data: bytes = self._try("recv", self._virtual.receive_now, not_negative(bufsize, "recv"), flags)
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        view, count = writable_view(buffer, nbytes)
        data = self._try("recv_into", self._virtual.receive_now, count, flags)
        view[: len(data)] = data
        return len(data)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        found: tuple[bytes, Any] = self._try(
            "recvfrom", self._virtual.receive_from_now, not_negative(bufsize, "recvfrom"), flags
        )
        return found

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        view, count = writable_view(buffer, nbytes)
        data, source = self._try("recvfrom_into", self._virtual.receive_from_now, count, flags)
        view[: len(data)] = data
        return len(data), source

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        return self._try(
            "recvmsg", self._virtual.receive_message_now, not_negative(bufsize, "recvmsg"), flags, ancbufsize
        )

    def recvmsg_into(self, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0, /) -> NoReturn:
        raise NotImplementedError("recvmsg_into() of a simulated socket; recvmsg() is there")

    def send(self, data: Any, flags: int = 0, /) -> int:
        sent: int = self._try("send", self._virtual.send_now, data, flags)
        return sent

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        view = memoryview(data).cast("B")

        def send_all() -> None:
            nonlocal view
            while view.nbytes:
                view = view[self._virtual.send_now(view, flags) :]

        self._try("sendall", send_all)

    def sendto(self, data: Any, *flags_and_address: Any) -> int:
        *flags, address = flags_and_address
        target = self._address(address, own=False)
        sent: int = self._try("sendto", self._virtual.send_now, data, *(flags or (0,)), target)
        return sent

    def sendmsg(self, buffers: Iterable[Any], ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
        if list(ancdata):
            raise NotImplementedError("ancillary data in a call of the standard library's; trio's sockets take it")
        target = None if address is None else self._address(address, own=False)
        data = b"".join(bytes(memoryview(buffer)) for buffer in buffers)
        sent: int = self._try("sendmsg", self._virtual.send_now, data, flags, target)
        return sent

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        return self._sendfile_use_send(file, offset, count)  # type: ignore[attr-defined,no-any-return]


_SENDING = frozenset({"connect", "send", "sendall", "sendto", "sendmsg"})


async def _by(deadline: float, wait: Callable[[], Awaitable[None]]) -> None:
    """For a worker thread.  Raises: TimeoutError."""
    with trio.CancelScope(deadline=deadline) as scope:
        await wait()
    if scope.cancelled_caught:
        raise TimeoutError("timed out")


def _now(call: Callable[..., Any], *args: Any) -> Any:
    """In trio's thread, whoever calls: what is simulated lives there."""
    worker = worker_here()
    return call(*args) if worker is None else worker.do(call, *args)


_thread = threading.local()


def set_worker(worker: Worker | None) -> None:
    """The calling thread is this one from now on, or none."""
    _thread.worker = worker


def worker_here() -> Worker | None:
    """The calling thread, if it is a worker that takes turns with trio's."""
    if trio.lowlevel.in_trio_run():
        return None  # of its own, in a worker thread
    worker: Worker | None = getattr(_thread, "worker", None)
    return worker


_network: trio.lowlevel.RunVar[Network | None] = trio.lowlevel.RunVar("trioqt sockets of the standard library", None)


def join(network: Network | None) -> None:
    """From now on code of this run is on that network."""
    _network.set(network)


def network_here() -> Network | None:
    """That of the run in which the calling code is, unless it may use the real one."""
    if is_real_network_allowed():
        return None
    if trio.lowlevel.in_trio_run():
        return _network.get()
    worker = worker_here()
    return None if worker is None else worker.network
