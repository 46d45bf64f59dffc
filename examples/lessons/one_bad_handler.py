"""One bad handler: a bug ends its own connection, and no other.

Three clients ask a server to divide 100, one of them by zero, which the handler does not expect.  You will see Ben
get a reset, so that he does not take half an answer for the whole, and Anna and Carl get what they asked for.  The
bug's traceback is in the log, which goes to stderr.

Exercise: serve the same handler with ``trio.serve_tcp``.  Who gets an answer then, and what do the others see?
"""

import trio

from trioqt import SocketError, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate


def say(text: str) -> None:
    print(f"{trio.current_time():.3f}  {text}")


async def divide(sock: TcpSocket) -> None:
    number = int(await sock.receive_line())
    await trio.sleep(1)
    say(f"server: divides 100 by {number}")
    await sock.send_all(b"%d\n" % (100 // number))


async def ask(address: str, name: str, question: bytes) -> None:
    async with TcpSocket() as sock:
        await sock.connect_to_host(address, 4000)
        say(f"{name}: asks for 100 / {question.decode()}")
        await sock.send_all(question + b"\n")
        try:
            say(f"{name}: hears {await sock.receive_line()!r}")
        except SocketError as error:
            say(f"{name}: hears no answer but an error, {error.kind.name}")


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server") as address:
            await server.listen(address, 4000)
            nursery.start_soon(server.serve, divide)
        for start, (name, question) in enumerate({"anna": b"4", "ben": b"0", "carl": b"5"}.items()):
            with net.host(name):
                net.set_link(name, "server", latency=0.1 + start / 10)
                nursery.start_soon(ask, str(address), name, question)
        await trio.sleep(20)  # until all has come to its end; it takes no real time
        for bug in net.handler_failures():
            print(f"the server has survived a {type(bug).__name__}")
        print(f"\n{net.ladder()}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main, latency=0.05)
