"""A server that survives its own bugs, and never has more than two clients at a time.

Start it.  In a second terminal type ``trioqt connect 127.0.0.1 4000`` and then ``7``: you will see 14.  Then type
``0``: the handler divides by it, which is a bug.  You will see the traceback in the first terminal, and the connection
end; the server goes on.  Open three connections: the third is answered once one of the others has ended.
"""

import trio

from trioqt import ConnectionFinished, TcpServer, TcpSocket


async def divide(sock: TcpSocket) -> None:
    async for line in sock.lines(max_bytes=100):
        await sock.send_all(b"%d\n" % (100 // int(line)))


async def report(server: TcpServer[TcpSocket], *, task_status: trio.TaskStatus[None]) -> None:
    async with server.events(ConnectionFinished) as endings:
        task_status.started()
        async for ending in endings:
            how = "well" if ending.error is None else repr(ending.error)
            print(f"port {ending.peer_port} ended: {how}")


async def main() -> None:
    async with TcpServer(max_connections=2) as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1", 4000)
        await nursery.start(report, server)
        await server.serve(divide)


if __name__ == "__main__":
    trio.run(main)
