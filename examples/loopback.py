"""Qt's loopback example: a program that sends 50 MB to itself, and shows how far it is.

Start it; no second terminal is needed.  You will see two bars grow, of what was sent and of what has arrived.  The
first is never far ahead of the second: ``send_all`` waits while the other side does not read.
"""

import trio

from trioqt import TcpServer, TcpSocket

TOTAL = 50_000_000
CHUNK = bytes(65536)
WIDTH = 25

done = {"sent": 0, "arrived": 0}
shown = [""]


async def send(port: int) -> None:
    async with TcpSocket() as sock:
        await sock.connect_to_host("127.0.0.1", port)
        while done["sent"] < TOTAL:
            chunk = CHUNK[: TOTAL - done["sent"]]
            await sock.send_all(chunk)
            done["sent"] += len(chunk)
            show()


async def receive(server: TcpServer[TcpSocket]) -> None:
    async with await server.accept() as sock:
        async for chunk in sock:
            done["arrived"] += len(chunk)
            show()


def show() -> None:
    bars = [f"{name} [{'#' * (WIDTH * count // TOTAL):{WIDTH}}]" for name, count in done.items()]
    line = "  ".join(bars)
    if line not in shown:  # a terminal takes longer than the bytes
        shown[:] = [line]
        print(f"\r{line}", end="", flush=True)


async def main() -> None:
    async with TcpServer(max_connections=1) as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        nursery.start_soon(send, server.server_port())
        await receive(server)
    print(f"\n{done['arrived']:,} of {TOTAL:,} bytes have arrived")


if __name__ == "__main__":
    trio.run(main)
