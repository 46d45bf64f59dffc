"""A reader that loses bytes when it is cancelled, and the tool that finds where.

Start it.  You will see at which line of ``take_line`` a cancellation loses the first half of a line, and that
``TcpSocket.receive_line`` loses nothing, wherever it is cancelled.  No second terminal is needed.
"""

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from trioqt import TcpSocket
from trioqt.testing import Probe, cancel_everywhere


async def take_line(sock: TcpSocket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += await sock.receive_some(1)  # a cancellation here forgets what came before
    return line


async def naive(probe: Probe) -> None:
    await read_a_line(probe, take_line)


async def ours(probe: Probe) -> None:
    await read_a_line(probe, TcpSocket.receive_line)


async def read_a_line(probe: Probe, receive_line: Callable[[TcpSocket], Awaitable[bytes]]) -> None:
    stream, peer = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(stream) as sock, trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_all, b"hello\n")
        line = await probe.subject(receive_line, sock)
        if line is None:  # cancelled: then it did not happen, and the line is still to come
            line = await receive_line(sock)
        probe.expect(line == b"hello\n", f"a whole line, not {line!r}")


def main() -> None:
    for scenario in (naive, ours):
        report = cancel_everywhere(scenario)
        print(report)
        for failure in report.failures[:1]:
            print(" ", failure)


if __name__ == "__main__":
    main()
