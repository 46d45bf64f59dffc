"""Programs replay in every process; or it is said on what it depends how they go."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.testing.simulation import replayed, ten_programs
from trioqt.testing import VirtualNetwork, assert_replays, simulate
from trioqt.testing.simulation.replay import Elsewhere, Record, cause
from trioqt.testing.simulation.simulate import Settings

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def causes(main: Any, *args: Any, **options: Any) -> list[str]:
    """The lines of the note that says why."""
    with pytest.raises(AssertionError, match="does not replay in another process") as caught:
        assert_replays(main, *args, **options)
    (note,) = [note for note in caught.value.__notes__ if note.startswith("cause: ")]
    return list(note.split("\n"))


# ---- ten programs --------------------------------------------------------------------------------------------------


def test_what_is_simulated_has_one_digest_in_ten_processes() -> None:
    """With ten hash seeds, and a heap that none of the others has."""
    command = [sys.executable, "-m", ten_programs.__name__]
    children = [
        subprocess.Popen(
            command, env={**os.environ, "PYTHONHASHSEED": str(number)}, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for number in range(10)
    ]
    digests = [json.loads(child.communicate()[0]) for child in children]

    assert [child.returncode for child in children] == [0] * 10
    assert digests == [digests[0]] * 10
    assert set(digests[0]) == {program.__name__ for program in ten_programs.STEADY}


@pytest.mark.parametrize(
    ("program", "found"),
    [
        (ten_programs.order_of_a_set, "the hash seed: on it depend the order of a set of strings or bytes, and what"),
        (ten_programs.the_garbage_collector, "when the garbage collector runs"),
        (ten_programs.addresses, "addresses: id()|something that is not simulated, or an address, such as id() gives"),
        (replayed.in_the_order_of_addresses, "addresses: id(), the order of a set of objects"),
    ],
)
def test_what_nobody_can_hold_is_named(program: Any, found: str) -> None:
    """By more runs, in which one thing after the other is held; not every system can hold addresses."""
    first, *rest = causes(program)

    assert first.startswith(tuple(f"cause: {each}" for each in found.split("|")))
    if program is ten_programs.addresses:
        assert rest[0] == "called before that, and not simulated:"
        assert re.fullmatch(r"  id by tests/testing/simulation/ten_programs\.py:\d+ in addresses", rest[1])


async def asks_the_system(net: VirtualNetwork) -> str:
    with open("/dev/urandom", "rb") as file:  # noqa: ASYNC230  # it is what is to be named
        drawn = file.read(8)
    process = await trio.run_process([sys.executable, "-c", "print(3)"], capture_stdout=True)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        thread = pool.submit(threading.get_ident).result()
    age = Path(__file__).stat().st_atime  # noqa: ASYNC240  # the same
    return await ten_programs.say(net, drawn, process.stdout, thread, age, os.getppid(), threading.get_native_id())


@pytest.mark.skipif(not os.path.exists("/dev/urandom"), reason="this system has no /dev/urandom")
def test_what_was_asked_of_the_system_is_named() -> None:
    """Devices, processes, threads of one's own, files, numbers that the system gives; by whichever way."""
    first, *rest = causes(asks_the_system)

    assert first.startswith("cause: something that is not simulated")
    named = [" ".join(line.split(" by ")[0].split()) for line in rest]
    assert named[0] == "called before that, and not simulated:"
    assert set(named[1:]) >= {
        "open('/dev/urandom')",
        "subprocess.Popen",
        "threading.Thread",
        "os.stat",
        "os.getppid",
        "threading.get_native_id",
    }


# ---- what is switched off ------------------------------------------------------------------------------------------


async def real_time(net: VirtualNetwork) -> str:
    return await ten_programs.say(net, time.time())


def test_a_clock_that_was_left_real_is_the_cause() -> None:
    """With the place that read it."""
    first, *rest = causes(real_time, epoch=None)

    assert first == "cause: the real clock: with an epoch it replays"
    assert rest[0] == "called before that, and not simulated:"
    assert any(re.fullmatch(r"  time\.time by tests/.*/test_causes\.py:\d+ in real_time", line) for line in rest)


def test_entropy_that_was_left_real_is_the_cause() -> None:
    """With the place that drew, through as many modules of Python as it may be."""
    first, *rest = causes(ten_programs.identifiers, entropy=False)

    assert first == "cause: real entropy: with entropy=True it replays"
    assert any(re.fullmatch(r"  os\.urandom by tests/.*/ten_programs\.py:\d+ in identifiers", line) for line in rest)


def record(*events: str, result: str = "None", calls: Any = ()) -> Record:
    return Record(list(events), [0] * len(events), "digest", result, list(calls))


class Scripted:
    """What more runs give, by how they are made; whatever is not said is ``usual``."""

    def __init__(self, usual: Record, *special: tuple[Any, Record]) -> None:
        self.usual = usual
        self.special = special
        self.count = 0

    def __call__(self, how: Elsewhere, settings: Settings) -> Record:
        self.count += 1
        return next((found for fits, found in self.special if fits(how, settings, self.count)), self.usual)


A, B, C = record("a"), record("b"), record("c")


@pytest.mark.parametrize(
    ("again", "settings", "here", "found"),
    [
        (Scripted(A, (lambda how, s, n: s.threads == "real" and n == 1, B)), Settings(threads="real"), A, "threads: "),
        (
            Scripted(A, (lambda how, s, n: (s.epoch is None or not s.entropy) and n % 2, B)),
            Settings(epoch=None, entropy=False),
            A,
            "the real clock, real entropy or real threads: without all",
        ),
        (Scripted(A, (lambda how, s, n: n % 2, B)), Settings(), A, "something that is not simulated"),
        (Scripted(A, (lambda how, s, n: n % 2 and not how.same_addresses, B)), Settings(), A, "addresses: "),
        (Scripted(A, (lambda how, s, n: how.hash_seed, B)), Settings(), A, "the hash seed"),
        (Scripted(A, (lambda how, s, n: how.shifted and how.collecting, B)), Settings(), A, "when the garbage"),
        (Scripted(A, (lambda how, s, n: how.shifted, B)), Settings(), A, "addresses: "),
        (Scripted(B), Settings(), A, "this process: what ran here before"),
        (Scripted(C), Settings(), A, "unknown: "),
    ],
)
def test_the_cause_is_what_makes_the_difference(again: Scripted, settings: Settings, here: Record, found: str) -> None:
    """Two runs that are alike must agree before anything else is tried."""
    (line,) = cause(again, settings, here, B, 1).split("\n")

    assert line.startswith(f"cause: {found}")


def test_only_what_was_called_before_the_difference_is_suspected() -> None:
    """The latest first, ten at most, and how often."""
    calls = [("time.time", f"a.py:{number} in f", number, 1 + number) for number in range(20)]

    lines = cause(Scripted(A), Settings(), record("a", calls=calls[:15]), record("b", calls=calls), 12).split("\n")

    assert lines[1] == "called before that, and not simulated:"
    assert lines[2:] == [
        *(f"  time.time by a.py:{number} in f, {1 + number} times" for number in range(12, 2, -1)),
        "  and 3 more",
    ]


# ---- the same length, other bytes ----------------------------------------------------------------------------------


async def of_one_length(net: VirtualNetwork) -> None:
    await replayed.say(net, ["x", f"{os.getpid() % 100_000_000:08}"])


def test_bytes_that_differ_are_a_difference_even_if_as_many() -> None:
    """The first event that carried others is named."""
    with pytest.raises(AssertionError, match=r"does not replay in another process: event \d+ differs") as caught:
        assert_replays(of_one_length)

    here, there = str(caught.value).split("\n")[-2:]
    assert re.fullmatch(r"  here:  0\.000000 DATA .* 8 bytes, checksum [0-9a-f]{8}", here)
    assert here.partition("checksum")[0].split()[1:] == there.partition("checksum")[0].split()[1:]
    assert here.split()[-1] != there.split()[-1]
    assert any("os.getpid" in note or "posix.getpid" in note for note in caught.value.__notes__)


# ---- trouble on the way there --------------------------------------------------------------------------------------


class OnlyHere:
    """Pickled by a name that leads nowhere in another process."""

    def __reduce__(self) -> Any:
        return _made, (os.getpid(),)


def _made(process: int) -> OnlyHere:
    if process != os.getpid():
        raise LookupError("this is another process")
    return OnlyHere()


class Hopeless:
    def __reduce__(self) -> Any:
        raise RecursionError("turtles")


async def nothing(net: VirtualNetwork, *args: object) -> None: ...


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (OnlyHere(), "do not arrive in another process: LookupError: this is another process"),
        (Hopeless(), "cannot be taken to another process: turtles"),
        (lambda: None, "cannot be taken to another process: "),
    ],
)
def test_arguments_that_do_not_arrive_say_nothing_of_the_program(argument: object, message: str) -> None:
    """A ValueError, not a program that does not replay."""
    with pytest.raises(ValueError, match=re.escape(message)):
        assert_replays(nothing, argument)


def test_a_run_that_nobody_compares_notes_nothing() -> None:
    """`id` and its like are replaced only where two runs are compared."""
    real = id, os.getpid

    async def main(net: VirtualNetwork) -> bool:
        return (id, os.getpid) == real

    assert simulate(main)
    assert simulate(main, epoch=None, entropy=False, threads="real")
