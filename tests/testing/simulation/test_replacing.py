"""What a simulation replaces in the process, it puts back, wherever it is stopped."""

from __future__ import annotations

import datetime
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
import trio

from tests.testing.simulation import clock_keepers
from trioqt.testing import VirtualNetwork, simulate
from trioqt.testing.simulation import living, replacing, simulate as simulating, worlds
from trioqt.testing.simulation.simulate import Settings, Simulation
from trioqt.testing.simulation.worlds import Calls, here


def everything() -> dict[str, Any]:
    """All that a simulation replaces, as it is now."""
    names = ("time", "os", "random", "uuid", "tempfile", "trio._threads", "builtins", clock_keepers.__name__)
    modules = [sys.modules[name] for name in names]
    found = {f"{module.__name__}.{name}": value for module in modules for name, value in vars(module).items()}
    for cls in (datetime.datetime, datetime.date, random.Random, threading.Thread, clock_keepers.Keeper):
        found |= {f"{cls.__name__}.{name}": value for name, value in vars(cls).items()}
    functions = (clock_keepers.by_default, clock_keepers.by_keyword, clock_keepers.AttrsStamp.__init__)
    for function in functions:
        found[function.__qualname__] = (function.__defaults__, dict(function.__kwdefaults__ or {}))
        found |= {f"{function.__qualname__} {name}": value for name, value in function.__globals__.items()}
    found["cell"] = [cell.cell_contents for cell in getattr(clock_keepers.by_closure, "__closure__", ())]
    found["dict"] = dict(clock_keepers.registry)
    found["object"] = dict(vars(clock_keepers.holder))
    found["world"] = (here(), worlds._inherited.get(), worlds._thread.__dict__.get("world"))
    # Caches of Python's, which may change at any time.
    return {name: value for name, value in found.items() if not name.endswith(("._", ".__pycache__"))}


def changed(before: dict[str, Any]) -> list[str]:
    """The names of what is not as it was."""
    now = everything()
    return [name for name in before if now.get(name) is not before[name] and now.get(name) != before[name]]


async def nothing(net: VirtualNetwork) -> None: ...


def run() -> None:
    """With all that can be replaced."""
    Simulation(nothing, (), 0, Settings(), "seed 0", "again", Calls()).run()


def test_within_a_run_it_is_replaced_and_afterwards_it_is_back() -> None:
    """So that the other tests of this file have something to see."""
    before = everything()
    within: list[str] = []

    async def main(net: VirtualNetwork) -> None:
        within.extend(changed(before))

    Simulation(main, (), 0, Settings(), "seed 0", "again", Calls()).run()

    assert changed(before) == []
    assert {
        "time.time",
        "time.sleep",
        "os.urandom",
        "random.random",
        "random.seed",
        "uuid._generate_time_safe",
        "trio._threads.start_thread_soon",
        "trio._threads._send_message_to_trio",
        "datetime.now",
        "date.today",
        "Random.seed",
        "Thread.start",
        "Keeper.clock",
        "by_default",
        "by_keyword",
        "cell",
        "dict",
        "object",
        "builtins.id",
        "world",
    } <= set(within)


# ---- stopped anywhere ------------------------------------------------------------------------------------------------

WATCHED: tuple[ModuleType, ...] = (replacing, living, worlds)


class Stopper:
    """Raises KeyboardInterrupt at one hit of one line; without a line it only counts."""

    def __init__(self, line: tuple[str, int] | None = None, hit: int = 1) -> None:
        self.line = line
        self.hit = hit
        self.hits: dict[tuple[str, int], int] = {}
        self.files = {module.__file__ for module in WATCHED}

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code.co_filename in self.files or code in (Simulation.run.__code__, Simulation._run.__code__):
            return self.at
        return None

    def at(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line" and not is_trios(frame):
            line = (frame.f_code.co_filename, frame.f_lineno)
            self.hits[line] = self.hits.get(line, 0) + 1
            if line == self.line and self.hits[line] == self.hit:
                raise KeyboardInterrupt
        return self.at


def is_trios(frame: FrameType | None) -> bool:
    """Whether trio has called it, which keeps an interrupt for later."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "trio._core._run":
            return True
        frame = frame.f_back
    return False


def traced(stopper: Stopper) -> bool:
    """Whether the run was stopped."""
    outer = sys.gettrace()
    sys.settrace(stopper)
    try:
        run()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(outer)
    return False


@pytest.mark.skipif(sys.gettrace() is not None, reason="somebody else traces")
def test_an_interrupt_at_any_line_leaves_nothing_behind() -> None:
    """While things are replaced, while they are put back, and between: at the first and the last time of each line.

    The turn that one run at a time has is free again too.
    """
    run()
    before = everything()
    counted = Stopper()
    assert not traced(counted)
    left: list[tuple[str, int, int, list[str]]] = []
    places = 0
    for (path, line), hits in counted.hits.items():
        for hit in {1, hits}:
            places += traced(Stopper((path, line), hit))
            rest = changed(before)
            if rest:
                left.append((Path(path).name, line, hit, rest))
            run()

    assert left == []
    assert places > 100


class Failing:
    """A place that cannot be replaced, at the time that is given."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def __call__(self, value: object) -> None:
        self.count += 1
        if self.count == self.at:
            raise OSError("cannot be set")


@pytest.mark.parametrize("at", [1, 2])
def test_a_failure_to_replace_something_puts_the_rest_back(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a failure to put it back does not keep the others; it is told."""
    before = everything()
    real = living.life

    def life(world: worlds.World) -> replacing.Replacing:
        made = real(world)
        made._settings = [*made._settings[:3], (Failing(at), 1, 2), *made._settings[3:]]
        return made

    monkeypatch.setattr(simulating, "life", life)
    with pytest.raises(OSError, match="cannot be set"):
        run()
    monkeypatch.undo()

    assert changed(before) == []
    run()


# ---- who comes later -------------------------------------------------------------------------------------------------


def test_a_module_that_is_imported_within_has_the_real_functions_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has copied those that were there."""
    source = (
        "from time import time\nfrom random import random\nfrom os import urandom\ndef f(clock=time): return clock()\n"
    )
    (tmp_path / "imported_within.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)

    async def main(net: VirtualNetwork) -> list[bool]:
        module = __import__("imported_within")
        return [module.time is time.time, module.f() == time.time()]

    assert simulate(main) == [True, True]
    module = sys.modules.pop("imported_within")
    assert (module.time, module.random, module.urandom) == (time.time, random.random, os.urandom)
    assert module.f.__defaults__ == (time.time,)


def test_a_module_that_came_between_two_runs_is_searched() -> None:
    """Only what has changed is, and it has."""
    module = ModuleType("came_between")
    simulate(nothing)
    vars(module)["clock"] = time.monotonic
    sys.modules["came_between"] = module

    async def main(net: VirtualNetwork) -> float:
        await trio.sleep(5)
        return float(vars(module)["clock"]())

    try:
        assert simulate(main) == 5
        assert vars(module)["clock"] is time.monotonic
    finally:
        del sys.modules["came_between"]


def test_runs_one_after_the_other_and_a_refused_one_do_not_meet() -> None:
    """A second one in another thread is refused, and takes nothing from the first."""
    seen: list[Any] = []

    def second() -> None:
        try:
            simulate(nothing, epoch=0)
        except RuntimeError as exc:
            seen.append(str(exc)[:14])

    async def main(net: VirtualNetwork, epoch: float) -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        await trio.to_thread.run_sync(second)
        seen.append(time.time())

    for epoch in (1000.0, 2000.0):
        simulate(main, epoch, epoch=epoch)

    assert seen == ["another thread"] * 2 + [1000.0] + ["another thread"] * 2 + [2000.0]
    assert abs(time.time() - os.stat(__file__).st_atime) < 10**10


def test_a_process_that_simulates_nothing_has_nothing_replaced() -> None:
    """Though it has imported all there is."""
    program = """
import time, random, os, datetime
before = time.time, random.random, os.urandom, datetime.datetime.__dict__["now"], random.Random.__dict__["seed"]
import trioqt.testing, trioqt.testing.pytest_plugin, trioqt.testing.simulation.living
import trio
async def main():
    async with trioqt.testing.VirtualNetwork() as net:
        after = time.time, random.random, os.urandom, datetime.datetime.__dict__["now"], random.Random.__dict__["seed"]
        assert all(a is b for a, b in zip(before, after)), after
trio.run(main)
print("as it was")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("as it was\n", "")


def test_many_runs_find_the_same_places() -> None:
    """What has been searched is not searched again, and nothing is kept of what is gone."""
    simulate(nothing)
    first = len(replacing._index._places)
    for number in itertools.islice(itertools.count(), 5):
        module = ModuleType(f"comes_and_goes_{number}")
        vars(module)["clock"] = time.time
        sys.modules[module.__name__] = module
        simulate(nothing)
        del sys.modules[module.__name__]
    simulate(nothing)

    assert len(replacing._index._places) == first
