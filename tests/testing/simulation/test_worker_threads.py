"""Worker threads of a simulated program take turns, so none of them decides anything; or they are real."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from functools import partial
from typing import Any

import pytest
import trio

from trioqt.testing import BudgetExceeded, VirtualNetwork, simulate
from trioqt.testing.simulation import determinism
from trioqt.testing.simulation.determinism import missing_thread_names


def test_this_trio_has_the_names() -> None:
    """If this fails, trio has moved them, and threads run beside each other."""
    assert missing_thread_names() == ()


def test_threads_run_one_at_a_time_in_the_order_in_which_they_were_started() -> None:
    """Though the first takes longest, and none of them is in trio's thread."""

    async def main(net: VirtualNetwork) -> list[Any]:
        seen: list[Any] = []

        def work(number: int) -> None:
            seen.append((number, "begins"))
            threading.Event().wait(0.02 / (number + 1))
            seen.append((number, "ends"))
            assert threading.current_thread() is not threading.main_thread()

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(trio.to_thread.run_sync, work, number)
        return seen

    first = simulate(main, seed=1)
    order = [number for number, _ in first[::2]]
    assert first == [(number, what) for number in order for what in ("begins", "ends")]
    assert simulate(main, seed=1) == first
    assert len({tuple(simulate(main, seed=seed)) for seed in range(8)}) > 1


def test_files_are_written_through_threads_in_order() -> None:
    """`trio.open_file`, and an fsync in a thread."""

    async def main(net: VirtualNetwork) -> tuple[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            path = trio.Path(folder) / "log"

            async def append(word: str) -> None:
                async with await trio.open_file(path, "a") as file:
                    await file.write(word)
                    await file.flush()
                    await trio.to_thread.run_sync(os.fsync, file.fileno())

            async with trio.open_nursery() as nursery:
                for word in "abcdef":
                    nursery.start_soon(append, word)
            return await path.read_text(), trio.current_time()

    text, now = simulate(main, seed=4)

    assert (sorted(text), now) == (sorted("abcdef"), 0)
    assert simulate(main, seed=4) == (text, now)


def test_what_a_thread_returns_and_raises_comes_out() -> None:
    """As without a simulation."""

    def fail() -> None:
        raise KeyError("mine")

    async def main(net: VirtualNetwork) -> int:
        with pytest.raises(KeyError, match="mine"):
            await trio.to_thread.run_sync(fail)
        return await trio.to_thread.run_sync(sum, [1, 2])

    assert simulate(main) == 3


def test_a_thread_that_asks_trio_for_something_lets_it_go_on() -> None:
    """By `from_thread`, sync and async, with other threads within; it goes on when it has the answer."""

    async def main(net: VirtualNetwork) -> list[Any]:
        seen: list[Any] = []

        async def nap(number: int) -> float:
            await trio.sleep(10 - number)
            return await trio.to_thread.run_sync(trio_time)

        def trio_time() -> float:
            return trio.from_thread.run_sync(trio.current_time)

        def work(number: int) -> None:
            seen.append((number, trio_time()))
            seen.append((number, trio.from_thread.run(nap, number)))
            trio.from_thread.check_cancelled()

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(trio.to_thread.run_sync, work, number)
        return seen

    first = simulate(main)

    assert sorted(first) == [(0, 0), (0, 10), (1, 0), (1, 9), (2, 0), (2, 8)]
    assert [each for each in first if each[1]] == [(2, 8), (1, 9), (0, 10)]
    assert simulate(main) == first


def test_a_failure_of_what_a_thread_has_asked_for_reaches_it() -> None:
    """And goes out of it."""

    async def fail() -> None:
        raise KeyError("in trio")

    async def main(net: VirtualNetwork) -> None:
        await trio.to_thread.run_sync(trio.from_thread.run, fail)

    with pytest.raises(KeyError, match="in trio"):
        simulate(main)


def test_a_thread_with_the_token_of_the_run_asks_in_turn_too() -> None:
    """Then it is not the task that waits for it, which does what it asks."""

    async def main(net: VirtualNetwork) -> float:
        token = trio.lowlevel.current_trio_token()

        async def nap() -> float:
            await trio.sleep(3)
            return trio.current_time()

        return await trio.to_thread.run_sync(lambda: trio.from_thread.run(nap, trio_token=token))

    assert simulate(main) == 3


def test_a_cancelled_thread_is_waited_for() -> None:
    """It is done before anybody could cancel it, abandoned or not."""

    async def main(net: VirtualNetwork) -> list[Any]:
        seen: list[Any] = []
        for abandon in (False, True):
            with trio.move_on_after(1) as scope:
                await trio.to_thread.run_sync(
                    lambda: seen.append(trio.from_thread.run_sync(trio.current_time)), abandon_on_cancel=abandon
                )
            seen.append(scope.cancelled_caught)
        return seen

    assert simulate(main) == [0, False, 0, False]


def test_time_sleep_in_a_thread_moves_the_clock() -> None:
    """Everybody else waits for it, in virtual time."""

    async def main(net: VirtualNetwork) -> tuple[float, float]:
        before = time.monotonic()
        await trio.to_thread.run_sync(time.sleep, 3600)
        return trio.current_time(), time.monotonic() - before

    assert simulate(main) == (3600, 3600)


def test_a_thread_that_waits_for_a_task_is_told_what_to_do() -> None:
    """Nothing can run beside it; then it is let go, so that the run can end."""

    async def main(net: VirtualNetwork) -> None:
        event = threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.to_thread.run_sync, event.wait))
            try:
                await trio.sleep(1)
            finally:
                event.set()

    with pytest.raises(BudgetExceeded, match=r"a worker thread held the run up for 0\.05 real seconds.*threads='real'"):
        simulate(main, patience=0.05)


def test_real_threads_run_beside_trio() -> None:
    """One may wait for a task then; the clock stands still meanwhile."""

    async def main(net: VirtualNetwork) -> tuple[bool, float]:
        event = threading.Event()
        found: list[bool] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, lambda: found.append(event.wait(30)))
            await trio.testing.wait_all_tasks_blocked()
            event.set()
        return found[0], trio.current_time()

    assert simulate(main, threads="real") == (True, 0)


def test_other_threads_than_those_two_there_are_not() -> None:
    """Named before anything runs."""

    async def main(net: VirtualNetwork) -> None: ...

    with pytest.raises(ValueError, match="threads are 'inline' or 'real', not 'some'"):
        simulate(main, threads="some")  # type: ignore[arg-type]


def test_a_run_of_trio_within_a_thread_has_threads_of_its_own() -> None:
    """It is not the simulation's, and nobody takes turns with it."""

    async def inner() -> int:
        return await trio.to_thread.run_sync(sum, [1, 2])

    async def main(net: VirtualNetwork) -> int:
        return await trio.to_thread.run_sync(trio.run, inner)

    assert simulate(main) == 3


def test_without_the_names_threads_are_real_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a process."""
    monkeypatch.setattr(determinism, "_ASK_TRIO", "_gone")
    monkeypatch.setattr(determinism, "_warned_of_threads", False)

    async def main(net: VirtualNetwork) -> int:
        return await trio.to_thread.run_sync(sum, [1, 2])

    with pytest.warns(RuntimeWarning, match=r"this trio has no trio\._threads\._gone: worker threads run beside"):
        assert simulate(main) == 3
    assert simulate(main) == 3
