"""Qt's blocking fortune client: a synchronous program, that calls a function and has a fortune.

Start ``python examples/fortune_server.py`` in a second terminal first.  You will see three fortunes, one after the
other.  Each call has a ``trio.run`` of its own, which ends with it, so nothing goes on behind the program's back; and
it may be called in any thread, as one beside that of a user interface.
"""

import trio

from trioqt import DataStream, SocketError, TcpSocket


def get_fortune(host: str, port: int, patience: float = 5.0) -> str | None:
    """Blocks until it has come.  Raises: SocketError, trio.TooSlowError."""
    return trio.run(receive_fortune, host, port, patience)


async def receive_fortune(host: str, port: int, patience: float) -> str | None:
    with trio.fail_after(patience):
        async with TcpSocket() as sock:
            await sock.connect_to_host(host, port)
            return await sock.receive_message(DataStream.read_q_string, max_bytes=10_000)


def main() -> None:
    try:
        for _ in range(3):
            print(get_fortune("127.0.0.1", 4000))
    except SocketError as error:
        print("There is no fortune:", error)
    except trio.TooSlowError:
        print("There is no fortune: the server says nothing")


if __name__ == "__main__":
    main()
