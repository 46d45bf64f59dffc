"""A SOCKS5 proxy to try things through: it connects for others, and carries their bytes both ways.

How that is done in few lines is ``examples/socks5_server.py``; this one can be stopped without losing what it carries.
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address

import trio

from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.network_proxy import NetworkProxy, ProxyKind
from trioqt.sockets.tcp_server import TcpServer
from trioqt.sockets.tcp_socket import TcpSocket

__all__ = ["connect_for"]

# How long a client may take to ask, and a host to answer, in seconds.
PATIENCE = 10.0

# RFC 1928.
VERSION, CONNECT = 5, 1
IPV4, NAME, IPV6 = 1, 3, 4
FAILED, TOO_LATE, NO_SUCH_COMMAND, NO_SUCH_ADDRESS = 1, 6, 7, 8
REPLIES = {
    ErrorKind.SOCKET_ACCESS: 2,
    ErrorKind.NETWORK: 3,
    ErrorKind.HOST_NOT_FOUND: 4,
    ErrorKind.CONNECTION_REFUSED: 5,
    ErrorKind.SOCKET_TIMEOUT: TOO_LATE,
}


class Refused(Exception):
    """A client wants what cannot be done; ``answer`` says so."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self.answer = answer


async def connect_for(server: TcpServer[TcpSocket], client: TcpSocket) -> None:
    """Do as a client of the proxy says.

    Raises: SocketError, trio.ClosedResourceError: either side is lost.
    Cancelled: both sides are.
    """
    try:
        await _connect_for(client)
    except Refused as refused:
        await client.send_all(refused.answer)


async def _connect_for(client: TcpSocket) -> None:
    async with TcpSocket() as far:
        far.set_proxy(NetworkProxy(ProxyKind.NONE))
        try:
            with trio.fail_after(PATIENCE):
                host, port = await _receive_request(client)
            with trio.fail_after(PATIENCE):
                await far.connect_to_host(host, port)
        except trio.TooSlowError:
            raise Refused(_reply(TOO_LATE)) from None
        except SocketError as error:
            raise Refused(_reply(REPLIES.get(error.kind, FAILED))) from error
        await client.send_all(_reply(0, str(far.local_address()), far.local_port()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_carry, client, far)
            nursery.start_soon(_carry, far, client)


async def _receive_request(client: TcpSocket) -> tuple[str, int]:
    """The host and the port to connect to.  Raises: Refused."""
    version, count = await client.receive_exactly(2)
    if version != VERSION:
        raise Refused(b"")
    if 0 not in await client.receive_exactly(count):
        raise Refused(b"\x05\xff")
    await client.send_all(b"\x05\x00")
    _, command, _, kind = await client.receive_exactly(4)
    if kind == NAME:
        (length,) = await client.receive_exactly(1)
        host = (await client.receive_exactly(length)).decode("ascii", "replace")
    elif kind in (IPV4, IPV6):
        host = str(ip_address(await client.receive_exactly(4 if kind == IPV4 else 16)))
    else:
        raise Refused(_reply(NO_SUCH_ADDRESS))
    (port,) = struct.unpack("!H", await client.receive_exactly(2))
    if command != CONNECT:
        raise Refused(_reply(NO_SUCH_COMMAND))
    return host, port


def _reply(code: int, host: str = "0.0.0.0", port: int = 0) -> bytes:
    address = ip_address(host)
    kind = IPV6 if isinstance(address, IPv6Address) else IPV4
    return bytes([VERSION, code, 0, kind]) + address.packed + struct.pack("!H", port)


async def _carry(source: TcpSocket, sink: TcpSocket) -> None:
    async for chunk in source:
        await sink.send_all(chunk)
    await sink.send_eof()
