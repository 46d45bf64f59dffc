"""A program that is interrupted by Ctrl-C at its first, second, ... and last line, each in a run of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Collection, Iterator, Sequence
from types import ModuleType
from typing import get_args

import trio.testing

import trioqt
from trioqt.testing.cancelling.lines import Code, Lines
from trioqt.testing.cancelling.report import Report
from trioqt.testing.cancelling.walk import Scenario, walk_everywhere
from trioqt.testing.cancelling.walker import Points

__all__ = ["interrupt_everywhere"]


def interrupt_everywhere(
    scenario: Scenario,
    *,
    code: Sequence[ModuleType | str | os.PathLike[str]] = (trioqt,),
    survives: bool = True,
    groups: bool = False,
    points: Points = "any",
    seeds: Sequence[int] = (0,),
    only: Collection[int] | None = None,
    sample: int | None = None,
    virtual_limit: float = 3600.0,
    real_limit: float = 10.0,
    max_places: int = 10_000,
) -> Report:
    """Run ``scenario(probe)`` once for each line that runs within `Probe.subject`, with a Ctrl-C right before it.

    A line counts once for each way in which it is reached, that is, for the lines of all its callers.  The signal is a
    real SIGINT, and trio's own handler decides: a line that is protected (``trio.lowlevel.enable_ki_protection``) goes
    on, and the main task gets the KeyboardInterrupt at its next checkpoint; any other raises it at once.

    Beyond what `cancel_everywhere` reports, it reports a KeyboardInterrupt that comes out of the subject in a group,
    that leaves a nursery open, or that nobody hears of.

    Not async: every run is a ``trio.run`` of its own, on a clock that jumps, so a test of it is a plain function.  Only
    the main thread hears of signals, so it works nowhere else.  While a subject runs it replaces the trace function of
    a debugger or of a tool for coverage.

    Args:
      code: Whose lines: packages, modules, files and directories.  trioqt, if nothing is said.
      survives: True: the program catches the KeyboardInterrupt around the call and goes on; `Probe.subject`, which
        only the main task may call then, does so, and gives None.  False: it goes on, and must end the run.
      groups: The KeyboardInterrupt may come out of the subject in a group of nothing else, as it does where that opens
        a nursery of its own.
      points: "any": lines of any task.  "subject": of the subject's own tasks.
      sample: At most so many places, evenly spread; None: all of them.
      seeds, only, virtual_limit, real_limit, max_places: As for `cancel_everywhere`.

    Raises:
      ValueError: As `cancel_everywhere`; a ``code`` that has no source, or a ``sample`` of nothing.
      TypeError: ``scenario`` is not an async function of one argument.
      RuntimeError: Called within ``trio.run``, or not in the main thread.
    """
    if points not in get_args(Points):
        raise ValueError(f"points must be 'any' or 'subject', not {points!r}")
    if sample is not None and sample < 1:
        raise ValueError(f"a sample has at least one place, not {sample}")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("only the main thread hears of a Ctrl-C")
    lines = Code.of(code)
    with _default_handler():
        return walk_everywhere(
            "interrupt_everywhere",
            scenario,
            functools.partial(_walker, points, lines, survives, groups),
            points=points,
            seeds=seeds,
            only=only,
            sample=sample,
            virtual_limit=virtual_limit,
            real_limit=real_limit,
            max_places=max_places,
            by_interrupt=True,
        )


def _walker(
    points: Points,
    code: Code,
    survives: bool,
    groups: bool,
    target: int | None,
    clock: trio.testing.MockClock,
    patience: float,
) -> Lines:
    # By name, all of them: before attrs 25.4 a class whose fields must be named names those of its base, too.
    return Lines(
        points=points,
        target=target,
        clock=clock,
        patience=patience,
        code=code,
        survives=survives,
        groups=groups,
    )


@contextlib.contextmanager
def _default_handler() -> Iterator[None]:
    """Trio has a handler of its own only where Python's stands."""
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, found)
