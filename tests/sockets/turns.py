"""How often a task gets its turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

__all__ = ["counted_steps"]


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    """How often the running task has come to its turn, as a list of one number that counts on."""
    steps, task = [0], trio.lowlevel.current_task()

    class Counter(trio.abc.Instrument):
        def before_task_step(self, stepping: trio.lowlevel.Task) -> None:
            steps[0] += stepping is task

    counter = Counter()
    trio.lowlevel.add_instrument(counter)
    try:
        yield steps
    finally:
        trio.lowlevel.remove_instrument(counter)
