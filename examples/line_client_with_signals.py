"""The line client once more, the way a Qt program does it: start things, and let the signals say what to do.

Start ``python examples/echo_server.py`` in a second terminal first.  You will see the five states that a connection
goes through, and ``hello`` in between.  Without the server you will see CONNECTION_REFUSED.
"""

import trio

from trioqt import Connected, Disconnected, ErrorOccurred, ReadyRead, SocketError, StateChanged, TcpSocket


async def talk(sock: TcpSocket) -> None:
    async with sock.events() as events, trio.open_nursery() as nursery:
        nursery.start_soon(connect, sock)
        async for event in events:
            match event:
                case StateChanged(state):
                    print("now", state.name)
                case Connected():
                    sock.write(b"hello\n")
                case ReadyRead():
                    if sock.can_read_line():
                        print(sock.read_line().decode(), end="")
                        nursery.start_soon(sock.disconnect_from_host)
                case ErrorOccurred(kind, message):
                    print(kind.name, "-", message)
                    break
                case Disconnected():
                    break


async def connect(sock: TcpSocket) -> None:
    try:
        await sock.connect_to_host("127.0.0.1", 4000)
    except SocketError:
        pass  # told as ErrorOccurred, which is where this program looks


async def main() -> None:
    async with TcpSocket() as sock:
        await talk(sock)


if __name__ == "__main__":
    trio.run(main)
