"""Qt's fortune server: whoever connects gets a fortune, and the end of the connection.

Start it.  In a second terminal type ``python examples/fortune_client.py``: you will see a fortune.  Qt's own client
shows one too, because a fortune is sent as Qt does it, as a QString in a QDataStream.
"""

import random

import trio

from trioqt import DataStream, TcpServer, TcpSocket

FORTUNES = [
    "You've been leading a dog's life. Stay off the furniture.",
    "You've got to think about tomorrow.",
    "You will be surprised by a loud noise.",
    "You will feel hungry again in another hour.",
    "You might have mail.",
    "You cannot kill time without injuring eternity.",
    "Computers are not intelligent. They only think they are.",
]


async def tell_fortune(sock: TcpSocket) -> None:
    block = DataStream()
    block.write_q_string(random.choice(FORTUNES))
    await sock.send_all(block.data())


async def main() -> None:
    async with TcpServer(max_connections=100) as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve(tell_fortune)


if __name__ == "__main__":
    trio.run(main)
