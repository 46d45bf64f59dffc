"""The tool finds the line at which a Ctrl-C does harm, says what, and finds nothing in right code.

Every test but one is a plain function, although the suite runs with ``trio_mode = true``: each place is a ``trio.run``.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.testing.cancelling import interrupted_code as interrupted
from trioqt.testing import Probe, interrupt_everywhere
from trioqt.testing.cancelling.report import Report

Scenario = Callable[[Probe], Awaitable[None]]


def walk(scenario: Scenario, **options: Any) -> Report:
    return interrupt_everywhere(scenario, code=[interrupted], **options)


def counting(counter_class: type[interrupted.BusyCounter]) -> Scenario:
    async def count(probe: Probe) -> None:
        counter = counter_class()
        await probe.subject(counter.add)
        probe.expect(counter.count == (not probe.cancelled), "it counts what was not interrupted")
        await counter.add()

    return count


async def locking(probe: Probe) -> None:
    locked = interrupted.LockedList()
    await probe.subject(locked.append, 1)
    async with trio.open_nursery() as nursery:  # in another task: a lock refuses its holder
        nursery.start_soon(locked.append, 2)


async def opening(probe: Probe) -> None:
    opened = interrupted.HalfOpened()
    await probe.subject(opened.open)
    await opened.close()


def calling(fn: Callable[..., Awaitable[object]], *args: object) -> Scenario:
    async def call(probe: Probe) -> None:
        await probe.subject(fn, *args)

    return call


async def counting_down() -> None:
    interrupted.count_down(20)
    interrupted.one_less(1)
    await trio.lowlevel.checkpoint()


WRONG = {
    "busy for ever": (counting(interrupted.BusyCounter), "BusyCounter.add", "here", "escaped: BusyResourceError("),
    "locked for ever": (locking, "LockedList.append", "here", "hang: not over after 3600 virtual seconds"),
    "leaked descriptor": (calling(interrupted.leaky_read, __file__), "leaky_read", "here", "leak: 1 descriptors left"),
    "in a group": (
        calling(interrupted.grouping_wait),
        "grouping_wait",
        "checkpoint",
        "escaped: the KeyboardInterrupt comes out as BaseExceptionGroup(",
    ),
    "swallowed": (calling(interrupted.swallowing_wait), "swallowing_wait", "sleep", "swallowed: nobody has heard"),
    "half opened": (opening, "HalfOpened.open", "here", "leak: a nursery left open"),
}


def source_line(name: str, text: str) -> int:
    """The line of ``interrupted_code`` with ``text`` in the function ``name``."""
    lines, first = inspect.getsourcelines(functools.reduce(getattr, name.split("."), interrupted))
    [line] = [first + offset for offset, line in enumerate(lines) if text in line]
    return line


# ---- what it finds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scenario", "function", "text", "problem"), WRONG.values(), ids=WRONG)
def test_it_finds_the_harm_and_names_the_line(scenario: Scenario, function: str, text: str, problem: str) -> None:
    """Each of these passes an ordinary test, and is right under cancellation at that line."""
    report = walk(scenario)

    at_that_line = [
        failure
        for failure in report.failures
        if failure.boundary is not None and failure.boundary.line == source_line(function, text)
    ]
    assert [failure.boundary.kind for failure in at_that_line if failure.boundary] == ["line"]
    assert any(str(found).startswith(problem) for found in at_that_line[0].problems)
    with pytest.raises(AssertionError, match=rf"interrupted_code\.py:{source_line(function, text)} in"):
        report.raise_if_failed(show=100)


@pytest.mark.parametrize("survives", [True, False])
@pytest.mark.parametrize(
    "scenario",
    [counting(interrupted.CarefulCounter), calling(interrupted.tidy_read, __file__)],
    ids=["counter", "read"],
)
def test_it_finds_nothing_in_right_code(scenario: Scenario, survives: bool) -> None:
    report = walk(scenario, survives=survives)

    report.raise_if_failed()
    assert report.complete
    assert report.runs == report.places + 2
    assert report.cancelled + report.finished == report.places > 0


def test_a_line_that_is_reached_in_the_same_way_again_is_one_place() -> None:
    """The two lines of the loop and the one of its helper; then that helper, called by another."""
    report = walk(calling(counting_down))

    assert report.places == 4


def test_a_protected_line_is_heard_of_at_the_next_checkpoint() -> None:
    """Up to its checkpoint the call can be interrupted; behind it the call has its result, and the Ctrl-C follows."""
    history: list[tuple[bool, int, bool]] = []

    async def count(probe: Probe) -> None:
        counter = interrupted.CarefulCounter()
        await probe.subject(counter.add)
        if probe.injected:
            history.append((probe.cancelled, counter.count, counter.busy))

    report = walk(count)

    assert history == [(True, 0, False)] * 4 + [(False, 1, False)] * 2
    assert (report.cancelled, report.finished) == (4, 2)


def test_a_program_that_does_not_survive_it_ends_by_it() -> None:
    """Out of the subject it comes bare; that a nursery of the scenario's own makes a group of it is no harm."""
    ended: list[BaseException] = []

    async def count(probe: Probe) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            try:
                await probe.subject(interrupted.CarefulCounter().add)
            except BaseException as exc:
                ended.append(exc)
                raise

    report = walk(count, survives=False)

    report.raise_if_failed()
    assert {type(exc) for exc in ended} == {KeyboardInterrupt}
    # The last two come behind the only checkpoint, and so out of the scenario's nursery.
    assert len(ended) == report.places - 2 == 4


def test_a_program_that_does_not_end_by_it_has_swallowed_it() -> None:
    report = walk(calling(interrupted.swallowing_wait), survives=False)

    assert {str(problem) for failure in report.failures for problem in failure.problems} == {
        "swallowed: nobody has heard of the Ctrl-C"
    }
    assert len(report.failures) == 1


def test_lines_of_other_tasks_are_places_too() -> None:
    """A Ctrl-C hits whatever runs; ``points="subject"`` leaves out what is not the subject's."""

    async def beside(probe: Probe) -> None:
        counter = interrupted.CarefulCounter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(counter.add)
            await probe.subject(trio.sleep, 1)

    everywhere = walk(beside)

    everywhere.raise_if_failed()
    assert everywhere.places == 6
    with pytest.raises(ValueError, match="places"):
        walk(beside, max_places=5)
    assert walk(beside, points="subject").places == 0


def test_only_the_main_task_can_survive_it() -> None:
    """Only it hears of a Ctrl-C."""

    async def elsewhere(probe: Probe) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(probe.subject, interrupted.CarefulCounter().add)

    survived, ended = walk(elsewhere), walk(elsewhere, survives=False)

    assert "RuntimeError(only the main task hears of a Ctrl-C" in str(survived.failures[0].problems[0])
    ended.raise_if_failed()
    assert ended.places == 6


# ---- where it goes ---------------------------------------------------------------------------------------------------


def test_trioqt_is_walked_if_nothing_is_said_and_only_what_is_named_otherwise() -> None:
    """A directory, a module and a file are named alike."""
    counter = counting(interrupted.CarefulCounter)

    assert interrupt_everywhere(counter).places == 0
    assert interrupt_everywhere(counter, code=[os.path.dirname(__file__)]).places == 6
    assert walk(counter) == interrupt_everywhere(counter, code=[interrupted.__file__])


def test_a_sample_is_spread_evenly_and_says_what_it_left_out() -> None:
    report = walk(counting(interrupted.BusyCounter), sample=2)

    assert (report.places, report.cancelled + report.finished, report.skipped) == (5, 2, 3)
    assert not report.complete
    assert "3 not tried" in str(report)


def test_a_place_can_be_visited_again_alone() -> None:
    """The text of a failure has the two arguments that repeat it."""
    [failure, *_] = walk(counting(interrupted.BusyCounter)).failures
    assert failure.boundary is not None

    again = walk(counting(interrupted.BusyCounter), seeds=[failure.seed], only=[failure.boundary.index])

    assert again.failures == (failure,)
    line = source_line("BusyCounter.add", "here")
    assert str(failure).startswith(
        "seeds=[0], only=[2]: BusyCounter.add interrupted in count, at"
        f" tests/testing/cancelling/interrupted_code.py:{line} in add"
    )


def test_two_walks_give_the_same_report() -> None:
    scenario = WRONG["busy for ever"][0]

    assert walk(scenario).as_dict() == walk(scenario).as_dict()


def test_the_report_says_interrupted() -> None:
    report = walk(counting(interrupted.CarefulCounter))

    assert str(report) == "count: 6 places (any, seeds [0]) in 8 runs: 4 interrupted, 2 finished anyway: ok"


# ---- what it leaves as it was ----------------------------------------------------------------------------------------


def test_the_trace_function_of_another_tool_is_as_it_was() -> None:
    """Also within the run, once the subject has ended, whatever was interrupted there."""

    def trace(frame: object, event: str, arg: object) -> None:
        return None

    seen: set[object] = set()

    async def count(probe: Probe) -> None:
        counter = interrupted.BusyCounter()
        await probe.subject(counter.add)
        seen.add(sys.gettrace())

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        walk(count)
        after = sys.gettrace()
    finally:
        sys.settrace(before)

    assert seen == {trace}
    assert after is trace


def test_the_handler_of_the_signal_is_as_it_was() -> None:
    """Whatever that is: a test runner may have one of its own."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        report = walk(counting(interrupted.CarefulCounter))
        after = signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)

    assert report.cancelled == 4
    assert after is signal.SIG_IGN


def test_a_wish_to_stop_the_program_stops_the_walk() -> None:
    """A KeyboardInterrupt that the walk has not caused is the user's."""

    async def stopped(probe: Probe) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        walk(stopped)


# ---- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": "all"}, "points must be 'any' or 'subject', not 'all'"),
        ({"sample": 0}, "a sample has at least one place, not 0"),
        ({"code": [sys]}, "no source to walk"),
        ({"code": ["/nowhere.py"]}, "no source to walk: '/nowhere.py'"),
        ({"seeds": []}, "at least one seed"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interrupt_everywhere(counting(interrupted.CarefulCounter), **options)


def test_off_the_main_thread_it_says_so() -> None:
    """Signals are the main thread's."""
    caught: list[BaseException] = []

    def try_it() -> None:
        try:
            walk(counting(interrupted.CarefulCounter))
        except RuntimeError as exc:
            caught.append(exc)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()

    assert [str(exc) for exc in caught] == ["only the main thread hears of a Ctrl-C"]


async def test_within_trio_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="call it from a plain function"):
        walk(counting(interrupted.CarefulCounter))
