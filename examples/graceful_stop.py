"""A server that stops without losing an answer: whoever has asked is answered, and whoever comes later is refused.

Start it.  In a second terminal type ``trioqt connect 127.0.0.1 4000`` and then a word: a second later you will see it
in capitals.  Type another one, and within that second Ctrl-C in the first terminal: the answer still comes, then the
end.  A second Ctrl-C would not wait.  A service manager does the same with its SIGTERM.
"""

import trio

from trioqt import TcpServer, TcpSocket, stop_on_signals


async def next_line(server: TcpServer[TcpSocket], sock: TcpSocket) -> bytes:
    """What is asked next; nothing when the peer has finished, or when the server stops and nothing more was asked."""
    line = b""
    async with trio.open_nursery() as nursery:

        async def stop() -> None:
            await server.wait_for_draining()
            nursery.cancel_scope.cancel()

        nursery.start_soon(stop)
        line = await sock.receive_line(max_bytes=1000)  # if it is cancelled, it has taken nothing
        nursery.cancel_scope.cancel()
    if not line and sock.can_read_line():
        line = sock.read_line()
    return line


async def main() -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:

        async def shout(sock: TcpSocket) -> None:
            while line := await next_line(server, sock):
                await trio.sleep(1)  # hard work
                await sock.send_all(line.upper())

        await server.listen("127.0.0.1", 4000)
        await nursery.start(server.serve, shout)
        report = await stop_on_signals(server, grace=10)
        print(f"{report.finished} finished, {report.cancelled} were cut off")


if __name__ == "__main__":
    trio.run(main)
