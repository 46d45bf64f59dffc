"""The networks that socket tests run on, and scripted peers on them.

A test takes its network from the ``network`` fixture and speaks to it only through this module, trio's sockets and
trioqt, so the same test runs on every network there is: on the kernel's loopback and on a simulated one.
A test whose parameter is a ``Loopback``, and not a ``Network``, is about what only a kernel has.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import ssl
import struct
import termios
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

from tests.unused_ports import unused_port
from trioqt import SslServer, SslSocket, TcpSocket
from trioqt.testing import VirtualNetwork
from trioqt.testing.network.socket import VirtualSocket

if TYPE_CHECKING:
    from tests.certificates import Contexts

__all__ = ["Loopback", "Network", "RawListener", "RawPeer", "Secure", "TlsPeer", "Virtual", "secure", "this_network"]

# tcp(7), TCP_INFO: of a listening socket, how many connections wait at offset 24, and how many may at 28.
TCP_INFO_SIZE = 104
TCP_INFO_QUEUE = struct.Struct("24xII")

# include/net/tcp_states.h, from 1 on.
TCP_STATES = (
    *("ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"),
    *("CLOSED", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING"),
)


@attrs.frozen
class RawPeer:
    """The other end, without any trioqt: a connected trio socket that does what a test tells it."""

    sock: trio.socket.SocketType

    async def ready(self) -> None:
        """Until it can do what it is told: over TLS, until its handshake is done."""

    async def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        view = memoryview(data)
        while view:
            view = view[await self.sock.send(view) :]

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        """What comes next; ``b""`` for a clean end.  Raises: ConnectionResetError at a reset."""
        return await self.sock.recv(max_bytes)

    async def receive(self, count: int) -> bytes:
        """Exactly ``count`` bytes; fewer only at the end."""
        got = b""
        while len(got) < count and (piece := await self.receive_some(count - len(got))):
            got += piece
        return got

    async def receive_to_end(self) -> bytes:
        """Everything up to a clean end.  Raises: ConnectionResetError at a reset."""
        got = bytearray()
        while piece := await self.receive_some():
            got += piece
        return bytes(got)

    async def how_it_ends(self) -> str:
        """``end`` or ``reset``, after whatever comes before that."""
        try:
            await self.receive_to_end()
        except ConnectionResetError:
            return "reset"
        return "end"

    async def end_in_answer(self) -> None:
        """End when the other end has: who lingers over what it did not read need not do so for its whole second."""
        await self.how_it_ends()
        self.close()

    def send_now(self, data: bytes) -> int:
        """Send what the system takes at once; how much that was.  Raises: BlockingIOError if it takes nothing."""
        return self.sock.try_send(data) if isinstance(self.sock, VirtualSocket) else os.write(self.sock.fileno(), data)

    def receive_now(self, count: int) -> bytes:
        """What the system holds, up to ``count`` bytes; empty if it holds nothing."""
        try:
            if isinstance(self.sock, VirtualSocket):
                return self.sock.try_recv(count)
            return os.read(self.sock.fileno(), count)
        except BlockingIOError:
            return b""

    def finish(self) -> None:
        """Send no more (FIN); receive on."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End it with a reset (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """An ordinary close."""
        self.sock.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()


@attrs.frozen
class RawListener:
    """A listening trio socket."""

    sock: trio.socket.SocketType

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.sock.getsockname()[1]
        return port

    async def accept(self) -> RawPeer:
        """The next connection."""
        sock, _ = await self.sock.accept()
        return RawPeer(sock)

    def close(self) -> None:
        """Stop listening."""
        self.sock.close()

    def __enter__(self) -> RawListener:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()


class Network(ABC):
    """What sockets run on, and what it tells of the sockets that a program holds."""

    host = "127.0.0.1"

    # ---- what it knows ---------------------------------------------------------------------------

    @abstractmethod
    def socket(self, descriptor: int) -> AbstractContextManager[Any]:
        """The socket that has this descriptor, to be asked and not to be used."""

    @abstractmethod
    def open_descriptors(self) -> set[int]:
        """Of all sockets that are open."""

    @abstractmethod
    def unread_bytes(self, descriptor: int) -> int:
        """How many bytes it holds that nobody has read."""

    @abstractmethod
    def unacknowledged_bytes(self, descriptor: int) -> int:
        """How many bytes it holds that the other end does not have."""

    def on_the_wire(self, size: int) -> int:
        """How many bytes a message of ``size`` bytes is, sent in one call."""
        return size

    @abstractmethod
    def tcp_state(self, descriptor: int) -> str:
        """The state of a connection, as RFC 9293 calls it."""

    @abstractmethod
    def accept_queue(self, descriptor: int) -> tuple[int, int]:
        """How many connections wait for a listening socket to accept them, and how many may."""

    @abstractmethod
    def longest_queue(self) -> int:
        """How many connections may wait for a listening socket at most."""

    # ---- peers -----------------------------------------------------------------------------------

    async def raw_listener(self, host: str | None = None, *, backlog: int = 100) -> RawListener:
        """A scripted server; at ``::`` of both families."""
        host = host or self.host
        sock = trio.socket.socket(_family(host), socket.SOCK_STREAM)
        try:
            if ":" in host:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
            await sock.bind((host, 0))
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return RawListener(sock)

    async def raw_connect(self, port: int, host: str | None = None) -> RawPeer:
        """A scripted client."""
        host = host or self.host
        sock = trio.socket.socket(_family(host), socket.SOCK_STREAM)
        try:
            await sock.connect((host, port))
        except BaseException:
            sock.close()
            raise
        return RawPeer(sock)

    async def unused_port(self) -> int:
        """A port that nobody listens on."""
        return unused_port()

    async def connected(self, parent: trio.Nursery, **options: Any) -> tuple[TcpSocket, RawPeer]:
        """A connected socket of ours, its tasks in ``parent``, and a scripted peer."""
        sock = TcpSocket(parent, **options)
        with await self.raw_listener() as listener:
            await sock.connect_to_host(self.host, listener.port)
            return sock, await listener.accept()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class Loopback(Network):
    """The kernel's network, as far as it stays on this machine."""

    def socket(self, descriptor: int) -> AbstractContextManager[Any]:
        return socket.socket(fileno=os.dup(descriptor))

    def open_descriptors(self) -> set[int]:
        found = set()
        for name in os.listdir("/proc/self/fd"):
            try:
                os.fstat(int(name))
            except OSError:
                continue  # listdir's own
            found.add(int(name))
        return found

    def unread_bytes(self, descriptor: int) -> int:
        return _ioctl(descriptor, termios.FIONREAD)

    def unacknowledged_bytes(self, descriptor: int) -> int:
        return _ioctl(descriptor, termios.TIOCOUTQ)

    def tcp_state(self, descriptor: int) -> str:
        return TCP_STATES[self._tcp_info(descriptor)[0] - 1]

    def accept_queue(self, descriptor: int) -> tuple[int, int]:
        waiting, most = TCP_INFO_QUEUE.unpack_from(self._tcp_info(descriptor))
        return waiting, most

    def longest_queue(self) -> int:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())

    def _tcp_info(self, descriptor: int) -> bytes:
        with self.socket(descriptor) as sock:
            info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        return info


def _ioctl(descriptor: int, request: int) -> int:
    count: int = struct.unpack("i", fcntl.ioctl(descriptor, request, bytes(4)))[0]
    return count


@attrs.frozen
class Virtual(Network):
    """A simulated network without latency: what is sent has arrived, as on loopback."""

    net: VirtualNetwork

    def socket(self, descriptor: int) -> AbstractContextManager[Any]:
        return nullcontext(self._find(descriptor))

    def open_descriptors(self) -> set[int]:
        return {descriptor for host in self.net.hosts.values() for descriptor in host.sockets}

    def unread_bytes(self, descriptor: int) -> int:
        return self._find(descriptor).row()[3]

    def unacknowledged_bytes(self, descriptor: int) -> int:
        return self._find(descriptor).row()[4]

    def tcp_state(self, descriptor: int) -> str:
        return self._find(descriptor).row()[0]

    def accept_queue(self, descriptor: int) -> tuple[int, int]:
        return self._find(descriptor).row()[3:]

    def longest_queue(self) -> int:
        return socket.SOMAXCONN

    def _find(self, descriptor: int) -> VirtualSocket:
        for host in self.net.hosts.values():
            sock = host.sockets.get(descriptor)
            if isinstance(sock, VirtualSocket):
                return sock
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


@attrs.frozen
class TlsPeer(RawPeer):
    """The other end of TLS, by the standard library alone."""

    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    unsent: bytearray = attrs.field(factory=bytearray)
    flushing: trio.Lock = attrs.field(factory=trio.Lock)  # one task may send while another receives

    @classmethod
    async def over(
        cls,
        peer: RawPeer,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        arrived: bytes = b"",
    ) -> TlsPeer:
        """TLS over ``peer``, after the handshake; ``arrived`` has been read already."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(arrived)
        tls = context.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=server_hostname)
        peer = cls(peer.sock, tls, incoming, outgoing)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await peer._flush()
                await peer._feed()
            else:
                await peer._flush()
                return peer

    async def _flush(self) -> None:
        self.unsent.extend(self.outgoing.read())
        async with self.flushing:
            while self.unsent:
                del self.unsent[: await self.sock.send(bytes(self.unsent))]

    async def _feed(self) -> None:
        data = await self.sock.recv(65536)
        self.incoming.write(data) if data else self.incoming.write_eof()

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), 16384):
            self.tls.write(data[start : start + 16384])
            await self._flush()

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        """Of an end, whether there was a close_notify, or what is below has ended without one, is not told."""
        while True:
            try:
                return self.tls.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._flush()  # new keys may have been asked for
                await self._feed()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def send_now(self, data: bytes) -> int:
        """As below, in whole messages: what is taken in part goes out with the next."""
        if self.unsent:
            del self.unsent[: RawPeer.send_now(self, bytes(self.unsent))]
            if self.unsent:
                raise BlockingIOError
        count = self.tls.write(data[:16384])
        self.unsent.extend(self.outgoing.read())
        del self.unsent[: RawPeer.send_now(self, bytes(self.unsent))]
        return count

    def receive_now(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            try:
                got += self.tls.read(count - len(got))
            except ssl.SSLWantReadError:
                data = RawPeer.receive_now(self, 65536)
                if not data:
                    break
                self.incoming.write(data)
        return got

    def _say_close(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self.unsent.extend(self.outgoing.read())
        with contextlib.suppress(OSError):
            del self.unsent[: RawPeer.send_now(self, bytes(self.unsent))]

    def finish(self) -> None:
        """A close_notify, and then as below."""
        self._say_close()
        with contextlib.suppress(OSError):  # the other end may be gone, and have answered that with a reset
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self.sock.fileno() != -1:
            self._say_close()
        self.sock.close()


@attrs.frozen(eq=False)
class LatePeer(RawPeer):
    """A ``TlsPeer`` whose handshake runs meanwhile: until it is done, whoever sends or receives waits for it."""

    done: trio.Event = attrs.field(factory=trio.Event)
    made: list[RawPeer] = attrs.field(factory=list)
    failed: list[OSError] = attrs.field(factory=list)

    async def shake_hands(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        """Do the handshake; without it the connection is as it is."""
        name = None if server_side else NAME
        try:
            self.made.append(await TlsPeer.over(self, context, server_side=server_side, server_hostname=name))
        except ssl.SSLError:
            pass  # what is below ended, or will
        except OSError as exc:
            self.failed.append(exc)
        except trio.ClosedResourceError:
            pass
        self.done.set()

    async def ready(self) -> None:
        await self.done.wait()
        if self.failed:
            raise self.failed[0]

    @property
    def now(self) -> RawPeer:
        return self.made[0] if self.made else RawPeer(self.sock)

    async def send(self, data: bytes) -> None:
        await self.ready()
        await self.now.send(data)

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        await self.ready()
        return await self.now.receive_some(max_bytes)

    def send_now(self, data: bytes) -> int:
        return self.now.send_now(data)

    def receive_now(self, count: int) -> bytes:
        return self.now.receive_now(count)

    def finish(self) -> None:
        self.now.finish()

    def close(self) -> None:
        self.now.close()

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@attrs.frozen(eq=False)
class SecureListener(RawListener):
    """It accepts, and does its handshakes, before anybody asks for a connection, as a kernel connects."""

    came: trio.MemoryReceiveChannel[RawPeer]

    async def accept(self) -> RawPeer:
        return await self.came.receive()

    def close(self) -> None:
        """Whom nobody has accepted goes with it."""
        self.sock.close()
        with contextlib.suppress(trio.WouldBlock):
            while True:
                self.came.receive_nowait().sock.close()

    def __exit__(self, *exc_info: object) -> None:
        self.close()


NAME = "peer.example"
SECURE: trio.lowlevel.RunVar[Secure | None] = trio.lowlevel.RunVar("the network over TLS", None)


@attrs.frozen
class Secure(Virtual):
    """TLS over a simulated network: all sockets and peers speak it, and what is below is TCP.

    A test file says ``OVER_TLS = True``; then its TcpSocket and TcpServer are those of this network while its tests run
    on it.  What is not for TLS is marked ``plain``, with the reason.
    """

    tls: Contexts
    nursery: trio.Nursery
    """Where peers do their handshakes."""
    sockets: type[SslSocket]
    servers: type[SslServer[Any]]

    def on_the_wire(self, size: int) -> int:
        """RFC 8446, section 5.2: each record has a header, and within what is encrypted its type and a tag."""
        return size + -(-size // 16384) * (5 + 1 + 16)

    async def connected(self, parent: trio.Nursery, **options: Any) -> tuple[TcpSocket, RawPeer]:
        sock = self.sockets(parent, **options)
        peers: list[RawPeer] = []
        with await Virtual.raw_listener(self) as listener:

            async def accept() -> None:
                peers.append(await TlsPeer.over(await listener.accept(), self.tls.server, server_side=True))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept)
                await sock.connect_to_host(self.host, listener.port)
        return sock, peers[0]

    async def raw_listener(self, host: str | None = None, *, backlog: int = 100) -> RawListener:
        plain = await Virtual.raw_listener(self, host, backlog=backlog)
        send, receive = trio.open_memory_channel[RawPeer](backlog)

        async def accept() -> None:
            with contextlib.suppress(OSError, trio.ClosedResourceError):
                while True:
                    peer = LatePeer((await plain.accept()).sock)
                    self.nursery.start_soon(partial(peer.shake_hands, self.tls.server, server_side=True))
                    send.send_nowait(peer)

        self.nursery.start_soon(accept)
        return SecureListener(plain.sock, receive)

    async def raw_connect(self, port: int, host: str | None = None) -> RawPeer:
        peer = LatePeer((await Virtual.raw_connect(self, port, host)).sock)
        self.nursery.start_soon(partial(peer.shake_hands, self.tls.client, server_side=False))
        return peer

    async def unused_port(self) -> int:
        with await Virtual.raw_listener(self) as listener:
            return listener.port


def secure(net: VirtualNetwork, tls: Contexts, nursery: trio.Nursery) -> Secure:
    """That network."""
    sockets = sockets_of(tls)
    network = Secure(net, tls, nursery, sockets, servers_of(tls, sockets))
    SECURE.set(network)
    return network


def sockets_of(tls: Contexts) -> type[SslSocket]:
    """What is made where a test says TcpSocket."""

    class Socket(SslSocket):
        __slots__ = ()

        def __init__(self, parent: trio.Nursery | None = None, **options: Any) -> None:
            super().__init__(parent, context=options.pop("context", tls.client), **options)

        async def connect_to_host(self, host: Any, port: int, **options: Any) -> None:
            if self._planned is None:
                await self.connect_to_host_encrypted(host, port, server_hostname=NAME, **options)
            else:
                await super().connect_to_host(host, port, **options)

    return Socket


def servers_of(tls: Contexts, sockets: type[SslSocket]) -> type[SslServer[Any]]:
    """What is made where a test says TcpServer."""

    class Server(SslServer[Any]):
        __slots__ = ()

        def __init__(self, socket_factory: Any = None, **options: Any) -> None:
            super().__init__(tls.server, socket_factory or sockets, **options)

    return Server


def this_network() -> Network:
    """The one on which this ``trio.run`` is."""
    net, encrypted = VirtualNetwork.current(), SECURE.get()
    if encrypted is not None and encrypted.net is net:
        return encrypted
    return Loopback() if net is None else Virtual(net)
