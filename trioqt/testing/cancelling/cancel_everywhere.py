"""A program cancelled at its first, second, ... and last place, each in a run of its own."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import get_args

from trioqt.testing.cancelling.boundaries import Boundaries
from trioqt.testing.cancelling.report import Report
from trioqt.testing.cancelling.walk import Scenario, walk_everywhere
from trioqt.testing.cancelling.walker import Points

__all__ = ["cancel_everywhere"]


def cancel_everywhere(
    scenario: Scenario,
    *,
    points: Points = "any",
    seeds: Sequence[int] = (0, 1),
    only: Collection[int] | None = None,
    virtual_limit: float = 3600.0,
    real_limit: float = 10.0,
    max_places: int = 10_000,
) -> Report:
    """Run ``scenario(probe)`` once for each place at which `Probe.subject` can be cancelled, cancelled exactly there.

    Not async: every run is a ``trio.run`` of its own, on a clock that jumps, so a test of it is a plain function.

    Args:
      points: "any": after a step of any task, which is complete for one cancellation.  "subject": after the subject's
        own steps only; 2 to 6 times fewer, and blind to what other tasks do while the subject waits.
      seeds: One schedule is walked for each; they differ in which of several runnable tasks goes first.
      only: Indices of places, to see a failure again, or to share the places out.
      virtual_limit: Seconds on the jumping clock after which a run hangs.
      real_limit: Seconds after which a run is killed that neither ends nor lets the clock jump.
      max_places: More places than this in one schedule are refused.

    Raises:
      ValueError: wrong ``points``, no seed, too many places, or a scenario that never calls ``probe.subject``.
      TypeError: ``scenario`` is not an async function of one argument.
      RuntimeError: called within ``trio.run``.
    """
    if points not in get_args(Points):
        raise ValueError(f"points must be 'any' or 'subject', not {points!r}")
    return walk_everywhere(
        "cancel_everywhere",
        scenario,
        functools.partial(Boundaries, points),
        points=points,
        seeds=seeds,
        only=only,
        sample=None,
        virtual_limit=virtual_limit,
        real_limit=real_limit,
        max_places=max_places,
        by_interrupt=False,
    )
