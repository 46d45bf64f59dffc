"""Proof that a seed gives one run: the same program once here, and once in a process that differs where it can.

What makes a program go another way next time is mostly the order of a set, and that depends on two things that one
process never changes: the seed of string hashes, and the addresses of objects.  So the second run has another hash
seed, and a heap that was shifted on purpose.
"""

from __future__ import annotations

import gc
import json
import math
import os
import pickle
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import zip_longest

import attrs

from trioqt.testing.network.fault_plan import FaultPlan
from trioqt.testing.network.virtual_network import VirtualNetwork
from trioqt.testing.simulation.guards import PATIENCE, STEPS, VIRTUAL_TIME
from trioqt.testing.simulation.simulate import Settings, Simulation
from trioqt.testing.simulation.targets import Target
from trioqt.testing.simulation.worlds import EPOCH, Calls, Epoch, Threads

__all__ = ["assert_replays"]

_CONTEXT = 5
_SUSPECTS = 10

Again = Callable[..., "Record"]
"""``again(elsewhere, settings)``: another run, in another process."""

# What the child runs.  Not `-m`: the package imports this module, and Python would warn that it runs twice.
_CHILD = "import sys; from trioqt.testing.simulation.replay import record; record(*sys.argv[1:])"
# Linux puts the heap elsewhere each time (address space layout randomisation), unless the process before has asked it
# not to; 0x40000 is ADDR_NO_RANDOMIZE of <sys/personality.h>.
_SAME_ADDRESSES = (
    "import ctypes, os, sys; ctypes.CDLL(None).personality(0x40000);"
    " os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])"
)


def assert_replays(
    main: Callable[..., Awaitable[object]],
    *args: object,
    seed: int = 0,
    latency: float = 0.0,
    loss: float = 0.0,
    jitter: float = 0.0,
    bandwidth: float = math.inf,
    network: Callable[[int], VirtualNetwork] | None = None,
    faults: FaultPlan | None = None,
    virtual_time: float | None = VIRTUAL_TIME,
    steps: int | None = STEPS,
    patience: float = PATIENCE,
    real_network: bool = False,
    epoch: Epoch = EPOCH,
    entropy: bool = True,
    threads: Threads = "inline",
) -> None:
    """`simulate` ``main(net, *args)`` here and in a child process, and compare event by event.

    The child has another hash seed and a shifted heap.  Compared are the events on the network with what they carried,
    their digest, and what ``main`` returned, as text.

    If they differ, a few more runs find out on what that depends, and a note of the exception says so: the hash seed,
    addresses, the garbage collector, threads, or something that is not simulated, with the places that called it.

    Raises:
      AssertionError: they differ; it names the first event that does.  Or the run failed in the child only.
      ValueError: ``main`` cannot be found by name in another process, or the arguments do not arrive there: they
        cannot be pickled, or are of a class that only this process has.  That says nothing of the program.
      Anything that `simulate` raises.
    """
    target = Target.of(main)
    settings = Settings(
        latency,
        network,
        faults,
        virtual_time,
        steps,
        patience,
        real_network,
        epoch,
        entropy,
        threads,
        loss,
        jitter,
        bandwidth,
    )
    job = _packed(target, args, settings)
    here = _run(main, args, seed, settings)
    try:
        there = run_elsewhere(target, job, seed, Elsewhere(_other_hash_seed()))
    except Misplaced as exc:
        raise ValueError(f"{target} and what it is given do not arrive in another process: {exc}") from None
    difference = _difference(here, there)
    if difference:
        failure = AssertionError(f"seed {seed} of {target} does not replay in another process: {difference[1]}")

        def again(how: Elsewhere, changed: Settings = settings) -> Record:
            return run_elsewhere(target, _packed(target, args, changed), seed, how)

        failure.add_note(cause(again, settings, here, there, difference[0]))
        raise failure


def _packed(target: Target, args: tuple[object, ...], settings: Settings) -> bytes:
    try:
        return pickle.dumps((args, settings))
    except Exception as exc:  # a class's own __reduce__ and __getstate__ raise what they like
        raise ValueError(f"what {target} is given cannot be taken to another process: {exc}") from exc


@attrs.frozen
class Record:
    """One run as text, for the way from one process to the other."""

    events: list[str]
    checksums: list[int]
    digest: str
    result: str
    calls: list[tuple[str, str, int, int]] = attrs.field(eq=False)
    """| what was called that is not simulated | from where | after how many events the first time | how often |"""


@attrs.frozen
class Elsewhere:
    """What is different in another process."""

    hash_seed: int
    shifted: bool = True
    """Its heap is."""
    collecting: bool = True
    """It has a garbage collector."""
    same_addresses: bool = False
    """Its heap is where that of the last one was, if the system can do that."""


class Misplaced(Exception):
    """What the other process needs does not arrive there."""


def record(target: str, seed: str, elsewhere: str, job: str, answer: str) -> None:
    """What the child does: run the job that is in one file, and leave the record in the other."""
    how = Elsewhere(**json.loads(elsewhere))
    junk = _shift_the_heap() if how.shifted else []
    if not how.collecting:
        gc.disable()
    with open(job, "rb") as file:
        pickled = file.read()
    try:
        # First the module: the arguments may be of its classes.
        main = Target(**json.loads(target)).load()
        args, settings = pickle.loads(pickled)
    except Exception as exc:  # whatever the import of a module raises
        _leave(answer, {"misplaced": f"{type(exc).__name__}: {exc}"})
        return
    if how.shifted:
        _put_the_collector_off()
    _leave(answer, attrs.asdict(_run(main, args, int(seed), settings)))
    del junk


def _leave(answer: str, found: dict[str, object]) -> None:
    with open(answer, "w", encoding="utf-8") as file:
        json.dump(found, file)


def _run(main: Callable[..., Awaitable[object]], args: tuple[object, ...], seed: int, settings: Settings) -> Record:
    calls = Calls()
    finished = Simulation(main, args, seed, settings, f"seed {seed}", f"the same call with {seed=}", calls).run()
    return Record(
        [str(event) for event in finished.events],
        [event.checksum for event in finished.events],
        finished.digest,
        _plain(finished.result),
        [(what, where, first, count) for (what, where), (first, count) in calls.found.items()],
    )


def run_elsewhere(target: Target, job: bytes, seed: int, how: Elsewhere) -> Record:
    """Run it in a child process.

    Raises:
      AssertionError: It fails there.
      Misplaced: It cannot even begin.
    """
    with tempfile.TemporaryDirectory(prefix="trioqt-replay-") as directory:
        paths = [os.path.join(directory, name) for name in ("job", "answer")]
        with open(paths[0], "wb") as file:
            file.write(job)
        words = [json.dumps(attrs.asdict(target)), str(seed), json.dumps(attrs.asdict(how)), *paths]
        before = (_SAME_ADDRESSES,) if how.same_addresses and sys.platform == "linux" else ()
        command = [sys.executable, "-c", *before, _CHILD, *words]
        done = subprocess.run(
            command, env=_environment(how.hash_seed), capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            raise AssertionError(
                f"seed {seed} of {target} does not replay: in another process it fails\n{done.stderr or done.stdout}"
            )
        with open(paths[1], encoding="utf-8") as file:
            found = json.load(file)
    if "misplaced" in found:
        raise Misplaced(found["misplaced"])
    return Record(**{**found, "calls": [tuple(call) for call in found["calls"]]})


def _other_hash_seed() -> int:
    mine = os.environ.get("PYTHONHASHSEED", "")
    return (int(mine) + 1) % 2**32 if mine.isdigit() else 4242  # unset or "random": one in four billion is the same


def _environment(hash_seed: int) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONHASHSEED": str(hash_seed),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }


def _shift_the_heap() -> list[object]:
    # Objects of each size class, in numbers that no other process will have: a set of a few objects is in the order of
    # some bits of their addresses, and those stay as they are unless something else was allocated before.
    dice = random.SystemRandom()
    junk: list[object] = [bytes(size) for size in range(1, 480, 16) for _ in range(dice.randrange(400))]
    junk += [[object() for _ in range(dice.randrange(50))] for _ in range(dice.randrange(100))]
    # Holes too, so that what comes next does not lie side by side.
    dice.shuffle(junk)
    del junk[: len(junk) // 3]
    return junk


def _put_the_collector_off() -> None:
    # What went before has little to do with when it comes by next, because its count begins anew each time; but it may
    # come by after more objects, or fewer.
    first, *others = gc.get_threshold()
    gc.set_threshold(random.SystemRandom().randrange(first // 2, first * 2), *others)


def _plain(value: object) -> str:
    """``value`` as text that is the same in each process: sets in order, and no addresses."""
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_plain, value)))}}}"
    if type(value) is dict:
        return f"{{{', '.join(f'{_plain(key)}: {_plain(each)}' for key, each in value.items())}}}"
    if type(value) in (list, tuple):
        assert isinstance(value, (list, tuple))
        return f"{type(value).__name__}({', '.join(map(_plain, value))})"
    return re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", repr(value))


def _difference(here: Record, there: Record) -> tuple[int, str] | None:
    """After how many events they differ, and how."""
    for index, (mine, other) in enumerate(zip_longest(_lines(here), _lines(there))):
        if mine != other:
            return index, _first_difference(index, here.events, mine, other)
    total = len(here.events)
    if here.digest != there.digest:
        return total, f"the events read the same, but their digests are {here.digest} here and {there.digest} there"
    if here.result != there.result:
        return (
            total,
            f"the events are the same, but the results are\n  here:  {here.result}\n  there: {there.result}",
        )
    return None


def _lines(record: Record) -> list[str]:
    return [
        f"{event}, checksum {checksum:08x}" if checksum else event
        for event, checksum in zip(record.events, record.checksums, strict=True)
    ]


def _first_difference(index: int, events: Sequence[str], mine: str | None, other: str | None) -> str:
    same = [f"  {number}: {events[number]}" for number in range(max(0, index - _CONTEXT), index)]
    lines = [
        f"event {index} differs",
        *(["before it, the same in both:", *same] if same else []),
        f"  here:  {'(no more events)' if mine is None else mine}",
        f"  there: {'(no more events)' if other is None else other}",
    ]
    return "\n".join(lines)


# ---- why -----------------------------------------------------------------------------------------------------------


def cause(again: Again, settings: Settings, here: Record, there: Record, events: int) -> str:
    """On what it depends how the program goes, found by changing one thing at a time."""
    return "\n".join([f"cause: {_found_cause(again, settings, here, there)}", *_suspects(here, there, events)])


_COLLECTOR = "when the garbage collector runs: weak references, __del__, or a cycle that holds a socket"


_ADDRESSES = "addresses: id(), the order of a set of objects, or when what had one address has another"


def _found_cause(again: Again, settings: Settings, here: Record, there: Record) -> str:
    def once(how: Elsewhere, changed: Settings = settings) -> Record | str:
        try:
            return again(how, changed)
        except AssertionError as exc:
            return str(exc)

    plain = Elsewhere(0, shifted=False)
    first = once(plain)
    if once(plain) != first:
        for changed, meaning in _simulated(settings):
            if once(plain, changed) == once(plain, changed):
                return meaning
        still = Elsewhere(0, shifted=False, collecting=False)
        if once(still) == once(still):
            return _COLLECTOR
        there_again = attrs.evolve(plain, same_addresses=True)
        if once(there_again) == once(there_again):
            return _ADDRESSES
        return "something that is not simulated, or an address, such as id() gives: two runs in like processes differ"
    if once(Elsewhere(1, shifted=False)) != first:
        return "the hash seed: on it depend the order of a set of strings or bytes, and what hash() gives"
    # A heap that was shifted by chance may come to the same; three of them hardly.
    if any(once(Elsewhere(0)) != first for _ in range(3)):
        if once(Elsewhere(0, collecting=False)) == once(Elsewhere(0, shifted=False, collecting=False)):
            return _COLLECTOR
        return _ADDRESSES
    if here != first and there == first:
        return "this process: what ran here before has left something that the program sees, in a module or a cache"
    return "unknown: more runs all went one way, so it is a matter of chance or of speed"


def _simulated(settings: Settings) -> Iterator[tuple[Settings, str]]:
    """What could be simulated and is not, one at a time and then all."""
    every = settings
    if settings.threads == "real":
        every = attrs.evolve(every, threads="inline")
        yield every, "threads: with threads='inline' it replays"
    if settings.epoch is None:
        every = attrs.evolve(every, epoch=EPOCH)
        yield attrs.evolve(settings, epoch=EPOCH), "the real clock: with an epoch it replays"
    if not settings.entropy:
        every = attrs.evolve(every, entropy=True)
        yield attrs.evolve(settings, entropy=True), "real entropy: with entropy=True it replays"
    if every != settings:
        yield every, "the real clock, real entropy or real threads: without all of them it replays"


def _suspects(here: Record, there: Record, events: int) -> list[str]:
    """What was called before they differed, the latest first."""
    found = {(what, where): (first, count) for what, where, first, count in (*there.calls, *here.calls)}
    known = [(first, what, where, count) for (what, where), (first, count) in found.items() if first <= events]
    if not known:
        return []
    known.sort(key=lambda call: (-call[0], call[1:]))
    lines = [
        f"  {what} by {where}{f', {count} times' if count > 1 else ''}" for _, what, where, count in known[:_SUSPECTS]
    ]
    more = len(known) - len(lines)
    rest = [f"  and {more} more"] if more else []
    return ["called before that, and not simulated:", *lines, *rest]
