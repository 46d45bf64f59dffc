"""What a program asks of any socket: its addresses, its options, a local address of its own, to wait for a state.

How it lives and ends is ``scoped_socket.py``.  This module knows nothing of bytes.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

import attrs
import trio

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, from_sockaddr, unmapped
from trioqt.core.errors import ErrorKind, SocketError, kind_of, reason_of
from trioqt.core.network_proxy import NetworkProxy, ProxyUse
from trioqt.core.options import (
    BindMode,
    OptionSpec,
    SocketOption,
    SocketType,
    SystemOption,
    bind_options,
    can_be_remembered,
    check_mode,
    first_options,
    option_for,
    protocol_of,
)
from trioqt.core.socket_state import SocketState
from trioqt.core.states import Input
from trioqt.core.tls import PauseMode
from trioqt.links.base import NativeSocket, Sockaddr
from trioqt.links.bind import any_target, bind_socket
from trioqt.links.connect import look_up
from trioqt.links.interrupts import protected
from trioqt.links.native import set_options
from trioqt.sockets.arguments import Host, check_host, check_options, check_port, spelled
from trioqt.sockets.native_options import read_option, set_first_options, set_option, unsupported
from trioqt.sockets.scoped_socket import ScopedSocket
from trioqt.sockets.under_way import UnderWay

__all__ = ["AbstractSocket", "Bound"]

UNCONNECTED, CONNECTED = SocketState.UNCONNECTED, SocketState.CONNECTED


@attrs.define(eq=False)
class Bound:
    """A socket that has a local address at most, and no connection yet."""

    sock: trio.socket.SocketType
    sockaddr: Sockaddr
    is_any: bool  # of both families

    def carries_ipv4(self) -> bool:
        """It does, though it may be an IPv6 one."""
        return self.is_any or unmapped(self.sockaddr[0]) != self.sockaddr[0]

    def is_spare(self) -> bool:
        """Has it no local address either?  Then it was adopted, for the next ``connect_to_host``."""
        return not self.sockaddr[1]

    def local(self) -> tuple[HostAddress, int]:
        """Its address, ANY included, and its port."""
        if self.is_spare():
            return HostAddress.NULL, 0
        return (HostAddress.ANY if self.is_any else from_sockaddr(self.sockaddr)), self.sockaddr[1]


@protected
class AbstractSocket(ScopedSocket):
    """What every socket has: a scope, a state, a last error, events.  Qt: QAbstractSocket.

    It belongs to the ``trio.run`` in which its scope began, until it is closed.  A call from another thread or run
    raises RuntimeError and does nothing; a thread of trio's uses ``trio.from_thread``.

    Args:
      parent: The nursery for its tasks, for a socket that is not entered.  It only holds them: you close the socket,
        as any trio stream; once that nursery has ended the socket is closed.
    """

    __slots__ = ("_bound", "_options", "_pause_mode", "_peer_name", "_under_way")

    def __init__(self, parent: trio.Nursery | None = None) -> None:
        super().__init__(parent)
        self._under_way: UnderWay | None = None  # binds that look up a name
        self._bound: Bound | None = None
        self._options: dict[SocketOption, int] | None = None
        self._peer_name = ""
        self._pause_mode = PauseMode.NEVER

    # -- what it says of itself -------------------------------------------------------------

    def socket_type(self) -> SocketType:
        """TCP, UDP or SCTP.  Qt: socketType()."""
        raise NotImplementedError

    def local_address(self) -> HostAddress:
        """This end's address; ``HostAddress.NULL`` if it has none.  Qt: localAddress()."""
        self._check_call()
        return self._local()[0]

    def local_port(self) -> int:
        """This end's port; 0 if it has none.  Qt: localPort()."""
        self._check_call()
        return self._local()[1]

    def peer_address(self) -> HostAddress:
        """The peer's address while connected, else ``HostAddress.NULL``.  Qt: peerAddress()."""
        self._check_call()
        peer = self._peer()
        return HostAddress.NULL if peer is None else from_sockaddr(peer)

    def peer_port(self) -> int:
        """The peer's port while connected, else 0.  Qt: peerPort()."""
        self._check_call()
        peer = self._peer()
        return 0 if peer is None else int(peer[1])

    def peer_name(self) -> str:
        """What ``connect_to_host`` was called with, also after the end; empty before.  Qt: peerName()."""
        self._check_call()
        return self._peer_name

    def socket_descriptor(self) -> int:
        """The OS handle, or -1.  Qt: socketDescriptor()."""
        self._check_call()
        native = self._native()
        # What has just ended is still here while that is told.
        ended = self._machine.state is UNCONNECTED and (self._bound is None or not self._bound.is_spare())
        return -1 if native is None or ended else native.fileno()

    def _local(self) -> tuple[HostAddress, int]:
        if self._bound is not None:
            return self._bound.local()
        return HostAddress.NULL, 0

    def _peer(self) -> Sockaddr | None:
        return None

    def _native(self) -> NativeSocket | trio.socket.SocketType | None:
        """The system's socket, if there is one."""
        return None if self._bound is None else self._bound.sock

    # -- options ----------------------------------------------------------------------------

    def set_socket_option(self, option: SocketOption, value: int) -> None:
        """Set ``option`` now, and on every socket that this object will open.

        Raises:
          SocketError: UNSUPPORTED_SOCKET_OPERATION if this platform, or a socket that is a stream, has no such
            option, or it can only be read; or what the system answers.
          trio.ClosedResourceError: The socket is closed.
          TypeError, ValueError: The value is no int, or out of range.
        Qt: setSocketOption().  There, an option set before the socket is open is forgotten, and no failure is told.
        """
        if not isinstance(option, SocketOption):
            raise TypeError(f"an option is a SocketOption, not {type(option).__name__}")
        # The numbers may differ between the families; which options there are, and their values, do not.
        kind = self._kind()
        spec = option_for(option, socket.AF_INET, kind)
        number = (spec or OptionSpec(0, 0)).to_system(value)
        self._check_call()
        self._check_open(f"set {option.name}")
        native = self._native()
        if spec is None or spec.read_only:
            raise unsupported(option)
        if native is not None:
            set_option(native, option, number, self._peer(), kind)
        elif self._machine.state is CONNECTED or not can_be_remembered(option, kind):
            raise unsupported(option)
        self._options = {**(self._options or {}), option: number}

    def socket_option(self, option: SocketOption) -> int:
        """The value of ``option`` as the system has it; before there is a socket, as it was set here.

        Raises:
          SocketError: UNSUPPORTED_SOCKET_OPERATION as for ``set_socket_option``; OPERATION if there is no socket and
            nothing was set.
        Qt: socketOption().  There, an invalid QVariant in place of the errors.
        """
        if not isinstance(option, SocketOption):
            raise TypeError(f"an option is a SocketOption, not {type(option).__name__}")
        self._check_call()
        native = self._native()
        if native is not None:
            return read_option(native, option, self._peer(), self._kind())
        if self._machine.state is CONNECTED or option_for(option, socket.AF_INET, self._kind()) is None:
            raise unsupported(option)
        try:
            return (self._options or {})[option]
        except KeyError:
            self._refuse(f"read {option.name}")

    def _prepare(self, sock: NativeSocket | trio.socket.SocketType, peer: Sockaddr | None) -> None:
        """Set on a new socket, for ``peer``, what was asked for before there was one."""
        kind = self._kind()
        if self._options is None:
            set_first_options(sock, kind)
            return
        for option, value in {**first_options(kind), **self._options}.items():
            set_option(sock, option, value, peer, kind)

    # -- stopping to ask --------------------------------------------------------------------

    def pause_mode(self) -> PauseMode:
        """When it stops and asks; NEVER unless changed.  Qt: pauseMode()."""
        self._check_call()
        return self._pause_mode

    def set_pause_mode(self, mode: PauseMode) -> None:
        """Change it, for the handshakes to come.  Only an ``SslSocket`` has something to ask.

        ON_SSL_ERRORS: after ``SslErrors`` nothing goes on until ``resume``.

        Raises:
          SocketError: UNSUPPORTED_SOCKET_OPERATION for ON_SSL_ERRORS of an ``SslSocket`` if pyOpenSSL is not there
            (``pip install trioqt[tls]``).
          TypeError: It is no PauseMode.
        Qt: setPauseMode().
        """
        if not isinstance(mode, PauseMode):
            raise TypeError(f"a mode is a PauseMode, not {type(mode).__name__}")
        self._check_call()
        self._pause_mode = mode

    def resume(self) -> None:
        """Go on after a pause: if all errors are ignored by now, it gets encrypted; else the handshake has failed.

        No effect if it is not paused.  Qt: resume().
        """
        self._check_call()

    # -- a local address --------------------------------------------------------------------

    async def bind(
        self,
        host: Host = HostAddress.ANY,
        port: int = 0,
        mode: BindMode | None = None,
        *,
        options: Sequence[SystemOption] = (),
    ) -> None:
        """Take a local address.  State: UNCONNECTED -> BOUND.

        Args:
          host: An address of this host, a name for one, or ``HostAddress.ANY``: both families where there are both.
          port: 0 lets the system choose.
          mode: Who else may have it; None is ``BindMode.DEFAULT_FOR_PLATFORM``.
          options: Of the system's, as ``(level, number, value)`` with an int or bytes, set before the address is taken
            and behind those of ``set_socket_option``: ``(SOL_SOCKET, SO_BINDTODEVICE, b"eth0")``.

        Raises:
          SocketError: ADDRESS_IN_USE, SOCKET_ADDRESS_NOT_AVAILABLE, SOCKET_ACCESS, HOST_NOT_FOUND;
            UNSUPPORTED_SOCKET_OPERATION if the system has no ``REUSE_PORT``; what it says to an option that it refuses,
            which the message names; OPERATION if the socket is not UNCONNECTED.  The state has not changed, and it is
            told as ``ErrorOccurred``.
          ValueError: The mode contradicts itself.
          trio.ClosedResourceError: Another task aborted, disconnected or closed the socket meanwhile.
        Cancelled: nothing was taken.
        Qt: bind().  There, binding twice reports UnknownSocketError, and while connected UnfinishedSocketOperation;
          an IPv4-mapped address is refused.
        """
        self._check_call()
        host, port = check_host(host), check_port(port)
        if mode is not None and not isinstance(mode, BindMode):
            raise TypeError(f"a mode is a BindMode, not {type(mode).__name__}")
        mode = BindMode.DEFAULT_FOR_PLATFORM if mode is None else mode
        check_mode(mode)
        wanted, transport = check_options(options), self._kind()
        await self._yield_to_its_end()
        self._check_can_bind()
        if self._under_way is None:
            self._under_way = UnderWay()
        sock: trio.socket.SocketType | None = None
        is_any = host == HostAddress.ANY

        def prepare(sock: NativeSocket | trio.socket.SocketType, address: Sockaddr) -> None:
            self._prepare(sock, None)
            set_options(sock, wanted)

        try:
            with self._under_way.call("bind"):
                if await self._bound_elsewhere(port):
                    return
                if host == HostAddress.NULL:
                    raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "there is none")
                modes = bind_options(mode, datagrams=transport is SocketType.UDP)
                target = any_target(port) if is_any else (await look_up(host, port, NetworkLayerProtocol.ANY_IP))[0]
                sock = await bind_socket(
                    target,
                    modes,
                    dual_stack=target.dual_stack,
                    socket_type=self._system_type(),
                    proto=protocol_of(transport),
                    prepare=prepare,
                )
        except trio.ClosedResourceError:
            if sock is not None:
                sock.close()
            raise
        except (OSError, UnicodeError) as exc:
            self._check_can_bind()  # another task may have done something meanwhile, and that is what counts
            kind, message = (
                kind_of(exc),
                f"cannot bind to {spelled(host) or 'no address'} port {port}: {reason_of(exc)}",
            )
            self._set_error(kind, message)
            self._machine.feed(Input.BIND_FAILED, self._tell)
            raise SocketError(kind, message, errno=exc.errno if isinstance(exc, OSError) else None) from exc
        assert sock is not None
        self._took_address(Bound(sock, sock.getsockname(), is_any))

    async def _bound_elsewhere(self, port: int) -> bool:
        """Has the socket got another address than one of this host's, at a proxy?  Raises: OSError, UnicodeError."""
        return False

    def _call_off(self) -> None:
        """An end is made: it ends what has no state yet too."""
        if self._under_way is not None:
            self._under_way.call_off()

    def _check_can_connect(self) -> None:
        self._check_can_begin("connect")
        if self._machine.state not in (UNCONNECTED, SocketState.BOUND):
            self._refuse_aloud("connect", Input.LOOK_UP)

    def _proxy_to_connect(self, use: ProxyUse, name: str, port: int) -> NetworkProxy | None:
        """The proxy by which an attempt goes that can begin; None: none.

        Raises: as ``_choose_proxy``, which is told, and ``_check_can_connect``.
        """
        try:
            proxy = self._choose_proxy(use, name, port)
        except SocketError as error:
            self._set_error(error.kind, error.message)
            self._machine.feed(Input.NO_PROXY, self._tell)
            raise
        self._check_can_connect()  # a factory may have done something with it
        return proxy

    def _check_can_bind(self) -> None:
        self._check_can_begin("bind")
        if not self._machine.allows(Input.BIND):
            self._refuse_aloud("bind", Input.BIND_FAILED)

    def _took_address(self, bound: Bound) -> None:
        try:
            self._check_can_bind()  # another task may have done something meanwhile
        except BaseException:
            bound.sock.close()
            raise
        self._unbind()  # a spare one
        self._bound = bound
        self._machine.feed(Input.BIND, self._tell)

    def _unbind(self) -> None:
        bound, self._bound = self._bound, None
        if bound is not None:
            bound.sock.close()
        self._changed()

    def _system_type(self) -> int:
        """SOCK_STREAM or SOCK_DGRAM."""
        raise NotImplementedError

    def _kind(self) -> SocketType:
        """What ``socket_type`` says, whoever asks."""
        return SocketType.UDP if self._system_type() == socket.SOCK_DGRAM else SocketType.TCP

    def set_socket_descriptor(self, descriptor: int, state: SocketState = SocketState.CONNECTED) -> None:
        """Adopt an open OS socket (from another process, a supervisor, a test).

        The descriptor is the socket's from now on, and is closed with it.  A connection that this socket has is
        replaced, and its unread and unsent bytes are dropped.

        Args:
          state: CONNECTED, BOUND or UNCONNECTED, what the OS socket is.  One that is UNCONNECTED is neither bound nor
            connected; the next ``connect_to_host`` uses it for the addresses of its family, until one answers.  One
            that was reset already is CONNECTED, without a peer, and the first read finds the failure (not on Windows).

        Raises:
          SocketError: UNSUPPORTED_SOCKET_OPERATION if it is no open TCP socket in that state, or this socket's own,
            and then ``error()`` says so too; OPERATION while looking up, connecting or closing, and for BOUND and
            UNCONNECTED while bound or connected.  The descriptor is still yours.
          TypeError, ValueError: The descriptor is no int, or the state is none of the three.
        Qt: setSocketDescriptor().  There, what is no TCP socket is accepted.
        """
        raise NotImplementedError

    # -- waiting ----------------------------------------------------------------------------

    async def wait_for_connected(self) -> None:
        """Wait until CONNECTED; returns at once if it is.

        Raises:
          SocketError: What the attempt failed with; OPERATION if no attempt runs.
          trio.ClosedResourceError: Another task ended the attempt, or the connection, before or meanwhile.
        Cancelled: nothing has happened; the attempt goes on.
        Qt: waitForConnected().  There, a time-out drops the attempt.
        """
        self._check_call()
        if self._is_idle():
            await self._refuse_at_once("wait for a connection")
        generation = self._generation
        await trio.lowlevel.checkpoint()
        while True:
            self._check_same(generation, "wait for a connection")
            if self.state() is CONNECTED:
                return
            if self._machine.state not in (SocketState.HOST_LOOKUP, SocketState.CONNECTING):
                self._refuse("wait for a connection")
            await self._wait_changed()

    async def wait_for_disconnected(self) -> None:
        """Wait until UNCONNECTED, whatever the reason; ``error()`` tells it.  Returns at once if it is.

        Returns also if another attempt has begun since, or ``set_socket_descriptor`` has replaced the connection.

        Reads ahead while it waits, up to ``read_buffer_size``: a peer that ends behind more unread bytes than that is
        noticed once they are read.  With ``half_open`` the peer's end alone is not it.

        Cancelled: nothing has happened.
        Qt: waitForDisconnected().  There, False if it was unconnected already.
        """
        self._check_call()
        ends = self._ends  # of what it waits for now: another attempt may begin in the step in which that ends
        if self._machine.state is UNCONNECTED:
            await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.checkpoint()
        self._watch_end(1)
        try:
            while self._machine.state is not UNCONNECTED and self._ends == ends:
                await self._wait_changed()
        finally:
            self._watch_end(-1)

    # -- for the classes below --------------------------------------------------------------

    def _taken(self) -> None:
        """It has waited with a server to be taken, and is taken now."""

    def _watch_end(self, more: int) -> None:
        """So many tasks more wait for the end, and want to hear of it soon."""
