"""A SOCKS5 proxy (RFC 1928): it connects for others, and carries their bytes both ways.

Start it.  In a second terminal type ``curl --proxy socks5h://127.0.0.1:4000 http://example.org/``: you will see the
page, and in the first terminal where curl wanted to go.  A hundred clients are served at a time, eight of one address;
who has not asked within ten seconds is dropped, and a connection on which nothing has moved for five minutes.
"""

import ipaddress
import struct

import trio

from trioqt import ErrorKind, SocketError, TcpServer, TcpSocket

VERSION, CONNECT = 5, 1
NO_AUTHENTICATION, NONE_ACCEPTABLE = 0, 0xFF
IPV4, NAME, IPV6 = 1, 3, 4

SUCCEEDED, FAILED, COMMAND_NOT_SUPPORTED, ADDRESS_NOT_SUPPORTED = 0, 1, 7, 8
REPLIES = {
    ErrorKind.SOCKET_ACCESS: 2,
    ErrorKind.NETWORK: 3,
    ErrorKind.HOST_NOT_FOUND: 4,
    ErrorKind.CONNECTION_REFUSED: 5,
    ErrorKind.SOCKET_TIMEOUT: 6,
}

# In seconds: to ask, and to connect.
PATIENCE = 10.0


async def serve(client: TcpSocket) -> None:
    with trio.fail_after(PATIENCE):
        request = await receive_request(client)
    if request is None:
        return
    host, port = request
    print(f"{client.peer_address()} wants {host} port {port}")
    async with TcpSocket() as far:
        try:
            with trio.fail_after(PATIENCE):
                await far.connect_to_host(host, port)
        except SocketError as exc:
            await client.send_all(reply(REPLIES.get(exc.kind, FAILED)))
            return
        except trio.TooSlowError:
            await client.send_all(reply(REPLIES[ErrorKind.SOCKET_TIMEOUT]))
            return
        await client.send_all(reply(SUCCEEDED, str(far.local_address()), far.local_port()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry, client, far)
            nursery.start_soon(carry, far, client)


async def receive_request(client: TcpSocket) -> tuple[str, int] | None:
    """The host and the port that the client wants; None if it wants something else, which it has been told."""
    version, count = await client.receive_exactly(2)
    if version != VERSION:
        return None  # another language
    methods = await client.receive_exactly(count)
    if NO_AUTHENTICATION not in methods:
        await client.send_all(bytes([VERSION, NONE_ACCEPTABLE]))
        return None
    await client.send_all(bytes([VERSION, NO_AUTHENTICATION]))
    _, command, _, kind = await client.receive_exactly(4)
    if kind == NAME:
        (length,) = await client.receive_exactly(1)
        host = (await client.receive_exactly(length)).decode("ascii", "replace")
    elif kind in (IPV4, IPV6):
        host = str(ipaddress.ip_address(await client.receive_exactly(4 if kind == IPV4 else 16)))
    else:
        await client.send_all(reply(ADDRESS_NOT_SUPPORTED))
        return None
    (port,) = struct.unpack("!H", await client.receive_exactly(2))
    if command != CONNECT:
        await client.send_all(reply(COMMAND_NOT_SUPPORTED))
        return None
    if not host.isprintable():  # nobody is called that, and a terminal might obey it
        await client.send_all(reply(REPLIES[ErrorKind.HOST_NOT_FOUND]))
        return None
    return host, port


def reply(code: int, host: str = "0.0.0.0", port: int = 0) -> bytes:
    address = ipaddress.ip_address(host)
    kind = IPV4 if address.version == 4 else IPV6
    return bytes([VERSION, code, 0, kind]) + address.packed + struct.pack("!H", port)


async def carry(source: TcpSocket, sink: TcpSocket) -> None:
    """Bytes, as they come, and then the end; the other direction goes on."""
    async for chunk in source:
        await sink.send_all(chunk)  # which waits while the sink does not read
    await sink.send_eof()


async def main() -> None:
    async with TcpServer(max_connections=100, max_connections_per_peer=8, idle_limit=300) as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve(serve)


if __name__ == "__main__":
    trio.run(main)
