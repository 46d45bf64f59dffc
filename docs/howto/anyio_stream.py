"""A socket for a library that wants anyio's streams: ``python docs/howto/anyio_stream.py``."""

import anyio.abc
import trio
from anyio.streams.buffered import BufferedByteReceiveStream

from trioqt import SocketError, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate


class AnyioStream(anyio.abc.ByteStream):
    """anyio's verbs and errors over a socket."""

    def __init__(self, sock: TcpSocket) -> None:
        self._sock = sock

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            data = await self._sock.receive_some(max_bytes)
        except SocketError as exc:
            raise anyio.BrokenResourceError from exc
        except trio.ClosedResourceError as exc:
            raise anyio.ClosedResourceError from exc
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        try:
            await self._sock.send_all(item)
        except SocketError as exc:
            raise anyio.BrokenResourceError from exc
        except trio.ClosedResourceError as exc:
            raise anyio.ClosedResourceError from exc

    async def send_eof(self) -> None:
        await self._sock.send_eof()

    async def aclose(self) -> None:
        await self._sock.aclose()


async def answer(sock: TcpSocket) -> None:
    async for line in sock.lines():
        await sock.send_all(line.upper())


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server"):
            await server.listen(port=4000)
            await nursery.start(server.serve, answer)
        async with TcpSocket() as sock:
            await sock.connect_to_host("server", 4000)
            stream = AnyioStream(sock)
            await stream.send(b"hello\n")
            print(await BufferedByteReceiveStream(stream).receive_until(b"\n", 100))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main)
