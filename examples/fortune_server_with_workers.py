"""A fortune server whose fortunes are hard work, which is done in threads; the connections stay here.

Start it.  In a second terminal type ``python examples/fortune_client.py``: you will see a fortune, after a moment.
Four are worked out at a time, however many ask, and meanwhile the server goes on with whatever else it does: only the
function that blocks is in a thread, and it knows nothing of sockets.
"""

import hashlib

import trio

from trioqt import DataStream, TcpServer, TcpSocket

FORTUNES = [
    "You've got to think about tomorrow.",
    "You will feel hungry again in another hour.",
    "You might have mail.",
]


def work_out(who: str) -> str:
    """What takes long, and no waiting can be seen in."""
    stars = hashlib.pbkdf2_hmac("sha256", who.encode(), b"the stars", 100_000)
    return FORTUNES[int.from_bytes(stars) % len(FORTUNES)]


async def tell_fortune(sock: TcpSocket, workers: trio.CapacityLimiter) -> None:
    who = f"{sock.peer_address()} {sock.peer_port()}"
    fortune = await trio.to_thread.run_sync(work_out, who, limiter=workers)
    block = DataStream()
    block.write_q_string(fortune)
    await sock.send_all(block.data())


async def main() -> None:
    workers = trio.CapacityLimiter(4)
    async with TcpServer(max_connections=100) as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve(lambda sock: tell_fortune(sock, workers))


if __name__ == "__main__":
    trio.run(main)
