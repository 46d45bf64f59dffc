"""FIN and RST: "I have said all", and "something is lost".

Anna and Ben ask one server.  It answers Anna and ends in order; in the middle of its answer to Ben it gives up.  You
will see both get the bytes that were sent.  Then Anna sees the end (FIN), and knows that the answer is whole; Ben gets
an error (RST), and knows that it is not.

Exercise: let the server close with a question still unread: first with trio's own stream, then with ours.  Which client
sees FIN, and which RST?
"""

import trio

from trioqt import SocketError, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate


def say(text: str) -> None:
    print(f"{trio.current_time():.3f}  {text}")


async def answer(sock: TcpSocket) -> None:
    question = await sock.receive_line()
    await sock.send_all(b"one, two, ")
    await trio.sleep(0.5)
    if question == b"count to two, break\n":
        say("server: gives up in the middle")
        return sock.abort(reset=True)
    await sock.send_all(b"three.")
    say("server: has said all, and ends the connection")


async def ask(address: str, name: str, question: bytes) -> None:
    async with TcpSocket() as sock:
        await sock.connect_to_host(address, 4000)
        say(f"{name}: asks {question!r}")
        await sock.send_all(question)
        try:
            async for piece in sock:
                say(f"{name}: hears {piece!r}")
            say(f"{name}: hears the end, so that was all")
        except SocketError as error:
            say(f"{name}: hears no end but an error, {error.kind.name}")


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server") as address:
            await server.listen(address, 4000)
            nursery.start_soon(server.serve, answer)
        for name, question in {"anna": b"count to three\n", "ben": b"count to two, break\n"}.items():
            with net.host(name):
                await ask(str(address), name, question)
        await trio.sleep(20)  # until all has come to its end; it takes no real time
        print(f"\n{net.ladder()}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main, latency=0.05)
