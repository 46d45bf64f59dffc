"""A run in virtual time that stands still, runs for ever, outruns a thread or uses the real network is noticed."""

from __future__ import annotations

import functools
import gc
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from trioqt.testing.network.real_network import RealNetworkUsed, real_network_allowed
from trioqt.testing.simulation import determinism
from trioqt.testing.simulation.determinism import missing_guard_names
from trioqt.testing.simulation.guards import (
    BudgetExceeded,
    Deadlock,
    Guards,
    guards,
    real_time,
)

Main = Callable[[], Awaitable[Any]]


def run(main: Main, *, clock: trio.abc.Clock | None = None, **limits: Any) -> Any:
    """``trio.run`` with guards and a clock that jumps."""

    async def guarded() -> Any:
        with guards(**limits):
            return await main()

    return trio.run(guarded, clock=clock or trio.testing.MockClock(autojump_threshold=0))


def first_line(exc: BaseException) -> str:
    return str(exc).split("\n")[0]


class IdlePasses(trio.abc.Instrument):
    """Counts the passes of the run loop since a task last made a step, at most."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def before_io_wait(self, timeout: float) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.now = 0


# ---- deadlocks -----------------------------------------------------------------------------------------------------


async def wait_for_each_other() -> None:
    """Two tasks, each of which wants what the other will only give afterwards."""
    events = trio.Event(), trio.Event()

    async def first() -> None:
        await events[1].wait()
        events[0].set()

    async def second() -> None:
        await events[0].wait()
        events[1].set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        nursery.start_soon(second)


def test_a_deadlock_fails_at_once_with_the_tasks() -> None:
    """Without the guard, the run loop would ask the system for ever, with no time to wait."""
    with pytest.raises(Deadlock) as caught:
        run(wait_for_each_other)

    lines = str(caught.value).split("\n")
    assert lines[0] == "deadlock: every task waits, no deadline is set, and nothing real is under way; the tasks:"
    assert [line.split()[0] for line in lines[1:]] == ["guarded", "├─", "└─"]
    assert lines[2].endswith("in first: await events[1].wait()")
    assert lines[3].endswith("in second: await events[0].wait()")
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, AssertionError)


def test_a_deadlock_burns_at_most_a_thousand_passes() -> None:
    """It is one, in fact."""
    idle = IdlePasses()

    async def main() -> None:
        trio.lowlevel.add_instrument(idle)
        try:
            await wait_for_each_other()
        finally:
            trio.lowlevel.remove_instrument(idle)

    with pytest.raises(Deadlock):
        run(main)

    assert idle.most <= 2


def test_a_task_that_sleeps_is_no_deadlock() -> None:
    """However long, and whatever the others wait for."""

    async def main() -> float:
        event = trio.Event()

        async def late() -> None:
            await trio.sleep(80_000)
            event.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(late)
            await event.wait()
        return trio.current_time()

    assert run(main) == 80_000


def test_waiting_until_all_others_wait_is_no_deadlock() -> None:
    """Such a task is woken when nothing else can happen."""

    async def main() -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            for _ in range(2000):
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return 1

    assert run(main) == 1


def test_a_deadlock_behind_a_shield_is_ended_too_and_its_clean_up_runs() -> None:
    """A cancellation does not reach it, so each task is interrupted where it stands."""
    cleaned_up: list[str] = []

    async def task(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cleaned_up.append(name)

    async def main() -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(task, "a")
                nursery.start_soon(task, "b")

    with pytest.raises(Deadlock) as caught:
        run(main)

    assert sorted(cleaned_up) == ["a", "b"]
    assert [note.split(";")[0] for note in caught.value.__notes__] == [
        "It was cancelled, and then: deadlock: every task waits, no deadline is set, and nothing real is under way"
    ]


def test_a_deadlock_that_nothing_ends_is_torn_down() -> None:
    """A task that swallows everything cannot be ended.  The run is, and complains about nothing later."""

    async def main() -> None:
        while True:
            try:
                await trio.sleep_forever()
            except BaseException:
                pass

    with pytest.raises(trio.TrioInternalError) as caught:
        run(main)
    with warnings.catch_warnings(record=True) as later:
        gc.collect()

    assert isinstance(caught.value.__cause__, Deadlock)
    assert caught.value.__cause__.__notes__[-1] == "Nothing ended it, so the run was torn down."
    assert later == []
    socket.getaddrinfo("localhost", 1)  # nothing is refused any more


def test_what_clean_up_raises_is_the_cause() -> None:
    """The failure is raised from it."""

    async def main() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("in clean-up")

    with pytest.raises(Deadlock) as caught:
        run(main)

    assert repr(caught.value.__cause__) == "KeyError('in clean-up')"


def test_a_deadlock_on_a_clock_that_does_not_jump_fails_at_once_too() -> None:
    """There the run loop would sleep for ever."""
    with pytest.raises(Deadlock):
        run(wait_for_each_other, clock=trio.testing.MockClock())


def test_a_shielded_deadlock_on_the_real_clock_is_ended_too() -> None:
    """Nothing wakes the run loop there but the guard."""

    async def main() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    async def guarded() -> None:
        with guards():
            await main()

    with pytest.raises(Deadlock):
        trio.run(guarded)


def test_a_fixture_can_guard_a_test(tmp_path: Path) -> None:
    """The block is in another task than the test, and still the test fails, with the tasks."""
    (tmp_path / "test_it.py").write_text(
        """
import pytest, trio
from trioqt.testing.simulation.guards import guards

@pytest.fixture
async def guarded(autojump_clock):
    with guards():
        yield

async def test_deadlock(guarded):
    await trio.sleep_forever()

async def test_shielded_deadlock(guarded):
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

async def test_sound(guarded):
    await trio.sleep(5)
"""
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-o",
        "trio_mode=true",
        "--tb=short",
        "-Werror",
    ]

    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)

    assert "2 failed, 1 passed" in done.stdout
    assert done.stdout.count("Deadlock: deadlock: every task waits") == 2
    assert "in test_deadlock: await trio.sleep_forever()" in done.stdout


# ---- budgets -------------------------------------------------------------------------------------------------------


async def sleep_for_ever_in_naps() -> None:
    while True:  # noqa: ASYNC110  # the test is about such a loop
        await trio.sleep(3600)


async def poll_for_ever() -> None:
    while True:
        await trio.lowlevel.checkpoint()


async def poll_for_ever_behind_a_shield() -> None:
    while True:
        await trio.lowlevel.cancel_shielded_checkpoint()


def test_a_day_of_virtual_time_is_enough() -> None:
    """A program that sleeps again and again is not deadlocked, and never ends."""
    with pytest.raises(BudgetExceeded) as caught:
        run(sleep_for_ever_in_naps)

    assert first_line(caught.value) == "not over after 86,400 virtual seconds; the tasks:"
    assert str(caught.value).endswith("in sleep_for_ever_in_naps: await trio.sleep(3600)")


@pytest.mark.parametrize(("limit", "passes"), [(3.0, True), (2.999, False), (None, True)])
def test_the_budget_of_virtual_time_is_exact(limit: float | None, passes: bool) -> None:
    """Its last moment belongs to it, and the clock does not go beyond."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    nap = functools.partial(trio.sleep, 3)

    if passes:
        run(nap, virtual_time=limit, clock=clock)
    else:
        with pytest.raises(BudgetExceeded, match=r"^not over after 2\.999 virtual seconds"):
            run(nap, virtual_time=limit, clock=clock)

    assert clock.current_time() == (3.0 if passes else 0.0)


def test_clean_up_may_sleep_when_the_time_is_over() -> None:
    """It gets as much again; then it is interrupted."""
    naps: list[float] = []

    async def main() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                while True:
                    await trio.sleep(1)
                    naps.append(trio.current_time())

    with pytest.raises(Deadlock) as caught:
        run(main, virtual_time=3)

    assert naps == [1, 2, 3]
    assert caught.value.__notes__[0].startswith("It was cancelled, and then: not over after 3 virtual seconds")


def test_without_a_budget_of_time_clean_up_has_one_all_the_same() -> None:
    """A day, or it would never be interrupted."""

    async def main() -> None:
        with trio.CancelScope(shield=True):
            while True:  # noqa: ASYNC110  # the test is about such a loop
                await trio.sleep(3600)

    with pytest.raises(BudgetExceeded, match=r"^not over after 100 steps") as caught:
        run(main, virtual_time=None, steps=100)

    assert caught.value.__notes__[0].startswith("It was cancelled, and then: not over after 86,400 virtual seconds")


def test_a_clock_that_somebody_else_moves_is_watched_too() -> None:
    """A busy program with hands on the clock."""
    clock = trio.testing.MockClock()

    async def main() -> None:
        while True:
            clock.jump(1)
            await trio.lowlevel.checkpoint()

    with pytest.raises(BudgetExceeded, match=r"^not over after 100 virtual seconds"):
        run(main, clock=clock, virtual_time=100)


@pytest.mark.parametrize("main", [poll_for_ever, poll_for_ever_behind_a_shield])
def test_a_loop_over_checkpoints_ends_by_the_budget_of_steps(main: Main) -> None:
    """It never lets the clock move, so time cannot be the limit."""
    with pytest.raises(BudgetExceeded) as caught:
        run(main, steps=1000)

    assert first_line(caught.value) == "not over after 1,000 steps; the tasks:"
    assert hasattr(caught.value, "__notes__") == (main is poll_for_ever_behind_a_shield)


def test_without_a_budget_of_steps_there_is_none() -> None:
    """Here a program of 30,000 steps goes beyond every other number in the guards."""

    async def main() -> int:
        for _ in range(30_000):
            await trio.lowlevel.checkpoint()
        return 1

    assert run(main, steps=None, virtual_time=None) == 1


# ---- the clock is held ---------------------------------------------------------------------------------------------


def nap(seconds: float) -> None:
    time.sleep(seconds)


def after_a_nap(call: Callable[..., object], *args: object) -> None:
    nap(0.05)
    call(*args)


async def wait_for_a_thread() -> None:
    await trio.to_thread.run_sync(nap, 0.05)


async def wait_for_a_thread_with_a_limiter() -> None:
    await trio.to_thread.run_sync(nap, 0.05, limiter=trio.CapacityLimiter(1))


async def wait_for_a_process() -> None:
    await trio.run_process([sys.executable, "-c", "import time; time.sleep(0.05)"])


async def wait_for_a_processs_output() -> None:
    done = await trio.run_process(["echo", "hello"], capture_stdout=True)
    assert done.stdout == b"hello\n"


async def wait_for_a_descriptor() -> None:
    one, other = trio.socket.socketpair()
    with one, other:
        thread = threading.Thread(target=after_a_nap, args=[os.write, other.fileno(), b"x"])
        thread.start()
        assert await one.recv(1) == b"x"
        thread.join()


async def wait_for_something_unseen() -> None:
    event = trio.Event()
    token = trio.lowlevel.current_trio_token()
    thread = threading.Thread(target=after_a_nap, args=[token.run_sync_soon, event.set])
    with real_time():
        thread.start()
        await event.wait()
    thread.join()


async def look_at_real_things_twice() -> None:
    await wait_for_a_thread()
    await wait_for_a_process()


REAL_THINGS = [
    wait_for_a_thread,
    wait_for_a_thread_with_a_limiter,
    wait_for_a_process,
    wait_for_a_processs_output,
    wait_for_a_descriptor,
    wait_for_something_unseen,
    look_at_real_things_twice,
]


@pytest.mark.parametrize("wait", REAL_THINGS)
def test_the_clock_stands_still_while_something_real_is_under_way(wait: Main) -> None:
    """Without the guard the clock jumps to the deadline, for all tasks wait, and the call fails."""

    async def main() -> tuple[float, float]:
        with trio.fail_after(10):
            await wait()
        then = trio.current_time()
        await trio.sleep(5)
        return then, trio.current_time()

    clock = trio.testing.MockClock(autojump_threshold=0)

    assert run(main, clock=clock) == (0.0, 5.0)
    assert clock.autojump_threshold == 0


def test_a_thread_that_waits_for_virtual_time_does_not_hold_it() -> None:
    """It would hold what it waits for."""

    async def main() -> float:
        await trio.to_thread.run_sync(trio.from_thread.run, trio.sleep, 5)
        return trio.current_time()

    assert run(main) == 5.0


def test_an_abandoned_thread_does_not_hold_the_clock() -> None:
    """Nobody waits for it any more."""
    release = threading.Event()

    async def main() -> float:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(trio.to_thread.run_sync, release.wait, abandon_on_cancel=True))
            await trio.to_thread.run_sync(nap, 0)
            nursery.cancel_scope.cancel()
        await trio.sleep(5)
        release.set()
        return trio.current_time()

    assert run(main) == 5.0


def test_a_thread_that_waits_for_virtual_time_unseen_fails_after_the_patience() -> None:
    """The clock stands still for the thread, and the thread waits for the clock."""
    release = threading.Event()

    async def set_later() -> None:
        try:
            await trio.sleep(1)
        finally:
            release.set()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(set_later)
            await trio.to_thread.run_sync(release.wait)

    with pytest.raises(BudgetExceeded) as caught:
        run(main, patience=0.05)

    assert first_line(caught.value) == ("nothing happened in 0.05 real seconds of waiting for a thread; the tasks:")


def test_patience_begins_anew_with_every_sign_of_life() -> None:
    """Many short waits are not one long one."""

    async def main() -> float:
        for _ in range(5):
            await trio.to_thread.run_sync(nap, 0.05)
        return trio.current_time()

    assert run(main, patience=0.2) == 0.0


async def test_real_time_does_nothing_without_guards(autojump_clock: trio.testing.MockClock) -> None:
    """So the same code runs on the real clock."""
    with real_time():
        await trio.sleep(1)

    assert trio.current_time() == 1.0


# ---- the real network ----------------------------------------------------------------------------------------------


def connect() -> None:
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", 9))


def bind() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))


def send_to() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", 9))


def send_message_to() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendmsg([b"x"], [], 0, ("127.0.0.1", 9))


def look_up() -> None:
    socket.getaddrinfo("localhost", 80)


def look_up_bytes() -> None:
    socket.getaddrinfo(b"localhost", 80)


def look_up_the_old_way() -> None:
    socket.gethostbyname("localhost")


def look_up_an_address() -> None:
    socket.getnameinfo(("127.0.0.1", 80), 0)


USES = [connect, bind, send_to, send_message_to, look_up, look_up_bytes, look_up_the_old_way, look_up_an_address]


@pytest.mark.parametrize("use", USES)
def test_the_real_network_is_refused_in_tasks_and_in_their_threads(use: Callable[[], None]) -> None:
    """Whoever goes round trio's sockets would leave the simulation without notice."""

    async def main() -> list[str]:
        with pytest.raises(RealNetworkUsed) as here:
            use()
        with pytest.raises(RealNetworkUsed) as there:
            await trio.to_thread.run_sync(use)
        return [str(here.value), str(there.value)]

    here, there = run(main)

    assert here == there.replace("call it with simulate(threads='inline'), ", "")
    assert here.startswith("socket.")
    assert here.endswith("or put the call into `with trioqt.testing.real_network_allowed():`")


def test_trios_own_look_up_is_refused_and_its_numeric_one_is_not() -> None:
    """Trio asks the system for each name whether it is a number; that is no look-up."""

    async def main() -> Any:
        with pytest.raises(RealNetworkUsed):
            await trio.socket.getaddrinfo("localhost", 80)
        await trio.socket.getaddrinfo(None, 80)
        return await trio.socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    assert run(main) == [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]


def test_a_real_socket_that_was_wrapped_is_refused_too() -> None:
    """The socket's factory is not asked for these."""

    async def main() -> None:
        with trio.socket.from_stdlib_socket(socket.socket()) as sock:
            with pytest.raises(RealNetworkUsed, match=r"^socket\.bind"):
                await sock.bind(("127.0.0.1", 0))
            with pytest.raises(RealNetworkUsed, match=r"^socket\.connect"):
                await sock.connect(("127.0.0.1", 9))

    run(main)


def test_system_tasks_are_refused_too() -> None:
    """They inherit no context."""
    told: list[BaseException] = []

    async def main() -> None:
        done = trio.Event()

        async def system_task() -> None:
            try:
                look_up()
            except RealNetworkUsed as exc:
                told.append(exc)
            done.set()

        trio.lowlevel.spawn_system_task(system_task)
        await done.wait()

    run(main)

    assert len(told) == 1


def test_what_is_meant_is_allowed() -> None:
    """For a block and the tasks and threads started in it, or for the whole run."""

    async def main() -> None:
        with real_network_allowed():
            bind()
            look_up()
            await trio.to_thread.run_sync(look_up)
        with pytest.raises(RealNetworkUsed):
            look_up()

    async def outright() -> None:
        look_up()
        await trio.to_thread.run_sync(look_up)

    run(main)
    run(outright, real_network=True)


def test_socket_pairs_and_what_was_connected_before_are_no_network() -> None:
    """They are how a program talks with itself and its children."""

    async def main() -> bytes:
        one, other = socket.socketpair()
        with one, other:
            one.sendmsg([b"x"])
            return other.recv(1)

    assert run(main) == b"x"


def test_a_thread_that_outlives_the_run_is_not_refused() -> None:
    """It has inherited the context of a run that is over."""
    release, found = threading.Event(), queue.SimpleQueue[object]()

    def work() -> None:
        release.wait()
        found.put(socket.getaddrinfo("localhost", 80))

    async def main() -> None:
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(functools.partial(trio.to_thread.run_sync, work, abandon_on_cancel=True))
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

    run(main)
    release.set()

    assert isinstance(found.get(timeout=10), list)


def test_other_threads_are_not_refused() -> None:
    """A guarded run is one thread's business."""
    found: list[object] = []

    async def main() -> None:
        thread = threading.Thread(target=lambda: found.append(socket.getaddrinfo("localhost", 80)))
        thread.start()
        await trio.to_thread.run_sync(thread.join)

    run(main)

    assert len(found) == 1


# ---- before and after ----------------------------------------------------------------------------------------------


def test_everything_is_as_before_afterwards() -> None:
    """Also when the block has failed."""

    async def main() -> None:
        clock = trio.lowlevel.current_clock()
        before = dict(vars(clock))
        with pytest.raises(Deadlock):
            with guards() as guard:
                await trio.sleep_forever()
        assert vars(clock) == before
        with pytest.raises(KeyError):
            trio.lowlevel.remove_instrument(guard)
        look_up()
        with guards(), guards(virtual_time=1):
            await trio.sleep(1)
        await trio.sleep_until(100_000)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_guards_within_guards_both_watch() -> None:
    """The inner one is nearer to the clock."""

    async def inner_fails() -> None:
        with pytest.raises(BudgetExceeded, match=r"^not over after 1 virtual seconds"):
            with guards(virtual_time=1):
                await trio.sleep(2)
        await trio.sleep(2)

    async def outer_fails() -> None:
        with guards(virtual_time=100):
            await trio.sleep(50)

    run(inner_fails, virtual_time=3)
    with pytest.raises(BudgetExceeded, match=r"^not over after 3 virtual seconds"):
        run(outer_fails, virtual_time=3)


def test_an_exception_of_the_block_comes_out_as_it_is() -> None:
    """The guards have nothing to do with it."""
    error = ValueError("mine")

    async def main() -> None:
        raise error

    with pytest.raises(ValueError) as caught:
        run(main)

    assert caught.value is error


def test_a_wish_to_stop_the_program_is_not_hidden() -> None:
    """Ctrl+C while a deadlock is being cleaned up."""

    async def main() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(main)


def test_what_describe_returns_is_in_the_message() -> None:
    """A table of sockets, for one."""
    with pytest.raises(Deadlock) as caught:
        run(trio.sleep_forever, describe=lambda: "two sockets")

    assert str(caught.value).split("\n")[-1] == "two sockets"


def test_this_trio_has_the_names_that_the_guards_need() -> None:
    """When this fails, trio has moved them, and part of the guards is off."""
    assert missing_guard_names() == ()


def test_without_the_name_in_the_clock_a_warning_says_what_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the budget of steps ends a deadlock."""
    monkeypatch.setattr(determinism, "_AUTOJUMP", "_gone")
    monkeypatch.setattr(determinism, "_warned_of_guards", False)

    with pytest.warns(RuntimeWarning, match=r"no MockClock\._gone: deadlocks are not noticed"):
        with pytest.raises(BudgetExceeded, match=r"^not over after 1,000 steps"):
            run(trio.sleep_forever, steps=1000)

    assert missing_guard_names() == ("trio.testing.MockClock._gone",)


def test_a_failure_of_the_instrument_is_not_silent(caplog: pytest.LogCaptureFixture) -> None:
    """Trio logs it and runs on without it; a run that nobody guarded must not pass."""

    async def main() -> None:
        with guards() as guard:
            guard._look = None  # type: ignore[method-assign,assignment]
            guard._next_look = 0
            await trio.sleep(1)

    with pytest.raises(RuntimeError, match="instrument failed"):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    assert "has been disabled" in caplog.text


def test_a_guard_is_what_guards_gives() -> None:
    """With the defaults of its docstring."""
    guard = guards()

    assert isinstance(guard, Guards)
    assert (guard.virtual_time, guard.steps, guard.patience, guard.real_network) == (86_400.0, 10_000_000, 30.0, False)
