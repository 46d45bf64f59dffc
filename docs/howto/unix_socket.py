"""A server and a client on a unix socket: ``python docs/howto/unix_socket.py``."""

import os
import tempfile

import trio

from trioqt import SocketError, TcpSocket


async def echo(sock: TcpSocket) -> None:
    async for line in sock.lines():
        await sock.send_all(line)


async def serve(path: str, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        try:
            async with TcpSocket.from_stream(stream) as sock:
                await echo(sock)
        except SocketError:
            pass  # this client is gone; of trio's server it would be the end

    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(path)
        os.chmod(path, 0o600)  # who may connect
        listening.listen()
        await trio.serve_listeners(handle, [trio.SocketListener(listening)], task_status=task_status)


async def main(path: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, path)
        async with TcpSocket.from_stream(await trio.open_unix_socket(path)) as sock:
            await sock.send_all(b"hello\n")
            print(await sock.receive_line())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, f"{folder}/echo.sock")
