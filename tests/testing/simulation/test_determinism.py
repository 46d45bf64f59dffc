"""Trio's scheduler is held still for a block, and let go after it."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial

import pytest
import trio
import trio._core._run
import trio.testing

from trioqt.testing import Probe, cancel_everywhere
from trioqt.testing.simulation import determinism
from trioqt.testing.simulation.determinism import (
    autojump_hook,
    birth_number,
    missing_guard_names,
    missing_private_names,
    nursery_hook,
    pinned_scheduler,
    throw_into,
)

# Twelve tasks take turns; what they print is the order.  The list of garbage shifts the heap, as another history would.
PROGRAM = """
import sys, trio
from trioqt.testing.simulation.determinism import pinned_scheduler

garbage = [object() for _ in range(int(sys.argv[1]))]

async def main():
    async def turn(number):
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            print(number, end=" ")
    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(turn, number)

with pinned_scheduler() as reseed:
    reseed(int(sys.argv[2]))
    trio.run(main)
"""


def schedule(shift: int, seed: int) -> str:
    command = [sys.executable, "-c", PROGRAM, str(shift), str(seed)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_seed_gives_one_schedule_in_every_process() -> None:
    same = {schedule(shift, seed=7) for shift in (0, 1001)}

    assert len(same) == 1
    assert schedule(0, seed=8) not in same


def test_the_scheduler_is_as_random_as_before_afterwards() -> None:
    coin: random.Random = trio._core._run._r
    before = (coin.getstate(), trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING)

    with pinned_scheduler() as reseed:
        reseed(1)
        assert trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING

    assert (coin.getstate(), trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING) == before


def test_this_trio_has_the_private_names() -> None:
    """When this fails, trio has moved them: the walk still works, and says that it is not pinned."""
    assert missing_private_names() == ()


def test_without_the_private_names_a_warning_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(determinism, "_COIN", "_gone")
    monkeypatch.setattr(determinism, "_warned", False)

    async def scenario(probe: Probe) -> None:
        await probe.subject(trio.sleep, 1)

    with pytest.warns(RuntimeWarning, match=r"no trio\._core\._run\._gone") as caught:
        report = cancel_everywhere(scenario)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cancel_everywhere(scenario)

    assert missing_private_names() == ("trio._core._run._gone",)
    assert len(caught) == 1
    assert caught[0].filename.endswith("walk.py")
    assert report.ok
    assert not report.scheduler_pinned


# ---- what the guards need ------------------------------------------------------------------------------------------


def test_this_trio_has_the_names_that_the_guards_need() -> None:
    """When this fails, trio has moved them, and the guards that want them are off."""
    assert missing_guard_names() == ()


async def test_the_clocks_jumps_can_be_held_back() -> None:
    """The hook is asked in each idle pass, and the clock jumps when the hook says so."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    asked: list[float] = []

    def hook(jump: Callable[[], None]) -> None:
        asked.append(clock.current_time())
        if len(asked) >= 3:
            jump()

    async def main() -> float:
        with autojump_hook(clock, hook) as there:
            assert there
            await trio.sleep(5)
        await trio.sleep(5)
        return trio.current_time()

    await trio.to_thread.run_sync(lambda: trio.run(main, clock=clock))

    assert clock.current_time() == 10.0
    assert asked == [0.0, 0.0, 0.0]
    assert "_autojump" not in vars(clock)


async def test_a_nurserys_first_exception_is_told_before_the_others_are_cancelled() -> None:
    """So the tasks still stand where they stood."""
    told: list[tuple[BaseException, bool]] = []
    error = KeyError()

    async def fail() -> None:
        raise error

    with pytest.raises(ExceptionGroup):
        async with trio.open_nursery() as nursery:
            with nursery_hook(lambda exc: told.append((exc, nursery.cancel_scope.cancel_called))):
                nursery.start_soon(fail)
                await trio.testing.wait_all_tasks_blocked()

    assert told == [(error, False)]


async def test_tasks_have_the_order_in_which_they_were_started() -> None:
    """A nursery keeps them in a set."""
    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(trio.sleep_forever, name=str(number))
        tasks = sorted(nursery.child_tasks, key=birth_number)
        nursery.cancel_scope.cancel()

    assert [task.name for task in tasks] == [str(number) for number in range(300)]


class Thrown(BaseException):
    """What no program catches."""


async def test_a_task_can_be_made_to_raise_whatever_shields_it() -> None:
    """Whether it waits or is runnable; but not before its first step."""
    caught: list[str] = []
    event = trio.Event()

    async def wait() -> None:
        try:
            with trio.CancelScope(shield=True):
                await event.wait()
        except Thrown:
            caught.append("wait")

    async def spin() -> None:
        try:
            while True:
                await trio.lowlevel.cancel_shielded_checkpoint()
        except Thrown:
            caught.append("spin")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(spin)
        tasks = sorted(nursery.child_tasks, key=birth_number)
        too_early = [throw_into(task, Thrown()) for task in tasks]
        for _ in range(2):  # within one pass this task may be the first to have its turn
            await trio.lowlevel.checkpoint()
        in_time = [throw_into(task, Thrown()) for task in tasks]
    event.set()  # nobody waits for it any more: what a task waited for has forgotten it

    assert too_early == [False, False]
    assert in_time == [True, True]
    assert sorted(caught) == ["spin", "wait"]


async def test_a_task_that_waits_for_a_thread_cannot_be_made_to_raise() -> None:
    """Its abort function says no."""
    release = threading.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.to_thread.run_sync, release.wait))
        (task,) = nursery.child_tasks
        await trio.testing.wait_all_tasks_blocked()
        first, second = throw_into(task, Thrown()), throw_into(task, Thrown())
        release.set()

    assert (first, second) == (False, False)


async def test_without_the_names_the_hooks_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing breaks."""
    for name in ("_AUTOJUMP", "_ADD_EXCEPTION", "_BIRTH", "_ABORT"):
        monkeypatch.setattr(determinism, name, f"_gone{name.lower()}")
    monkeypatch.setattr(determinism, "_warned_of_guards", True)
    clock = trio.testing.MockClock()

    with autojump_hook(clock, lambda jump: None) as there, nursery_hook(lambda exc: None):
        task = trio.lowlevel.current_task()

    assert not there
    assert (birth_number(task), throw_into(task, Thrown())) == (0, False)
    assert missing_guard_names() == (
        "trio.testing.MockClock._gone_autojump",
        "trio.Nursery._gone_add_exception",
        "trio.lowlevel.Task._gone_birth",
        "trio.lowlevel.Task._gone_abort",
    )
