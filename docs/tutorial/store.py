import trio

from trioqt import TcpServer, TcpSocket

store: dict[bytes, bytes] = {}


async def talk(sock: TcpSocket) -> None:
    async for line in sock.lines():
        await sock.send_all(answer(line))


def answer(line: bytes) -> bytes:
    match line.split(maxsplit=2):
        case [b"SET", name, value]:
            store[name] = value.rstrip(b"\r\n")
            return b"OK\n"
        case [b"GET", name] if name in store:
            return b"VALUE %s\n" % store[name]
        case [b"GET", _]:
            return b"NONE\n"
        case _:
            return b"ERROR what is that?\n"


async def main() -> None:
    async with TcpServer() as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve(talk)


if __name__ == "__main__":
    trio.run(main)
