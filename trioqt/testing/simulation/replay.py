"""Proof that a seed gives one run: the same program once here, and once in a process that differs where it can.

What makes a program go another way next time is mostly the order of a set, and that depends on two things that one
process never changes: the seed of string hashes, and the addresses of objects.  So the second run has another hash
seed, and a heap that was shifted on purpose.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from itertools import zip_longest

import attrs

from trioqt.testing.network.fault_plan import FaultPlan
from trioqt.testing.network.virtual_network import VirtualNetwork
from trioqt.testing.simulation.guards import PATIENCE, STEPS, VIRTUAL_TIME
from trioqt.testing.simulation.simulate import Settings, Simulation
from trioqt.testing.simulation.targets import Target

__all__ = ["assert_replays"]

_CONTEXT = 5

# What the child runs.  Not `-m`: the package imports this module, and Python would warn that it runs twice.
_CHILD = "import sys; from trioqt.testing.simulation.replay import record; record(*sys.argv[1:])"


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
) -> None:
    """`simulate` ``main(net, *args)`` here and in a child process, and compare event by event.

    The child has another hash seed and a shifted heap.  Compared are the events on the network, their digest, and what
    ``main`` returned, as text.

    Raises:
      AssertionError: they differ; it names the first event that does.  Or the run failed in the child only.
      ValueError: ``main`` cannot be found by name in another process, or the arguments cannot be pickled.
      Anything that `simulate` raises.
    """
    target = Target.of(main)
    settings = Settings(latency, network, faults, virtual_time, steps, patience, real_network, loss, jitter, bandwidth)
    try:
        job = pickle.dumps((args, settings))
    except (pickle.PicklingError, AttributeError, TypeError) as exc:
        raise ValueError(f"what {target} is given cannot be taken to another process: {exc}") from exc
    here = _run(main, args, seed, settings)
    there = _run_in_child(target, job, seed)
    difference = _difference(here, there)
    if difference:
        raise AssertionError(f"seed {seed} of {target} does not replay in another process: {difference}")


@attrs.frozen
class _Record:
    """One run as text, for the way from one process to the other."""

    events: list[str]
    digest: str
    result: str


def record(target: str, seed: str, job: str, answer: str) -> None:
    """What the child does: run the job that is in one file, and leave the record in the other."""
    junk = _shift_the_heap()
    # First the module: the arguments may be of its classes.
    main = Target(**json.loads(target)).load()
    with open(job, "rb") as file:
        args, settings = pickle.load(file)
    found = _run(main, args, int(seed), settings)
    with open(answer, "w", encoding="utf-8") as file:
        json.dump(attrs.asdict(found), file)
    del junk


def _run(main: Callable[..., Awaitable[object]], args: tuple[object, ...], seed: int, settings: Settings) -> _Record:
    finished = Simulation(main, args, seed, settings, f"seed {seed}", f"the same call with {seed=}").run()
    return _Record([str(event) for event in finished.events], finished.digest, _plain(finished.result))


def _run_in_child(target: Target, job: bytes, seed: int) -> _Record:
    with tempfile.TemporaryDirectory(prefix="trioqt-replay-") as directory:
        paths = [os.path.join(directory, name) for name in ("job", "answer")]
        with open(paths[0], "wb") as file:
            file.write(job)
        command = [sys.executable, "-c", _CHILD, json.dumps(attrs.asdict(target)), str(seed), *paths]
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise AssertionError(
                f"seed {seed} of {target} does not replay: in another process it fails\n{done.stderr or done.stdout}"
            )
        with open(paths[1], encoding="utf-8") as file:
            return _Record(**json.load(file))


def _environment() -> dict[str, str]:
    mine = os.environ.get("PYTHONHASHSEED", "")
    other = (int(mine) + 1) % 2**32 if mine.isdigit() else 4242  # unset or "random": one in four billion is the same
    return {
        **os.environ,
        "PYTHONHASHSEED": str(other),
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


def _difference(here: _Record, there: _Record) -> str:
    for index, (mine, other) in enumerate(zip_longest(here.events, there.events)):
        if mine != other:
            return _first_difference(index, here.events, mine, other)
    if here.digest != there.digest:
        return f"the events read the same, but their digests are {here.digest} here and {there.digest} there"
    if here.result != there.result:
        return f"the events are the same, but the results are\n  here:  {here.result}\n  there: {there.result}"
    return ""


def _first_difference(index: int, events: Sequence[str], mine: str | None, other: str | None) -> str:
    same = [f"  {number}: {events[number]}" for number in range(max(0, index - _CONTEXT), index)]
    lines = [
        f"event {index} differs",
        *(["before it, the same in both:", *same] if same else []),
        f"  here:  {'(no more events)' if mine is None else mine}",
        f"  there: {'(no more events)' if other is None else other}",
    ]
    return "\n".join(lines)
