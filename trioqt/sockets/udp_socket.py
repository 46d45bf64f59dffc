"""How a datagram socket comes about, by binding, connecting, or out of a descriptor, and how it ends.

What can be done with it between is in ``datagram_reader.py``, ``datagram_writer.py`` and ``multicast.py``.
"""

from __future__ import annotations

import operator
import socket
from collections import deque
from collections.abc import Sequence

import trio

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol, from_sockaddr, location
from trioqt.core.errors import SocketError, kind_of, reason_of
from trioqt.core.network_proxy import NetworkProxy
from trioqt.core.options import SocketType, SystemOption
from trioqt.core.proxies import target_of
from trioqt.core.socket_state import SocketState
from trioqt.core.states import Input
from trioqt.links.base import DatagramLink, Link, NativeSocket, Sockaddr
from trioqt.links.connect import AttemptsFailed, Target, look_up, race, reachable
from trioqt.links.datagram import NativeDatagramLink
from trioqt.links.datagrams_through_proxy import ProxiedDatagramLink, associate_through
from trioqt.links.interrupts import protected
from trioqt.links.native import set_options
from trioqt.sockets.abstract_socket import Bound
from trioqt.sockets.arguments import Host, check_host, check_options, check_port, check_protocol, spelled
from trioqt.sockets.datagram_reader import DatagramReader
from trioqt.sockets.datagram_writer import DatagramWriter
from trioqt.sockets.datagrams import BOUND, CONNECTED, UNCONNECTED
from trioqt.sockets.descriptors import open_datagram_socket
from trioqt.sockets.generation import Failure, Generation
from trioqt.sockets.multicast import Multicast

__all__ = ["UdpSocket"]


@protected
class UdpSocket(DatagramReader, DatagramWriter, Multicast):
    """Datagrams, to and from anybody, or one peer.  Qt: QUdpSocket.

    ``async for datagram in sock`` receives for ever: what the network says of datagrams that could not be delivered is
    told as ``ErrorOccurred``, and does not end it.

    Datagrams may be lost, doubled, or overtake each other on the way, and an empty one is one like any other.  What the
    socket has not taken waits in the system's receive buffer; what does not fit there is dropped, and
    ``dropped_datagrams`` says how many were.

    Args:
      parent: As for ``AbstractSocket``.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        parts = [self._machine.state.name.lower().replace("_", " ")]
        try:
            address, port = self._local()
            peer = self._peer()
        except OSError:  # somebody has closed what is below
            return f"<{type(self).__name__} {parts[0]}>"
        if port:
            parts.append(location(address, port))
        if peer is not None:
            parts += ["to", location(from_sockaddr(peer), peer[1])]
        return f"<{type(self).__name__} {' '.join(parts)}>"

    def socket_type(self) -> SocketType:
        self._check_run()
        return SocketType.UDP

    def _system_type(self) -> int:
        return socket.SOCK_DGRAM

    # -- a local address --------------------------------------------------------------------

    def _took_address(self, bound: Bound) -> None:
        try:
            self._check_can_bind()  # another task may have done something meanwhile
            link = self._make_link(bound.sock)
        except BaseException:
            bound.sock.close()
            raise
        self._begin(link, bound.is_any)
        self._machine.feed(Input.BIND, self._tell)
        self._update_watcher()
        self._changed()

    def set_socket_descriptor(self, descriptor: int, state: SocketState = SocketState.CONNECTED) -> None:
        """Adopt an open OS socket for datagrams (from another process, a supervisor, a test).

        The descriptor is the socket's from now on, and is closed with it.

        Args:
          state: CONNECTED or BOUND, what the OS socket is.

        Raises:
          SocketError: UNSUPPORTED_SOCKET_OPERATION if it is no open UDP socket in that state, and then ``error()`` says
            so too; OPERATION if the socket is not UNCONNECTED.  The descriptor is still yours.
          TypeError, ValueError: The descriptor is no int, or the state is neither.
        Qt: setSocketDescriptor().
        """
        self._check_run()
        descriptor = operator.index(descriptor)
        if state not in (CONNECTED, BOUND):
            raise ValueError(f"a descriptor for datagrams is adopted CONNECTED or BOUND, not {state}")
        self._check_can_begin("adopt a descriptor")
        if self._machine.state is not UNCONNECTED:
            self._refuse("adopt a descriptor", ended=False)
        try:
            sock, peer = open_datagram_socket(descriptor, state)
        except SocketError as error:
            self._set_error(error.kind, error.message)
            raise
        link = NativeDatagramLink(sock, peer=peer)
        is_any = link.protocol() is NetworkLayerProtocol.ANY_IP and link.local_address()[0] == "::"
        self._begin(link, is_any)
        self._peer_name = ""
        self._open = True
        self._generation.connected = state is CONNECTED
        self._machine.feed(Input.ADOPTED if state is CONNECTED else Input.BIND, self._tell)
        self._update_watcher()
        self._changed()

    # -- by way of a proxy ------------------------------------------------------------------

    async def _bound_elsewhere(self, port: int) -> bool:
        proxy = self._choose_proxy("udp", "", port)
        if proxy is None:
            return False
        link = await self._associate(proxy)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()  # an end may have been made in this step
            self._need(Input.BIND, "bind")
        except BaseException:
            link.close()
            raise
        self._begin(link, is_any=False)
        self._machine.feed(Input.BIND, self._tell)
        self._update_watcher()
        self._changed()
        return True

    async def _associate(self, proxy: NetworkProxy, options: Sequence[SystemOption] = ()) -> ProxiedDatagramLink:
        """Have the proxy carry datagrams.  Raises: OSError, UnicodeError.  Cancelled: everything is closed."""

        def open_socket(address: Sockaddr) -> DatagramLink:
            target = Target(socket.AF_INET if len(address) == 2 else socket.AF_INET6, address)
            return self._connected_link(target, options)

        return await associate_through(proxy, _reach, self._authenticate, open_socket)

    async def _connect_through(
        self,
        proxy: NetworkProxy,
        host: HostAddress | str,
        port: int,
        protocol: NetworkLayerProtocol,
        options: Sequence[SystemOption],
    ) -> ProxiedDatagramLink:
        """A link whose peer that is.  Raises: OSError, UnicodeError.  Cancelled: it is closed."""
        if not isinstance(host, HostAddress) and not proxy.looks_up_names:
            host = from_sockaddr((await look_up(host, port, protocol))[0].address)
        target = target_of(host, port)
        link = self._link if isinstance(self._link, ProxiedDatagramLink) else await self._associate(proxy, options)
        link.connect_to(target)
        return link

    # -- one peer ---------------------------------------------------------------------------

    async def connect_to_host(
        self,
        host: Host,
        port: int,
        *,
        protocol: NetworkLayerProtocol = NetworkLayerProtocol.ANY_IP,
        options: Sequence[SystemOption] = (),
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Fix the peer: only its datagrams are received, and ``write`` sends to it.  No packet is sent.

        A socket that was bound keeps its address, and what its peer has sent to that before.

        Args:
          protocol: IPV4 or IPV6 uses only such addresses.
          options: Of the system's, as for ``TcpSocket``; a socket that was bound gets them too.
          task_status: Told once the attempt has begun: ``await nursery.start(sock.connect_to_host, ...)`` returns in
            HOST_LOOKUP.

        Raises:
          SocketError: HOST_NOT_FOUND, NETWORK, SOCKET_ACCESS, SOCKET_RESOURCE, CONNECTION_REFUSED if the address cannot
            be reached from the one that was bound, or OPERATION if the socket is not UNCONNECTED or BOUND.
          trio.ClosedResourceError: Another task aborted or disconnected it meanwhile.
        Cancelled: the attempt is dropped; the socket is UNCONNECTED, and not bound any more.
        Qt: connectToHost().
        """
        self._check_run()
        name = str(host)
        host, port = check_host(host), check_port(port)
        check_protocol(protocol)
        wanted = check_options(options)
        await self._yield_to_its_end()
        proxy = self._begin_attempt(name, port)
        self._attempt = attempt = trio.CancelScope()
        proxied: ProxiedDatagramLink | None = None
        try:
            with attempt:
                if task_status is not trio.TASK_STATUS_IGNORED:
                    task_status.started()
                    await trio.lowlevel.checkpoint()  # then whoever is told has had its turn, in whatever order
                await trio.lowlevel.checkpoint()
                targets: list[Target] = []
                if proxy is None:
                    targets = await look_up(host, port, protocol)
                else:
                    proxied = await self._connect_through(proxy, host, port, protocol, wanted)
                if self._attempt is attempt and self._in_scope():
                    if proxied is None:
                        self._connect_now(targets, wanted)
                    else:
                        found = isinstance(host, HostAddress) or (proxy is not None and not proxy.looks_up_names)
                        self._machine.feed(Input.FOUND if found else Input.LEFT_TO_PROXY, self._tell)
                        self._has_peer(proxied)
                    return
        except (OSError, UnicodeError, AttemptsFailed) as exc:
            if self._attempt is attempt:
                failure = self._attempt_failed(host, port, exc)
                await trio.lowlevel.cancel_shielded_checkpoint()  # others see that it has failed
                raise failure.error() from failure.cause
        except BaseException:
            if self._attempt is attempt:
                self._drop_attempt(Input.ATTEMPT_DROPPED)
            raise
        finally:
            if proxied is not None and self._link is not proxied:
                proxied.close()
        raise trio.ClosedResourceError("cannot connect: another task ended the attempt")

    def _begin_attempt(self, name: str, port: int) -> NetworkProxy | None:
        """Returns: the proxy by which it goes; where it is bound already, that is settled."""
        self._check_can_connect()
        proxy: NetworkProxy | None = None
        if self._link is None:
            proxy = self._proxy_to_connect("udp", name, port)
        elif isinstance(self._link, ProxiedDatagramLink):
            proxy = self._link.proxy
        if self._link is None:
            self._generation = Generation()
            self._forget_arrived()
        self._open = True
        self._error, self._error_string = None, ""
        self._peer_name = name
        self._machine.feed(Input.LOOK_UP, self._tell)
        return proxy

    def _connect_now(self, targets: list[Target], options: Sequence[SystemOption]) -> None:
        """Raises: AttemptsFailed."""
        self._machine.feed(Input.FOUND, self._tell)
        failures: list[OSError] = []
        for target in targets:
            try:
                if self._link is None:
                    link = self._connected_link(target, options)
                else:
                    link = self._link
                    set_options(link.native(), options)
                    there = reachable(target, int(link.native().family), dual_stack=self._is_any)
                    link.connect(there.address)
            except OSError as exc:
                exc.add_note(f"while connecting to {target}")
                failures.append(exc)
                continue
            self._has_peer(link)
            return
        raise AttemptsFailed("no address could be connected", failures)

    def _has_peer(self, link: DatagramLink) -> None:
        self._attempt, self._link, self._is_any = None, link, False
        peer = link.peer_address()
        assert peer is not None
        sender = from_sockaddr(peer), peer[1]
        kept = [datagram for datagram in self._arrived if (datagram.sender_address, datagram.sender_port) == sender]
        self._arrived = deque(kept)
        self._generation.connected = True
        self._machine.feed(Input.ESTABLISHED, self._tell)
        self._update_watcher()
        self._changed()

    def _connected_link(self, target: Target, options: Sequence[SystemOption]) -> DatagramLink:
        sock = trio.socket.socket(target.family, socket.SOCK_DGRAM)
        try:
            link = self._make_link(sock, target.address)
        except BaseException:
            sock.close()
            raise
        try:
            set_options(link.native(), options)
            link.connect(target.address)
        except BaseException:
            link.close()
            raise
        return link

    def _attempt_failed(self, host: HostAddress | str, port: int, exc: Exception) -> Failure:
        last = exc.exceptions[-1] if isinstance(exc, AttemptsFailed) else exc
        cause = last if isinstance(exc, AttemptsFailed) and len(exc.exceptions) == 1 else exc
        last.__traceback__ = None
        message = f"cannot connect to {spelled(host) or 'an empty name'} port {port}: {reason_of(last)}"
        self._set_failure(kind_of(last), message, cause)
        self._drop_attempt(Input.ATTEMPT_FAILED)
        failure = self._generation.failure
        assert failure is not None
        failure.told = True
        return failure

    def _drop_attempt(self, happened: Input) -> None:
        """End the connect_to_host that runs, in whatever task, and what was bound for it."""
        attempt, self._attempt = self._attempt, None
        assert attempt is not None
        attempt.cancel(reason="the attempt was dropped")
        self._generation.ended_by = trio.lowlevel.current_task()
        self._forget_arrived()
        self._machine.feed(happened, self._tell)
        self._drop_link()

    # -- its end ----------------------------------------------------------------------------

    async def disconnect_from_host(self) -> None:
        """Give the address back, and the peer; return when UNCONNECTED.  No effect if already so.

        What had arrived can still be received, or read after a connection.  While looking up it drops the attempt.

        Raises: trio.ClosedResourceError: Another task aborted it meanwhile.
        Cancelled: as ``abort()``.  What another task has begun meanwhile is not touched.
        Qt: disconnectFromHost().
        """
        generation = self._generation
        if await self._disconnect() and generation.aborted:
            raise trio.ClosedResourceError("cannot disconnect: another task aborted the socket")

    async def aclose(self) -> None:
        """``disconnect_from_host``, and every later call raises ``trio.ClosedResourceError``.

        Cancelled: closed all the same, as by ``abort()``.
        Qt: close().
        """
        self._check_run()
        self._open = False
        self._retired = True
        try:
            await self._disconnect()
        finally:
            self._close()

    async def _leave(self) -> None:
        self._retired = True
        await self._disconnect()

    async def _disconnect(self) -> bool:
        """See ``disconnect_from_host``.  Was there anything to end?"""
        self._check_call()
        # It is meant for what there is now; what another task begins in the same step is none of its business.
        generation, there_was = self._generation, self._link is not None or self._attempt is not None
        try:
            self._call_off()
            await trio.lowlevel.checkpoint()
        except BaseException:
            if self._generation is generation:
                self.abort()
            raise
        if self._generation is generation:
            if self._attempt is not None:
                self._drop_attempt(Input.DISCONNECT)
            elif self._link is not None:
                link = self._link
                self._take_rest(link)
                if self._link is link:  # else that has found the socket lost
                    generation.ended_by = trio.lowlevel.current_task()
                    self._machine.feed(Input.DISCONNECT, self._tell)
                    self._machine.feed(Input.FLUSHED, self._tell)
                    self._drop_link()
        return there_was

    def abort(self, *, reset: bool = False) -> None:
        """Give the address back, and the peer, now; what had arrived is dropped.  Never waits, never fails.

        Tasks waiting on the socket wake with ``trio.ClosedResourceError``.

        Args:
          reset: Datagrams know no reset, so this changes nothing.

        Qt: abort().
        """
        self._check_run()
        self._abort()

    def _abort(self, *, reset: bool = False) -> None:
        self._call_off()
        self._open = False
        self._forget_arrived()
        self._generation.dropped = True
        if self._attempt is not None:
            self._generation.aborted = True
            self._drop_attempt(Input.ABORT)
        elif self._link is not None:
            self._generation.aborted = True
            self._machine.feed(Input.ABORT, self._tell)
            self._drop_link()
        self._changed()


async def _reach(host: str, port: int) -> Link:
    """The connection to a proxy that carries datagrams; it has no options of ours."""
    return await race(await look_up(host, port, NetworkLayerProtocol.ANY_IP), _as_it_is)


def _as_it_is(sock: NativeSocket | trio.socket.SocketType, peer: Sockaddr) -> None:
    """Set no option on it."""
