"""A program of a simulated host dies with it, and starts again with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from trioqt.testing import VirtualNetwork
from trioqt.testing.network.faults import Crash

Clock = trio.testing.MockClock


@pytest.fixture
async def net(autojump_clock: Clock) -> AsyncIterator[VirtualNetwork]:
    """One host."""
    async with VirtualNetwork(latency=0.125) as net:
        with net.host("server"):
            pass
        yield net


async def test_a_crash_cancels_a_program_and_the_start_runs_it_again(
    net: VirtualNetwork, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """From its beginning, with the same arguments, on the same host."""
    log: list[tuple[float, str, str]] = []

    async def main(word: str) -> None:
        log.append((trio.current_time(), word, net.current_host().name))
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            log.append((trio.current_time(), "cancelled", net.current_host().name))
            raise

    nursery.start_soon(net.run_on, "server", main, "hello")
    await trio.sleep(1)
    with net.crash("server"):
        await trio.sleep(2)
    await trio.sleep(1)

    assert log == [(0.0, "hello", "server"), (1.0, "cancelled", "server"), (3.0, "hello", "server")]


async def test_clients_come_back_to_a_server_that_has_crashed(
    net: VirtualNetwork, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """trio's own server and client, unchanged: what was open is reset, and a new connection is answered."""

    async def echo(stream: trio.SocketStream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    await nursery.start(net.run_on, "server", trio.serve_tcp, echo, 4000)
    with net.host("alice"):
        stream = await trio.open_tcp_stream("server", 4000)
        with net.crash("server"):
            await stream.send_all(b"lost")
            await trio.sleep(1)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        again = await trio.open_tcp_stream("server", 4000)
        await again.send_all(b"hello")
        answer = await again.receive_some()
    await again.aclose()
    await stream.aclose()

    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert answer == b"hello"


async def test_the_value_of_the_first_start_is_passed_on(
    net: VirtualNetwork, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """Later lives may tell that they have started; nobody waits for that any more."""
    lives: list[int] = []

    async def main(*, task_status: trio.TaskStatus[int]) -> None:
        lives.append(len(lives) + 1)
        await trio.sleep(1)
        task_status.started(lives[-1])
        await trio.sleep_forever()

    started = await nursery.start(net.run_on, "server", main)
    for _ in range(2):
        with net.crash("server"):
            pass
        await trio.sleep(2)

    assert (started, lives) == (1, [1, 2, 3])


async def test_a_program_that_crashes_before_it_has_started_starts_in_its_next_life(
    net: VirtualNetwork, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """Who waits for it waits on."""
    lives: list[int] = []

    async def main(*, task_status: trio.TaskStatus[int]) -> None:
        lives.append(len(lives) + 1)
        await trio.sleep(3)
        task_status.started(lives[-1])
        await trio.sleep_forever()

    async def crash() -> None:
        await trio.sleep(1)
        with net.crash("server"):
            await trio.sleep(1)

    nursery.start_soon(crash)
    started = await nursery.start(net.run_on, "server", main)

    assert (started, lives, trio.current_time()) == (2, [1, 2], 5.0)


async def test_a_program_waits_for_its_host(net: VirtualNetwork, autojump_clock: Clock, nursery: trio.Nursery) -> None:
    """A machine that is down runs nothing."""
    began: list[float] = []

    async def main() -> None:
        began.append(trio.current_time())

    with net.crash("server"):
        nursery.start_soon(net.run_on, "server", main)
        await trio.sleep(2)
    await trio.sleep(1)

    assert began == [2.0]


async def test_a_program_that_has_ended_is_not_run_again(
    net: VirtualNetwork, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """It has done its work."""
    lives = 0

    async def main() -> None:
        nonlocal lives
        lives += 1
        await trio.sleep(1)

    await net.run_on("server", main)
    with net.crash("server"):
        pass
    await trio.sleep(2)

    assert lives == 1


async def test_an_error_without_a_crash_is_the_programs_own(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """It goes out as it is, without a group."""

    async def main() -> None:
        await trio.sleep(1)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await net.run_on("server", main)


async def test_what_a_program_raises_after_a_crash_nobody_sees(
    net: VirtualNetwork, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """Alone or in a group with the cancellation; only the trace has its name."""
    lives = 0

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("no longer there")

    async def main() -> None:
        nonlocal lives
        lives += 1
        if lives == 1:
            await fail()
        if lives == 2:
            async with trio.open_nursery() as inner:
                inner.start_soon(fail)
                inner.start_soon(trio.sleep_forever)
        await trio.sleep_forever()

    nursery.start_soon(net.run_on, "server", main)
    for _ in range(2):
        await trio.sleep(1)
        with net.crash("server"):
            await trio.sleep(1)
    await trio.sleep(1)

    assert lives == 3
    assert [event.note for event in net.trace() if event.kind == "died"] == ["KeyError", "BaseExceptionGroup"]


async def test_the_next_life_waits_for_what_the_last_one_shields(
    net: VirtualNetwork, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """A task cannot be stopped by force; its sockets are gone meanwhile."""
    began: list[float] = []
    told: list[str] = []

    async def main() -> None:
        began.append(trio.current_time())
        sock = trio.socket.socket()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
                try:
                    await sock.bind(("0.0.0.0", 1))
                except OSError as exc:
                    told.append(str(exc.strerror))
                sock.close()

    nursery.start_soon(net.run_on, "server", main)
    await trio.sleep(1)
    with net.crash("server"):
        await trio.sleep(1)
    await trio.sleep(10)

    assert (began, told) == ([0.0, 6.0], ["Network is down"])


async def test_a_cancelled_program_ends_for_good(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Even if its host has crashed at the same moment, or is down."""
    lives = 0

    async def main() -> None:
        nonlocal lives
        lives += 1
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(net.run_on, "server", main)
            await trio.testing.wait_all_tasks_blocked()
            net.crash("server").end()
            scope.cancel()
    with trio.move_on_after(1) as while_down, net.crash("server"):
        await net.run_on("server", main)

    assert (lives, scope.cancelled_caught, while_down.cancelled_caught) == (1, True, True)


async def test_a_program_can_crash_its_own_host(
    net: VirtualNetwork, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """It gets as far as its next checkpoint."""
    log: list[str] = []
    troubles: list[Any] = []

    async def main() -> None:
        log.append("began")
        if not troubles:
            troubles.append(net.begin(Crash("server")))
            log.append("crashed")
            await trio.sleep(1)
            log.append("never")
        await trio.sleep_forever()

    nursery.start_soon(net.run_on, "server", main)
    await trio.sleep(5)
    troubles[0].end()
    await trio.sleep(5)

    assert log == ["began", "crashed", "began"]


async def test_several_programs_of_one_host_start_again(
    net: VirtualNetwork, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """Those of other hosts do not notice."""
    log: list[str] = []

    async def main(name: str) -> None:
        log.append(name)
        await trio.sleep_forever()

    for name, host in (("first", "server"), ("second", "server"), ("other", "bob")):
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(net.run_on, host, main, name)
    await trio.sleep(1)
    with net.crash("server"):
        await trio.sleep(1)
    await trio.sleep(1)

    assert log[:3] == ["first", "second", "other"]
    assert sorted(log[3:]) == ["first", "second"]
