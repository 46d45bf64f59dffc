import trio

from trioqt import SocketError, TcpSocket


async def ask(sock: TcpSocket, question: bytes) -> bytes:
    await sock.send_all(question + b"\n")
    return await sock.receive_line()


async def main() -> None:
    try:
        async with TcpSocket() as sock:
            with trio.fail_after(5):
                await sock.connect_to_host("127.0.0.1", 4000)
                print(await ask(sock, b"SET colour green"))
                print(await ask(sock, b"GET colour"))
    except SocketError as error:
        print("It did not work out:", error)


if __name__ == "__main__":
    trio.run(main)
