"""FIN and RST: "I have said all", and "something is lost".

Two clients ask one server.  It answers the first and ends in order; in the middle of its answer to the second it gives
up.  You will see both get the bytes that were sent.  Then the first sees the end (FIN), and knows that the answer is
whole; the second gets an error (RST), and knows that it is not.

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
    if question == b"count to two and break\n":
        say("server: gives up in the middle")
        sock.abort(reset=True)
    else:
        await sock.send_all(b"three.")
        say("server: has said all, and ends the connection")


async def ask(address: str, question: bytes) -> None:
    async with TcpSocket() as sock:
        await sock.connect_to_host(address, 4000)
        await sock.send_all(question)
        try:
            async for piece in sock:
                say(f"client: hears {piece!r}")
            say("client: hears the end, so that was all")
        except SocketError as error:
            say(f"client: hears no end but an error, {error.kind.name}")


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server") as address:
            await server.listen(address, 4000)
            nursery.start_soon(server.serve, answer)
        with net.host("client"):
            await ask(str(address), b"count to three\n")
            await ask(str(address), b"count to two and break\n")
        await trio.sleep(20)  # until all has come to its end; it takes no real time
        print(f"\n{net.ladder()}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main, latency=0.05)
