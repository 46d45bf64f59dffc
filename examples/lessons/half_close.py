"""Half-close: a client that has said all, and still listens.

You will see the client finish sending (its FIN) before the server has answered anything.  Only then can the server know
that the list is whole, so only then it answers.  A TCP connection is two directions, and each ends by itself.

Exercise: let the client hang up with ``aclose()`` instead of ``send_eof()``, and receive nothing.  The server sends its
answer all the same.  What comes back to it, and from whom?
"""

import trio

from trioqt import TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate


def say(text: str) -> None:
    print(f"{trio.current_time():.3f}  {text}")


async def sort(sock: TcpSocket) -> None:
    lines = [line async for line in sock.lines()]  # until the client has finished
    say(f"server: has heard the end after {len(lines)} lines, and answers")
    await sock.send_all(b"".join(sorted(lines)))


async def ask(address: str) -> None:
    async with TcpSocket() as sock:
        await sock.connect_to_host(address, 4000)
        for line in (b"pear\n", b"fig\n", b"apple\n"):
            say(f"client: says {line!r}")
            await sock.send_all(line)
            await trio.sleep(1)
        say("client: has said all, and finishes sending")
        await sock.send_eof()
        async for line in sock.lines():
            say(f"client: hears {line!r}")
        say("client: has heard the end of the answer")


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server") as address:
            await server.listen(address, 4000)
            nursery.start_soon(server.serve, sort)
        with net.host("client"):
            await ask(str(address))
        await trio.sleep(20)  # until all has come to its end; it takes no real time
        print(f"\n{net.ladder()}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main, latency=0.05)
