"""A time limit around a receive, again and again: a cancelled receive took nothing, so no byte is lost.

Start it.  In a second terminal type ``trioqt connect 127.0.0.1 4000``.  You will see your lines in capitals, and a
question whenever you were silent for five seconds.  A line that has arrived in part when the question is asked is
whole afterwards.
"""

import trio

from trioqt import TcpServer, TcpSocket


async def shout(sock: TcpSocket) -> None:
    line = b""
    while True:
        with trio.move_on_after(5) as silence:
            line = await sock.receive_line()
        if silence.cancelled_caught:
            await sock.send_all(b"are you there?\n")
        elif line:
            await sock.send_all(line.upper())
        else:
            break  # the peer has finished


async def main() -> None:
    async with TcpServer() as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve(shout)


if __name__ == "__main__":
    trio.run(main)
