"""Faults drawn by hypothesis are stored and read back, shrink to what is guilty, and leave a network that works."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, find, given, settings, strategies as st
from hypothesis.errors import NoSuchExample

from trioqt.testing import VirtualNetwork
from trioqt.testing.network.fabric import Conditions
from trioqt.testing.network.fault_plan import FaultPlan, Planned
from trioqt.testing.network.faults import (
    KINDS,
    Crash,
    Degraded,
    Fault,
    Hold,
    Isolated,
    Latency,
    Loss,
    Partition,
    Pause,
    ResetConnections,
)
from trioqt.testing.network.strategies import conditions, fault_plans, faults, seeds

HOSTS = ("alice", "bob", "server")
DURATION = 10.0

# No example takes long, but the machine may be busy; and every run draws the same.
STEADY = settings(
    max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    """In virtual time."""
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def echo(stream: trio.SocketStream) -> None:
    """Gives back what comes, until the connection ends one way or another."""
    try:
        async for chunk in stream:
            await stream.send_all(chunk)
    except trio.BrokenResourceError:
        pass


async def ask(count: int = 1) -> None:
    """A client that asks so many times over one connection, each second once."""
    stream = await trio.open_tcp_stream("server", 4000)
    async with stream:
        for number in range(count):
            question = bytes([number])
            await stream.send_all(question)
            assert await stream.receive_some(1) == question
            await trio.sleep(1)


def breaks(client: Callable[[], Awaitable[None]], plan: FaultPlan) -> bool:
    """Does the client fail, or wait for ever, under these faults?"""

    async def main() -> bool:
        async with VirtualNetwork(latency=0.1) as net, trio.open_nursery() as nursery:
            await nursery.start(net.run_on, "server", trio.serve_tcp, echo, 4000)
            with net.host("bob"), net.host("alice"), net.begin(plan):
                try:
                    with trio.fail_after(3600):
                        await client()
                except (OSError, trio.BrokenResourceError, trio.TooSlowError, AssertionError):
                    return True
                finally:
                    nursery.cancel_scope.cancel()
        return False

    return bool(run(main))


# ---- as values -------------------------------------------------------------------------------------------------------


@STEADY
@given(faults(HOSTS))
def test_every_fault_prints_as_python(fault: Fault) -> None:
    """With the names of its module."""
    assert eval(repr(fault), {kind.__name__: kind for kind in KINDS}) == fault


@STEADY
@given(fault_plans(HOSTS, duration=DURATION))
def test_every_plan_is_stored_and_read_back(plan: FaultPlan) -> None:
    """Equal, with the same text, and valid JSON for others."""
    text = plan.to_json()

    assert FaultPlan.from_json(text) == plan
    assert FaultPlan.from_json(text).to_json() == text
    assert len(json.loads(text)["faults"]) == len(plan.faults)
    assert len(str(plan).splitlines()) == max(len(plan.faults), 1)


@STEADY
@given(fault_plans(HOSTS, duration=DURATION, max_faults=3))
def test_a_plan_keeps_to_its_limits(plan: FaultPlan) -> None:
    """Everything is over in time, and every host is one of ours."""
    assert len(plan.faults) <= 3
    assert plan.duration <= DURATION
    assert {host for planned in plan.faults for host in planned.fault.hosts()} <= set(HOSTS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn(kind: type[Fault]) -> None:
    """Alone if asked for, and among all others."""
    drawing = settings(STEADY, max_examples=2000, phases=[Phase.generate])

    assert type(find(faults(HOSTS, kinds=[kind]), lambda fault: True, settings=drawing)) is kind
    assert type(find(faults(HOSTS), lambda fault: type(fault) is kind, settings=drawing)) is kind


def test_a_lone_host_has_no_links() -> None:
    """But can crash."""
    assert find(faults(["a"], kinds=[Crash, Partition]), lambda fault: True) == Crash("a")
    with pytest.raises(NoSuchExample):
        find(faults(["a"]), lambda fault: isinstance(fault, Partition), settings=STEADY)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: faults([]), "need a host"),
        (lambda: faults(["a"], kinds=[Partition]), "no strategy for these kinds on a"),
        (lambda: faults(["a"], kinds=[Fault]), "no strategy for Fault"),
        (lambda: fault_plans(["a"], duration=0), "a millisecond at least"),
        (lambda: fault_plans([], duration=1), "need a host"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make: Callable[[], Any], says: str) -> None:
    """When the strategy is made."""
    with pytest.raises(ValueError, match=says):
        make()


# ---- shrinking -------------------------------------------------------------------------------------------------------


def test_what_has_nothing_to_do_with_it_shrinks_away() -> None:
    """No faults, a network without delay, the seed 0."""
    assert find(fault_plans(HOSTS, duration=DURATION), lambda plan: True) == FaultPlan()
    assert find(conditions(), lambda drawn: True) == Conditions()
    assert find(seeds(), lambda seed: True) == 0


def test_times_shrink_to_early_and_short() -> None:
    """A millisecond, or just long enough."""
    # From one kind of fault to another it does not always get: that takes other draws.
    one_fault = find(fault_plans(HOSTS, duration=DURATION, kinds=[Partition]), lambda plan: len(plan.faults) == 1)
    assert one_fault == FaultPlan([Planned(Partition("alice", "bob"), 0, 0.001)])
    assert find(
        fault_plans(HOSTS, duration=DURATION, kinds=[Pause]),
        lambda plan: any(each.until is not None and each.until - each.at >= 2 for each in plan.faults),
        settings=settings(max_examples=2000),
    ) == FaultPlan([Planned(Pause("alice"), 0, 2)])


def test_a_client_that_breaks_under_a_crash_is_shown_the_crash_alone() -> None:
    """It asks five times over one connection; of up to five faults of many kinds one is guilty."""
    harmless = (Partition, Hold, Latency, Pause, Isolated, Crash)

    plan = find(
        fault_plans(["bob", "server"], duration=DURATION, kinds=harmless),
        lambda plan: breaks(lambda: ask(5), plan),
        settings=settings(STEADY, max_examples=300, phases=[Phase.generate, Phase.shrink]),
    )

    assert [type(planned.fault) for planned in plan.faults] == [Crash]
    assert plan.faults[0].fault == Crash("server")
    until = plan.faults[0].until
    assert until is not None
    assert breaks(lambda: ask(5), FaultPlan.from_json(plan.to_json()))


def test_a_client_that_connects_anew_survives_the_crash() -> None:
    """The same plans, and a program that is written for them: nothing is found."""

    async def ask_again() -> None:
        for _ in range(5):
            while True:
                try:
                    # The answer may be lost in the crash, and then nobody would tell.
                    with trio.fail_after(30):
                        await ask()
                    break
                except (OSError, trio.BrokenResourceError, trio.TooSlowError, AssertionError):
                    await trio.sleep(1)

    with pytest.raises(NoSuchExample):
        find(
            fault_plans(HOSTS, duration=DURATION, kinds=[Partition, Hold, Pause, Crash, ResetConnections]),
            lambda plan: breaks(ask_again, plan),
            settings=settings(STEADY, max_examples=60),
        )


# ---- afterwards ------------------------------------------------------------------------------------------------------


@STEADY
@given(fault_plans(HOSTS, duration=DURATION), conditions(), seeds())
def test_after_every_plan_the_network_works_again(plan: FaultPlan, drawn: Conditions, seed: int) -> None:
    """Whatever it was, and whatever the links are like: a new connection echoes, and no fault is left."""

    async def main() -> tuple[dict[int, Fault], list[str]]:
        async with VirtualNetwork(conditions=drawn, seed=seed) as net, trio.open_nursery() as nursery:
            for host in HOSTS:
                nursery.start_soon(net.run_on, host, serve_patiently)
            with net.host("alice"):
                async with trio.open_nursery() as clients:
                    clients.start_soon(try_to_ask)
                    async with net.begin(plan):
                        await trio.sleep(DURATION)
                    left = net.faults
                    clients.cancel_scope.cancel()
                await ask(2)
            began = [event.note for event in net.trace() if event.kind == "fault"]
            nursery.cancel_scope.cancel()
        return left, began

    async def serve_patiently() -> None:
        while True:
            try:
                await trio.serve_tcp(echo, 4000)
            except OSError:  # no descriptors
                await trio.sleep(0.1)

    async def try_to_ask() -> None:
        while True:
            try:
                await ask(3)
            except (OSError, trio.BrokenResourceError, AssertionError):
                await trio.sleep(0.1)

    left, began = run(main)

    assert left == {}
    assert began == [repr(planned.fault) for planned in plan.faults]


@STEADY
@given(
    fault_plans(
        ["alice", "server"], duration=DURATION, kinds=[Partition, Hold, Loss, Latency, Degraded, Pause, Isolated]
    ),
    conditions(),
    seeds(),
)
def test_no_fault_that_tcp_outlives_costs_a_byte(plan: FaultPlan, drawn: Conditions, seed: int) -> None:
    """Both ends send throughout the plan; both streams are whole, and end as they should."""
    data = random.Random(seed).randbytes(50_000)
    got: dict[str, bytes] = {}

    async def talk(name: str, stream: trio.SocketStream) -> None:
        async def listen() -> None:
            got[name] = b"".join([chunk async for chunk in stream])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for begin in range(0, len(data), 1250):
                await stream.send_all(data[begin : begin + 1250])
                await trio.sleep(0.25)
            await stream.send_eof()

    async def main() -> None:
        done = trio.Event()

        async def serve(stream: trio.SocketStream) -> None:
            await talk("server", stream)
            done.set()

        async with VirtualNetwork(conditions=drawn, seed=seed) as net, trio.open_nursery() as nursery:
            with net.host("server"):
                await nursery.start(trio.serve_tcp, serve, 4000)
            with net.host("alice"), trio.fail_after(3600):
                async with await trio.open_tcp_stream("server", 4000) as stream:
                    with net.begin(plan):
                        await talk("alice", stream)
                    await done.wait()
            nursery.cancel_scope.cancel()

    run(main)

    assert got == {"alice": data, "server": data}


@STEADY
@given(fault_plans(["alice", "server"], duration=DURATION), conditions(), seeds())
def test_what_comes_is_always_the_beginning_of_what_was_sent(plan: FaultPlan, drawn: Conditions, seed: int) -> None:
    """Under every fault, crashes at both ends included, and from one connection to the next."""
    data = random.Random(seed).randbytes(20_000)
    got: list[bytes] = []

    async def take(stream: trio.SocketStream) -> None:
        received = b""
        try:
            async for chunk in stream:
                received += chunk
        except trio.BrokenResourceError:
            pass
        finally:
            got.append(received)

    async def give() -> None:
        while True:
            try:
                with trio.fail_after(300):
                    async with await trio.open_tcp_stream("server", 4000) as stream:
                        for begin in range(0, len(data), 2500):
                            await stream.send_all(data[begin : begin + 2500])
                            await trio.sleep(0.2)
                        await stream.send_eof()
                        await stream.receive_some()
                return
            except (OSError, trio.BrokenResourceError, trio.TooSlowError):
                await trio.sleep(0.3)

    async def main() -> None:
        async with VirtualNetwork(conditions=drawn, seed=seed) as net, trio.open_nursery() as nursery:
            await nursery.start(net.run_on, "server", trio.serve_tcp, take, 4000)
            nursery.start_soon(net.run_on, "alice", give)
            with net.begin(plan):
                await trio.sleep(DURATION)
            with net.host("alice"):
                await give()
            nursery.cancel_scope.cancel()

    run(main)

    assert all(data.startswith(each) for each in got)
    assert data in got


@STEADY
@given(fault_plans(HOSTS, duration=DURATION), seeds())
def test_every_plan_replays(plan: FaultPlan, seed: int) -> None:
    """One task, one seed: the same events at the same times."""

    async def main() -> list[str]:
        async with VirtualNetwork(latency=0.1, seed=seed) as net, trio.open_nursery() as nursery:
            await nursery.start(net.run_on, "server", trio.serve_tcp, echo, 4000)
            with net.host("bob"), net.host("alice"), net.begin(plan), trio.move_on_after(60):
                try:
                    await ask(5)
                except (OSError, trio.BrokenResourceError, AssertionError):
                    pass
            nursery.cancel_scope.cancel()
            return list(map(str, net.trace()))

    assert run(main) == run(main)


@STEADY
@given(st.data())
def test_plans_of_chosen_kinds_have_no_others(data: st.DataObject) -> None:
    """In any choice of them."""
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, unique=True))
    plan = data.draw(fault_plans(HOSTS, duration=DURATION, kinds=kinds))

    assert {type(planned.fault) for planned in plan.faults} <= set(kinds)
