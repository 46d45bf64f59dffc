"""A proxy for tests: it carries connections, or says whatever it is told to say."""

from __future__ import annotations

import base64
import ssl
import struct
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any, Self

import trio

from trioqt.core.addresses import HostAddress
from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.network_proxy import NetworkProxy, ProxyKind
from trioqt.links.interrupts import protected
from trioqt.sockets.ssl_server import SslServer
from trioqt.sockets.tcp_server import TcpServer
from trioqt.sockets.tcp_socket import TcpSocket
from trioqt.sockets.udp_socket import UdpSocket

__all__ = ["ScriptedProxy"]

SOCKS_REPLIES = {ErrorKind.HOST_NOT_FOUND: 4, ErrorKind.CONNECTION_REFUSED: 5, ErrorKind.NETWORK: 3}
HTTP_ANSWERS = {
    ErrorKind.HOST_NOT_FOUND: b"404 Not Found",
    ErrorKind.CONNECTION_REFUSED: b"503 Service Unavailable",
}
CONNECT, BIND, ASSOCIATE = 1, 2, 3
COMMANDS = {CONNECT: "CONNECT", BIND: "BIND", ASSOCIATE: "ASSOCIATE"}
NONE = NetworkProxy(ProxyKind.NONE)


@protected
class ScriptedProxy:
    """A proxy for tests, on whatever network they run: ``await nursery.start(ScriptedProxy(ProxyKind.HTTP).serve)``.

    Left alone it does what a proxy does: it connects, and carries bytes both ways.  What it is to do wrong is told.

    Args:
      kind: SOCKS5, which connects, listens and carries datagrams, or HTTP, which connects.
      user, password: What it wants to be shown first; nothing if both are empty.
      says: What to say in place of all that, one item for each connection: these bytes, once the client has spoken, and
        then the end.  Further connections are as usual.  None as an item: say nothing, and stay.
      piece: Everything before the connection is the client's is said in pieces of so many bytes.
      early: Said in one piece with the last answer, as if the host had been quick.
      host: Where it listens.
      context: It speaks TLS first, with the certificate in this.
    """

    def __init__(
        self,
        kind: ProxyKind,
        *,
        user: str = "",
        password: str = "",
        says: Sequence[bytes | None] = (),
        piece: int | None = None,
        early: bytes = b"",
        host: str = "127.0.0.1",
        context: ssl.SSLContext | None = None,
    ) -> None:
        if kind not in (ProxyKind.SOCKS5, ProxyKind.HTTP):
            raise ValueError(f"there is no script for {kind}")
        self._kind = kind
        self._user, self._password = user, password
        self._says = list(says)
        self._piece = piece
        self._early = early
        self._host = host
        self._server: TcpServer[Any] = TcpServer() if context is None else SslServer(context)
        self._server.set_proxy(NONE)
        self._carrying: set[trio.CancelScope] = set()
        self.seen: list[str] = []
        """What it was asked, in words: ``methods 0``, ``name and password``, ``CONNECT example.org:443``."""

    def network_proxy(self, user: str | None = None, password: str | None = None) -> NetworkProxy:
        """What ``set_proxy`` is to be told; with its own name and password, unless there are others."""
        shown = (self._user if user is None else user, self._password if password is None else password)
        return NetworkProxy(self._kind, self._host, self._server.server_port(), *shown)

    def end_connections(self) -> None:
        """Be killed: whatever it carries is cut off.  It listens on."""
        for scope in self._carrying:
            scope.cancel(reason="the proxy was killed")

    async def serve(self, *, task_status: trio.TaskStatus[Self] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve; ``nursery.start`` returns the proxy once it listens.

        Cancelled: every connection has ended.
        """
        async with self._server as server:
            await server.listen(self._host)
            task_status.started(self)
            await server.serve(self._serve)

    async def _serve(self, client: TcpSocket) -> None:
        with trio.CancelScope() as scope:
            self._carrying.add(scope)
            try:
                if self._says:
                    await self._recite(client, self._says.pop(0))
                elif self._kind is ProxyKind.SOCKS5:
                    await self._speak_socks(client)
                else:
                    await self._speak_http(client)
            finally:
                self._carrying.discard(scope)
        if scope.cancelled_caught:
            client.abort(reset=True)

    async def _recite(self, client: TcpSocket, words: bytes | None) -> None:
        if words is None:
            await trio.sleep_forever()
        elif words and await client.receive_some():
            await self._say(client, words)

    async def _say(self, client: TcpSocket, words: bytes) -> None:
        size = self._piece or max(len(words), 1)
        for start in range(0, len(words), size):
            await client.send_all(words[start : start + size])
            await client.wait_for_bytes_written()

    # -- SOCKS5 -----------------------------------------------------------------------------

    async def _speak_socks(self, client: TcpSocket) -> None:
        _, count = await client.receive_exactly(2)
        methods = await client.receive_exactly(count)
        self.seen.append(f"methods {' '.join(map(str, sorted(methods)))}")
        method = 2 if self._user or self._password else 0
        if method not in methods:
            await self._say(client, b"\x05\xff")
            return
        await self._say(client, bytes([5, method]))
        if method == 2:
            _, length = await client.receive_exactly(2)
            user = await client.receive_exactly(length)
            (length,) = await client.receive_exactly(1)
            password = await client.receive_exactly(length)
            self.seen.append("name and password")
            right = (user.decode(), password.decode()) == (self._user, self._password)
            await self._say(client, bytes([1, not right]))
            if not right:
                return
        _, command, _, kind = await client.receive_exactly(4)
        if kind == 3:
            (length,) = await client.receive_exactly(1)
            host = (await client.receive_exactly(length)).decode()
        else:
            host = str(ip_address(await client.receive_exactly(4 if kind == 1 else 16)))
        (port,) = struct.unpack("!H", await client.receive_exactly(2))
        self.seen.append(f"{COMMANDS[command]} {host}:{port}")
        if command == ASSOCIATE:
            await self._relay(client)
        elif command == BIND:
            await self._listen(client)
        else:
            await self._connect(client, host, port, _reply, _refusal)

    async def _listen(self, client: TcpSocket) -> None:
        async with TcpServer() as server:
            server.set_proxy(NONE)
            await server.listen(self._host)
            await self._say(client, _reply(self._host, server.server_port()))
            far = await server.accept()
            async with far:
                server.close()
                await self._say(client, _reply(str(far.peer_address()), far.peer_port()) + self._early)
                await _carry(client, far)

    async def _relay(self, client: TcpSocket) -> None:
        """Carry datagrams, while the client keeps the connection."""
        async with UdpSocket() as relay:
            relay.set_proxy(NONE)
            await relay.bind(self._host)
            await self._say(client, _reply(self._host, relay.local_port()))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_carry_datagrams, relay)
                async for _ in client:
                    pass
                nursery.cancel_scope.cancel(reason="the client has ended")

    # -- HTTP -------------------------------------------------------------------------------

    async def _speak_http(self, client: TcpSocket) -> None:
        while True:
            head = (await client.receive_until(b"\r\n\r\n")).decode()
            request, *headers = head.split("\r\n")
            self.seen.append(request.removesuffix(" HTTP/1.1"))
            shown = [line for line in headers if line.startswith("Proxy-Authorization: ")]
            if not (self._user or self._password):
                break
            wanted = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
            self.seen.extend("name and password" for _ in shown)
            if shown == [f"Proxy-Authorization: Basic {wanted}"]:
                break
            answer = b'407 Auth\r\nProxy-Authenticate: Basic realm="scripted"\r\nContent-Length: 5\r\n\r\nshow!'
            await self._say(client, b"HTTP/1.1 " + answer)
        host, _, port = request.split(" ")[1].rpartition(":")
        ended = b"\r\nContent-Length: 0\r\n\r\n"
        await self._connect(
            client,
            host.strip("[]"),
            int(port),
            lambda host, port: b"HTTP/1.1 200 Connection established\r\n\r\n",
            lambda kind: b"HTTP/1.1 " + HTTP_ANSWERS.get(kind, b"502 Bad Gateway") + ended,
        )

    # -- both -------------------------------------------------------------------------------

    async def _connect(
        self,
        client: TcpSocket,
        host: str,
        port: int,
        agreed: Callable[[str, int], bytes],
        refused: Callable[[ErrorKind], bytes],
    ) -> None:
        async with TcpSocket() as far:
            far.set_proxy(NONE)  # the application's may be this one
            try:
                await far.connect_to_host(host, port)
            except SocketError as error:
                await self._say(client, refused(error.kind))
                return
            await self._say(client, agreed(str(far.local_address()), far.local_port()) + self._early)
            await _carry(client, far)


def _reply(host: str, port: int) -> bytes:
    """SOCKS5's for what went well."""
    return bytes([5, 0, 0]) + _address(host, port)


def _address(host: HostAddress | str, port: int) -> bytes:
    address = HostAddress(host).ip
    kind = 4 if isinstance(address, IPv6Address) else 1
    return bytes([kind]) + address.packed + struct.pack("!H", port)


def _refusal(kind: ErrorKind) -> bytes:
    return bytes([5, SOCKS_REPLIES.get(kind, 1), 0, 1]) + bytes(6)


@trio.lowlevel.enable_ki_protection
async def _carry_datagrams(relay: UdpSocket) -> None:
    """From the first who sends one, to whom that says, and back."""
    client: tuple[HostAddress, int] | None = None
    async for datagram in relay:
        sender = (datagram.sender_address, datagram.sender_port)
        client = client or sender
        if sender != client:
            wrapped = bytes(3) + _address(*sender) + datagram.data
            await relay.send_datagram(wrapped, *client)
            continue
        kind, rest = datagram.data[3], datagram.data[4:]
        length = rest[0] + 1 if kind == 3 else 4 if kind == 1 else 16
        host = rest[1:length].decode() if kind == 3 else str(ip_address(rest[:length]))
        (port,) = struct.unpack_from("!H", rest, length)
        await relay.send_datagram(rest[length + 2 :], host, port)


async def _carry(one: TcpSocket, other: TcpSocket) -> None:
    """Bytes both ways, and each end that comes."""

    @trio.lowlevel.enable_ki_protection  # a Ctrl-C is for the test, not for its proxy
    async def pump(source: TcpSocket, sink: TcpSocket) -> None:
        async for chunk in source:
            await sink.send_all(chunk)
        await sink.send_eof()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, one, other)
            nursery.start_soon(pump, other, one)
    except* (SocketError, trio.ClosedResourceError):
        one.abort(reset=True)
        other.abort(reset=True)
