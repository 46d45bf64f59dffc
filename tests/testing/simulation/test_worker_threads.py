"""Worker threads of a simulated program take turns, so none of them decides anything; or they are real."""

from __future__ import annotations

import concurrent.futures
import os
import queue
import tempfile
import threading
import time
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
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

    busy = threading.Lock()
    busy.acquire()

    async def main(net: VirtualNetwork) -> list[Any]:
        seen: list[Any] = []

        def work(number: int) -> None:
            seen.append((number, "begins"))
            busy.acquire(timeout=0.02 / (number + 1))
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


def test_a_thread_that_waits_in_a_way_that_nobody_sees_is_told_what_to_do() -> None:
    """For what is put into a queue of C's.  Nothing can run beside it; then it comes, so that the run can end."""

    async def main(net: VirtualNetwork) -> None:
        words = queue.SimpleQueue[str]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, lambda: words.get())
            try:
                await trio.sleep(1)
            finally:
                words.put("done")

    with pytest.raises(BudgetExceeded, match=r"a worker thread held the run up for 0\.05 real seconds.*threads='real'"):
        simulate(main, patience=0.05)


def test_a_thread_waits_for_a_task_by_an_event_a_condition_or_a_future() -> None:
    """Trio goes on meanwhile, and it takes virtual time; whoever is woken has its turn, in the order of waking."""

    async def main(net: VirtualNetwork) -> list[Any]:
        event, condition = threading.Event(), threading.Condition()
        future: concurrent.futures.Future[str] = concurrent.futures.Future()
        jobs: list[int] = []
        seen: list[Any] = []

        def wait() -> None:
            seen.append((event.wait(), time.monotonic()))

        def take() -> None:
            with condition:
                seen.append((condition.wait_for(lambda: jobs, 10) and jobs.pop(), time.monotonic()))

        def result() -> None:
            seen.append((future.result(), time.monotonic()))

        async with trio.open_nursery() as nursery:
            for work in (wait, take, take, take, result):
                nursery.start_soon(trio.to_thread.run_sync, work)
            await trio.sleep(3)
            event.set()
            await trio.sleep(1)
            for job in (1, 2):
                with condition:
                    jobs.append(job)
                    condition.notify()
                await trio.sleep(1)
            future.set_result("done")
        return seen

    assert simulate(main) == [(True, 3), (1, 4), (2, 5), ("done", 6), ([], 10)]
    assert simulate(main, seed=7) == simulate(main, seed=7)


def test_a_time_limit_of_a_waiting_thread_is_of_virtual_time() -> None:
    """Of an event, a semaphore, a future, and a queue, which asks the time itself."""

    async def main(net: VirtualNetwork) -> tuple[list[Any], float]:
        seen: list[Any] = []

        def wait() -> None:
            seen.append((threading.Event().wait(100), time.monotonic()))
            seen.append((threading.Semaphore(0).acquire(timeout=10), time.monotonic()))
            with pytest.raises(queue.Empty):
                queue.Queue[None]().get(timeout=60)
            with pytest.raises(TimeoutError):
                concurrent.futures.Future[None]().result(1000)
            seen.append(time.monotonic())

        await trio.to_thread.run_sync(wait)
        return seen, trio.current_time()

    assert simulate(main) == ([(False, 100), (False, 110), 1170], 1170)


def test_two_threads_give_each_other_work_by_a_queue() -> None:
    """One at a time, and it is the same each time."""

    async def main(net: VirtualNetwork) -> list[int]:
        work, done = queue.Queue[int](maxsize=1), queue.Queue[int]()

        def give() -> None:
            for number in range(5):
                work.put(number)

        def square() -> None:
            for _ in range(5):
                done.put(work.get() ** 2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, give)
            nursery.start_soon(trio.to_thread.run_sync, square)
        return [done.get_nowait() for _ in range(5)]

    assert simulate(main) == [0, 1, 4, 9, 16]


def test_a_thread_that_waits_for_nobody_is_told() -> None:
    """It may be one of the program's other threads that would wake it, so that takes the real patience."""

    async def main(net: VirtualNetwork) -> None:
        event = threading.Event()
        try:
            await trio.to_thread.run_sync(event.wait)
        finally:
            event.set()

    with pytest.raises(BudgetExceeded, match=r"nothing happened in 0\.05 real seconds of waiting for a thread"):
        simulate(main, patience=0.05)


def test_a_thread_that_waits_for_a_thread_of_the_programs_own_waits_really() -> None:
    """Trio stands still for both, and no virtual time passes."""

    async def main(net: VirtualNetwork) -> tuple[int, float]:
        def work() -> int:
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                return sum(pool.map(abs, (-1, -2, -3)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            return await trio.to_thread.run_sync(work), trio.current_time()

    assert simulate(main) == (6, 0)


def test_a_waiting_thread_may_be_left_alone() -> None:
    """It is not waited for; what wakes it after the run does no harm."""
    event = threading.Event()
    seen: list[bool] = []

    async def main(net: VirtualNetwork) -> float:
        with trio.move_on_after(4):
            await trio.to_thread.run_sync(lambda: seen.append(event.wait()), abandon_on_cancel=True)
        return trio.current_time()

    assert simulate(main) == 4
    event.set()
    for _ in range(1000):
        if seen:
            break
        time.sleep(0.01)
    assert seen == [True]


def test_a_portal_of_anyio_has_its_calls_from_a_thread_answered() -> None:
    """One into the run, and one of a run of its own in another thread."""

    async def main(net: VirtualNetwork) -> tuple[Any, ...]:
        async with anyio.from_thread.BlockingPortal() as portal:

            def work() -> tuple[float, int]:
                nap = portal.start_task_soon(anyio.sleep, 20)
                portal.call(anyio.sleep, 10)
                now = portal.call(trio.current_time)
                nap.result()
                with anyio.from_thread.start_blocking_portal("trio") as other:
                    return now, other.call(anyio.to_thread.run_sync, abs, -3)

            found = await anyio.to_thread.run_sync(work)
        return *found, trio.current_time()

    assert simulate(main) == (10, 3, 20)


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


def test_threads_wait_for_a_lock_that_another_holds_while_it_waits() -> None:
    """Each sleeps with it, so one comes after the other; a time limit is of virtual time; an RLock is the same."""

    async def main(net: VirtualNetwork) -> list[Any]:
        seen: list[Any] = []
        for lock in (threading.Lock(), threading.RLock()):

            def work(number: int, lock: Any) -> None:
                with lock:
                    time.sleep(1)
                    seen.append((number, time.monotonic()))

            def give_up(lock: Any) -> None:
                seen.append((lock.acquire(timeout=0.5), lock.acquire(blocking=False), time.monotonic()))

            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(trio.to_thread.run_sync, work, number, lock)
                await trio.sleep(0.25)
                await trio.to_thread.run_sync(give_up, lock)
        return seen

    seen = simulate(main, seed=2)
    assert [each[-1] for each in seen] == [0.75, 1, 2, 3, 3.75, 4, 5, 6]
    assert (seen[0], seen[4]) == ((False, False, 0.75), (False, False, 3.75))
    assert simulate(main, seed=2) == seen


def test_a_task_that_waits_for_a_lock_of_a_waiting_thread_is_told() -> None:
    """Trio's thread would stand still for one that waits for it."""

    async def main(net: VirtualNetwork) -> None:
        lock = threading.Lock()

        def work() -> None:
            with lock:
                time.sleep(10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, work)
            await trio.sleep(1)
            with pytest.raises(RuntimeError, match="would wait for ever for a lock"):
                lock.acquire()
            await trio.sleep(10)
            with lock:
                assert lock.locked()

    simulate(main)
