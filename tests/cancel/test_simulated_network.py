"""What a cancellation leaks or tears on a simulated network is found, at its place, and no place is missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from trioqt.testing import Probe, VirtualNetwork, cancel_everywhere

Scenario = Callable[[Probe], Awaitable[None]]

HOST = "127.0.0.1"
MESSAGES = [b"alpha", b"bravo"]


def network(latency: float) -> VirtualNetwork:
    """One host, which hears itself after ``latency``."""
    net = VirtualNetwork()
    if latency:
        net.set_link("default", "default", latency=latency)
    return net


# ---- leaks ---------------------------------------------------------------------------------------------------------


async def leaky_visit(port: int) -> None:
    sock = trio.socket.socket()
    await sock.connect((HOST, port))  # closes it if it is cancelled
    await trio.lowlevel.checkpoint()  # nobody does if this is
    sock.close()


async def tidy_visit(port: int) -> None:
    with trio.socket.socket() as sock:
        await sock.connect((HOST, port))
        await trio.lowlevel.checkpoint()


def visiting(visit: Callable[[int], Awaitable[None]]) -> Scenario:
    async def visit_server(probe: Probe) -> None:
        async with network(0):
            with trio.socket.socket() as listener:
                await listener.bind((HOST, 0))
                listener.listen()
                await probe.subject(visit, listener.getsockname()[1])

    return visit_server


def test_a_simulated_socket_that_is_left_open_at_one_place_is_reported() -> None:
    leaky = cancel_everywhere(visiting(leaky_visit), seeds=[0])
    tidy = cancel_everywhere(visiting(tidy_visit), seeds=[0])

    [failure] = leaky.failures
    assert failure.boundary is not None
    assert failure.boundary.stack[0].line == leaky_visit.__code__.co_firstlineno + 3
    assert [(problem.kind, problem.text.split(",")[0]) for problem in failure.problems] == [
        ("leak", "unclosed <virtual tcp socket of default")
    ]
    assert (leaky.places, leaky.complete) == (3, True)
    assert (tidy.places, tidy.complete, tidy.ok) == (3, True, True)


# ---- torn messages ---------------------------------------------------------------------------------------------------


@attrs.define
class TornSender:
    """The second half is missing if its send is cancelled."""

    stream: trio.SocketStream

    async def send(self, message: bytes) -> None:
        await self.stream.send_all(message[:2])
        await self.stream.send_all(message[2:])


class WholeSender(TornSender):
    async def send(self, message: bytes) -> None:
        await self.stream.send_all(message)


@attrs.define
class TornReceiver:
    """The first segment is lost if the wait for the next one is cancelled."""

    stream: trio.SocketStream

    async def receive(self) -> bytes:
        data = b""
        while len(data) < 5:
            data += await self.stream.receive_some(5 - len(data))
        return data


@attrs.define
class WholeReceiver(TornReceiver):
    data: bytes = b""

    async def receive(self) -> bytes:
        while len(self.data) < 5:
            self.data += await self.stream.receive_some(5 - len(self.data))
        data, self.data = self.data, b""
        return data


async def connected() -> tuple[trio.SocketStream, trio.SocketStream]:
    with trio.socket.socket() as listener:
        await listener.bind((HOST, 0))
        listener.listen()
        sock = trio.socket.socket()
        await sock.connect(listener.getsockname())
        accepted, _ = await listener.accept()
    return trio.SocketStream(sock), trio.SocketStream(accepted)


def sending(sender_class: type[TornSender], latency: float) -> Scenario:
    """The peer must see what was sent, and of what was cancelled nothing."""

    async def send_messages(probe: Probe) -> None:
        sent, seen = b"", b""
        async with network(latency):
            ours, theirs = await connected()
            async with ours, theirs:
                sender = sender_class(ours)
                for message in MESSAGES:
                    await probe.subject(sender.send, message)
                    sent += b"" if probe.cancelled else message
                await ours.send_eof()
                async for piece in theirs:
                    seen += piece
        probe.expect(seen == sent, "whole messages arrive")

    return send_messages


def receiving(receiver_class: type[TornReceiver], latency: float) -> Scenario:
    """A message comes in two segments; a receive that was cancelled is made again."""

    async def receive_messages(probe: Probe) -> None:
        async def talk() -> None:
            async with theirs:
                for message in MESSAGES:
                    await trio.sleep(1)
                    await theirs.send_all(message[:2])
                    await trio.sleep(1)
                    await theirs.send_all(message[2:])
                await trio.sleep_forever()

        received: list[bytes] = []
        async with network(latency):
            ours, theirs = await connected()
            async with ours, trio.open_nursery() as nursery:
                nursery.start_soon(talk)
                receiver = receiver_class(ours)
                with trio.move_on_after(10):  # a lost segment never comes
                    while len(received) < len(MESSAGES):
                        message = await probe.subject(receiver.receive)
                        received += [] if message is None else [message]
                nursery.cancel_scope.cancel()
        probe.expect(received == MESSAGES, "whole messages are received")

    return receive_messages


@pytest.mark.parametrize("latency", [0, 0.05])
def test_a_message_that_one_place_tears_is_reported(latency: float) -> None:
    """Once a message: where the second half would have been sent."""
    torn = cancel_everywhere(sending(TornSender, latency), seeds=[0])
    whole = cancel_everywhere(sending(WholeSender, latency), seeds=[0])

    lines = [failure.boundary.stack[0].line for failure in torn.failures if failure.boundary is not None]
    assert lines == 2 * [TornSender.send.__code__.co_firstlineno + 1]
    assert torn.count_problems() == {"expect": 2}
    assert (torn.complete, whole.complete, whole.ok) == (True, True, True)


def test_between_two_segments_there_are_places() -> None:
    """What comes later than it was sent comes by the clock, and a cancellation fits in front of it."""
    near, far = (cancel_everywhere(receiving(TornReceiver, latency), seeds=[0]) for latency in (0, 0.05))
    whole = cancel_everywhere(receiving(WholeReceiver, 0.05), seeds=[0])

    assert {problem.text for report in (near, far) for failure in report.failures for problem in failure.problems} == {
        "whole messages are received"
    }
    assert len(far.failures) > len(near.failures) > 0
    assert (near.complete, far.complete, whole.complete, whole.ok) == (True, True, True, True)
