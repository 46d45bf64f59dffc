"""What every socket has: a scope, a state, a last error, events, a local address, options.

This module knows nothing of bytes.  Everything here that changes a state feeds the table of ``core/states.py``.

Half of it is docstrings of the public members, which are read on one page; and whom a call is refused by, and why, must
be judged beside the state that it is judged from.
"""

from __future__ import annotations

import socket
import sys
from _thread import get_ident
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import NoReturn, Self

import attrs
import trio

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, from_sockaddr, unmapped
from trioqt.core.errors import ErrorKind, SocketError, is_cancellation, keeping, kind_of, put_behind, reason_of
from trioqt.core.events import (
    Connected,
    Disconnected,
    ErrorOccurred,
    Event,
    HostFound,
    ReadChannelFinished,
    StateChanged,
)
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
from trioqt.core.states import Input, StateMachine, Told
from trioqt.core.tls import PauseMode
from trioqt.links.base import NativeSocket, Resettable, Sockaddr
from trioqt.links.bind import any_target, bind_socket
from trioqt.links.connect import AttemptsFailed, look_up
from trioqt.links.interrupts import protected
from trioqt.links.native import set_options
from trioqt.sockets.arguments import Host, check_host, check_options, check_port, spelled
from trioqt.sockets.block import Block
from trioqt.sockets.native_options import read_option, set_first_options, set_option, unsupported
from trioqt.sockets.own_run import OfOneRun
from trioqt.sockets.proxy_choice import HasProxy
from trioqt.sockets.under_way import UnderWay

__all__ = ["AbstractSocket", "Bound", "Failure", "Generation", "is_another_task", "raise_failure"]

# Events without a value of their own are built once.
EVENTS: dict[Told, Event] = {state: StateChanged(state) for state in SocketState}
EVENTS.update({kind: kind() for kind in (HostFound, Connected, ReadChannelFinished, Disconnected)})

UNCONNECTED, CONNECTED = SocketState.UNCONNECTED, SocketState.CONNECTED


@attrs.define
class Failure:
    """Why the connection ended, kept to be raised in every later call."""

    kind: ErrorKind
    message: str
    cause: BaseException | None
    told: bool = False  # a call has raised it

    def error(self) -> SocketError:
        """A new exception each time, so that tracebacks do not pile up in one."""
        # When several addresses were tried: the last attempt's, as the kind is.
        last = self.cause.exceptions[-1] if isinstance(self.cause, AttemptsFailed) else self.cause
        number = last.errno if isinstance(last, OSError) else None
        error = SocketError(self.kind, self.message, errno=number)
        error.__cause__ = self.cause
        return error


@attrs.define(eq=False)
class Generation:
    """One attempt and its connection, so that who waits for one does not go on with the next, and knows its fate."""

    connected: bool = False  # it came as far as a connection
    failure: Failure | None = None  # it ended by this
    unsent: bool = False  # queued bytes were dropped at its end
    aborted: bool = False  # it was ended here, by abort()
    dropped: bool = False  # what was unread is gone, by an end that was made here
    woken: bool = False  # a task that waited on its link to receive was woken by such an end
    ended_by: trio.lowlevel.Task | None = None  # or in order, or replaced, by this task; others could not know


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


def raise_failure(failure: Failure) -> NoReturn:
    """Raise what a connection, or an attempt at one, has ended by."""
    failure.told = True
    raise failure.error()


def is_another_task(task: trio.lowlevel.Task | None) -> bool:
    """Was it done by a task, and not by the one that runs?  Then it could not know."""
    return task is not None and task is not trio.lowlevel.current_task()


@protected
class AbstractSocket(HasProxy, Resettable):
    """What every socket has: a scope, a state, a last error, events.  Qt: QAbstractSocket.

    It belongs to the ``trio.run`` in which its scope began, until it is closed.  A call from another thread or run
    raises RuntimeError and does nothing; a thread of trio's uses ``trio.from_thread``.

    Args:
      parent: The nursery for its tasks, for a socket that is not entered.  It only holds them: you close the socket,
        as any trio stream; once that nursery has ended the socket is closed.
    """

    __slots__ = (
        "__weakref__",
        "_block",
        "_bound",
        "_closed",
        "_ends",
        "_error",
        "_error_string",
        "_generation",
        "_home",
        "_lot",
        "_machine",
        "_open",
        "_options",
        "_parent",
        "_pause_mode",
        "_peer_name",
        "_retired",
        "_under_way",
    )

    def __init__(self, parent: trio.Nursery | None = None) -> None:
        if parent is not None and not isinstance(parent, trio.Nursery):
            raise TypeError(f"a parent is a trio.Nursery, not {type(parent).__name__}")
        super().__init__()
        self._machine = StateMachine()
        self._parent = parent
        # Where its tasks run: the parent, or its own block, or the nursery of its server's.
        self._home: trio.Nursery | Block | None = parent
        if parent is not None:
            self._belong_to(parent)
        self._block: Block | None = None
        self._closed = False
        self._retired = False  # aclose, or the end of the block, has begun: nothing new begins
        self._under_way: UnderWay | None = None  # binds that look up a name
        self._generation = Generation()
        self._ends = 0  # how often it became UNCONNECTED, or a connection was replaced
        self._open = False  # a connection was begun or given, and none was aborted since
        self._error: ErrorKind | None = None
        self._error_string = ""
        self._lot: trio.lowlevel.ParkingLot | None = None
        self._bound: Bound | None = None
        self._options: dict[SocketOption, int] | None = None
        self._peer_name = ""
        self._pause_mode = PauseMode.NEVER

    # -- the scope --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin the socket's life.  Its tasks, if it needs any, end with the block.

        May be nested (a handler may enter the socket that ``serve`` entered): the inner exit ends the socket, the
        outer one finds nothing to do.  After its block a socket is closed.

        Raises: trio.ClosedResourceError if it has been closed.
        """
        self._check_call()
        if self._closed:
            raise trio.ClosedResourceError("the socket is closed")
        if self._home is None:
            block = Block()
            if self._may_fail():
                await block.open_nursery()
            self._home = self._block = block
            self._belongs_here()
            block.entries = 1
        elif self._block is not None and self._block.task is trio.lowlevel.current_task():
            self._block.entries += 1
        self._entered()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it: flush and disconnect after a normal body, abort after a cancellation, reset after an exception.

        A peer must not take half an answer for the whole, so whatever else than a cancellation leaves the block, also
        KeyboardInterrupt, or a group that is not of cancellations alone, is as ``abort(reset=True)``.

        The body's exception goes out as it is, never wrapped in an ExceptionGroup: the socket's own tasks do not
        raise.  (A bug in trioqt itself is the one thing that arrives in a group.)

        Raises:
          SocketError: After a normal body, if queued bytes could not be sent (SOCKET_TIMEOUT after
            ``flush_timeout``, UNFINISHED_SOCKET_OPERATION if that ends an attempt), unless a call has already raised
            that failure.
        Cancelled: the connection has ended, as by ``abort()``.
        """
        self._check_call()
        # Whatever goes wrong at one of these steps, as when somebody has closed the descriptor, the others follow.
        try:
            try:
                if exc is not None:
                    self.abort(reset=not is_cancellation(exc))
                else:
                    await self._leave()
            finally:
                try:
                    self._close()
                finally:
                    if self._block is not None and self._block.task is trio.lowlevel.current_task():
                        self._block.entries -= 1
                        if self._block.entries == 0:
                            block, self._block = self._block, None
                            with keeping(sys.exception()):
                                await block.end()
        except BaseException as raised:
            put_behind(raised, exc)
            raise

    def _may_fail(self) -> bool:
        """Will its tasks call what is not ours, and so may fail in a way that is to end its block?"""
        return False

    def _entered(self) -> None:
        """A block was entered."""

    async def _leave(self) -> None:
        """End the connection in order, at the end of a block whose body ended normally."""
        raise NotImplementedError

    def _close(self) -> None:
        """Abort whatever is left, for good."""
        try:
            self._abort()
        finally:
            self._closed = self._retired = True
            self._open = False
            self._end_events()
        if self._lot is not None:
            self._lot.unpark_all()
        self._belongs_nowhere()

    def _check_call(self) -> None:
        """What every call begins with.  Raises: RuntimeError."""
        if self._parent is None:
            OfOneRun._check_run(self)  # what super() finds, for a third of its cost
        else:
            self._check_run()
            self._in_scope()  # which closes it, if that nursery has ended

    def _check_thread(self) -> None:
        """The same where bytes pass, which must not cost more than it has to."""
        if get_ident() != self._thread:
            self._check_run()
        if self._parent is not None:
            self._in_scope()

    def _check_run(self) -> None:
        if self._parent is not None and not self._closed and get_ident() == self._thread:
            over = not trio.lowlevel.in_trio_run() and self._parent not in self._parent.parent_task.child_nurseries
            if over:
                return  # its run is over too: there it lives no more, only nobody has looked yet
        super()._check_run()

    def _in_scope(self) -> bool:
        """Has it a nursery that can hold its tasks?"""
        if self._parent is None or self._closed:
            return self._home is not None
        if self._parent in self._parent.parent_task.child_nurseries:
            return True
        # Nobody told us when it ended: a nursery has no exit hook, and a task that waits for it would keep it open.
        self._close()
        return False

    # -- what it says of itself -------------------------------------------------------------

    def state(self) -> SocketState:
        """Where in its life it is.  Qt: state()."""
        self._check_call()
        return self._machine.state

    def error(self) -> ErrorKind | None:
        """The last error, or None; reset when ``connect_to_host`` begins.

        Qt: error().  There, UnknownSocketError means none.
        """
        self._check_call()
        return self._error

    def error_string(self) -> str:
        """The last error in words; empty if there was none.  Qt: errorString(), with our wording."""
        self._check_call()
        return self._error_string

    def is_valid(self) -> bool:
        """Is it in use: bound, connecting, connected, or with a past of which something may be left to read?

        It is from ``connect_to_host``, ``bind`` or ``set_socket_descriptor`` on, and still is after a failed attempt,
        ``disconnect_from_host`` or the end of the connection.  It is not when new, after ``abort``, ``aclose`` or its
        block, and after what was only bound has ended; nor in the moment in which the loss of the connection, or with
        ``half_open=False`` the peer's end, is found and CLOSING has not been told yet.

        Qt: isValid().  There, a loss that a write finds closes the device, so it is not valid after that.
        """
        state = self.state()
        if state is CONNECTED:
            return self._generation.failure is None
        return self._open or state is not UNCONNECTED

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

    # -- the end ----------------------------------------------------------------------------

    def abort(self, *, reset: bool = False) -> None:
        """Drop the connection, unsent and unread bytes, now.  Never waits, never fails, works when cancelled.

        Tasks waiting on the socket wake with ``trio.ClosedResourceError``, and so ends every later call that needs the
        connection, until ``connect_to_host`` starts anew.  The peer sees a reset if queued bytes were dropped, or if
        ``reset``; else the end.  Over a stream it sees what the stream can do.

        Bytes that were queued for the connection of an attempt that it drops are told as ``ErrorOccurred``:
        UNFINISHED_SOCKET_OPERATION.

        Args:
          reset: The peer must not take this for a clean end, because something went wrong here.

        Qt: abort().  There, the peer never sees a reset.
        """
        raise NotImplementedError

    def _abort(self, *, reset: bool = False) -> None:
        """The same, whoever asks."""
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

    # -- for the classes above and below ----------------------------------------------------

    def _taken(self) -> None:
        """It has waited with a server to be taken, and is taken now."""

    def _watch_end(self, more: int) -> None:
        """So many tasks more wait for the end, and want to hear of it soon."""

    def _tell(self, thing: Told) -> None:
        """Post one thing that the table tells, if anybody listens."""
        if thing is UNCONNECTED:
            self._ends += 1
        if self._subscriptions:
            if thing is ErrorOccurred:
                assert self._error is not None
                self._post(ErrorOccurred(self._error, self._error_string))
            else:
                self._post(EVENTS[thing])

    def _set_error(self, kind: ErrorKind, message: str) -> None:
        self._error, self._error_string = kind, message

    def _set_failure(self, kind: ErrorKind, message: str, cause: BaseException | None) -> None:
        """The connection ends by this; from now on every call that needs it raises it."""
        self._set_error(kind, message)
        # Without its traceback: that would keep frames, and through them this socket, alive.
        self._generation.failure = Failure(kind, message, cause.with_traceback(None) if cause is not None else None)

    def _raise_failure(self) -> NoReturn:
        assert self._generation.failure is not None
        raise_failure(self._generation.failure)

    def _is_shielded(self) -> bool:
        """Do our tasks outlive a cancellation from outside, until the block has ended the socket?

        Where they run among trio's system tasks they meet none but the end of the run, which would wait for them for
        ever if the program has not left the block.
        """
        return self._parent is None and not (isinstance(self._home, Block) and self._home.nursery is None)

    def _start(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run one of our tasks in the scope."""
        self._check_run()
        assert self._home is not None
        try:
            self._home.start_soon(task, *args)
        except RuntimeError:
            self._close()  # the parent's block is being left in this very step, and takes no more tasks

    def _check_open(self, attempted: str) -> None:
        """Raises: trio.ClosedResourceError."""
        if self._closed:
            raise trio.ClosedResourceError(f"cannot {attempted}: the socket is closed")

    def _need(self, call: Input, attempted: str) -> None:
        """Raise if the table or the scope does not allow ``call`` now."""
        self._check_can_begin(attempted)
        if not self._machine.allows(call):
            self._refuse(attempted, ended=False)

    async def _yield_to_its_end(self) -> None:
        """A task that is cancelled with the block, and has its first turn after that, has nothing to complain of."""
        if self._retired:
            await trio.lowlevel.checkpoint_if_cancelled()

    def _check_can_begin(self, attempted: str) -> None:
        """Raise if nothing may begin any more: the socket is closed, or out of its scope, or about to be closed."""
        if self._retired and not self._closed:
            raise trio.ClosedResourceError(f"cannot {attempted}: the socket is being closed")
        if self._closed or not self._in_scope():
            self._refuse(attempted, ended=False)

    def _refuse(self, attempted: str, *, ended: bool = True, began: Generation | None = None) -> NoReturn:
        """Raise what a call gets that cannot be done: closed, the failure that ended it, or the wrong state.

        The one place that says whose mistake it is.  What another task did to the connection, whether it closed,
        aborted, replaced or ended it in order, the caller could not know: that is ``trio.ClosedResourceError``.  To go
        on with a connection that this very task has ended in order is its mistake, and so is a call that was never
        possible.

        Args:
          ended: The call needs a connection, so the reason why that ended is the answer.
          began: The attempt or connection that the call had rightly begun with, and has waited for.
        """
        in_scope = self._in_scope()  # which closes it, if its parent nursery has ended
        self._check_open(attempted)
        if ended:
            generation = self._generation
            if began is not None:
                self._check_same(began, attempted)
            if self._generation.failure is not None:
                self._raise_failure()
            if generation.aborted or is_another_task(generation.ended_by):
                raise trio.ClosedResourceError(f"cannot {attempted}: the connection was ended here")
        if not in_scope:
            raise SocketError(ErrorKind.OPERATION, f"cannot {attempted} outside of the socket's `async with` block")
        raise SocketError(ErrorKind.OPERATION, self._wrong_state(attempted))

    def _is_idle(self) -> bool:
        """Is there neither a connection nor an attempt at one?

        Then a call that would wait is judged in the step in which it is made, and lets others run after that: an
        attempt that has been scheduled may begin while they do, or may have begun, and the outcome was by lot.
        """
        return self.state() in (UNCONNECTED, SocketState.BOUND)

    async def _refuse_at_once(self, attempted: str) -> NoReturn:
        """``_refuse`` by what is so now, as a checkpoint."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._refuse(attempted)
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _check_same(self, generation: Generation, attempted: str) -> None:
        """Every call that waits looks at this when it goes on: it belongs to the connection that it began with.

        Raises: SocketError, trio.ClosedResourceError: Another attempt or connection has begun since; how its own ended.
        """
        if self._generation is not generation:
            if generation.failure is not None:
                raise_failure(generation.failure)
            raise trio.ClosedResourceError(f"cannot {attempted}: the connection was ended here")

    def _wrong_state(self, attempted: str) -> str:
        return f"cannot {attempted} while {self._machine.state.name.lower().replace('_', ' ')}"

    def _refuse_aloud(self, attempted: str, told: Input) -> NoReturn:
        """The same for a call that is wrong in this state and, as in Qt, tells so too."""
        message = self._wrong_state(attempted)
        self._set_error(ErrorKind.OPERATION, message)
        self._machine.feed(told, self._tell)
        raise SocketError(ErrorKind.OPERATION, message)

    async def _wait_changed(self) -> None:
        """Wait for a call of ``_changed``: then look again."""
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        await self._lot.park()

    def _changed(self) -> None:
        """Wake whoever waits for anything about this socket."""
        if self._lot is not None:
            self._lot.unpark_all()
