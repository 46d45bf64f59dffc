"""One bad handler: a bug ends its own connection, and no other.

Three clients ask a server to divide 100, one of them by zero, which the handler does not expect.  You will see Ben
get a reset, so that he does not take half an answer for the whole, and Anna and Carl get what they asked for.  The
bug's traceback is in the log, which goes to stderr.

Exercise: serve the same handler with ``trio.serve_tcp``.  Who gets an answer then, and what do the others see?
"""

import trio

from trioqt import ConnectionFinished, SocketError, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate


def say(text: str) -> None:
    print(f"{trio.current_time():.3f}  {text}")


async def divide(sock: TcpSocket) -> None:
    number = int(await sock.receive_line())
    await trio.sleep(1)
    await sock.send_all(b"%d\n" % (100 // number))


async def report(server: TcpServer[TcpSocket], *, task_status: trio.TaskStatus[None]) -> None:
    async with server.events(ConnectionFinished) as endings:
        task_status.started()
        async for ending in endings:
            say(f"server: a connection has ended {f'by {type(ending.error).__name__}' if ending.error else 'in order'}")


async def ask(address: str, name: str, question: bytes) -> None:
    async with TcpSocket() as sock:
        await sock.connect_to_host(address, 4000)
        await sock.send_all(question)
        try:
            say(f"{name}: the answer to {question!r} is {await sock.receive_line()!r}")
        except SocketError as error:
            say(f"{name}: the answer to {question!r} is an error, {error.kind.name}")


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server") as address:
            await server.listen(address, 4000)
            await nursery.start(report, server)
            nursery.start_soon(server.serve, divide)
        for start, (name, question) in enumerate({"anna": b"4\n", "ben": b"0\n", "carl": b"5\n"}.items()):
            with net.host(name):
                net.set_link(name, "server", latency=0.1 + start / 10)
                nursery.start_soon(ask, str(address), name, question)
        await trio.sleep(20)  # until all has come to its end; it takes no real time
        print(f"bugs that the server has survived: {len(net.handler_failures())}\n\n{net.ladder()}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main, latency=0.05)
