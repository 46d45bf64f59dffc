"""A program run in virtual time from a seed; what a failure tells."""

from __future__ import annotations

import contextlib
import gc
import random
import re
import shlex
import socket
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio._core._run
import trio.testing

from tests.testing.simulation import replayed
from trioqt.testing.network.fault_plan import FaultPlan, Planned
from trioqt.testing.network.faults import Fault, Loss, Partition
from trioqt.testing.network.real_network import RealNetworkUsed
from trioqt.testing.network.virtual_network import VirtualNetwork
from trioqt.testing.simulation.guards import BudgetExceeded, Deadlock
from trioqt.testing.simulation.simulate import simulate


@pytest.fixture(autouse=True)
def no_seed_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests choose their seeds."""
    monkeypatch.delenv("TRIOQT_SEED", raising=False)


def note_of(exc: BaseException) -> list[str]:
    """The lines of the one note."""
    (note,) = exc.__notes__
    return str(note).split("\n")


def section(lines: list[str], title: str) -> list[str]:
    """The indented lines below a title."""
    start = lines.index(title) + 1
    end = next((index for index in range(start, len(lines)) if not lines[index].startswith("  ")), len(lines))
    return [line[2:] for line in lines[start:end]]


# ---- a run ---------------------------------------------------------------------------------------------------------


def test_main_gets_the_network_and_its_arguments_and_what_it_returns_comes_back() -> None:
    """All in virtual time: connect, and an echo, over 50 ms."""

    async def main(net: VirtualNetwork, word: str) -> tuple[list[str], float, bool]:
        answers = await replayed.say(net, [word])
        return answers, round(trio.current_time(), 6), net is VirtualNetwork.current()

    assert simulate(main, "hello", latency=0.05) == (["hello"], 0.2, True)


async def order(net: VirtualNetwork) -> list[int]:
    """In which order ten tasks have their turns, and two numbers of the network's."""
    turns: list[int] = []

    async def turn(number: int) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            turns.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(turn, number)
    return [*turns, net.seed]


def test_the_seed_decides_on_the_schedule_and_on_the_network() -> None:
    """One seed gives one run, ten seeds give ten."""
    runs = [simulate(order, seed=seed) for seed in range(10)]

    assert [simulate(order, seed=seed) for seed in range(10)] == runs
    assert len({tuple(run[:-1]) for run in runs}) == 10
    assert [run[-1] for run in runs] == list(range(10))


def test_each_of_several_seeds_is_run() -> None:
    """And the last result comes back."""
    seen: list[int] = []

    async def main(net: VirtualNetwork) -> int:
        seen.append(net.seed)
        return net.seed

    assert simulate(main, seeds=range(3, 6)) == 5
    assert seen == [3, 4, 5]


def test_the_first_seed_that_fails_is_the_last_that_is_run() -> None:
    """Its note says which it was."""
    seen: list[int] = []

    async def main(net: VirtualNetwork) -> None:
        seen.append(net.seed)
        assert net.seed < 7

    with pytest.raises(AssertionError) as caught:
        simulate(main, seeds=range(200))

    assert seen == list(range(8))
    assert note_of(caught.value)[0] == "simulate: seed 7, number 8 of 200 failed at 0 virtual seconds"


@pytest.mark.parametrize(
    ("options", "seeds"),
    [({}, [42]), ({"seeds": range(200)}, [42]), ({"seed": 3}, [3])],
)
def test_a_seed_from_outside_counts_where_the_test_has_not_fixed_one(
    options: dict[str, Any], seeds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the command at the end of a failure picks one of two hundred."""
    monkeypatch.setenv("TRIOQT_SEED", "42")
    seen: list[int] = []

    async def main(net: VirtualNetwork) -> None:
        seen.append(net.seed)

    simulate(main, **options)

    assert seen == seeds


def test_links_lose_delay_and_are_narrow_as_they_are_told() -> None:
    """Loss, jitter and bandwidth need no network of one's own: a half is lost, each packet takes its own time."""

    async def send(net: VirtualNetwork) -> list[float]:
        arrived = []
        with net.host("receiver"):
            receiver = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
            await receiver.bind(("0.0.0.0", 4000))
        with net.host("sender"), receiver:
            with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sender:
                for _ in range(100):
                    await sender.sendto(bytes(1000), ("receiver", 4000))
            with trio.move_on_after(100):
                while True:
                    await receiver.recv(2000)
                    arrived.append(trio.current_time())
        return arrived

    assert len(simulate(send)) == 100
    assert 30 < len(simulate(send, loss=0.5)) < 70
    assert len(set(simulate(send, latency=1, jitter=1))) == 100
    narrow = simulate(send, bandwidth=10_000)
    assert len(narrow) == 100
    assert narrow[-1] > 10


def test_a_network_of_ones_own_is_made_from_the_seed() -> None:
    """One with other conditions, for one."""

    async def main(net: VirtualNetwork) -> tuple[int, float]:
        await replayed.say(net, ["x"])
        return net.seed, trio.current_time()

    assert simulate(main, seed=9, network=replayed.slow_network) == (9, 2.0)


def test_faults_run_beside_main_and_end_with_it() -> None:
    """Here they make the link slow, and would never end."""

    async def main(net: VirtualNetwork) -> float:
        await replayed.say(net, ["x"])
        return trio.current_time()

    assert [simulate(main, faults=replayed.SLOW, seed=seed) for seed in range(5)] == [8.0] * 5


# ---- a failure -----------------------------------------------------------------------------------------------------


async def crash(net: VirtualNetwork, where: str) -> None:
    """A bug, three seconds after an echo; in a child, in the body of a nursery, or without any."""

    async def bug() -> None:
        await trio.sleep(3)
        raise KeyError("mine")

    if where == "nowhere":
        await bug()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        if where == "child":
            nursery.start_soon(bug)
            await replayed.say(net, ["x"] * 30)
            await trio.sleep_forever()
        else:
            await bug()


@pytest.mark.parametrize("faults", [None, replayed.SLOW])
def test_an_exception_comes_out_as_it_is(faults: FaultPlan | None) -> None:
    """Same type, same object, not one group more."""
    error = KeyError("mine")

    async def main(net: VirtualNetwork) -> None:
        await trio.sleep(1)
        raise error

    with pytest.raises(KeyError) as caught:
        simulate(main, faults=faults)

    assert caught.value is error


def test_the_note_tells_everything_as_it_was_when_the_exception_was_raised() -> None:
    """Not as it is when the nurseries have cleaned up."""
    with pytest.raises(ExceptionGroup) as caught:
        simulate(crash, "child", seed=5, latency=0.04)

    lines = note_of(caught.value)
    assert lines[0] == "simulate: seed 5 failed at 3 virtual seconds"
    assert re.fullmatch(r"the last 40 of \d+ events on the network:", lines[1])
    assert len(section(lines, lines[1])) == 40
    assert [line.split()[0] for line in section(lines, "sockets:")][:1] == ["host"]
    tasks = section(lines, "tasks:")
    assert tasks[0].startswith("crash ")
    assert tasks[0].endswith(" in crash: await trio.sleep_forever()")
    assert tasks[1].split() == ["└─", "sleep_forever", "in", "sleep_forever"]
    assert lines[-1].startswith("again: pytest tests/testing/simulation/test_simulate.py::")
    assert [line for line in lines if not line.startswith("  ")] == [
        *lines[:2],
        "sockets:",
        "tasks:",
        lines[-1],
    ]


def test_an_exception_in_the_body_of_a_nursery_shows_the_line_that_raised() -> None:
    """The task is just leaving the nursery, which would say nothing."""
    with pytest.raises(ExceptionGroup) as caught:
        simulate(crash, "body")

    tasks = section(note_of(caught.value), "tasks:")
    assert len(tasks) == 2
    assert tasks[0].endswith(' in bug: raise KeyError("mine")')


def test_the_line_that_raised_is_the_programs_own() -> None:
    """Not one of the standard library, through which it has come."""

    async def main(net: VirtualNetwork) -> None:
        async with trio.open_nursery():
            with contextlib.ExitStack() as stack:
                stack.callback(int, "x")

    with pytest.raises(ExceptionGroup) as caught:
        simulate(main)

    (task,) = section(note_of(caught.value), "tasks:")
    assert task.endswith(" in main: with contextlib.ExitStack() as stack:")


def test_an_exception_outside_of_any_nursery_has_no_tasks_to_show() -> None:
    """There was only main."""
    with pytest.raises(KeyError) as caught:
        simulate(crash, "nowhere")

    lines = note_of(caught.value)
    assert lines[:-1] == [
        "simulate: seed 0 failed at 3 virtual seconds",
        "all events on the network: none",
        "sockets:",
        "  host  socket  state  local  remote  unread  unsent",
    ]


PLAN = FaultPlan([Planned(Partition("default", "server"), 1, 2), Planned(Loss("a", "b", rate=0.5), 0.5)])


def test_each_fault_of_a_plan_has_a_line_in_the_note() -> None:
    """When, and what."""
    with pytest.raises(KeyError) as caught:
        simulate(crash, "nowhere", faults=PLAN)

    assert section(note_of(caught.value), "faults:") == str(PLAN).split("\n")


def test_an_exception_that_was_handled_before_is_not_taken_for_the_one_that_failed() -> None:
    """A program may fail in nurseries all day."""

    async def fail(number: int) -> None:
        await trio.sleep(1)
        raise KeyError(number)

    async def main(net: VirtualNetwork) -> None:
        for number in range(150):
            with pytest.raises(ExceptionGroup):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fail, number)
        raise ValueError("mine")

    with pytest.raises(ValueError) as caught:
        simulate(main)

    assert note_of(caught.value)[0] == "simulate: seed 0 failed at 150 virtual seconds"


def test_a_deadlock_has_the_tasks_in_its_message_and_the_rest_in_its_note() -> None:
    """All as it was at that moment."""

    async def main(net: VirtualNetwork) -> None:
        async with trio.open_nursery() as nursery:
            with net.host("server"):
                await nursery.start(trio.serve_tcp, replayed.echo, 4000)
            async with await trio.open_tcp_stream("server", 4000) as stream:
                await stream.receive_some()

    with pytest.raises(Deadlock) as caught:
        simulate(main, latency=0.5)

    tasks = str(caught.value).split("\n")[1:]
    assert tasks[0].endswith("in main: await stream.receive_some()")
    assert tasks[-1].endswith("in echo: async for chunk in stream:")
    lines = note_of(caught.value)
    assert lines[0] == "simulate: seed 0 failed at 1.5 virtual seconds"
    assert [line.split()[2] for line in section(lines, "sockets:")[1:]] == [
        "ESTABLISHED",
        "LISTEN",
        "LISTEN",
        "ESTABLISHED",
    ]
    assert "tasks:" not in lines


async def poll(net: VirtualNetwork) -> None:
    while True:
        await trio.lowlevel.checkpoint()


async def sleep_in_naps(net: VirtualNetwork) -> None:
    while True:  # noqa: ASYNC110  # the test is about such a loop
        await trio.sleep(3600)


async def look_up_for_real(net: VirtualNetwork) -> None:
    socket.getaddrinfo("localhost", 80)


async def sleep_behind_a_shield(net: VirtualNetwork) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


@pytest.mark.parametrize(
    ("main", "options", "kind", "message"),
    [
        (poll, {"steps": 100}, BudgetExceeded, "not over after 100 steps"),
        (sleep_in_naps, {}, BudgetExceeded, "not over after 86,400 virtual seconds"),
        (sleep_in_naps, {"virtual_time": 5000}, BudgetExceeded, "not over after 5,000 virtual seconds"),
        (look_up_for_real, {}, RealNetworkUsed, r"socket\.getaddrinfo\('localhost'\) would ask the real name service"),
        (sleep_behind_a_shield, {}, Deadlock, "deadlock: every task waits"),
    ],
)
def test_all_guards_are_on(
    main: Callable[..., Awaitable[None]], options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """Their failures have the note too."""
    with pytest.raises(kind, match=f"^{message}") as caught:
        simulate(main, **options)

    assert caught.value.__notes__[-1].startswith("simulate: seed 0 failed at ")


def test_the_guards_can_be_let_off() -> None:
    """Each by its option."""

    async def main(net: VirtualNetwork) -> int:
        socket.getaddrinfo("localhost", 80)
        await trio.sleep_until(1_000_000)
        return 1

    assert simulate(main, real_network=True, virtual_time=None, steps=None) == 1


def test_a_run_that_nothing_ends_is_torn_down_and_tells_why() -> None:
    """Not that trio has an internal error."""

    async def main(net: VirtualNetwork) -> None:
        while True:
            try:
                await trio.sleep_forever()
            except BaseException:
                pass

    with pytest.raises(Deadlock) as caught:
        simulate(main)
    with warnings.catch_warnings(record=True) as later:
        gc.collect()

    assert caught.value.__notes__[-2] == "Nothing ended it, so the run was torn down."
    socket.getaddrinfo("localhost", 80)  # nothing is refused any more
    assert "__new__" not in vars(socket.socket)
    assert later == []


# ---- the command ---------------------------------------------------------------------------------------------------


def again(monkeypatch: pytest.MonkeyPatch, test: str | None, main: Any, *args: Any, **options: Any) -> str:
    """The last line of a failure, in that test."""
    if test is None:
        monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    else:
        monkeypatch.setenv("PYTEST_CURRENT_TEST", test)
    with pytest.raises((KeyError, ExceptionGroup)) as caught:
        simulate(main, *args, **options)
    return note_of(caught.value)[-1]


async def fails(net: Any, *args: object) -> None:
    raise KeyError(args)


@pytest.mark.parametrize(
    ("test", "options", "command"),
    [
        ("tests/test_a.py::test_b (call)", {"seeds": [7]}, "pytest tests/test_a.py::test_b --trioqt-seed=7"),
        ("tests/test_a.py::test_b (call)", {}, "pytest tests/test_a.py::test_b --trioqt-seed=0"),
        ("tests/test_a.py::test_b (call)", {"seed": 7}, "pytest tests/test_a.py::test_b"),
        ("test_a.py::test_b[x (y)] (setup)", {"seed": 7}, "pytest 'test_a.py::test_b[x (y)]'"),
    ],
)
def test_within_a_test_the_command_is_that_test(
    test: str, options: dict[str, Any], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the seed, unless the test has fixed it."""
    assert again(monkeypatch, test, fails, **options) == f"again: {command}"


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ((), {"seed": 7}, "--seed 7"),
        ((1, "a"), {"seeds": [7]}, "--seed 7 --args '(1, '\"'\"'a'\"'\"')'"),
        (
            (),
            {"latency": 0.05, "virtual_time": None, "steps": 500, "patience": 2, "real_network": True},
            "--seed 0 --latency 0.05 --virtual-time inf --steps 500 --patience 2 --real-network",
        ),
        ((), {"faults": PLAN}, f"--seed 0 --faults {shlex.quote(PLAN.to_json().replace(chr(10), ' '))}"),
        ((), {"network": replayed.slow_network}, "--seed 0 --network tests.testing.simulation.replayed:slow_network"),
    ],
)
def test_elsewhere_the_command_has_the_function_by_its_name(
    args: tuple[Any, ...], options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whatever is not the default; tests/testing/simulation/test_replay.py types one in."""
    command = again(monkeypatch, None, fails, *args, **options)

    assert command == f"again: python -m trioqt.testing replay tests.testing.simulation.test_simulate:fails {words}"


class Mine(Fault):
    """A fault of one's own, which the command line does not know."""


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((object(),), {}),
        ((), {"network": lambda seed: VirtualNetwork(seed=seed)}),
        ((), {"faults": FaultPlan([Planned(Mine(), 1)])}),
    ],
)
def test_what_cannot_be_typed_is_named_by_its_seed(
    args: tuple[Any, ...], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is a function within a function."""

    async def inner(net: Any, *args: object) -> None:
        raise KeyError

    assert again(monkeypatch, None, fails, *args, seed=7, **options) == "again: the same call with seed=7"
    assert again(monkeypatch, None, inner, seed=7) == "again: the same call with seed=7"


# ---- a large network -----------------------------------------------------------------------------------------------


def test_a_long_table_of_sockets_is_cut() -> None:
    """A hundred lines are enough to see what is wrong."""

    async def main(net: VirtualNetwork) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(150):
                stack.enter_context(trio.socket.socket())
            async with trio.open_nursery():
                raise KeyError

    with pytest.raises(ExceptionGroup) as caught:
        simulate(main)

    table = section(note_of(caught.value), "sockets:")
    assert (len(table), table[-1]) == (101, "and 51 lines more")


# ---- wrong calls, and what is left ---------------------------------------------------------------------------------


async def nothing(net: Any) -> None: ...


@pytest.mark.parametrize(
    ("main", "options", "kind", "message"),
    [
        (nothing(None), {}, TypeError, "wants an async function and its arguments, not <coroutine"),
        (lambda net: 1, {}, TypeError, "wants an async function; <function .* returned 1"),
        (nothing, {"seed": 1, "seeds": [2]}, ValueError, "give either seed or seeds"),
        (nothing, {"seeds": []}, ValueError, "at least one seed is needed"),
        (nothing, {"latency": 1, "network": replayed.slow_network}, ValueError, "are for the network"),
        (nothing, {"jitter": 1, "network": replayed.slow_network}, ValueError, "are for the network"),
        (nothing, {"loss": 1.5}, ValueError, "loss is"),
        (nothing, {"bandwidth": 0}, ValueError, "bandwidth is more than 0"),
    ],
)
def test_wrong_calls_are_refused(main: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    """Before a run, but for the function that turns out not to be async."""
    with pytest.raises(kind, match=message):
        simulate(main, **options)


async def test_within_a_run_it_is_refused() -> None:
    """It is a run of its own."""
    with pytest.raises(RuntimeError, match="call it from a plain function"):
        simulate(nothing)


@pytest.mark.parametrize("main", [nothing, fails, poll])
def test_everything_is_as_before_afterwards(main: Any) -> None:
    """The scheduler's coin, trio's nurseries, the real network."""
    coin: random.Random = trio._core._run._r
    before = (coin.getstate(), trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING, trio.Nursery._add_exc)

    try:
        simulate(main, steps=1000)
    except (KeyError, BudgetExceeded):
        pass

    assert trio._core._run._r is coin
    assert (coin.getstate(), trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING, trio.Nursery._add_exc) == before
    socket.getaddrinfo("localhost", 80)


def test_faults_that_are_no_plan_are_refused() -> None:
    """One fault alone does not say when."""
    with pytest.raises(TypeError, match="faults is a FaultPlan"):
        simulate(nothing, faults=Partition("a", "b"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["virtual_time", "steps", "patience"])
def test_budgets_of_nothing_are_refused(name: str) -> None:
    """None is no limit; 0 and less are mistakes."""
    options: dict[str, Any] = {name: -1}

    with pytest.raises(ValueError, match=f"{name} is more than 0"):
        simulate(nothing, **options)


def test_a_second_simulation_at_the_same_time_is_refused() -> None:
    """Both would draw from one generator, and neither would be the same again."""
    refused: list[str] = []

    def another() -> None:
        try:
            simulate(nothing)
        except RuntimeError as exc:
            refused.append(str(exc))

    async def main(net: VirtualNetwork) -> None:
        await trio.to_thread.run_sync(another)

    simulate(main)
    simulate(nothing)

    assert refused == ["another thread of this process runs a simulation; trio has one scheduler's coin for all"]


def test_a_seed_of_the_environment_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only the text of int()."""
    monkeypatch.setenv("TRIOQT_SEED", "abc")

    with pytest.raises(ValueError, match="TRIOQT_SEED is an int, not 'abc'"):
        simulate(nothing)
