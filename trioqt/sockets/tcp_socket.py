"""How a connection of TCP, or of SCTP, comes about: by connecting, out of a descriptor, over another stream.

What can be done with it then is ``stream_device.py``.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import socket
from collections.abc import Sequence
from typing import Final, Self, TypedDict, Unpack

import trio

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, from_sockaddr, location
from trioqt.core.errors import ErrorKind, SocketError, kind_of, reason_of
from trioqt.core.network_proxy import NetworkProxy
from trioqt.core.options import (
    KEEP_ALIVE_FIGURES,
    QUICK_UNSENT_LIMIT,
    UNSENT_LIMIT,
    SocketType,
    SystemOption,
    protocol_of,
    unsent_options,
)
from trioqt.core.socket_state import SocketState
from trioqt.core.states import Input
from trioqt.links.base import Link, NativeSocket, Sockaddr
from trioqt.links.connect import (
    AttemptsFailed,
    Prepare,
    Target,
    begin_alone,
    connect,
    connect_again,
    link_over,
    look_up,
    race,
    reachable,
    targets_of,
)
from trioqt.links.interrupts import protected
from trioqt.links.native import (
    KernelSocket,
    NativeLink,
    kind_of_socket,
    reset_on_close,
    set_options,
    set_where_possible,
)
from trioqt.links.stream import StreamLink
from trioqt.links.through_proxy import connect_through
from trioqt.sockets.abstract_socket import Bound
from trioqt.sockets.arguments import (
    Host,
    check_host,
    check_options,
    check_port,
    check_protocol,
    check_size,
    check_stream_type,
    spelled,
)
from trioqt.sockets.connection import BUFFER_SIZE, CONNECTED, FLUSH_TIMEOUT, Attempt, Owner
from trioqt.sockets.descriptors import open_connection
from trioqt.sockets.generation import Failure
from trioqt.sockets.native_options import fit_user_timeout
from trioqt.sockets.stream_device import StreamDevice

__all__ = ["TcpSocket"]

# Asked for each new socket, and nearly always the same.
_unsent_options = functools.lru_cache(16)(unsent_options)

# A peer is quick that has taken what was queued, 64 KiB and more behind as much in the kernel, in so many seconds, so
# many times: it takes 2 MiB in less than a second.
QUICK: Final = 0.02
QUICK_TIMES: Final = 4


class SocketArguments(TypedDict, total=False):
    """What ``TcpSocket`` takes by name."""

    read_buffer_size: int
    write_buffer_size: int
    half_open: bool
    flush_timeout: float
    unsent_limit: int | None
    socket_type: SocketType


@protected
class TcpSocket(StreamDevice):
    """A TCP connection with Qt's buffers and signals, which is also an ordinary trio stream.

    ``async for chunk in sock`` and ``async for line in sock.lines()`` receive until the peer finishes.

    Args:
      parent: As for ``AbstractSocket``.
      read_buffer_size: Bounds what is read ahead; then TCP slows the peer.  A waiting ``receive_...`` may read on up
        to its own limit.  0 means no limit, which is Qt's default and not ours.
      write_buffer_size: ``write`` raises ``trio.WouldBlock``, and ``send_all`` waits, once this many bytes are queued;
        so the queue holds at most this and one message more.
      half_open: True (trio): when the peer finishes, you may still send; your block ends the connection.
        False (Qt): such a socket always reads ahead, and at the peer's end does as ``disconnect_from_host``.
      flush_timeout: How long leaving the block goes on while the peer takes nothing, in seconds; every byte that the
        kernel takes starts it anew.  Then it aborts and raises SocketError(SOCKET_TIMEOUT).
      unsent_limit: About how many bytes the kernel takes that it cannot send yet, since the peer does not read
        (TCP_NOTSENT_LOWAT; systems without it take what they like).  None is the system's own.  The default is 2 MiB
        for as long as the peer is quick.
      socket_type: What ``connect_to_host`` and ``bind`` open: TCP, or SCTP, whose connections are streams of bytes here
        too.  A system without SCTP refuses them, UNSUPPORTED_SOCKET_OPERATION.

    Qt: QTcpSocket; QSctpSocket in its TCP mode.
    """

    __slots__ = ("_quick", "_socket_type", "_unsent_limit")

    def __init__(
        self,
        parent: trio.Nursery | None = None,
        *,
        read_buffer_size: int = BUFFER_SIZE,
        write_buffer_size: int = BUFFER_SIZE,
        half_open: bool = True,
        flush_timeout: float = FLUSH_TIMEOUT,
        unsent_limit: int | None = UNSENT_LIMIT,
        socket_type: SocketType = SocketType.TCP,
    ) -> None:
        super().__init__(
            parent,
            read_buffer_size=read_buffer_size,
            write_buffer_size=write_buffer_size,
            half_open=half_open,
            flush_timeout=flush_timeout,
        )
        if unsent_limit is not None and unsent_limit is not UNSENT_LIMIT:
            unsent_limit = check_size(unsent_limit, "unsent_limit", least=1)
        self._unsent_limit = unsent_limit
        self._socket_type = socket_type if socket_type is SocketType.TCP else check_stream_type(socket_type)
        self._quick = 0  # how often one after the other the peer has taken a full queue in no time

    @classmethod
    def from_stream(
        cls, stream: trio.abc.Stream, parent: trio.Nursery | None = None, **arguments: Unpack[SocketArguments]
    ) -> Self:
        """A socket over any trio stream: TLS, a memory pair, a unix socket.  State: CONNECTED.

        The stream is the socket's from now on, and is closed with it.  It has no addresses, no options and no
        descriptor.  Where the stream has no ``send_eof``, ours raises SocketError(UNSUPPORTED_SOCKET_OPERATION).

        Args:
          parent, arguments: as for ``TcpSocket``; ``unsent_limit`` and ``socket_type`` are for connections that it may
        have later.

        Raises: TypeError if it is no ``trio.abc.Stream``.
        Qt: no counterpart.
        """
        if not isinstance(stream, trio.abc.Stream):
            raise TypeError(f"not a trio.abc.Stream: {type(stream).__name__}")
        sock = cls(parent, **arguments)
        link = StreamLink(stream, parent)
        if parent is None:
            sock._offered = link
            sock._open = True
            sock._machine.feed(Input.ADOPTED, sock._tell)
        else:
            sock._adopt(link, Input.ADOPTED)
        return sock

    def __repr__(self) -> str:
        parts = [self._machine.state.name.lower().replace("_", " ")]
        with contextlib.suppress(OSError):  # somebody may have closed what is below
            address, port = self._local()
            peer = self._peer()
            if port:
                parts.append(location(address, port))
            if peer is not None:
                there = location(from_sockaddr(peer), peer[1]) if peer[0] else f"{self._peer_name}:{peer[1]}"
                parts[1:] = [" to ".join([*parts[1:], there])]
        parts.append(f"read_buffer_size {self._read_buffer_size:,}")
        parts.append(f"write_buffer_size {self._write_buffer_size:,}")
        parts.append(f"flush_timeout {self._flush_timeout:g} s")
        if self._unsent_limit is not None:
            parts.append(f"unsent_limit {self._unsent_limit:,}")
        if self._timed is not None:
            parts.append(self._timed.limits)
        return f"<{type(self).__name__} {', '.join(parts)}>"

    def socket_type(self) -> SocketType:
        """TCP or SCTP; UNKNOWN while it is over a stream.  Qt: socketType()."""
        self._check_run()
        link = self._link or self._offered
        return SocketType.UNKNOWN if link is not None and link.native() is None else self._socket_type

    def _system_type(self) -> int:
        return socket.SOCK_STREAM

    def _kind(self) -> SocketType:
        return self._socket_type

    def _prepare(self, sock: NativeSocket | trio.socket.SocketType, peer: Sockaddr | None) -> None:
        self._limit_unsent(sock)
        super()._prepare(sock, peer)

    def _limit_unsent(self, sock: NativeSocket | trio.socket.SocketType | socket.socket) -> None:
        """A new socket below."""
        self._quick = 0
        if self._socket_type is SocketType.TCP:
            set_where_possible(sock, _unsent_options(self._unsent_limit))

    def _queue_went(self, link: Link, took: float) -> None:
        # A peer that never reads never gets here, one that reads slowly only slowly.  And a server with limits in
        # seconds calls a peer stalled that has not taken half of the limit in time, so there it stays small.
        if self._unsent_limit != UNSENT_LIMIT or self._timed is not None:
            return
        native = link.native()
        if native is None or self._socket_type is not SocketType.TCP:
            return
        was_quick = self._quick >= QUICK_TIMES
        # The kernel calls for more once it has sent half of the limit, so with the larger one that takes longer.
        quick = took < (QUICK * QUICK_UNSENT_LIMIT / UNSENT_LIMIT if was_quick else QUICK)
        if quick:
            self._quick = min(self._quick + 1, QUICK_TIMES + 1)
        else:  # one pause of a quick peer is forgiven
            self._quick = QUICK_TIMES if self._quick > QUICK_TIMES else 0
        if was_quick != (self._quick >= QUICK_TIMES):
            set_where_possible(native, unsent_options(UNSENT_LIMIT if was_quick else QUICK_UNSENT_LIMIT))

    def _accepted(self, link: Link, home: trio.Nursery, owner: Owner, is_new: bool) -> None:
        native = link.native()
        if native is not None and (not is_new or type(native) is not KernelSocket):  # else it is TCP, as it was made
            self._socket_type = kind_of_socket(native)
        if self._unsent_limit != UNSENT_LIMIT and native is not None:  # else it has inherited it
            set_where_possible(native, unsent_options(self._unsent_limit))
        super()._accepted(link, home, owner, is_new)
        if self._options and native is not None and not KEEP_ALIVE_FIGURES.keys().isdisjoint(self._options):
            fit_user_timeout(native)

    # -- connecting and disconnecting -------------------------------------------------------

    async def connect_to_host(
        self,
        host: Host,
        port: int,
        *,
        protocol: NetworkLayerProtocol = NetworkLayerProtocol.ANY_IP,
        options: Sequence[SystemOption] = (),
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Look up ``host``, try its addresses (RFC 8305), return when CONNECTED.

        A socket that was bound or adopted is the one that connects, to one address after the other.
        By a proxy (``set_proxy``, or the application's) it is the proxy that is looked up and tried like this.  A name
        goes to it as it is, so there is no ``HostFound``; ``peer_address()`` is the host's, null if only its name is
        known, and ``local_address()`` what the proxy says that its own is.

        Args:
          protocol: IPV4 or IPV6 uses only such addresses.
          options: Of the system's, as ``(level, number, value)`` with an int or bytes: ``(SOL_SOCKET, SO_MARK, 7)``.
            Set on each socket before it connects, behind those of ``set_socket_option``.  An address whose socket is
            refused one has failed, and the message names the option.
          task_status: Told once the attempt has begun.  So ``await nursery.start(sock.connect_to_host, ...)`` returns
            in HOST_LOOKUP, as Qt's call does, and every call that waits for the connection can follow.

        Raises:
          SocketError: HOST_NOT_FOUND, CONNECTION_REFUSED, NETWORK, SOCKET_TIMEOUT, SOCKET_ACCESS, SOCKET_RESOURCE, or
            OPERATION if the socket is not UNCONNECTED or BOUND.  When every address failed: the kind of the last
            attempt that ended, all of them in the cause.  By a proxy: PROXY_NOT_FOUND, PROXY_CONNECTION_REFUSED,
            PROXY_CONNECTION_CLOSED, PROXY_CONNECTION_TIMEOUT (30 s for each of its answers), PROXY_PROTOCOL,
            PROXY_AUTHENTICATION_REQUIRED, or what it says of the host; UNSUPPORTED_SOCKET_OPERATION if no proxy of
            this kind carries connections.
          trio.ClosedResourceError: Another task aborted or disconnected it meanwhile.
        Cancelled: the attempt is dropped; the socket is UNCONNECTED.  A bind and old unread bytes are gone either way.
        Qt: connectToHost + waitForConnected (whose timeout also drops the attempt).
        """
        self._check_run()
        name = str(host)
        host, port = check_host(host), check_port(port)
        check_protocol(protocol)
        wanted = check_options(options)
        await self._yield_to_its_end()
        proxy = self._begin_attempt(name, port)
        bound, known = self._bound, self._options
        link: Link | None = None
        native: NativeSocket | None = None
        is_adopted = False
        self._attempt = attempt = Attempt()

        def prepare(sock: NativeSocket | trio.socket.SocketType, peer: Sockaddr) -> None:
            attempt.tries(sock)
            self._prepare(sock, peer)
            set_options(sock, wanted)

        try:
            if task_status is not trio.TASK_STATUS_IGNORED:
                attempt.scope = trio.CancelScope()
                with attempt.scope:
                    task_status.started()
                    for _ in range(2):  # then whoever is told has had its turn, in whatever order
                        await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._attempt is attempt:
                if proxy is None and bound is None and isinstance(host, HostAddress) and host.text:
                    link = await self._reach_address(attempt, host, port, protocol, prepare)
                else:
                    link = await self._reach(attempt, host, port, protocol, proxy, prepare)
            if self._attempt is attempt and link is not None:
                if self._subscriptions:  # whoever was told of CONNECTING has its turn while that is so
                    await trio.lowlevel.checkpoint()
                native = link.native()
                if self._options is not known and native is not None:
                    # Set meanwhile, when some of the race's sockets were made already.
                    self._prepare(native, link.peer_address())
                    set_options(native, wanted)
            if self._attempt is attempt and link is not None and self._in_scope():
                self._attempt = self._bound = None
                if attempt.resets and native is not None:  # what was queued is in good hands now
                    reset_on_close(native, reset=False)
                self._adopt(link, Input.ESTABLISHED)
                is_adopted = True
                return
        except (OSError, UnicodeError, AttemptsFailed) as exc:
            if self._attempt is attempt:
                failure = self._attempt_failed(host, port, exc)
                await trio.lowlevel.cancel_shielded_checkpoint()  # what is wrong with an address is known at once
                raise failure.error() from failure.cause
        except BaseException:
            if self._attempt is attempt:
                self._drop_attempt(Input.ATTEMPT_DROPPED)
            raise
        finally:
            if link is None and bound is not None:
                bound.sock.close()
            elif link is not None and not is_adopted:
                link.close(reset=attempt.resets)
        raise trio.ClosedResourceError("cannot connect: another task ended the attempt")

    async def _reach_address(
        self, attempt: Attempt, address: HostAddress, port: int, protocol: NetworkLayerProtocol, prepare: Prepare
    ) -> Link | None:
        """The connection to an address, with a new socket and without a proxy; None if the attempt was dropped.

        On one machine there is nothing to wait for, and so nothing to cancel: without the scope, the look-up and the
        functions of ``_reach`` it takes 15 us less.
        """
        targets = targets_of(address, port, protocol)
        self._machine.feed(Input.FOUND, self._tell)
        proto = protocol_of(self._socket_type)
        begun = begin_alone(targets[0], prepare, proto) if len(targets) == 1 else None
        if begun is not None and begun.peer_address() is not None:
            try:
                await trio.lowlevel.checkpoint()
            except BaseException:
                begun.close()
                raise
            return begun
        attempt.scope = trio.CancelScope()
        with attempt.scope:
            return await race(targets, prepare, proto=proto, begun=begun)
        return None

    async def _reach(
        self,
        attempt: Attempt,
        host: HostAddress | str,
        port: int,
        protocol: NetworkLayerProtocol,
        proxy: NetworkProxy | None,
        prepare: Prepare,
    ) -> Link | None:
        """The connection to any host, by any way; None if the attempt was dropped."""
        spare = self._bound  # as long as nothing has been connected with it

        async def reach(targets: list[Target]) -> Link:
            nonlocal spare
            first, spare = spare, None
            if first is not None:
                return await _connect_bound(first, targets, prepare)
            return await race(targets, prepare, proto=protocol_of(self._socket_type))

        async def reach_proxy(host: str, port: int) -> Link:
            return await reach(await look_up(host, port, NetworkLayerProtocol.ANY_IP))

        attempt.scope = trio.CancelScope()
        with attempt.scope:
            if proxy is not None and proxy.looks_up_names and not isinstance(host, HostAddress):
                self._machine.feed(Input.LEFT_TO_PROXY, self._tell)
                return await connect_through(proxy, host, port, reach_proxy, self._authenticate)
            targets = await look_up(host, port, protocol)
            if self._attempt is not attempt:  # dropped in this step; another one may have begun
                return None
            self._machine.feed(Input.FOUND, self._tell)
            if proxy is None:
                return await reach(targets)
            address = from_sockaddr(targets[0].address)
            return await connect_through(proxy, address, port, reach_proxy, self._authenticate)
        return None

    def _begin_attempt(self, name: str, port: int) -> NetworkProxy | None:
        """Returns: the proxy by which it goes."""
        self._check_can_connect()
        proxy = self._proxy_to_connect("tcp", name, port)
        self._forget()
        self._peer_name = name
        self._machine.feed(Input.LOOK_UP, self._tell)
        return proxy

    def _attempt_failed(self, host: HostAddress | str, port: int, exc: Exception) -> Failure:
        attempts: Sequence[Exception] = exc.exceptions if isinstance(exc, AttemptsFailed) else (exc,)
        cause = exc if len(attempts) > 1 else attempts[0]
        last = attempts[-1]
        for failed in attempts:
            failed.__traceback__ = None  # as _set_failure does for the whole
        message = f"cannot connect to {spelled(host) or 'an empty name'} port {port}: {reason_of(last)}"
        self._set_failure(kind_of(last), message, cause)
        self._drop_attempt(Input.ATTEMPT_FAILED)
        assert self._generation.failure is not None
        self._generation.failure.told = True
        return self._generation.failure

    async def disconnect_from_host(self) -> None:
        """Send what is queued, close, return when UNCONNECTED.  No effect if already so.

        While looking up or connecting it drops the attempt.  If the peer sent bytes that we did not read, waits at
        most 1 s for its end, so that the last answer arrives; what had arrived can still be read after.

        Raises:
          SocketError: Queued bytes could not be sent; UNFINISHED_SOCKET_OPERATION if they were queued for the
            connection of the attempt that it drops.
          trio.ClosedResourceError: Another task aborted it meanwhile, or replaced it while bytes were queued.
        Cancelled: as ``abort()``.  What another task has begun meanwhile is not touched.
        Qt: disconnectFromHost + waitForDisconnected.  There, while connecting, it connects first.
        """
        self._check_call()
        generation = self._generation
        ended = await self._disconnect(math.inf, keep=True)
        self._check_sent(generation, again=ended)
        if ended and (generation.aborted or generation.unsent):
            raise trio.ClosedResourceError("cannot disconnect: another task aborted the connection")

    def set_socket_descriptor(self, descriptor: int, state: SocketState = SocketState.CONNECTED) -> None:
        self._check_run()
        descriptor = operator.index(descriptor)
        if state not in (CONNECTED, SocketState.BOUND, SocketState.UNCONNECTED):
            raise ValueError(f"a descriptor is adopted CONNECTED, BOUND or UNCONNECTED, not {state}")
        happened = Input.ADOPTED if state is CONNECTED else Input.BIND
        self._need(happened, "adopt a descriptor")
        try:
            if descriptor == self.socket_descriptor() != -1:
                message = f"descriptor {descriptor} is this socket's own"
                raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, message)
            sock, peer = open_connection(descriptor, state)
        except SocketError as error:
            self._set_error(error.kind, error.message)
            raise
        self._socket_type = kind_of_socket(sock)
        if state is not CONNECTED:
            is_any = sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            address = sock.getsockname()
            is_any = is_any and from_sockaddr(address) == HostAddress.ANY_IPV6
            bound = Bound(trio.socket.from_stdlib_socket(sock), address, is_any)
            if not bound.is_spare():
                self._took_address(bound)
            else:
                self._unbind()
                self._bound, self._open = bound, True
            return
        self._unbind()
        self._uncork()
        if self._link is not None:
            owner, self._owner = self._owner, None  # the slot in a server goes over to the new connection
            self._generation.ended_by = trio.lowlevel.current_task()
            self._drop_link(self._link)
            self._ends += 1
            self._owner = owner
        self._peer_name = ""
        self._limit_unsent(sock)
        self._adopt(NativeLink(KernelSocket.adopt(sock), peer), Input.ADOPTED)


async def _connect_bound(bound: Bound, targets: list[Target], prepare: Prepare) -> NativeLink:
    """One address after the other, all with the one socket that was bound; that leaves no room for a race."""
    failures: list[OSError] = []
    tried = False
    # A Linux socket of both families that was refused by an IPv4 address connects to an IPv6 one, and then no byte
    # gets through; the other way round it works.
    for target in sorted(targets, key=lambda target: bound.carries_ipv4() and target.family != socket.AF_INET6):
        try:
            there = reachable(target, bound.sock.family, dual_stack=bound.carries_ipv4())
            prepare(bound.sock, there.address)
            if tried:
                await connect_again(bound.sock, there, bound.sockaddr)
            else:
                await connect(bound.sock, there)
            return link_over(bound.sock, there.address)
        except OSError as exc:
            exc.add_note(f"while connecting to {target}")
            failures.append(exc)
            tried = True
    raise AttemptsFailed("no address could be connected", failures)
