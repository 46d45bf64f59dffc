"""A server of trio's, and the same on trioqt: ``python docs/howto/from_serve_tcp.py``."""

import trio

from trioqt import TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate


async def before_handler(stream: trio.SocketStream) -> None:
    try:
        rest = b""
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")  # and rest has no bound
            for line in lines:
                await stream.send_all(line.upper() + b"\n")
    except trio.BrokenResourceError:
        pass  # or the server ends, with all its connections


async def before(port: int, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED) -> None:
    await trio.serve_tcp(before_handler, port, task_status=task_status)


async def after_handler(sock: TcpSocket) -> None:
    async for line in sock.lines():
        await sock.send_all(line.upper())


async def after(port: int, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED) -> None:
    async with TcpServer(max_connections=1000, idle_limit=300) as server:
        await server.listen(port=port)
        await server.serve(after_handler, task_status=task_status)


async def main(net: VirtualNetwork) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(before, 4000)
        await nursery.start(after, 4001)
        for port in (4000, 4001):
            stream = await trio.open_tcp_stream("localhost", port)  # trio's own client talks to both
            async with stream:
                await stream.send_all(b"hello\n")
                print(port, await stream.receive_some())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main)
