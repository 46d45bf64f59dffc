"""How to put a limit on how long something may take: ``python docs/howto/time_limits.py``."""

import trio

from trioqt import SocketError, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate


async def talk(sock: TcpSocket) -> None:
    with trio.move_on_after(600):  # for the whole conversation
        while True:
            with trio.move_on_after(60) as silence:  # for the next line
                line = await sock.receive_line(max_bytes=1000)
            if silence.cancelled_caught:
                await sock.send_all(b"BYE\n")
                return
            if not line:
                return
            await sock.send_all(line.upper())


async def ask(question: bytes) -> bytes:
    async with TcpSocket() as sock:
        with trio.fail_after(5):  # for all of it: look-up, connecting, asking, the answer
            await sock.connect_to_host("server", 4000)
            await sock.send_all(question)
            return await sock.receive_line()


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        with net.host("server"):
            await server.listen(port=4000)
            await nursery.start(server.serve, talk)

        print("an answer:", await ask(b"hello\n"))

        with net.partition("default", "server"):
            try:
                await ask(b"hello\n")
            except trio.TooSlowError:
                print("no answer within 5 seconds")

        async with TcpSocket() as silent:
            await silent.connect_to_host("server", 4000)
            begun = trio.current_time()
            await silent.send_all(b"half a li")
            print("the silent one hears", await silent.receive_line(), "after", trio.current_time() - begun)

        nursery.cancel_scope.cancel()

    async with TcpServer(idle_limit=30) as strict, trio.open_nursery() as nursery:
        with net.host("server"):
            await strict.listen(port=4000)
            await nursery.start(strict.serve, talk)
        async with TcpSocket() as silent:
            await silent.connect_to_host("server", 4000)
            begun = trio.current_time()
            try:
                await silent.receive_line()
            except SocketError as error:
                print(error.kind.name, "after", trio.current_time() - begun)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main)
