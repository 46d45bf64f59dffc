"""Qt's threaded fortune server: a thread for each connection, which is given its descriptor.

Start it.  In a second terminal type ``python examples/fortune_client.py``: you will see a fortune, and in the first one
the thread that has told it.  Each thread has a ``trio.run`` of its own, and may block as long as it likes: nobody else
waits for it.  The descriptor stays the server's, which ends the connection when the thread has ended, counts it until
then, and resets it if the thread fails.  For work that blocks it is simpler to have only that done in a thread:
``fortune_server_with_workers.py``.
"""

import random
import socket
import threading

import trio

from trioqt import DataStream, TcpServer, TcpSocket

FORTUNES = [
    "You've been leading a dog's life. Stay off the furniture.",
    "You will be surprised by a loud noise.",
    "Computers are not intelligent. They only think they are.",
]


async def hand_over(descriptor: int) -> None:
    # It waits until the thread has ended, also when it is cancelled; so no thread may take for ever.
    await trio.to_thread.run_sync(fortune_thread, descriptor)


def fortune_thread(descriptor: int) -> None:
    print(threading.current_thread().name, "tells a fortune")
    trio.run(tell_fortune, socket.dup(descriptor))


async def tell_fortune(descriptor: int) -> None:
    with trio.fail_after(5):
        async with TcpSocket() as sock:
            sock.set_socket_descriptor(descriptor)
            block = DataStream()
            block.write_q_string(random.choice(FORTUNES))
            await sock.send_all(block.data())


async def main() -> None:
    async with TcpServer(max_connections=20) as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve_descriptors(hand_over)


if __name__ == "__main__":
    trio.run(main)
