"""An echo server: each connection has a task of its own, which ends with it.

Start it.  In a second terminal type ``python examples/echo_client.py``, or ``trioqt connect 127.0.0.1 4000``: every
line that you type there comes back.  Ctrl-C ends the server, and with it whatever it started.
"""

import trio

from trioqt import TcpServer, TcpSocket


async def echo(sock: TcpSocket) -> None:
    async for chunk in sock:
        await sock.send_all(chunk)


async def main() -> None:
    async with TcpServer() as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve(echo)


trio.run(main)
