"""What scenarios are made of: a socket under test, the other end, and what must hold when the run is over."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Literal, TypeVar, TypeVarTuple

import attrs
import trio
import trio.testing
import trustme

from tests.cancel.pipes import PipeEnd, pipe_pair
from tests.certificates import Contexts, contexts
from trioqt import SocketState, TcpServer, TcpSocket, UdpSocket
from trioqt.core.states import Input, Told
from trioqt.links.native import NativeLink
from trioqt.links.tls import TlsLink
from trioqt.links.tls_terms import Terms
from trioqt.sockets.abstract_socket import Bound
from trioqt.testing import Probe, VirtualNetwork
from trioqt.testing.network.socket import VirtualSocket

__all__ = [
    "GOOD",
    "MEDIA",
    "NETWORKS",
    "Case",
    "Medium",
    "Peer",
    "PipePeer",
    "Play",
    "SecurePeer",
    "Seen",
    "Situation",
    "SocketPeer",
    "Trial",
    "adopt",
    "connect_now",
    "give_spare",
    "hand_over",
    "listen_now",
    "read_to_end",
    "recording",
    "secrets",
    "turn",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Medium = Literal["memory", "loopback", "virtual", "distant", "tls"]
"""Distant: simulated, and what is sent arrives later, so there are places in between.  TLS: over a simulated one."""

NETWORKS: tuple[Medium, ...] = ("loopback", "virtual", "distant")
"""Those that have sockets."""

MEDIA: tuple[Medium, ...] = ("memory", *NETWORKS)

End = Literal["clean", "reset"]
Situation = Literal[
    "answered at once",
    "has to wait",
    "peer finishes",
    "peer resets",
    "full queue",
    "second task",
]

# What the kernel holds between two sockets of this size is 10 KiB on Linux 6, and reading makes room at once.  With
# larger ones the tests would move megabytes, and wait for acknowledgements that Linux delays by 40 ms.
SMALL_BUFFER = 4096

# The simulated network moves nothing ahead of a reader; 7 KiB between two sockets of the smallest size there is.
SMALLEST_BUFFER = 1024

# One way, in seconds, where it is not 0.
LATENCY = 0.05

# Where the tests' servers listen.
GOOD = "127.0.0.1"

# What a pipe holds.
CAPACITY = 64


@attrs.frozen
class SocketPeer:
    """The other end of a connection, the kernel's or a simulated one."""

    sock: trio.socket.SocketType

    def send_now(self, data: bytes) -> None:
        """Without a step; it has arrived."""
        net = VirtualNetwork.current()
        if isinstance(net, OneHost) and isinstance(self.sock, VirtualSocket):
            with net.at_once():
                sent = self.sock.try_send(data)
        else:
            sent = os.write(self.sock.fileno(), data)
        assert sent == len(data)

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[await self.sock.send(view) :]

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Raises: OSError at a reset."""
        # Linux delays acknowledgements by 40 ms of real time, in which virtual time would jump.
        delays = hasattr(socket, "TCP_QUICKACK") and not isinstance(self.sock, VirtualSocket)
        if delays:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        data: bytes = await self.sock.recv(max_bytes)
        if delays:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data

    def finish(self) -> None:
        with contextlib.suppress(OSError):  # it has been reset already
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


@attrs.frozen
class PipePeer:
    """The other end of a pipe."""

    stream: PipeEnd

    def send_now(self, data: bytes) -> None:
        """Without a step."""
        self.stream.put(data)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Raises: trio.BrokenResourceError at a reset."""
        return await self.stream.receive_some(max_bytes)

    def finish(self) -> None:
        self.stream.finish()

    def reset(self) -> None:
        self.stream.close(reset=True)

    def close(self) -> None:
        self.stream.close()


@attrs.frozen
class SecurePeer(SocketPeer):
    """The other end of TLS, by the standard library, after the handshake."""

    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    lost: list[OSError] = attrs.field(factory=list)

    def send_now(self, data: bytes) -> None:
        self.tls.write(data)
        super().send_now(self.outgoing.read())

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        await super().send(self.outgoing.read())

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while True:
            try:
                return self.tls.read(max_bytes)
            except ssl.SSLWantReadError:
                data = await super().receive()
                if not data and self.lost:
                    raise self.lost[0] from None
                self.incoming.write(data) if data else self.incoming.write_eof()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def finish(self) -> None:
        self._say_close()
        super().finish()

    def close(self) -> None:
        self._say_close()
        super().close()

    def _say_close(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        try:
            super().send_now(self.outgoing.read())
        except BlockingIOError:
            pass  # it is no more than a goodbye
        except OSError as exc:
            self.lost.append(exc)  # the system tells it once


Peer = SocketPeer | PipePeer


@attrs.define(eq=False)
class Seen:
    """What the other end has received, and how it ended; None: it has not."""

    data: bytearray = attrs.Factory(bytearray)
    end: End | None = None
    over: trio.Event = attrs.Factory(trio.Event)


class OneHost(VirtualNetwork):
    """A network of one host, which reaches itself after ``latency``."""

    def __init__(self, latency: float, *, is_encrypted: bool = False) -> None:
        super().__init__()
        self.is_encrypted = is_encrypted
        self.latency = latency
        self._set_latency(latency)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """What is sent in the block has arrived."""
        self._set_latency(0)
        yield
        self._set_latency(self.latency)

    def _set_latency(self, latency: float) -> None:
        if self.latency:
            self.set_link("default", "default", latency=latency)


async def turn(count: int = 1) -> None:
    """Wait until everybody else waits, ``count`` times: this paces a scenario.

    It costs no time on any clock, unless there is a latency: then what has been sent arrives meanwhile, and its answer.
    """
    net = VirtualNetwork.current()
    for _ in range(count):
        await trio.testing.wait_all_tasks_blocked()
        if isinstance(net, OneHost) and net.latency:
            await trio.sleep(2.1 * net.latency)


async def read_to_end(peer: Peer, seen: Seen, *, pause: int = 0, then: bytes = b"", stay: int = 0) -> None:
    """Receive until the end, resting ``pause`` turns before each piece.

    Args:
      then: What it says to a clean end.
      stay: Seconds until it closes its side.
    """
    try:
        while True:
            await turn(pause)
            piece = await peer.receive()
            if not piece:
                break
            seen.data += piece
        seen.end = "clean"
        if then:
            await peer.send(then)
        await trio.sleep(stay)
    except (OSError, trio.BrokenResourceError):
        seen.end = "reset"
    except trio.ClosedResourceError:
        pass  # the scenario closed it
    finally:
        peer.close()
        seen.over.set()


class _Recording:
    """A socket that keeps what it tells, without being subscribed to: that would make it read ahead."""

    options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *args: Any, **options: Any) -> None:
        self.told: list[Told] = []
        super().__init__(*args, **{**self.options, **options})

    def _tell(self, thing: Told) -> None:
        self.told.append(thing)
        super()._tell(thing)  # type: ignore[misc]


def recording(socket_class: type[TcpSocket], **options: Any) -> type[TcpSocket]:
    """``socket_class``, keeping what it tells, with these options: ``from_stream`` takes none."""
    return type(socket_class.__name__, (_Recording, socket_class), {"options": options})


@attrs.define(eq=False)
class Trial:
    """One run of a scenario."""

    probe: Probe
    nursery: trio.Nursery
    """For what the other side does; it ends by itself, or the run hangs and fails."""
    medium: Medium
    socket_class: type[TcpSocket]
    server_class: type[TcpServer[Any]]
    udp_class: type[UdpSocket] = UdpSocket
    sockets: list[Any] = attrs.Factory(list)
    called: set[str] = attrs.Factory(set)
    cancelled: bool = False
    """The last call was cancelled, or interrupted."""

    @property
    def interrupted(self) -> bool:
        """The last call was ended by a Ctrl-C."""
        hit = self.probe._walker.hit
        return self.cancelled and hit is not None and hit.kind == "line"

    async def call(self, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T | None:
        """``probe.subject``; and every async method looks for cancellation."""
        name = _name_of(fn)
        self.called.add(name.rpartition(".")[2])
        before = self.probe._walker.hit
        try:
            result = await self.probe.subject(fn, *args)
        finally:
            self.cancelled = self.probe.cancelled
            self.check_told()
        hit = self.probe._walker.hit
        if before is None and hit is not None and hit.kind == "start" and name.endswith(hit.subject):
            self.expect(self.cancelled, f"{name} looks for cancellation at its start")
        return result

    def expect(self, condition: object, message: str) -> None:
        self.probe.expect(condition, message)

    def equal(self, what: str, found: object, wanted: object) -> None:
        self.expect(found == wanted, f"{what}: {found!r}, not {wanted!r}")

    def socket(self, parent: trio.Nursery | None = None, **options: Any) -> TcpSocket:
        """A socket under test."""
        sock = recording(self.socket_class)(parent, **options)
        self.sockets.append(sock)
        return sock

    def udp_socket(self) -> UdpSocket:
        """A datagram socket under test."""
        sock: UdpSocket = type("UdpSocket", (_Recording, self.udp_class), {})()
        self.sockets.append(sock)
        return sock

    def server(self, **options: Any) -> TcpServer[TcpSocket]:
        """A server under test."""
        return self.server_class(self.socket, **options)

    @asynccontextmanager
    async def pair(self, **options: Any) -> AsyncIterator[tuple[TcpSocket, Peer]]:
        """A connected socket in a block of its own, and the other end."""
        if self.medium == "memory":
            sock, peer = self.stream_pair(**options)
            async with sock:
                yield sock, peer
            return
        async with self.socket(**options) as sock:
            yield sock, adopt(sock)

    def child_pair(self, parent: trio.Nursery, **options: Any) -> tuple[TcpSocket, Peer]:
        """A connected socket whose tasks are in ``parent``, and the other end."""
        if self.medium == "memory":
            return self.stream_pair(parent, **options)
        sock = self.socket(parent, **options)
        return sock, adopt(sock)

    def stream_pair(self, parent: trio.Nursery | None = None, **options: Any) -> tuple[TcpSocket, PipePeer]:
        """A socket over a stream, not entered, and the other end."""
        ours, theirs = pipe_pair(CAPACITY)
        return self.over(ours, parent, **options), PipePeer(theirs)

    def socket_stream_pair(self, parent: trio.Nursery | None = None, **options: Any) -> tuple[TcpSocket, SocketPeer]:
        """The same over a stream that has a socket of the network at its bottom."""
        ours, theirs = connected_now()
        return self.over(trio.SocketStream(ours), parent, **options), theirs

    def over(self, stream: trio.abc.Stream, parent: trio.Nursery | None = None, **options: Any) -> TcpSocket:
        """A socket over ``stream``, not entered."""
        sock = recording(self.socket_class, **options).from_stream(stream, parent)
        self.sockets.append(sock)
        return sock

    def check_told(self) -> None:
        """State and events agree."""
        for sock in self.sockets:
            state = sock.state()  # first: a socket whose parent nursery has ended finds that out now
            states = [thing for thing in sock.told if isinstance(thing, SocketState)]
            self.equal("the last state told", states[-1] if states else SocketState.UNCONNECTED, state)

    def finish(self) -> None:
        """What must hold at the end of every run."""
        self.check_told()
        for sock in self.sockets:
            self.equal("the state at the end", sock.state(), SocketState.UNCONNECTED)
            self.equal("the descriptor at the end", sock.socket_descriptor(), -1)
        self.equal("tasks left", len(self.nursery.child_tasks), 0)


Play = Callable[[Trial], Awaitable[None]]


# ---- sockets of the network that the run is on, made without a step of trio ----------------------------------------


def adopt(sock: TcpSocket) -> SocketPeer:
    """Connect ``sock``; what it gives is the other end."""
    ours, theirs = connected_now()
    net = VirtualNetwork.current()
    if isinstance(net, OneHost) and net.is_encrypted:
        return _encrypt(sock, ours, theirs.sock)
    hand_over(sock, ours)
    return theirs


def connected_now() -> tuple[trio.socket.SocketType, SocketPeer]:
    """Two ends of a connection that holds little."""
    net = VirtualNetwork.current()
    if isinstance(net, OneHost):
        with _listen_virtually(GOOD, 0, 1, SMALLEST_BUFFER) as listener:
            ours = _connect_virtually(net, *listener.getsockname(), buffer=SMALLEST_BUFFER)
            return ours, SocketPeer(listener.try_accept()[0])
    connected = socket.socket()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        listener.bind((GOOD, 0))
        listener.listen(1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.connect(listener.getsockname())
        theirs, _ = listener.accept()
    return trio.socket.from_stdlib_socket(connected), SocketPeer(trio.socket.from_stdlib_socket(theirs))


@functools.cache
def secrets() -> Contexts:
    """What both ends of TLS know.  Of RSA, because the length of an ECDSA signature is by lot."""
    return contexts("peer.example", key_type=trustme.KeyType.RSA)


def _encrypt(sock: TcpSocket, ours: trio.socket.SocketType, theirs: trio.socket.SocketType) -> SecurePeer:
    """As ``hand_over``, with TLS over it; the handshake takes place in memory, so it takes no step."""
    assert isinstance(ours, VirtualSocket)
    link = TlsLink(NativeLink(ours, ours.getpeername()), Terms(secrets().client, False, "peer.example"))
    client = link._tls = link._terms.make_object(link._incoming, link._outgoing)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = SecurePeer(theirs, secrets().server.wrap_bio(incoming, outgoing, server_side=True), incoming, outgoing)
    for channel in (client, peer.tls, client, peer.tls):
        with contextlib.suppress(ssl.SSLWantReadError):
            channel.do_handshake()
        incoming.write(link._outgoing.read())
        link._incoming.write(outgoing.read())
    link._open, link._holds = True, True
    sock._adopt(link, Input.ADOPTED)
    return peer


def hand_over(sock: TcpSocket, connected: trio.socket.SocketType) -> None:
    """``set_socket_descriptor`` with the socket below ``connected``; a simulated one has no descriptor to give."""
    if isinstance(connected, VirtualSocket):
        sock._adopt(NativeLink(connected, connected.getpeername()), Input.ADOPTED)
    else:
        sock.set_socket_descriptor(connected.detach())


def give_spare(sock: TcpSocket) -> None:
    """``set_socket_descriptor`` with a new socket; a simulated one has no descriptor to give."""
    if VirtualNetwork.current() is not None:
        sock._bound = Bound(trio.socket.socket(), ("0.0.0.0", 0), False)
    else:
        sock.set_socket_descriptor(socket.socket().detach(), SocketState.UNCONNECTED)


def listen_now(host: str, port: int = 0, *, backlog: int = 10) -> trio.socket.SocketType:
    """A socket that listens."""
    if VirtualNetwork.current() is not None:
        return _listen_virtually(host, port, backlog)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(backlog)
    return trio.socket.from_stdlib_socket(sock)


def connect_now(host: str, port: int) -> trio.socket.SocketType:
    """A socket that is connected: the system answers for a server that listens.  Raises: OSError."""
    net = VirtualNetwork.current()
    if isinstance(net, OneHost):
        return _connect_virtually(net, host, port)
    return trio.socket.from_stdlib_socket(socket.create_connection((host, port)))


def _listen_virtually(host: str, port: int, backlog: int, buffer: int = 0) -> VirtualSocket:
    sock = _virtual_socket(socket.SO_RCVBUF, buffer)
    sock._bind_tcp(host, port)
    sock.listen(backlog)
    return sock


def _connect_virtually(net: OneHost, host: str, port: int, *, buffer: int = 0) -> VirtualSocket:
    sock = _virtual_socket(socket.SO_SNDBUF, buffer)
    with net.at_once():
        sock.connect_now((host, port))
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        sock.close()
        raise OSError(error, os.strerror(error))
    return sock


def _virtual_socket(option: int, buffer: int) -> VirtualSocket:
    sock = trio.socket.socket()
    assert isinstance(sock, VirtualSocket)
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, option, buffer)
    return sock


@attrs.frozen
class Case:
    """One scenario: a coroutine in a situation."""

    coroutine: str
    situation: Situation
    play: Play
    medium: Medium = "loopback"
    variant: str = ""
    through: str = ""
    """What is called, if it is not named as the coroutine."""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.coroutine, self.situation, self.variant, self.medium)))

    def scenario(
        self,
        socket_class: type[TcpSocket] = TcpSocket,
        server_class: type[TcpServer[Any]] = TcpServer,
        udp_class: type[UdpSocket] = UdpSocket,
    ) -> Callable[[Probe], Awaitable[None]]:
        """What ``cancel_everywhere`` wants, with these classes under test."""

        async def run(probe: Probe) -> None:
            async with self._network() as net:
                async with trio.open_nursery() as nursery:
                    trial = Trial(probe, nursery, self.medium, socket_class, server_class, udp_class)
                    await self.play(trial)
                trial.finish()
                if net is not None:
                    trial.equal("simulated sockets left open", list(net.hosts["default"].sockets.values()), [])
            called = self.through or self.coroutine.rpartition(".")[2]
            trial.expect(called in trial.called, f"{called} is called, not only {sorted(trial.called)}")

        run.__name__ = str(self)
        return run

    def _network(self) -> AbstractAsyncContextManager[VirtualNetwork | None]:
        if self.medium == "virtual":
            return OneHost(0)
        if self.medium == "tls":
            return OneHost(0, is_encrypted=True)
        return OneHost(LATENCY) if self.medium == "distant" else contextlib.nullcontext()


def _name_of(fn: Callable[..., object]) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return str(getattr(fn, "__qualname__", ""))
