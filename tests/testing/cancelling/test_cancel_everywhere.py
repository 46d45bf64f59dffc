"""The tool finds what is lost or leaked at one place in a hundred, says where, and finds nothing in right code.

Every test is a plain function, although the suite runs with ``trio_mode = true``: each place is a ``trio.run``.
"""

from __future__ import annotations

import functools
import gc
import inspect
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.testing.cancelling import naive_code as naive
from tests.testing.cancelling.bounded_pipe import pipe_pair
from trioqt.testing import Probe, cancel_everywhere
from trioqt.testing.cancelling.report import Report

Scenario = Callable[[Probe], Awaitable[None]]

LINES = [b"alpha", b"bravo", b"charlie"]
CHUNKS = [b"al", b"pha\nbra", b"vo\ncharlie\n"]


# ---- scenarios -------------------------------------------------------------------------------------------------------


def reading(reader_class: type[Any]) -> Scenario:
    """Lines are read one by one; a call that was cancelled is made again."""

    async def read_lines(probe: Probe) -> None:
        ours, theirs = pipe_pair(100)
        lines: list[bytes] = []

        async def peer() -> None:
            with theirs:
                for chunk in CHUNKS:
                    await theirs.send_all(chunk)
                    await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer)
            reader = reader_class(ours)
            while True:
                try:
                    line = await probe.subject(reader.readline)
                except EOFError:
                    break
                if line is not None:
                    lines.append(line)
        probe.expect(lines == LINES, f"every line is read, not {lines}")

    return read_lines


def writing(writer_class: type[Any]) -> Scenario:
    """Messages go through a narrow pipe to a slow peer, which must see whole ones."""

    async def write_messages(probe: Probe) -> None:
        ours, theirs = pipe_pair(4)
        accepted: list[bytes] = []
        seen = bytearray()

        async def peer() -> None:
            while chunk := await theirs.receive_some():
                seen.extend(chunk)
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer)
            with ours:
                writer = writer_class(ours)
                async with trio.open_nursery() as writer_nursery:
                    writer_nursery.start_soon(writer.run)
                    for message in (b"<one>", b"<two>", b"<three>"):
                        await probe.subject(writer.write, message)
                        if not probe.cancelled:
                            accepted.append(message)
                    writer.finish()
        probe.expect(bytes(seen) == b"".join(accepted), f"the peer sees what was accepted, not {bytes(seen)!r}")

    return write_messages


def notifying(notifier_class: type[naive.AwaitingNotifier]) -> Scenario:
    """A watcher is told of every change of state."""

    async def notify(probe: Probe) -> None:
        send, receive = trio.open_memory_channel[str](5)
        notifier = notifier_class(send)
        answered = trio.Event()

        async def peer() -> None:
            await trio.sleep(1)
            answered.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer)
            await probe.subject(notifier.connect, answered)

        send.close()
        told = [state async for state in receive]
        probe.expect(notifier.state == (["unconnected", *told])[-1], f"the watcher knows of {notifier.state}")

    return notify


def using_slots(slots_class: type[naive.TwiceReleased]) -> Scenario:
    async def use_slot(probe: Probe) -> None:
        slots = slots_class(1)

        await probe.subject(slots.work)

        probe.expect(slots.free == 1, f"one slot is free, not {slots.free}")

    return use_slot


def connecting(connect: Callable[[int], Awaitable[trio.SocketStream]]) -> Scenario:
    """On real sockets."""

    async def connect_to_server(probe: Probe) -> None:
        async def greet(stream: trio.SocketStream) -> None:
            async with stream:
                while await stream.receive_some():
                    await trio.sleep(1)
                    await stream.send_all(b"welcome\n")

        async with trio.open_nursery() as nursery:
            serve = functools.partial(trio.serve_tcp, greet, 0, host="127.0.0.1")
            listeners: list[trio.SocketListener] = await nursery.start(serve)
            stream = await probe.subject(connect, listeners[0].socket.getsockname()[1])
            if stream is not None:
                await stream.aclose()
            nursery.cancel_scope.cancel()

    return connect_to_server


def accepting(accept: Callable[..., Awaitable[None]]) -> Scenario:
    """On real sockets."""

    async def accept_one(probe: Probe) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def handler(stream: trio.SocketStream) -> None:
            async with stream:
                await trio.sleep(1)

        async with listener, trio.open_nursery() as nursery:
            async with await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]):
                with trio.move_on_after(5):
                    await probe.subject(accept, listener, nursery, handler)

    return accept_one


def calling(fn: Callable[..., Awaitable[object]], *args: object) -> Scenario:
    async def call(probe: Probe) -> None:
        await probe.subject(fn, *args)

    return call


def waiting_stubbornly() -> Scenario:
    async def wait(probe: Probe) -> None:
        await probe.subject(naive.stubborn_wait, trio.Event())

    return wait


WRONG = {
    "take before a wait": (reading(naive.GreedyReader), "expect", "GreedyReader.readline", "receive_some"),
    "take before a checkpoint": (reading(naive.PoliteReader), "expect", "PoliteReader.readline", "checkpoint"),
    "take before a look": (reading(naive.LateReader), "expect", "LateReader.readline", "def readline"),
    "torn write": (writing(naive.DirectWriter), "expect", "DirectWriter.write", "send_all"),
    "state, then awaited event": (notifying(naive.AwaitingNotifier), "expect", "AwaitingNotifier.connect", "wait()"),
    "released twice": (using_slots(naive.TwiceReleased), "expect", "TwiceReleased.work", "second time"),
    "leaked attempt": (connecting(naive.leaky_connect), "leak", "leaky_connect", "receive_some"),
    "dropped connection": (accepting(naive.dropping_accept), "leak", "dropping_accept", "checkpoint"),
    "leaked descriptor": (calling(naive.leaky_read, __file__), "leak", "leaky_read", "sleep"),
    "leaked task": (calling(naive.leaky_session), "leak", "leaky_session", "stops"),
    "hang": (waiting_stubbornly(), "hang", "stubborn_wait", "sleep"),
    "runaway": (calling(naive.spinning_wait), "runaway", "spinning_wait", "sleep"),
    "renamed Cancelled": (calling(naive.renaming_wait), "escaped", "renaming_wait", "sleep"),
}

RIGHT = {
    "careful reader": reading(naive.CarefulReader),
    "write queue": writing(naive.QueueWriter),
    "prompt event": notifying(naive.PromptNotifier),
    "released once": using_slots(naive.OnceReleased),
    "tidy connect": connecting(naive.tidy_connect),
    "keeping accept": accepting(naive.keeping_accept),
    "tidy descriptor": calling(naive.tidy_read, __file__),
    "tidy session": calling(naive.tidy_session),
}


def source_line(name: str, text: str) -> int:
    """The line of ``naive_code`` with ``text`` in the function ``name``."""
    function = functools.reduce(getattr, name.split("."), naive)
    lines, first = inspect.getsourcelines(function)
    [line] = [first + offset for offset, line in enumerate(lines) if text in line]
    return line


# ---- what it finds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scenario", "kind", "function", "text"), WRONG.values(), ids=WRONG)
def test_it_finds_the_bug_and_names_the_line(scenario: Scenario, kind: str, function: str, text: str) -> None:
    """Each of these passes an ordinary test.  The report has a failure of the right kind, at the line with the bug."""
    report = cancel_everywhere(scenario)

    assert set(report.count_problems()) == {kind}
    boundaries = [failure.boundary for failure in report.failures if failure.boundary]
    stood = {(line.file, line.line) for boundary in boundaries for line in boundary.stack}
    assert (naive.__file__, source_line(function, text)) in stood
    assert all(failure.boundary and failure.boundary.subject == function for failure in report.failures)
    with pytest.raises(AssertionError, match=rf"naive_code\.py:{source_line(function, text)} in"):
        report.raise_if_failed(show=100)


@pytest.mark.parametrize("points", ["any", "subject"])
@pytest.mark.parametrize("scenario", RIGHT.values(), ids=RIGHT)
def test_it_finds_nothing_in_right_code(scenario: Scenario, points: Any) -> None:
    report = cancel_everywhere(scenario, points=points)

    report.raise_if_failed()
    assert report.ok
    assert report.cancelled > 0
    assert report.cancelled + report.finished + report.missed + report.skipped == report.places


@pytest.mark.parametrize("name", [name for name in RIGHT if name not in ("tidy connect", "keeping accept")])
def test_over_memory_every_place_is_tried_on_schedule(name: str) -> None:
    """No divergence, none missed: the walk over this schedule is complete, not a sample."""
    report = cancel_everywhere(RIGHT[name])

    assert report.complete
    assert report.runs == report.places + 2 * len(report.seeds)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback is slower, and divergence is only reported")
@pytest.mark.parametrize("name", ["tidy connect", "keeping accept"])
def test_on_loopback_sockets_the_schedule_holds_too(name: str) -> None:
    """Handlers sleep on the jumping clock while the kernel delivers, and no jump comes too early."""
    report = cancel_everywhere(RIGHT[name], seeds=range(4))

    assert report.complete, report.summary()


@pytest.mark.parametrize("scenario", [WRONG["take before a wait"][0], WRONG["leaked attempt"][0]])
def test_two_walks_give_the_same_report(scenario: Scenario) -> None:
    """Ports, descriptors and addresses differ each time; the report has none of them."""
    first, second = cancel_everywhere(scenario), cancel_everywhere(scenario)

    assert first == second
    assert first.as_dict() == second.as_dict()
    assert [str(failure) for failure in first.failures] == [str(failure) for failure in second.failures]


def test_a_place_can_be_visited_again_alone() -> None:
    """The text of a failure has the two arguments that repeat it."""
    scenario = WRONG["take before a wait"][0]
    failure = cancel_everywhere(scenario).failures[3]
    assert failure.boundary is not None

    again = cancel_everywhere(scenario, seeds=[failure.seed], only=[failure.boundary.index])

    assert again.failures == (failure,)
    assert f"seeds=[{failure.seed}], only=[{failure.boundary.index}]" in str(failure)
    assert again.skipped == again.places - 1
    assert not again.complete


def test_only_a_start_under_cancellation_shows_some_bugs() -> None:
    """A call that never waits has no place inside; it can still be made when the cancellation is already there."""

    async def read_what_is_there(probe: Probe) -> None:
        reader = naive.LateReader(pipe_pair(1)[0])
        reader.rest = b"alpha\n"
        line = await probe.subject(reader.readline)
        probe.expect(line == b"alpha" or reader.rest == b"alpha\n", "the line is read, or still there")

    report = cancel_everywhere(read_what_is_there, seeds=[0])

    [failure] = report.failures
    assert failure.boundary is not None
    assert failure.boundary.kind == "start"
    assert (report.places, failure.boundary.line) == (1, source_line("LateReader.readline", "def"))


def test_places_are_after_steps_io_and_timers() -> None:
    report = cancel_everywhere(connecting(naive.leaky_connect), seeds=[0])
    kinds = {failure.boundary.kind: failure.boundary for failure in report.failures if failure.boundary}

    assert kinds.keys() == {"step", "io", "timer"}
    line = source_line("leaky_connect", "receive_some")
    assert str(kinds["timer"]) == (
        "leaky_connect cancelled when the clock had woken _run_handler,"
        f" at tests/testing/cancelling/naive_code.py:{line} in leaky_connect"
    )


def test_the_places_of_the_subject_are_a_part_of_all() -> None:
    """The subject's own steps include those of the tasks in its nurseries, and not those of its peers."""
    everywhere = cancel_everywhere(RIGHT["tidy session"], seeds=[0])
    own = cancel_everywhere(RIGHT["tidy session"], seeds=[0], points="subject")
    with_peer = cancel_everywhere(RIGHT["careful reader"], seeds=[0])
    without_peer = cancel_everywhere(RIGHT["careful reader"], seeds=[0], points="subject")

    assert own.places == everywhere.places
    assert without_peer.places < with_peer.places


def test_subjects_in_several_tasks_are_each_cancelled() -> None:
    cancelled: set[str] = set()

    async def two(probe: Probe) -> None:
        async def one(name: str) -> None:
            await probe.subject(trio.sleep, 1)
            if probe.cancelled:
                cancelled.add(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "left")
            nursery.start_soon(one, "right")

    report = cancel_everywhere(two)

    assert report.complete
    assert cancelled == {"left", "right"}


def test_a_subject_within_a_subject_is_cancelled_alone_and_with_it() -> None:
    seen: set[tuple[bool, bool]] = set()

    async def nested(probe: Probe) -> None:
        inner = False

        async def outer_call() -> None:
            nonlocal inner
            await probe.subject(trio.sleep, 1)
            inner = probe.cancelled
            await trio.sleep(1)

        await probe.subject(outer_call)
        seen.add((inner, probe.cancelled))

    cancel_everywhere(nested).raise_if_failed()

    assert seen == {(False, False), (True, False), (False, True)}


def test_the_scenario_knows_what_happened() -> None:
    """``injected`` stays; ``cancelled`` is about the call that has just ended."""
    history: list[tuple[bool, bool]] = []

    async def two_calls(probe: Probe) -> None:
        for _ in range(2):
            await probe.subject(trio.lowlevel.checkpoint)
            history.append((probe.injected, probe.cancelled))

    report = cancel_everywhere(two_calls, seeds=[0])

    assert report.places == 4
    undisturbed, first, second = [(False, False)] * 4, [(True, True), (True, False)], [(False, False), (True, True)]
    assert history == undisturbed + 2 * first + 2 * second


def test_a_tracked_object_must_be_closed_at_the_end() -> None:
    async def forget(probe: Probe) -> None:
        ours, _ = pipe_pair(1)
        probe.track("our end", lambda: ours.closed)
        await probe.subject(trio.sleep, 1)
        if not probe.cancelled:
            ours.close()

    report = cancel_everywhere(forget, seeds=[0])

    assert {str(problem) for failure in report.failures for problem in failure.problems} == {"leak: our end left open"}


def test_what_is_only_found_when_thrown_away_belongs_to_its_run() -> None:
    """An object that warns in its finalizer, held by a cycle: the garbage of each run is collected after it."""

    class Connection:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            warnings.warn("unclosed connection", ResourceWarning, stacklevel=1)

    async def drop(probe: Probe) -> None:
        await probe.subject(trio.sleep, 1)
        if probe.cancelled:
            Connection()

    report = cancel_everywhere(drop, seeds=[0])

    assert len(report.failures) == report.cancelled > 0
    assert str(report.failures[0].problems[0]) == "leak: unclosed connection"


def test_an_exception_in_a_finalizer_is_a_problem() -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("in a finalizer")

    async def drop(probe: Probe) -> None:
        await probe.subject(trio.sleep, 1)
        if probe.cancelled:
            Broken()

    report = cancel_everywhere(drop, seeds=[0])

    assert str(report.failures[0].problems[0]) == "escaped: unraisable ValueError(in a finalizer)"


def test_a_scenario_that_fails_by_itself_is_reported_once_a_seed() -> None:
    """Then nothing is cancelled: what it would show is not the cancellation's doing."""

    async def broken(probe: Probe) -> None:
        await probe.subject(trio.sleep, 1)
        probe.expect(False, "always wrong")

    report = cancel_everywhere(broken)

    assert [str(failure) for failure in report.failures] == [
        "seed 0: undisturbed\n    expect: always wrong",
        "seed 1: undisturbed\n    expect: always wrong",
    ]


# ---- runs that do not end, or not as planned -------------------------------------------------------------------------


def test_a_hang_says_who_stands_where() -> None:
    report = cancel_everywhere(waiting_stubbornly(), seeds=[0])
    line = source_line("stubborn_wait", "done.wait")

    [first, second] = report.failures[-1].problems
    assert str(first) == (
        "hang: not over after 3600 virtual seconds: "
        f"wait at tests/testing/cancelling/naive_code.py:{line} in stubborn_wait"
    )
    assert str(second) == "hang: and not over after a cancellation"


def spin(probe: Probe) -> None:
    while probe.injected:
        pass


async def blocking_the_thread(probe: Probe) -> None:
    async def block() -> None:
        try:
            await trio.sleep(1)
        finally:
            spin(probe)

    await probe.subject(block)


def test_a_run_that_blocks_the_thread_is_killed() -> None:
    """No virtual deadline helps there.  After three of them the rest is given up, and said to be."""
    report = cancel_everywhere(blocking_the_thread, real_limit=0.2, points="any", seeds=[0, 1, 2])

    assert len(report.failures) == 3
    assert report.skipped == report.places - report.cancelled - report.finished > 0
    [problem] = report.failures[0].problems
    assert problem.kind == "hang"
    assert problem.text.startswith(
        "not over after 0.2 real seconds, at tests/testing/cancelling/test_cancel_everywhere.py:"
    )
    assert problem.text.endswith(" in spin")


@pytest.mark.parametrize("scenario", [blocking_the_thread, waiting_stubbornly(), calling(naive.spinning_wait)])
def test_off_the_main_thread_runs_are_killed_too(scenario: Scenario) -> None:
    """There are no signals, so a thread watches: as on Windows."""
    reports: list[Report] = []

    def walk() -> None:
        reports.append(cancel_everywhere(scenario, real_limit=0.2, seeds=[0]))

    thread = threading.Thread(target=walk)
    thread.start()
    thread.join(30)

    assert set(reports[0].count_problems()) <= {"hang", "runaway"}
    assert reports[0].failures


def test_what_was_killed_off_the_main_thread_leaves_python_as_it_was() -> None:
    """It took its last exception back, and Python 3.11 then looked for it for ever, as soon as something was traced."""
    program = """
        import sys, threading
        from tests.testing.cancelling.test_cancel_everywhere import blocking_the_thread
        from trioqt.testing import cancel_everywhere
        thread = threading.Thread(target=cancel_everywhere, args=[blocking_the_thread], kwargs={"real_limit": 0.2})
        thread.start()
        thread.join()
        sys.settrace(lambda frame, event, arg: None)
        print(threading.active_count())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (ran.stdout, ran.stderr) == ("1\n", "")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_a_timer_that_was_running_has_the_rest_of_its_time() -> None:
    """pytest-timeout uses the same signal, and must still work after a walk."""
    handler = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1000)
        cancel_everywhere(RIGHT["released once"])
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        kept = signal.getsignal(signal.SIGALRM)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)

    assert 0 < left < 1000
    assert kept is signal.SIG_IGN


def test_a_run_that_leaves_the_schedule_is_counted() -> None:
    """The scenario tosses a coin of its own, which no seed holds still."""
    coin = random.Random(1)

    async def unsteady(probe: Probe) -> None:
        for _ in range(coin.randrange(5)):
            await trio.lowlevel.checkpoint()
        await probe.subject(trio.sleep, 1)

    report = cancel_everywhere(unsteady, seeds=range(5))

    assert report.ok
    assert report.diverged > 0
    assert not report.complete
    assert f"{report.diverged} diverged" in str(report)


def test_a_place_that_is_never_reached_is_missed_not_covered() -> None:
    """The undisturbed runs had more places than any run after them."""
    calls: list[int] = []

    async def shrinking(probe: Probe) -> None:
        calls.append(1)
        for _ in range(3 if len(calls) <= 2 else 1):
            await probe.subject(trio.lowlevel.checkpoint)

    report = cancel_everywhere(shrinking, seeds=[0])

    assert (report.places, report.cancelled, report.missed) == (6, 2, 4)
    assert not report.complete
    assert "4 missed" in str(report)


def test_a_problem_in_a_run_off_schedule_is_still_a_problem() -> None:
    calls: list[int] = []

    async def changing(probe: Probe) -> None:
        calls.append(1)
        for _ in range(len(calls)):
            await trio.lowlevel.checkpoint()
        await probe.subject(trio.sleep, 1)
        probe.expect(not probe.cancelled, "not to be cancelled")

    report = cancel_everywhere(changing, seeds=[0])

    assert report.failures
    assert all(failure.diverged for failure in report.failures)
    assert "(not on schedule)" in str(report.failures[0])


def test_time_does_not_jump_while_a_thread_works() -> None:
    """Else a look-up of a name, which trio does in a thread, would time out in no time."""

    async def work(probe: Probe) -> None:
        async def count() -> int | None:
            with trio.move_on_after(5):
                return await trio.to_thread.run_sync(sum, range(100_000))
            return None

        total = await probe.subject(count)
        probe.expect(probe.cancelled or total is not None, "the thread has time to finish")

    cancel_everywhere(work, seeds=[0]).raise_if_failed()


# ---- what it leaves as it was ----------------------------------------------------------------------------------------


def test_the_collector_and_the_hooks_are_as_they_were() -> None:
    hook, collecting = sys.unraisablehook, gc.isenabled()

    cancel_everywhere(RIGHT["released once"])

    assert sys.unraisablehook is hook
    assert gc.isenabled() == collecting


def test_other_warnings_come_through_once() -> None:
    async def warn(probe: Probe) -> None:
        warnings.warn("old name", DeprecationWarning, stacklevel=1)
        await probe.subject(trio.sleep, 1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = cancel_everywhere(warn)

    assert report.ok
    assert [str(warning.message) for warning in caught] == ["old name"]


def test_a_wish_to_stop_the_program_stops_the_walk() -> None:
    """Ctrl-C is not a finding."""

    async def interrupted(probe: Probe) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(probe.subject, trio.sleep, 1)
            raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as caught:
        cancel_everywhere(interrupted)

    assert caught.group_contains(KeyboardInterrupt)


# ---- the report ------------------------------------------------------------------------------------------------------


def test_the_report_is_short_and_turns_into_json() -> None:
    report = cancel_everywhere(RIGHT["released once"])
    failed = cancel_everywhere(WRONG["released twice"][0])

    assert str(report) == (
        f"use_slot: {report.places} places (any, seeds [0, 1]) in {report.runs} runs:"
        f" {report.cancelled} cancelled, {report.finished} finished anyway: ok"
    )
    assert str(failed).endswith(f"\n{len(failed.failures)} FAILED ({len(failed.failures)} expect)")
    values = json.loads(json.dumps(failed.as_dict()))
    assert values["places"] == failed.places
    assert values["failures"][0]["boundary"]["stack"][-1]["file"] == naive.__file__
    assert values["failures"][0]["problems"] == [{"kind": "expect", "text": "one slot is free, not 2"}]


def test_the_report_says_what_was_not_checked() -> None:
    report = attrs.evolve(cancel_everywhere(RIGHT["released once"]), descriptors_checked=False, scheduler_pinned=False)

    assert "; descriptors not checked; scheduler not pinned" in report.summary()


def test_a_long_list_of_failures_is_cut() -> None:
    report = cancel_everywhere(WRONG["take before a wait"][0])

    with pytest.raises(AssertionError) as caught:
        report.raise_if_failed(show=2)

    assert str(caught.value).count("\n    expect: ") == 2
    assert str(caught.value).endswith(f"\n  and {len(report.failures) - 2} more")


# ---- wrong use -------------------------------------------------------------------------------------------------------


def test_wrong_points_are_refused() -> None:
    with pytest.raises(ValueError, match="points must be 'any' or 'subject', not 'all'"):
        cancel_everywhere(RIGHT["released once"], points="all")  # type: ignore[arg-type]


def test_no_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one seed"):
        cancel_everywhere(RIGHT["released once"], seeds=())


def test_a_scenario_without_a_subject_is_refused() -> None:
    """It would pass every time, and prove nothing."""

    async def forgot(probe: Probe) -> None:
        await trio.sleep(1)

    with pytest.raises(ValueError, match=r"forgot never called probe\.subject"):
        cancel_everywhere(forgot)


def test_too_many_places_are_refused() -> None:
    with pytest.raises(ValueError, match="has 22 places, more than"):
        cancel_everywhere(RIGHT["careful reader"], max_places=3)


def test_a_scenario_must_be_an_async_function() -> None:
    """Not a coroutine, which could run once only, and not a plain function."""

    def plain(probe: Probe) -> None:
        pass

    async def scenario(probe: Probe) -> None:
        pass

    with pytest.raises(TypeError, match="plain returned None"):
        cancel_everywhere(plain)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be an async function that takes a probe, not <coroutine"):
        cancel_everywhere(scenario(None))  # type: ignore[arg-type]


def test_a_subject_must_be_a_function() -> None:
    async def mistaken(probe: Probe) -> None:
        await probe.subject(naive.tidy_session())  # type: ignore[arg-type]

    report = cancel_everywhere(mistaken, seeds=[0])

    [problem] = report.failures[0].problems
    assert problem.text.startswith("TypeError(subject() wants a function and its arguments, not <coroutine")


async def test_within_trio_it_says_so() -> None:
    """The only async test here: it shows why the others are not."""
    with pytest.raises(RuntimeError, match="call it from a plain function"):
        cancel_everywhere(RIGHT["released once"])


def test_the_package_gives_the_function() -> None:
    """The module is named as the function is; the name that people import is the function."""
    assert inspect.isfunction(cancel_everywhere)
    assert os.path.basename(inspect.getfile(cancel_everywhere)) == "cancel_everywhere.py"
