"""trio-websocket over trioqt's sockets: ``python docs/howto/websocket.py``."""

from typing import Any

import trio
import trio_websocket

from trioqt import TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate


async def answer(sock: TcpSocket) -> None:
    async with trio.open_nursery() as nursery:
        request = await trio_websocket.wrap_server_stream(nursery, sock)
        async with await request.accept() as websocket:
            try:
                while True:
                    await websocket.send_message((await websocket.get_message()).upper())
            except trio_websocket.ConnectionClosed:
                pass


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server"):
            await server.listen(port=80)
            await nursery.start(server.serve, answer)
        async with TcpSocket() as sock:
            await sock.connect_to_host("server", 80)
            stream: Any = sock  # any trio stream will do, its annotations want fewer
            websocket = await trio_websocket.wrap_client_stream(nursery, stream, "server", "/")
            async with websocket:
                await websocket.send_message("hello")
                print(await websocket.get_message())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main)
