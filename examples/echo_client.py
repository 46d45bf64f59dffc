"""A client that says all it has to say, finishes sending, and reads the answer to its end.

Start ``python examples/echo_server.py`` in a second terminal first.  You will see three lines come back, and the
program end, because the server ends a connection whose client has finished.
"""

import trio

from trioqt import TcpSocket


async def main() -> None:
    async with TcpSocket() as sock:
        await sock.connect_to_host("127.0.0.1", 4000)
        for number in range(1, 4):
            await sock.send_all(b"line %d\n" % number)
        await sock.send_eof()  # the other direction stays open
        async for chunk in sock:
            print(chunk.decode(), end="")


if __name__ == "__main__":
    trio.run(main)
