"""What all faults have in common: several at once, how long they last, and how they print."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing

from tests.testing.network.three_hosts import LATENCY, events, everything, failure, listen, opened, ping, udp
from trioqt.testing import VirtualNetwork
from trioqt.testing.network.faults import (
    KINDS,
    Crash,
    Degraded,
    DescriptorsExhausted,
    Fault,
    Hold,
    HostState,
    Latency,
    LinkState,
    Loss,
    NameServerDown,
    Partition,
    Pause,
    ResetConnections,
    Trouble,
)

Clock = trio.testing.MockClock


# ---- several at once -----------------------------------------------------------------------------


async def test_equal_faults_that_are_nested_last_as_long_as_the_outer_one(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """The end of one does not heal the other."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    with net.partition("alice", "server"):
        with net.partition("alice", "server"):
            pass
        await alice.sendto(b"lost", ("server", 6))
        await trio.sleep(1)
    await alice.sendto(b"heard", ("server", 6))

    assert await everything(server, 1) == [b"heard"]


async def test_crashes_that_overlap_are_one_crash(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """It is up again when the last of them is over."""
    first, second = net.crash("server"), net.crash("server")
    first.end()
    down = not net.hosts["server"].is_up
    second.end()

    assert (down, net.hosts["server"].is_up) == (True, True)
    assert events(net, "crash", "restart") == ["crash server", "restart server"]


async def test_of_faults_that_overlap_the_last_to_begin_has_the_last_word(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """And the others are as they were when it ends, in any order."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    slow = net.begin(Latency("alice", "server", 1))
    slower = net.begin(Latency(None, None, 2))
    took = [await ping(alice, server)]
    slow.end()
    took.append(await ping(alice, server))
    slow = net.begin(Latency("alice", "server", 1))
    took.append(await ping(alice, server))
    slower.end()
    took.append(await ping(alice, server))
    slow.end()
    took.append(await ping(alice, server))

    assert took == [4.0, 4.0, 2.0, 2.0, 0.25]


async def test_the_lowest_limit_of_descriptors_counts(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Whichever ends first."""
    few, none = net.begin(DescriptorsExhausted("server", 3)), net.begin(DescriptorsExhausted("server"))
    limits = [net.hosts["server"].descriptor_limit]
    none.end()
    limits.append(net.hosts["server"].descriptor_limit)
    few.end()

    assert limits == [0, 3]
    assert net.hosts["server"].descriptor_limit == HostState().descriptor_limit


async def test_what_is_held_is_lost_if_there_is_a_partition_when_it_is_released(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """It departs then, and gets nowhere."""
    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    hold = net.hold("alice", "server")
    await alice.sendto(b"lost", ("server", 6))
    with net.partition("alice", "server"):
        hold.end()
    await alice.sendto(b"heard", ("server", 6))

    assert await everything(server, 1) == [b"heard"]
    assert events(net, "held", "lost") == ["held alice server UDP", "lost alice server UDP"]


async def test_a_crash_while_a_host_stands_still(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """What waited for it finds a machine that knows nothing: the connection is refused."""
    await listen(net)
    told = []

    async def connect() -> None:
        with net.host("alice"):
            told.append(await failure(opened().connect, ("server", 4000)))

    async with trio.open_nursery() as nursery:
        with net.pause("server"):
            nursery.start_soon(connect)
            await trio.sleep(1.5)
            with net.crash("server"):
                await trio.sleep(1)

    assert (told, trio.current_time()) == (["ECONNREFUSED"], 2.5 + 2 * LATENCY)


# ---- how long ------------------------------------------------------------------------------------


async def test_a_fault_lasts_until_it_is_ended(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """It begins at the call; to end it twice is to end it once."""
    trouble = net.begin(Partition("alice", "server"))
    lasting = list(net.faults.values())
    trouble.end()
    trouble.end()

    assert lasting == [Partition("alice", "server")]
    assert net.faults == {}
    assert events(net, "fault", "heal") == ["fault Partition('alice', 'server')", "heal Partition('alice', 'server')"]


async def test_a_fault_is_over_at_the_end_of_its_block_whatever_happens(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """``with`` and ``async with``, after an error and when cancelled."""
    with pytest.raises(ZeroDivisionError), net.pause("server"):
        _ = 1 / 0
    async with net.pause("server") as trouble, net.hold("alice", "bob"):
        lasting = list(net.faults.values())
    with trio.move_on_after(1):
        async with net.pause("server"):
            await trio.sleep_forever()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with net.pause("server"):
            raise AssertionError("a cancelled task gets no further")

    assert net.faults == {}
    assert lasting == [Pause("server"), Hold("alice", "bob")]
    assert isinstance(trouble, Trouble)


async def test_what_is_over_cannot_be_used_again(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """That would do nothing, so it says so."""
    trouble = net.pause("server")
    trouble.end()
    with pytest.raises(RuntimeError, match="over"):
        trouble.__enter__()
    with pytest.raises(RuntimeError, match="over"):
        await trouble.__aenter__()


@pytest.mark.parametrize(
    "fault",
    [
        Partition("alice", "sever"),
        Partition("sever", None),
        Crash("sever"),
        ResetConnections(None, "sever"),
        NameServerDown("sever"),
    ],
    ids=repr,
)
async def test_a_fault_of_a_host_that_is_not_there_is_refused(
    net: VirtualNetwork, autojump_clock: Clock, fault: Fault
) -> None:
    """A name that is mistyped would else make a test pass in which nothing went wrong."""
    with pytest.raises(ValueError, match="there is no host 'sever'; there are default, alice, bob, server"):
        net.begin(fault)

    assert net.faults == {}
    assert net.trace() == []


async def test_a_host_that_comes_later_is_hit_by_what_goes_wrong_everywhere(
    net: VirtualNetwork, autojump_clock: Clock
) -> None:
    """Faults belong to the network, not to the links that there were when they began."""
    alice = await udp(net, "alice", 5)
    with net.partition("alice", None):
        carol = await udp(net, "carol", 6)
        await alice.sendto(b"lost", ("carol", 6))
        await trio.sleep(1)
    await alice.sendto(b"heard", ("carol", 6))

    assert await everything(carol, 1) == [b"heard"]


# ---- as values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Partition("a", "b"), "Partition('a', 'b')"),
        (Partition("a", None, one_way=True), "Partition('a', None, one_way=True)"),
        (Loss("a", "b", 1, one_way=True), "Loss('a', 'b', 1.0, one_way=True)"),
        (Latency("a", "b", 2, 0.5), "Latency('a', 'b', 2.0, 0.5)"),
        (Degraded("a", "b", bandwidth=1000, one_way=True), "Degraded('a', 'b', one_way=True, bandwidth=1000.0)"),
        (ResetConnections("a", "b"), "ResetConnections('a', 'b')"),
        (DescriptorsExhausted("a"), "DescriptorsExhausted('a')"),
        (DescriptorsExhausted("a", 3), "DescriptorsExhausted('a', 3)"),
        (NameServerDown(), "NameServerDown()"),
    ],
)
def test_a_fault_prints_as_python(fault: Fault, text: str) -> None:
    """And what is printed is equal to it."""
    assert repr(fault) == text
    assert eval(text) == fault
    assert hash(eval(text)) == hash(fault)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        fault.one_way = True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Partition(1, "b"), TypeError, "a is the name of a host"),  # type: ignore[arg-type]
        (lambda: Partition("a", "b", one_way=1), TypeError, "one_way"),  # type: ignore[arg-type]
        (lambda: Crash(None), TypeError, "host is the name of a host"),  # type: ignore[arg-type]
        (lambda: Loss("a", "b", 1.5), ValueError, "probability"),
        (lambda: Loss("a", "b", "1"), TypeError, "number"),  # type: ignore[arg-type]
        (lambda: Latency("a", "b", -1), ValueError, "seconds"),
        (lambda: Latency("a", "b", 1, float("nan")), ValueError, "seconds"),
        (lambda: Degraded("a", "b", bandwidth=0), ValueError, "more than 0"),
        (lambda: Degraded("a", "b", loss="1"), TypeError, "number"),  # type: ignore[arg-type]
        (lambda: DescriptorsExhausted("a", -1), ValueError, "0 or more"),
        (lambda: DescriptorsExhausted("a", 1.5), TypeError, "whole"),  # type: ignore[arg-type]
    ],
)
def test_a_fault_that_cannot_be_is_refused(make: Callable[[], Fault], error: type[Exception], says: str) -> None:
    """When it is made, not when it begins."""
    with pytest.raises(error, match=says):
        make()


def test_every_kind_has_a_docstring_and_a_name_of_its_own() -> None:
    """They are stored by name."""
    assert len({kind.__name__ for kind in KINDS}) == len(KINDS)
    assert all(kind.__doc__ for kind in KINDS)


async def test_a_fault_of_ones_own(net: VirtualNetwork, autojump_clock: Clock) -> None:
    """Links, hosts, and two instants are all there is to say."""

    @attrs.frozen
    class Storm(Fault):
        """Everything is slow and nobody has names."""

        said: list[str] = attrs.field(factory=list)

        def begin(self, net: VirtualNetwork) -> None:
            self.said.append("begin")

        def end(self, net: VirtualNetwork) -> None:
            self.said.append("end")

        def change(self, source: str, target: str, state: LinkState) -> LinkState:
            return attrs.evolve(state, conditions=attrs.evolve(state.conditions, latency=3.0))

        def change_host(self, host: str, state: HostState) -> HostState:
            return attrs.evolve(state, has_names=False)

    alice, server = await udp(net, "alice", 5), await udp(net, "server", 6)
    storm = Storm()
    with net.begin(storm):
        await alice.sendto(b"x", ("10.0.0.4", 6))
        await server.recv(1)
        assert (trio.current_time(), net.has_names("alice")) == (3.0, False)

    assert storm.said == ["begin", "end"]
    assert net.has_names("alice")
