"""A client as straight code: connect, ask, wait for one line, leave.

Start ``python examples/echo_server.py`` in a second terminal first.  You will see ``hello``.  Without the server you
will see a SocketError that says that the connection was refused; a server that is silent for five seconds ends in
trio.TooSlowError.
"""

import trio

from trioqt import TcpSocket


async def main() -> None:
    async with TcpSocket() as sock:
        with trio.fail_after(5):
            await sock.connect_to_host("127.0.0.1", 4000)
            await sock.send_all(b"hello\n")
            line = await sock.receive_line()
        print(line.decode(), end="")


if __name__ == "__main__":
    trio.run(main)
