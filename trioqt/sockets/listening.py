"""How a server begins and ends to listen, here or at a proxy, and what it says of that.

Who accepts meanwhile is an ``Acceptor``; what becomes of a connection then is not known here.
"""

from __future__ import annotations

import contextlib
import logging
import operator
from collections.abc import Sequence
from typing import Generic, TypeVar

import trio

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, from_sockaddr
from trioqt.core.errors import ErrorKind, SocketError, kind_of, reason_of
from trioqt.core.events import AcceptError
from trioqt.core.network_proxy import NetworkProxy
from trioqt.core.options import SocketType, SystemOption, inherited_options, protocol_of
from trioqt.core.socket_state import SocketState
from trioqt.core.states import Input, StateMachine, Told
from trioqt.links.base import Link, ListenerLink, NativeSocket, Sockaddr
from trioqt.links.bind import any_target, listen_on
from trioqt.links.connect import Prepare, Target, look_up, race
from trioqt.links.interrupts import protected
from trioqt.links.native import NativeListener, set_options, set_where_possible
from trioqt.links.through_proxy import listen_through
from trioqt.sockets.acceptor import BACKLOG, Acceptor
from trioqt.sockets.arguments import Host, check_hosts, check_options, check_port, check_size, spelled
from trioqt.sockets.connection import Connection
from trioqt.sockets.descriptors import open_listener
from trioqt.sockets.proxy_choice import is_loopback
from trioqt.sockets.serving import Serving
from trioqt.sockets.under_way import UnderWay

__all__ = ["Listening"]

SocketT = TypeVar("SocketT", bound=Connection)


@protected
class Listening(Serving[SocketT], Generic[SocketT]):
    """A server as who has it listen sees it.

    Args: as for ``TcpServer``.
    """

    __slots__ = (
        "_acceptor",
        "_address",
        "_backlog_size",
        "_error",
        "_error_string",
        "_keep_alive",
        "_machine",
        "_port",
        "_socket_type",
        "_under_way",
    )

    def __init__(self, *, keep_alive: bool, socket_type: SocketType) -> None:
        super().__init__()
        self._keep_alive = keep_alive
        self._socket_type = socket_type
        self._machine = StateMachine()
        self._under_way = UnderWay()  # calls of listen
        self._error: ErrorKind | None = None
        self._error_string = ""
        self._backlog_size = BACKLOG
        self._acceptor: Acceptor | None = None  # while it listens, or finishes
        self._address = HostAddress.NULL
        self._port = 0

    # -- what the server below must do ------------------------------------------------------

    def _has_room(self) -> bool:
        """May one more connection be accepted?"""
        raise NotImplementedError

    def _admit(self, link: Link, peer: Sockaddr) -> None:
        """An accepted connection becomes a socket with an owner; if it cannot, that ends it and no more."""
        raise NotImplementedError

    def _admit_or_refuse(self, link: Link, peer: Sockaddr) -> None:
        """The same, and if there is no room, it is refused."""
        raise NotImplementedError

    # -- listening --------------------------------------------------------------------------

    async def listen(
        self,
        host: Host | Sequence[Host] = HostAddress.ANY,
        port: int = 0,
        *,
        backlog: int | None = None,
        reuse_port: bool = False,
        options: Sequence[SystemOption] = (),
    ) -> None:
        """Begin to listen, on every interface if not told otherwise (one port for IPv4 and IPv6).

        By a SOCKS5 proxy, unless ``host`` is a loopback address: the proxy listens, at ``server_address()``, for one
        connection; another needs another ``listen``.  ``backlog`` and ``reuse_port`` are the proxy's business then.

        Args:
          host: An address, a name (all its addresses), ``HostAddress.ANY``, or several of these; all with one port.
          port: 0 lets the system choose; ``server_port()`` tells.
          backlog: How many connections the kernel may queue; None: ``listen_backlog_size()``, which is as many as the
            system allows unless changed.
          reuse_port: Other sockets of this user that ask for it too, in this process or another, may listen there as
            well, and the system shares the clients out (SO_REUSEPORT).
          options: Of the system's, as ``(level, number, value)`` with an int or bytes, set on each socket before its
            address is taken: ``(IPPROTO_TCP, TCP_FASTOPEN, 16)``.  What it accepts inherits most of them.

        Raises:
          SocketError: ADDRESS_IN_USE, SOCKET_ACCESS, SOCKET_ADDRESS_NOT_AVAILABLE, HOST_NOT_FOUND, ...; what the system
            says to an option that it refuses, which the message names;
            UNSUPPORTED_SOCKET_OPERATION if ``host`` is empty or null, or the system has no ``reuse_port``; OPERATION if
            it listens already, drains, or is not entered.  By a proxy: as ``TcpSocket.connect_to_host``.
          trio.ClosedResourceError: It has been closed by ``aclose()`` or by leaving its block; or ``close`` or
            ``drain`` was called meanwhile.
        Cancelled: it does not listen.
        Qt: listen().  There, an IPv4-mapped address is refused.
        """
        self._check_run()
        hosts, port = check_hosts(host), check_port(port)
        backlog = min(self._backlog_size if backlog is None else check_size(backlog, "backlog"), BACKLOG)
        wanted = check_options(options)
        inherited = inherited_options(keep_alive=self._keep_alive, kind=self._socket_type)

        def prepare(sock: NativeSocket | trio.socket.SocketType, address: Sockaddr) -> None:
            set_where_possible(sock, inherited)
            set_options(sock, wanted)

        if self._closed:  # a task that is cancelled with the block, and has its first turn after that, is cancelled
            await trio.lowlevel.checkpoint_if_cancelled()
        self._check_can_listen()
        listeners: list[ListenerLink] = []
        proxy: NetworkProxy | None = None
        try:
            with self._under_way.call("listen"):
                if not all(is_loopback(str(each)) for each in hosts):  # a proxy could not get there
                    proxy = self._choose_proxy("server", "", port)
                targets = list(dict.fromkeys([target for each in hosts for target in await _targets(each, port)]))
                if proxy is None:
                    proto, reuse_port = protocol_of(self._socket_type), bool(reuse_port)
                    listeners += await listen_on(targets, backlog, reuse_port=reuse_port, prepare=prepare, proto=proto)
                else:
                    there = HostAddress.ANY_IPV4 if hosts[0] == HostAddress.ANY else from_sockaddr(targets[0].address)
                    listeners.append(await self._listen_through(proxy, there, port, prepare))
        except trio.ClosedResourceError:
            for listener in listeners:
                listener.close()
            raise
        except (OSError, UnicodeError) as exc:
            where = ", ".join(spelled(each) or "no address" for each in hosts)
            kind, message = kind_of(exc), f"cannot listen on {where} port {port}: {reason_of(exc)}"
            self._error, self._error_string = kind, message
            raise SocketError(kind, message, errno=exc.errno if isinstance(exc, OSError) else None) from exc
        self._begin(listeners, HostAddress.ANY if hosts[0] == HostAddress.ANY and proxy is None else None)

    async def _listen_through(
        self, proxy: NetworkProxy, host: HostAddress, port: int, prepare: Prepare
    ) -> ListenerLink:
        """Let the proxy listen.  Raises: OSError, UnicodeError."""

        async def reach(host: str, port: int) -> Link:
            return await race(await look_up(host, port, NetworkLayerProtocol.ANY_IP), prepare)

        return await listen_through(proxy, host, port, reach, self._authenticate)

    def set_socket_descriptor(self, descriptor: int) -> None:
        """Listen on an open listening socket (systemd, a parent process).  It is the server's from now on.

        Raises:
          SocketError: UNSUPPORTED_SOCKET_OPERATION if it is no listening TCP socket, and then ``server_error()`` says
            so too; the descriptor is still yours.  OPERATION if the server listens already, or is not entered.
          trio.ClosedResourceError: as ``listen``.
        Qt: setSocketDescriptor().  There, whatever it is, it is assumed to listen.
        """
        self._check_run()
        descriptor = operator.index(descriptor)
        self._check_can_listen()
        try:
            sock = open_listener(descriptor, keep_alive=self._keep_alive)
        except SocketError as error:
            self._error, self._error_string = error.kind, error.message
            raise
        self._begin([NativeListener(sock)], None, is_shared=True)

    def _check_can_listen(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("cannot listen: the server is closed")
        if self._nursery is None:
            raise SocketError(ErrorKind.OPERATION, "cannot listen outside of the server's `async with` block")
        if not self._machine.allows(Input.LISTEN):
            raise SocketError(ErrorKind.OPERATION, "cannot listen while listening")
        if self._drain is not None and not self._drain.is_over:
            raise SocketError(ErrorKind.OPERATION, "cannot listen while draining")

    def _begin(
        self, listeners: Sequence[ListenerLink], address: HostAddress | None, *, is_shared: bool = False
    ) -> None:
        try:
            self._check_can_listen()  # another task may have been faster
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        assert self._nursery is not None
        self._machine.feed(Input.LISTEN, _tell_nobody)
        if self._stopped is not None:
            self._stopped.set()  # a connection that nobody took has kept it from that
        self._stopped = trio.Event()
        self._drain, self._ends_when_taken = None, False
        sockaddr = listeners[0].local_address()
        self._address = from_sockaddr(sockaddr) if address is None else address
        self._port = sockaddr[1]
        self._acceptor = Acceptor(self, is_shared=is_shared)
        self._acceptor.begin(listeners, self._nursery)

    def close(self) -> None:
        """Stop listening, and abort the pending connections; ``serve`` returns once its last handler is done.

        Handlers and sockets you took go on.  The server may listen again.
        Qt: close().
        """
        self._check_run()
        self._stop_listening()

    async def aclose(self) -> None:
        """``close``, and never listen again.  Cancelled: closed all the same."""
        self._check_run()
        self._shut()
        await trio.lowlevel.checkpoint()

    def _shut(self) -> None:
        self._closed = True
        self._drain_lot.unpark_all()
        self._stop_listening()

    def _stop_listening(self, *, keep_pending: bool = False) -> None:
        self._say_not_listening()
        acceptor, self._acceptor = self._acceptor, None
        self._service = None
        self._full = self._paused = self._is_finishing = False
        self._ends_when_taken = keep_pending
        pending: list[SocketT] = []
        if not keep_pending:
            pending.extend(self._pending)
            self._pending.clear()
        if self._stopped is not None and not keep_pending:
            self._stopped.set()
        self._end_if_taken()
        self._lot.unpark_all()
        with contextlib.ExitStack() as stack:  # one that cannot be closed does not keep the others open
            for sock in reversed(pending):
                stack.callback(sock._close)
            if acceptor is not None:
                stack.callback(acceptor.close)  # which comes first, as the stack has it

    def _say_not_listening(self) -> None:
        self._machine.feed(Input.ABORT, _tell_nobody)
        self._under_way.call_off()
        self._address, self._port = HostAddress.NULL, 0

    def _stop_in_order(self) -> None:
        acceptor = self._acceptor
        if acceptor is None or acceptor.finish() or self._nursery is None:
            self._stop_listening(keep_pending=True)
            return
        self._say_not_listening()
        self._is_finishing = True
        self._nursery.start_soon(self._finish, acceptor)
        self._lot.unpark_all()  # its tasks accept who is half in, paused or not

    async def _finish(self, acceptor: Acceptor) -> None:
        """Close the listening sockets once nobody is half in any more, or after a time."""
        if await acceptor.wait_for_handshakes():  # else it was closed meanwhile, or what was left was cut
            self._stop_listening(keep_pending=True)

    def _note_accept_failure(self, exc: Exception, what_now: str) -> None:
        kind, message = kind_of(exc), f"cannot accept: {reason_of(exc)}"
        self._note_accept_error(kind, message)
        assert self._log is not None
        # One a second tells as much as ten.
        self._log.tell(("accept", kind, what_now), logging.WARNING, f"{message}; {what_now}", spacing=1.0)

    def _note_accept_error(self, kind: ErrorKind, message: str) -> None:
        self._error, self._error_string = kind, message
        if self._subscriptions:
            self._post(AcceptError(kind, message))

    # -- what it says of itself -------------------------------------------------------------

    def is_listening(self) -> bool:
        """Qt: isListening()."""
        self._check_run()
        return self._machine.state is SocketState.LISTENING

    def server_address(self) -> HostAddress:
        """Where it listens, the first address if a name has several; ``HostAddress.NULL`` if it does not.

        Qt: serverAddress().
        """
        self._check_run()
        return self._address

    def server_port(self) -> int:
        """The port it listens on, one for all addresses; 0 if it does not.  Qt: serverPort()."""
        self._check_run()
        return self._port

    def listen_backlog_size(self) -> int:
        """How many connections the kernel may queue when ``listen`` is not told; 65535, which is as many as the system
        allows, unless changed.

        Qt: listenBacklogSize().  There, 50 unless changed.
        """
        self._check_run()
        return self._backlog_size

    def set_listen_backlog_size(self, size: int) -> None:
        """Change it, for the next ``listen``.  Never more than the system allows.

        Qt: setListenBacklogSize().
        """
        self._check_run()
        self._backlog_size = check_size(size, "size")

    def server_error(self) -> ErrorKind | None:
        """The last error of ``listen``, ``set_socket_descriptor`` or accepting, or None.

        A good ``listen`` does not reset it.

        Qt: serverError().
        """
        self._check_run()
        return self._error

    def error_string(self) -> str:
        """The same in words; empty if there was none.  Qt: errorString()."""
        self._check_run()
        return self._error_string

    def socket_descriptor(self) -> int:
        """The OS handle of the (first) listening socket, or -1.  Qt: socketDescriptor()."""
        self._check_run()
        is_listening = self._acceptor is not None and self._machine.state is SocketState.LISTENING
        return self._acceptor.lend() if self._acceptor is not None and is_listening else -1


async def _targets(host: HostAddress | str, port: int) -> list[Target]:
    """What ``host`` stands for.  Raises: OSError, UnicodeError."""
    if host == HostAddress.ANY:
        return [any_target(port)]
    if not host:
        raise SocketError(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, "there is no address to listen on")
    return await look_up(host, port, NetworkLayerProtocol.ANY_IP)


def _tell_nobody(thing: Told) -> None:
    """A server's states are told by ``is_listening``."""
