"""When a nursery has ended: it has no hook that tells, and a task that waited for it would keep it from ending.

So the run is watched, step by step, for as long as somebody wants to know; which is from the cancellation of a nursery
to its end, when somebody listens to a socket that has it as its parent.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from trioqt.links.interrupts import protected

__all__ = ["at_end_of"]


@trio.lowlevel.enable_ki_protection
def at_end_of(nursery: trio.Nursery, call: Callable[[], object]) -> None:
    """Call ``call`` in the step in which ``nursery`` ends, or has ended already.  It must not raise."""
    try:
        watch = _watch.get()
    except LookupError:
        watch = _Watch()
        _watch.set(watch)
    if not watch.calls:
        trio.lowlevel.add_instrument(watch)
    watch.calls.setdefault(nursery.parent_task, []).append((nursery, call))


@protected
class _Watch(trio.abc.Instrument):
    def __init__(self) -> None:
        self.calls: dict[trio.lowlevel.Task, list[tuple[trio.Nursery, Callable[[], object]]]] = {}

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        # A nursery ends in a step of the task that it was opened in.
        waiting = self.calls.get(task)
        if waiting is None:
            return
        over = [call for nursery, call in waiting if nursery not in task.child_nurseries]
        self.calls[task] = [(nursery, call) for nursery, call in waiting if nursery in task.child_nurseries]
        if not self.calls[task]:
            del self.calls[task]
            if not self.calls:
                trio.lowlevel.remove_instrument(self)
        for call in over:
            call()


_watch: trio.lowlevel.RunVar[_Watch] = trio.lowlevel.RunVar("trioqt_nursery_ends")
