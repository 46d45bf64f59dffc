"""A plan of faults happens at its times, and is a value: it prints, compares, and is stored."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trioqt.testing import VirtualNetwork, simulate
from trioqt.testing.network.fault_plan import FaultPlan, Planned
from trioqt.testing.network.faults import (
    Crash,
    Degraded,
    DescriptorsExhausted,
    Fault,
    Hold,
    Isolated,
    Latency,
    Loss,
    NameServerDown,
    Partition,
    Pause,
    ResetConnections,
)

Clock = trio.testing.MockClock

# One of every kind.
PLAN = FaultPlan(
    [
        Planned(Partition("alice", "server"), 1, 2.5),
        Planned(Hold("alice", None, one_way=True), 0, 1),
        Planned(Loss("alice", "server", 0.1), 1, 3),
        Planned(Latency("alice", "server", 0.5, 0.25), 2, 3),
        Planned(Degraded(None, "bob", bandwidth=1000, loss=0.5), 2, 3),
        Planned(ResetConnections("alice", "server"), 4),
        Planned(Isolated("alice"), 5, 6),
        Planned(Crash("server"), 5),
        Planned(Pause("alice"), 6, 7),
        Planned(DescriptorsExhausted("server", 3), 6, 7),
        Planned(NameServerDown(), 7, 8),
    ]
)

TEXT = """\
0 to 1: Hold('alice', None, one_way=True)
1 to 2.5: Partition('alice', 'server')
1 to 3: Loss('alice', 'server', 0.1)
2 to 3: Latency('alice', 'server', 0.5, 0.25)
2 to 3: Degraded(None, 'bob', loss=0.5, bandwidth=1000.0)
4: ResetConnections('alice', 'server')
5 to 6: Isolated('alice')
5 to the end: Crash('server')
6 to 7: Pause('alice')
6 to 7: DescriptorsExhausted('server', 3)
7 to 8: NameServerDown()"""

JSON = """\
{"version": 1, "faults": [
  {"at": 0.0, "until": 1.0, "kind": "Hold", "with": {"a": "alice", "b": null, "one_way": true}},
  {"at": 1.0, "until": 2.5, "kind": "Partition", "with": {"a": "alice", "b": "server"}},
  {"at": 1.0, "until": 3.0, "kind": "Loss", "with": {"a": "alice", "b": "server", "rate": 0.1}},
  {"at": 2.0, "until": 3.0, "kind": "Latency", "with": {"a": "alice", "b": "server", "latency": 0.5, "jitter": 0.25}},
  {"at": 2.0, "until": 3.0, "kind": "Degraded", "with": {"a": null, "b": "bob", "loss": 0.5, "bandwidth": 1000.0}},
  {"at": 4.0, "kind": "ResetConnections", "with": {"a": "alice", "b": "server"}},
  {"at": 5.0, "until": 6.0, "kind": "Isolated", "with": {"host": "alice"}},
  {"at": 5.0, "kind": "Crash", "with": {"host": "server"}},
  {"at": 6.0, "until": 7.0, "kind": "Pause", "with": {"host": "alice"}},
  {"at": 6.0, "until": 7.0, "kind": "DescriptorsExhausted", "with": {"host": "server", "limit": 3}},
  {"at": 7.0, "until": 8.0, "kind": "NameServerDown", "with": {}}
]}"""  # fmt: skip


def happened(net: VirtualNetwork) -> list[tuple[float, str, str]]:
    """When faults began and ended."""
    return [(event.time, event.kind, event.note) for event in net.trace() if event.kind in ("fault", "heal")]


# ---- as a value ------------------------------------------------------------------------------------------------------


def test_a_plan_prints_one_fault_a_line() -> None:
    """In the order of their beginnings."""
    assert str(PLAN) == TEXT
    assert str(FaultPlan()) == "no faults"


def test_the_repr_of_a_plan_is_python() -> None:
    """It can be pasted into a test."""
    assert eval(repr(PLAN)) == PLAN
    assert repr(FaultPlan([Planned(Crash("a"), 1), Planned(Pause("b"), 0, 2)])) == (
        "FaultPlan([\n    Planned(Pause('b'), 0.0, 2.0),\n    Planned(Crash('a'), 1.0),\n])"
    )
    assert (repr(FaultPlan()), eval(repr(FaultPlan()))) == ("FaultPlan()", FaultPlan())


def test_plans_compare_by_what_happens() -> None:
    """The order in which faults are given matters only for those of one time."""
    first, second, third = Planned(Crash("a"), 1), Planned(Pause("b"), 2, 3), Planned(Crash("c"), 1)

    assert FaultPlan([second, first]) == FaultPlan((first, second))
    assert hash(FaultPlan([second, first])) == hash(FaultPlan([first, second]))
    assert FaultPlan([first, third]) != FaultPlan([third, first])
    assert FaultPlan([first]) != FaultPlan([third])


@pytest.mark.parametrize(
    ("faults", "duration"),
    [
        ([], 0.0),
        ([Planned(Crash("a"), 1, 2), Planned(Crash("a"), 0, 5)], 5.0),
        ([Planned(Crash("a"), 1)], math.inf),
        ([Planned(ResetConnections("a", "b"), 3)], 3.0),
    ],
)
def test_how_long_a_plan_takes(faults: list[Planned], duration: float) -> None:
    """Until the last fault is over."""
    assert FaultPlan(faults).duration == duration


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Planned(Crash("a"), 2, 2), ValueError, "begins at 2, so it cannot end at 2"),
        (lambda: Planned(Crash("a"), -1), ValueError, "0 or more"),
        (lambda: Planned(Crash("a"), math.nan), ValueError, "0 or more"),
        (lambda: Planned(Crash("a"), 0, math.inf), ValueError, "0 or more"),
        (lambda: Planned(Crash("a"), "1"), TypeError, "seconds"),  # type: ignore[arg-type]
        (lambda: Planned(ResetConnections("a", "b"), 1, 2), ValueError, "has no end"),
        (lambda: Planned("Crash", 1), TypeError, "fault"),  # type: ignore[arg-type]
        (lambda: FaultPlan([Crash("a")]), TypeError, "Planned"),  # type: ignore[list-item]
    ],
)
def test_a_plan_that_cannot_be_is_refused(make: Callable[[], Any], error: type[Exception], says: str) -> None:
    """When it is made."""
    with pytest.raises(error, match=says):
        make()


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_a_plan_is_stored_as_json() -> None:
    """This text is version 1, for good; what has its default is left out."""
    assert PLAN.to_json() == JSON
    assert FaultPlan.from_json(JSON) == PLAN
    assert json.loads(JSON)["version"] == 1


def test_the_empty_plan_is_stored_too() -> None:
    """Hypothesis begins with it."""
    assert FaultPlan().to_json() == '{"version": 1, "faults": []}'
    assert FaultPlan.from_json(FaultPlan().to_json()) == FaultPlan()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("[]", "a plan is"),
        ('{"faults": 1}', "a plan is"),
        ('{"version": 2, "faults": []}', "a plan of version 2; 1 is understood"),
        ('{"faults": []}', "version None"),
        ('{"version": 1, "faults": [7]}', "fault 1 of the plan: a fault is"),
        ('{"version": 1, "faults": [{"at": 1, "kind": "Flood"}]}', "no kind of fault 'Flood'; there are Crash, D"),
        ('{"version": 1, "faults": [{"at": 1, "kind": ["Crash"]}]}', r"kind of fault \['Crash'\]"),
        ('{"version": 1, "faults": [{"at": 1, "kind": "Crash"}]}', "Crash lacks host"),
        ('{"version": 1, "faults": [{"at": 1, "kind": "Crash", "with": 5}]}', "attributes of Crash are not 5"),
        ('{"version": 1, "faults": [{"at": 1, "kind": "Crash", "with": {"host": 5}}]}', "host is the name of a host"),
        ('{"version": 1, "faults": [{"at": 1, "kind": "Crash", "with": {"host": "a", "x": 5}}]}', "Crash has no x"),
        ('{"version": 1, "faults": [{"at": 1, "kind": "Crash", "with": {"host": "a"}, "x": 5}]}', "what is x?"),
        ('{"version": 1, "faults": [{"at": "1", "kind": "Crash", "with": {"host": "a"}}]}', "a time is in seconds"),
        ('{"version": 1, "faults": [{"at": 1, "until": 0, "kind": "Crash", "with": {"host": "a"}}]}', "cannot end"),
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused(text: str, says: str) -> None:
    """With a word on where and why."""
    with pytest.raises(ValueError, match=says):
        FaultPlan.from_json(text)


@attrs.frozen
class Storm(Fault):
    """A fault of somebody's own."""

    strength: int
    names: Any = None


def test_a_fault_of_ones_own_is_stored_by_its_name() -> None:
    """Who reads it must know the kind."""
    plan = FaultPlan([Planned(Storm(9), 1, 2)])

    assert FaultPlan.from_json(plan.to_json(), kinds=[Storm]) == plan
    with pytest.raises(ValueError, match="there is no kind of fault 'Storm'"):
        FaultPlan.from_json(plan.to_json())
    with pytest.raises(ValueError, match="cannot be stored"):
        FaultPlan([Planned(Storm(9, ["x"]), 1, 2)]).to_json()


# ---- when it happens -------------------------------------------------------------------------------------------------


async def test_faults_begin_and_end_at_their_times(autojump_clock: Clock) -> None:
    """Measured from the beginning of the plan."""
    plan = FaultPlan([Planned(Crash("server"), 2, 3), Planned(Partition("alice", "server"), 0, 2.5)])
    async with VirtualNetwork() as net:
        with net.host("server"), net.host("alice"):
            pass
        await trio.sleep(10)
        with net.begin(plan):
            await trio.sleep(plan.duration)

    assert happened(net) == [
        (10.0, "fault", "Partition('alice', 'server')"),
        (12.0, "fault", "Crash('server')"),
        (12.5, "heal", "Partition('alice', 'server')"),
        (13.0, "heal", "Crash('server')"),
    ]


async def test_every_kind_of_fault_can_be_planned(autojump_clock: Clock) -> None:
    """Every fault of the plan happens, and the network works again when the plan has ended."""
    async with VirtualNetwork() as net:
        for name in ("server", "alice", "bob", "client"):
            with net.host(name):
                pass
        async with net.begin(PLAN):
            await trio.sleep(9)
        with net.host("server"):
            server = trio.socket.socket(type=socket.SOCK_DGRAM)
            await server.bind(("0.0.0.0", 1))
        with net.host("alice"):
            alice = trio.socket.socket(type=socket.SOCK_DGRAM)
            await alice.sendto(b"hello", ("server", 1))
        got = await server.recv(5)
        alice.close()
        server.close()

    kinds = {type(planned.fault).__name__ for planned in PLAN.faults}
    assert got == b"hello"
    assert {note.partition("(")[0] for _, kind, note in happened(net) if kind == "fault"} == kinds
    assert happened(net)[-1] == (9.0, "heal", "Crash('server')")
    assert net.faults == {}


async def test_what_happens_at_one_time_happens_in_the_order_of_the_plan(autojump_clock: Clock) -> None:
    """A crash that follows another at once is a second crash."""
    plan = FaultPlan([Planned(Crash("server"), 1, 2), Planned(Crash("server"), 2, 3)])
    async with VirtualNetwork() as net:
        with net.host("server"), net.begin(plan):
            await trio.sleep(4)

    assert [(event.time, event.kind) for event in net.trace()] == [
        (1.0, "fault"),
        (1.0, "crash"),
        (2.0, "heal"),
        (2.0, "restart"),
        (2.0, "fault"),
        (2.0, "crash"),
        (3.0, "heal"),
        (3.0, "restart"),
    ]


async def test_a_plan_that_is_ended_early_is_over_at_once(autojump_clock: Clock) -> None:
    """What lasts ends, and what was to come does not."""
    plan = FaultPlan([Planned(Pause("server"), 1, 5), Planned(Crash("server"), 3)])
    async with VirtualNetwork() as net:
        with net.host("server"), net.begin(plan):
            await trio.sleep(2)
        at_rest = net.in_flight
        await trio.sleep(10)

    assert at_rest == 0
    assert happened(net) == [(1.0, "fault", "Pause('server')"), (2.0, "heal", "Pause('server')")]


async def test_two_plans_at_once(autojump_clock: Clock) -> None:
    """Each has its own times, and ends by itself."""
    plan = FaultPlan([Planned(Pause("server"), 1, 3)])
    async with VirtualNetwork() as net:
        with net.host("server"), net.begin(plan):
            await trio.sleep(1)
            with net.begin(plan):
                await trio.sleep(1.5)
            await trio.sleep(5)

    assert [(time, kind) for time, kind, _ in happened(net)] == [(1, "fault"), (2, "fault"), (2.5, "heal"), (3, "heal")]


async def test_a_plan_may_name_hosts_that_come_later(autojump_clock: Clock) -> None:
    """A fault that lasts hits them when they come: this host is down from its first moment."""
    plan = FaultPlan([Planned(Crash("server"), 0, 3), Planned(Partition("alice", "server"), 0, 4)])
    async with VirtualNetwork() as net:
        with net.begin(plan):
            await trio.sleep(1)
            with net.host("server"):
                down = not net.current_host().is_up
                await trio.sleep(2.5)
                server = trio.socket.socket(type=socket.SOCK_DGRAM)
                await server.bind(("0.0.0.0", 1))
            with net.host("alice"):
                alice = trio.socket.socket(type=socket.SOCK_DGRAM)
                await alice.sendto(b"lost", ("server", 1))
                await trio.sleep(1)
                await alice.sendto(b"heard", ("server", 1))
            got = await server.recv(10)
            alice.close()
            server.close()

    assert (down, got) == (True, b"heard")


async def test_the_network_is_not_at_rest_before_the_plan_is_over(autojump_clock: Clock) -> None:
    """Something will still happen."""
    async with VirtualNetwork() as net:
        with net.host("server"), net.begin(FaultPlan([Planned(Pause("server"), 1, 3)])):
            await net.quiesce()

            assert trio.current_time() == 3.0


async def test_the_same_plan_gives_the_same_run(autojump_clock: Clock) -> None:
    """No task is needed to carry it out, so nothing depends on the scheduler."""
    digests = set()
    for _ in range(3):
        async with VirtualNetwork(latency=0.1, seed=5) as net, trio.open_nursery() as nursery:
            start = trio.current_time()
            await nursery.start(net.run_on, "server", trio.serve_tcp, trio.aclose_forcefully, 4000)
            with net.host("alice"), net.begin(FaultPlan([Planned(Crash("server"), 0.05, 0.5)])):
                async with await trio.open_tcp_stream("server", 4000) as stream:
                    await stream.receive_some()
            digests.add(tuple((round(event.time - start, 9), event.kind, event.note) for event in net.trace()))
            nursery.cancel_scope.cancel()

    assert len(digests) == 1


async def fall_over(net: VirtualNetwork) -> None:
    """Does not know that servers crash."""
    with net.host("server"):
        await trio.sleep(1.5)
        trio.socket.socket().close()


def test_a_simulation_runs_a_plan_and_says_which_when_it_fails() -> None:
    """Its host is down when it wants a socket; a plan that is over by then does no harm."""
    plan = FaultPlan([Planned(Crash("server"), 1, 2), Planned(Pause("server"), 3, 4)])

    with pytest.raises(OSError, match="Network is down") as caught:
        simulate(fall_over, faults=plan)
    simulate(fall_over, faults=FaultPlan([Planned(Crash("server"), 1, 1.25)]))

    note = "\n".join(caught.value.__notes__)
    assert "1 to 2: Crash('server')" in note
    assert "3 to 4: Pause('server')" in note
    assert "1.000000 crash server" in note


def test_a_limit_that_is_lifted_can_be_stored() -> None:
    """JSON has no infinity."""
    plan = FaultPlan([Planned(Degraded("a", "b", bandwidth=math.inf, queue=math.inf), 1.0)])

    assert FaultPlan.from_json(plan.to_json()) == plan
    assert '"bandwidth": {"number": "inf"}' in plan.to_json()


async def test_a_misspelt_host_of_a_plan_is_told_when_the_plan_ends(autojump_clock: Clock) -> None:
    """A host of a plan may come later, so not at its beginning; the plan is over all the same."""
    async with VirtualNetwork() as net:
        with net.host("server"):
            trouble = net.begin(FaultPlan([Planned(Partition("cleint", "server"), 1, 2)]))
        with pytest.raises(ValueError, match="no host 'cleint'; there are default, server"):
            trouble.end()
        trouble.end()
        assert net.in_flight == 0


async def test_a_misspelt_host_of_a_plan_is_told_when_the_network_ends(autojump_clock: Clock) -> None:
    """Of a plan that nobody ends; but what the block raises comes out, and nothing instead of it."""
    plan = FaultPlan([Planned(Partition("cleint", "server"), 1, 2)])
    for raised, told in ((None, ValueError), (KeyError("mine"), KeyError)):
        with pytest.raises(told):
            async with VirtualNetwork() as net:
                with net.host("server"):
                    net.begin(plan)
                await trio.sleep(3)
                if raised is not None:
                    raise raised


async def test_a_host_of_a_plan_may_come_after_its_beginning(autojump_clock: Clock) -> None:
    """It is there when the plan ends, so nothing is told."""
    async with VirtualNetwork() as net:
        with net.begin(FaultPlan([Planned(Partition("late", "default"), 1, 2)])):
            await trio.sleep(0.5)
            with net.host("late"):
                pass
            await trio.sleep(3)
    assert [event.kind for event in net.trace()] == ["fault", "heal"]
