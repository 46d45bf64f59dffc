import store
import trio
import trio.testing

from trioqt import TcpSocket
from trioqt.testing import Probe, cancel_everywhere


async def conversation(probe: Probe) -> None:
    """One end asks, the other answers; asking is what gets cancelled."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery, TcpSocket.from_stream(ours) as sock:
        nursery.start_soon(serve, theirs)
        await probe.subject(sock.send_all, b"SET colour green\n")
        if probe.cancelled:  # then it did not happen
            await sock.send_all(b"SET colour green\n")
        line = await probe.subject(sock.receive_line)
        if line is None:
            line = await sock.receive_line()
        probe.expect(line == b"OK\n", f"one answer, not {line!r}")


async def serve(stream: trio.abc.Stream) -> None:
    async with TcpSocket.from_stream(stream) as sock:
        await store.talk(sock)


def test_no_cancellation_breaks_the_conversation() -> None:
    cancel_everywhere(conversation).raise_if_failed()
