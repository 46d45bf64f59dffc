"""Qt's fortune client: connect, take one message, say in words what went wrong.

Start ``python examples/fortune_server.py`` in a second terminal first, or Qt's.  You will see a fortune, or why there
is none.  The message is taken whole, as Qt does it with a transaction: however its bytes are cut on the way.
"""

import trio

from trioqt import DataStream, ErrorKind, SocketError, TcpSocket


async def receive_fortune(host: str, port: int) -> str | None:
    async with TcpSocket() as sock:
        await sock.connect_to_host(host, port)
        return await sock.receive_message(DataStream.read_q_string, max_bytes=10_000)


async def main() -> None:
    try:
        with trio.fail_after(5):
            print(await receive_fortune("127.0.0.1", 4000))
    except trio.TooSlowError:
        print("The server says nothing.")
    except SocketError as error:
        match error.kind:
            case ErrorKind.HOST_NOT_FOUND:
                print("The host was not found. Please check the name and the port.")
            case ErrorKind.CONNECTION_REFUSED:
                print("The connection was refused. Is the fortune server running?")
            case _:
                print("The following error occurred:", error)


if __name__ == "__main__":
    trio.run(main)
